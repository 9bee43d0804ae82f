"""A machine whose cards all sleep: what the daemon asks the kernel for, system call by system call, in an hour's ticks.

Everything that could wake a card is within reach: NVML, AMD's library, the vendors' programs, and processes that have
the cards' nodes open.
"""

import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.backends.fake_programs import FakeProgram
from tests.daemon.running import Machine, machine, until
from tests.every_card import ADDRESSES, AMD, CHASSIS, CHIPS, I915, NVIDIA, XE, EveryCard
from tests.fake_amdsmi.control import FakeRocm
from tests.fake_nvml.control import FakeDriver

TICKS = 1800
"""Of an hour, at the usual interval."""
PAUSE_SECONDS = 0.001
MOST_SECONDS = 180.0
SELDOM = 30
"""What is not asked with every tick is asked no more often than this in the test: backends look for a driver or a
library every ten seconds, and /sys is asked anew when a card has come."""
IN_MEMORY = frozenset({"vendor", "device", "class", "revision", "removable", "driver"})
"""What of a card the PCI core answers by itself (drivers/pci/pci-sysfs.c)."""
HOLDERS = {AMD: 601, XE: 602, I915: 603}
_PATH = re.compile(r'^[0-9]+ +(?:<\.\.\. )?(\w+)[^"]*"((?:[^"\\]|\\.)*)"')


@dataclass
class Sleepers:
    here: Machine
    cards: EveryCard
    rocm: FakeRocm
    programs: tuple[FakeProgram, ...]
    trace: Path
    read_to: int = 0

    def paths(self) -> list[tuple[str, str]]:
        """(system call, path) since the last call."""
        with self.trace.open(errors="replace") as file:
            file.seek(self.read_to)
            text = file.read()
        whole = text[: text.rfind("\n") + 1]
        self.read_to += len(whole.encode())
        found = (_PATH.match(line) for line in whole.splitlines())
        return [(match[1], match[2]) for match in found if match]

    def touched(self, address: str, paths: list[tuple[str, str]]) -> Counter[str]:
        """What of a card was asked for, below its directory or that of one of its chips; `fdinfo`: of its holder."""
        counted: Counter[str] = Counter()
        sysfs = self.cards.sysfs
        places = [
            self.cards.device(address),
            *(sysfs / "class/hwmon" / chip for chip in CHIPS.get(address, ())),
        ]
        fdinfo = f"{self.cards.procfs}/{HOLDERS.get(address)}/fdinfo"
        for _, path in paths:
            for place in places:
                if path == str(place) or path.startswith(f"{place}/"):
                    below = path.removeprefix(str(place)).strip("/")
                    counted[below if place is places[0] else f"chip: {below}"] += 1
            if path.startswith(fdinfo):
                counted["fdinfo"] += 1
        return counted

    def ticks(self, paths: list[tuple[str, str]]) -> int:
        """By the machine's own fan, which is read with each."""
        fan = str(self.cards.sysfs / "class/hwmon/hwmon0/fan1_input")
        return sum(path == fan and call == "openat" for call, path in paths)

    def samples(self) -> int:
        return int(self.here.ask("doctor")["health"]["samples"])

    def states(self) -> dict[str, str]:
        return {gpu["id"]: gpu["state"] for gpu in self.here.ask("status").get("gpus", ())}


@pytest.fixture
def sleepers(tmp_path: Path) -> Iterator[Sleepers]:
    library = FakeDriver.build(tmp_path / "driver")
    rocm = FakeRocm.build(tmp_path / "rocm")
    rocm.add_card(AMD)
    programs = tuple(FakeProgram(tmp_path / "bin", name, "exit 1") for name in ("nvidia-smi", "rocm-smi"))
    with machine(tmp_path, library) as here, rocm:
        cards = EveryCard(tmp_path, status="suspended", control="auto")
        here.driver.add_card(NVIDIA)
        for address, pid in HOLDERS.items():
            cards.program(pid, f"holder-{pid}.service", comm="holder")
            cards.opens(pid, address)
        cards.computes(HOLDERS[AMD], vram=3 << 30)
        trace = tmp_path / "trace"
        hurried = Path(__file__).with_name("hurried.py")
        here.run(
            # the daemon stays our child, and the tracer is its own (-D)
            *("strace", "-D", "-f", "-qq", "--seccomp-bpf", "--trace=%file", f"--output={trace}"),
            *(sys.executable, str(hurried), str(tmp_path), here.address, str(PAUSE_SECONDS)),
            PATH=f"{programs[0].path}:/usr/bin:/bin",
            ROCM_PATH=str(rocm.folder),
        )
        yield Sleepers(here=here, cards=cards, rocm=rocm, programs=programs, trace=trace)
        if here.process is not None:
            here.process.kill()


def assert_left_alone(sleepers: Sleepers, address: str, paths: list[tuple[str, str]]) -> None:
    """Two backends look at an AMD card's power state with each tick, one at the others'."""
    ticks = sleepers.ticks(paths)
    touched = sleepers.touched(address, paths)
    looks = touched.pop("power/runtime_status", 0) / (2 if address == AMD else 1)
    assert looks == pytest.approx(ticks, abs=SELDOM), f"{address}: {ticks} ticks"
    assert touched.keys() <= {*IN_MEMORY, "chip: name"}, f"{address}: {touched}"
    assert all(count <= SELDOM for count in touched.values()), f"{address}: {touched}"


def test_an_hour_beside_sleeping_cards_and_one_that_wakes(sleepers: Sleepers) -> None:
    here, cards = sleepers.here, sleepers.cards
    until(lambda: len(sleepers.states()) == len(ADDRESSES) + 1, "every card is known")
    deadline = time.monotonic() + MOST_SECONDS
    while (samples := sleepers.samples()) < TICKS:
        assert time.monotonic() < deadline, f"{samples} ticks in {MOST_SECONDS:g} s"
        time.sleep(1)
    assert sleepers.states() == {CHASSIS: "awake", **{_id(one): "asleep" for one in ADDRESSES.values()}}
    paths = sleepers.paths()
    assert sleepers.ticks(paths) >= TICKS
    for address in ADDRESSES.values():
        assert_left_alone(sleepers, address, paths)
    begun = [path for call, path in paths if call == "execve"]
    assert begun == [begun[0]], "no program was started"
    named = "\n".join(path for _, path in paths)
    for never in (
        "libnvidia-ml",
        "amdsmi_wrapper",
        "amdsmi/__pycache__",
        "/dev/dri",
        "/dev/kfd",
        "/dev/nvidia",
        "/fdinfo/",
    ):
        assert never not in named
    assert (here.driver.calls(), here.driver.loads, sleepers.rocm.loads) == (0, 0, 0)

    for address in ADDRESSES.values():
        cards.set_status(address, "active")
        until(lambda awake=address: sleepers.states()[_id(awake)] == "awake", f"{address} is read")
        sleepers.paths()
        before = sleepers.samples()
        until(lambda since=before: sleepers.samples() >= since + 20, "some ticks beside it")
        paths = sleepers.paths()
        for other in ADDRESSES.values():
            if other != address:
                assert_left_alone(sleepers, other, paths)
        if address == NVIDIA:
            assert here.driver.calls("nvmlDeviceGetTemperature") > 0
        else:
            assert sleepers.touched(address, paths)["fdinfo"] > 0
            assert sum(sleepers.touched(address, paths).values()) > 4 * sleepers.ticks(paths)
        cards.set_status(address, "suspended")
        until(lambda asleep=address: sleepers.states()[_id(asleep)] == "asleep", f"{address} sleeps")
    assert sleepers.rocm.loads == 2, "by its trial and by the daemon, while the AMD card was awake"
    assert sleepers.rocm.open_sessions == 0
    assert [program.runs for program in sleepers.programs] == [[], []]
    named = "\n".join(path for _, path in sleepers.paths())
    assert "/dev/dri" not in named
    assert here.end() == 0
    assert "Traceback" not in here.log


def _id(address: str) -> str:
    return "pci_" + address.replace(":", "_").replace(".", "_")
