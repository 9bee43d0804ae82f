"""What is measured on: the fake driver with busy cards, and real processes that do nothing as those that use them."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from tests.fake_nvml.control import FakeDriver, FakeProcess, find_nvml_header
from tests.fake_nvml.sysfs import FakeSysfs

HERE = Path(__file__).parent
BUSY_PROCESSES = 8
"""So many processes of each card work at a time: with a sample every 0.2 s each, a tick of 2 s brings 80 samples a card.
A real driver's buffer holds about 100."""


class Gpus:
    """Cards of the fake driver and their sysfs. `work` moves every reading, as a busy card's readings move."""

    def __init__(self, folder: Path, library: Path, *, cards: int, pids: tuple[int, ...]) -> None:
        self.sysfs = folder / f"sys-{cards}"
        self.count = cards
        self.driver = FakeDriver(library)
        self.driver.reset()
        self._pids = pids
        self._step = 0
        self._energy_mj = 1e6
        bus = FakeSysfs(self.sysfs)
        for number in range(cards):
            address = f"0000:{number + 1:02x}:00.0"
            bus.add(address)
            self.driver.add_card(address, pstate=2)
        self.work(0.0)

    def work(self, seconds: float) -> None:
        """Everything that D-Bus announces moves by more than it takes to be announced; one process takes memory."""
        self._energy_mj += 180_000 * seconds
        self._step += 1
        sway = (-3, 0, 3)[self._step % 3]  # whether one or two steps after the last sample: it has moved
        for number, card in enumerate(self.driver.cards):
            card.set(
                temperature=70 + sway,
                power_instant_mw=(180 + 3 * sway) * 1000,
                energy_mj=self._energy_mj,
                utilization=92 + sway,
                memory_used=(6 << 30) + sway * (100 << 20),
            )
            card.set_fan(0, percent=60 + sway, rpm=2000 + 100 * sway, target=60 + sway)
            card.set_processes(*self._users(self._pids[number :: self.count], sway))

    def samples(self) -> float:
        """How often all cards have been read so far, by whoever reads them: a call that every program makes once."""
        return self.driver.calls("nvmlDeviceGetUtilizationRates") / self.count

    def calls(self) -> int:
        """NVML calls so far."""
        return self.driver.calls()

    def close(self) -> None:
        self.driver.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    @staticmethod
    def _users(pids: tuple[int, ...], sway: int) -> Iterator[FakeProcess]:
        for place, pid in enumerate(pids):
            busy = place < BUSY_PROCESSES
            memory = (64 << 20) + ((sway << 20) if place == 0 else 0)
            yield FakeProcess(pid=pid, memory_bytes=memory, sm=10 + sway if busy else 0, mem=5 if busy else 0)


@contextlib.contextmanager
def sleepers(
    folder: Path, count: int, *, descriptors: int = 0, node: Path | None = None, every: int = 1
) -> Iterator[tuple[int, ...]]:
    """The pids of so many cheap processes, or of as many as the machine allows. None of them is left afterwards.

    Together they hold so many descriptors; every so many-th process has `node` open.
    """
    program = folder / "bench_sleepers"
    if not program.exists():
        compile_c(HERE / "bench_sleepers.c", program)
    with subprocess.Popen(
        [str(program), str(count), str(descriptors), *([] if node is None else [str(node), str(every)])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield tuple(int(line) for line in iter(process.stdout.readline, "\n"))
        finally:
            process.stdin.close()  # they end


def compile_loop(folder: Path, library: Path) -> Path:
    """The same calls as gpuwhyd's, in C."""
    program = folder / "bench_loop"
    include = ["-isystem", str(find_nvml_header().parent), "-Wno-deprecated-declarations"]
    compile_c(HERE / "bench_loop.c", program, *include, str(library), "-lm")
    return program


def compile_c(source: Path, program: Path, *options: str) -> None:
    command = ["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-o", str(program), str(source), *options]
    subprocess.run(command, check=True)
