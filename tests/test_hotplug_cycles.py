"""A card that comes and goes a thousand times leaves nothing behind: no descriptor, no memory, no entry anywhere."""

import asyncio
import contextlib
import gc
import os
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gpuwhyd.engine.engine import MOST_REMEMBERED_CARDS
from gpuwhyd.outputs.history import RecentHistory
from gpuwhyd.outputs.journal import JournalOutput
from gpuwhyd.outputs.journal_socket import JournalSocket
from gpuwhyd.outputs.notify import NotifyOutput
from gpuwhyd.outputs.state import StateStore
from tests.backends.nvml_rig import ADDRESS, NvmlRig
from tests.backends.sysfs_card import CardSlot
from tests.hotplug import Chain, sysfs_backend

CYCLES = 1000
WARM_UP = 200
"""Caches fill, and the memory of the last events, and the engine's of cards."""
MOST_BLOCKS = (CYCLES - WARM_UP) // 4
"""Whatever is kept of each cycle, if only a number, is a block of memory for each."""
TOLD = ["gpu-added", "alert-raised", "alert-cleared", "gpu-removed"]


@pytest.fixture
def bus() -> Iterator[Path]:
    """Where a card comes and goes; in memory, because a disk takes its time over so many files."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@dataclass
class Kept:
    """What this process holds now."""

    descriptors: int
    blocks: int

    @classmethod
    def now(cls) -> "Kept":
        gc.collect()
        return cls(descriptors=len(os.listdir("/proc/self/fd")), blocks=sys.getallocatedblocks())


class Listeners:
    """journald and systemd, as far as they read what they are sent."""

    def __init__(self, folder: Path) -> None:
        self.journal, self.notify = (self._listener(folder / name) for name in ("journal", "notify"))
        self.entries = 0

    def _listener(self, path: Path) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        listener.bind(str(path))
        asyncio.get_running_loop().add_reader(listener, self._read, listener)
        return listener

    def _read(self, listener: socket.socket) -> None:
        message = listener.recv(1 << 16)
        self.entries += b"MESSAGE_ID=" in message

    def close(self) -> None:
        for listener in (self.journal, self.notify):
            listener.close()


async def grown(chain: Chain, cycle: Callable[[int], Awaitable[None]]) -> Kept:
    """How much more is held after all cycles than after the first ones."""
    for number in range(WARM_UP):
        await cycle(number)
    before = Kept.now()
    for number in range(WARM_UP, CYCLES):
        await cycle(number)
    after = Kept.now()
    assert chain.engine._cards == {}
    assert len(chain.engine._dormant) == len(chain.engine._removed) <= MOST_REMEMBERED_CARDS
    assert (chain.sampler._who._uses, chain.sampler._who._exits, chain.sampler.sources()) == ({}, [], ())
    return Kept(descriptors=after.descriptors - before.descriptors, blocks=after.blocks - before.blocks)


def test_a_thousand_cycles_of_a_card_with_a_driver_of_the_kernel_at_ever_other_addresses(
    bus: Path, tmp_path: Path
) -> None:
    async def body() -> None:
        listeners = stack.enter_context(contextlib.closing(Listeners(tmp_path)))
        store, recent = StateStore(None), RecentHistory(remembered=50)
        journal = JournalOutput(
            store=store,
            restored=None,
            already_written=lambda _ids: set(),
            journal_socket=JournalSocket(tmp_path / "journal"),
        )
        notify = NotifyOutput(address=str(tmp_path / "notify"))
        chain = Chain(sysfs_backend(bus), (journal, recent, notify))
        store.register("engine", chain.engine.saved)

        async def cycle(number: int) -> None:
            slot = CardSlot(bus, f"0000:{number % 200:02x}:00.0")
            slot.plug(celsius=90.0)
            events = await chain.changed()
            slot.pull()
            events += await chain.changed()
            assert [event.kind for event in events] == TOLD, number

        growth = await grown(chain, cycle)
        assert growth.descriptors == 0
        assert growth.blocks < MOST_BLOCKS
        await chain.close()
        assert listeners.entries == CYCLES * len(TOLD)

    with contextlib.ExitStack() as stack:
        asyncio.run(body())


def test_a_thousand_cycles_of_a_card_of_nvmls_at_one_address(bus: Path) -> None:
    async def body() -> None:
        with NvmlRig(bus) as rig:
            chain = Chain(rig.backend)

            async def cycle(number: int) -> None:
                rig.add_card(temperature=90)
                events = await chain.changed()
                rig.sysfs.remove(ADDRESS)
                rig.driver.remove_cards()
                events += await chain.changed()
                assert [event.kind for event in events] == TOLD, number

            growth = await grown(chain, cycle)
            assert growth.descriptors == 0
            assert growth.blocks < MOST_BLOCKS
            await chain.close()

    asyncio.run(body())
