"""What desktop programs see of cards that come and go: Gio's own object manager client, fed by the real chain."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from gpuwhyd.outputs.dbus_contract import GPU, ROOT_PATH
from tests.backends.sysfs_card import CardSlot
from tests.bus.buses import private_broker, private_bus
from tests.hotplug import Chain, sysfs_backend
from tests.outputs.dbus_serving import REPOSITORY, WITHIN_SECONDS, Daemon, serving

SYSTEM_PYTHON = "/usr/bin/python3"
PATH = f"{ROOT_PATH}/gpus/pci_0000_0b_00_0"
SECOND_PATH = f"{ROOT_PATH}/gpus/pci_0000_0c_00_0"
ALL_PROPERTIES = {
    element.attrib["name"] for element in ET.parse(REPOSITORY / "dbus/org.gpuwhyd1.Gpu.xml").iter("property")
}


class GioClient:
    """tests/outputs/gio_client.py as a process; `told` keeps all that it wrote."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.told: list[dict] = []

    async def until(self, event: str, **what: object) -> dict:
        """The next thing of this kind that it tells."""
        assert self._process.stdout is not None
        async with asyncio.timeout(WITHIN_SECONDS):
            while True:
                line = await self._process.stdout.readline()
                assert line, f"the client ended before it told {event}; see its error above"
                told = json.loads(line)
                self.told.append(told)
                if told["event"] == event and what.items() <= told.items():
                    return told

    def paths(self, event: str) -> list[str]:
        return [told["path"] for told in self.told if told["event"] == event]


@contextlib.asynccontextmanager
async def gio_client(address: str) -> AsyncIterator[GioClient]:
    process = await asyncio.create_subprocess_exec(
        SYSTEM_PYTHON,
        str(REPOSITORY / "tests/outputs/gio_client.py"),
        address,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield GioClient(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


@contextlib.asynccontextmanager
async def chained(folder: Path, daemon: Daemon) -> AsyncIterator[Chain]:
    assert daemon.service is not None
    chain = Chain(sysfs_backend(folder), [daemon])
    try:
        yield chain
    finally:
        chain.outputs.clear()
        await chain.close()


@pytest.mark.parametrize("bus", [private_bus, private_broker])
def test_gio_sees_cards_appear_with_all_properties_and_disappear(tmp_path: Path, bus: Callable) -> None:
    async def body(address: str) -> None:
        daemon, first, second = Daemon(), CardSlot(tmp_path), CardSlot(tmp_path, "0000:0c:00.0")
        async with (
            serving(address, daemon),
            chained(tmp_path, daemon) as chain,
            gio_client(address) as client,
        ):
            listening = await client.until("listening")
            assert list(listening["objects"]) == []
            for cycle in range(3):
                first.plug(celsius=40.0 + cycle, rpm=1200)
                await chain.changed()
                added = await client.until("added", path=PATH)
                assert set(added["interfaces"]) == {GPU}
                properties = added["interfaces"][GPU]
                assert set(properties) == ALL_PROPERTIES
                assert (properties["Name"], properties["PciAddress"]) == ("Test GPU", "0000:0b:00.0")
                assert (properties["State"], properties["TemperatureCelsius"]) == ("awake", 40.0 + cycle)
                assert (properties["FanRpm"], properties["FanPercent"]) == (1200.0, "NaN")
                second.plug()
                await chain.changed()
                await client.until("added", path=SECOND_PATH)
                first.pull()
                await chain.changed()
                await client.until("removed", path=PATH)
                second.pull()
                await chain.changed()
                await client.until("removed", path=SECOND_PATH)
        assert client.paths("added") == [PATH, SECOND_PATH] * 3
        assert client.paths("removed") == [PATH, SECOND_PATH] * 3
        assert set(client.paths("signal")) == {ROOT_PATH}

    with bus() as here:
        asyncio.run(body(here.address))


def test_gio_sees_a_card_that_cannot_be_read_as_unknown_before_it_is_removed(tmp_path: Path) -> None:
    async def body(address: str) -> None:
        daemon, slot = Daemon(), CardSlot(tmp_path)
        async with (
            serving(address, daemon),
            chained(tmp_path, daemon) as chain,
            gio_client(address) as client,
        ):
            await client.until("listening")
            slot.plug()
            await chain.changed()
            await client.until("added")
            slot.pull()
            await chain.changed()
            await client.until("removed")
        (changed,) = [
            told for told in client.told if told["event"] == "changed" and "State" in told["properties"]
        ]
        assert changed["properties"]["State"] == "unknown"

    with private_bus() as bus:
        asyncio.run(body(bus.address))


def test_gio_loses_all_cards_with_the_daemon_and_finds_those_of_the_next(tmp_path: Path) -> None:
    async def body(address: str) -> None:
        daemon, first, second = Daemon(), CardSlot(tmp_path), CardSlot(tmp_path, "0000:0c:00.0")
        async with gio_client(address) as client:
            await client.until("listening")
            async with serving(address, daemon), chained(tmp_path, daemon) as chain:
                first.plug()
                await chain.changed()
                await client.until("added", path=PATH)
            await client.until("gone")
            await client.until("removed", path=PATH)
            second.plug()
            next_daemon = Daemon()
            async with serving(address, next_daemon), chained(tmp_path, next_daemon) as chain:
                await chain.tick()
                await client.until("added", path=PATH)
                await client.until("added", path=SECOND_PATH)

    with private_bus() as bus:
        asyncio.run(body(bus.address))
