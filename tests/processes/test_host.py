"""The CPU side of the machine: looked at only where a fan of the machine cools a GPU."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gpuwhyd.model import FanReading, GpuIdentity, GpuReading, HostReading
from gpuwhyd.processes.cpu_time import parse_cpu_time
from gpuwhyd.processes.host import HostWatch
from tests.processes.real_processes import running, until

TICKS = os.sysconf("SC_CLK_TCK")
ROOT = Path(__file__).parents[2]


def chassis(rpm: float | None = 2000, celsius: float | None = 70) -> GpuReading:
    gpu = GpuIdentity(id="chassis_thinkpad", name="ThinkPad P53 fan", vendor="chassis")
    fan = FanReading(index=0, label="fan1", rpm=rpm, rpm_is_measured=True)
    return GpuReading(gpu=gpu, backend="chassis", fans=(fan,), temperature_celsius=celsius)


def card(*fans: FanReading) -> GpuReading:
    return GpuReading(gpu=GpuIdentity(id="pci_1", name="x", vendor="amd"), backend="amdgpu", fans=fans)


class Machine:
    """A made-up /proc and powercap of a machine with four CPUs; time stands still unless a test moves it."""

    def __init__(self, folder: Path) -> None:
        self.procfs, self.powercap = folder / "proc", folder / "sys/class/powercap"
        self.procfs.mkdir()
        self.now = 1000.0
        self.busy_seconds = self.idle_seconds = 0.0
        self.celsius: float | None = 55.0
        self.watch = HostWatch(self.procfs, folder / "sys", cpu_temperature=lambda _now: self.celsius)
        self.spend(0, 1)

    def spend(self, busy_part: float, seconds: float) -> None:
        """So much of the CPUs' time was spent on work."""
        self.now += seconds
        self.busy_seconds += 4 * seconds * busy_part
        self.idle_seconds += 4 * seconds * (1 - busy_part)
        user, idle = round(self.busy_seconds * TICKS), round(self.idle_seconds * TICKS)
        # guest time is in user's already
        (self.procfs / "stat").write_text(f"cpu  {user} 0 0 {idle} 0 0 0 0 {user} 0\nbtime 1\n")

    def process(
        self,
        pid: int,
        *,
        seconds: float,
        start: int = 500,
        parent: int = 1,
        children: float = 0,
        name: str = "x",
    ) -> None:
        (self.procfs / str(pid)).mkdir(exist_ok=True)
        own, waited = round(seconds * TICKS), round(children * TICKS)
        (self.procfs / str(pid) / "stat").write_text(
            f"{pid} ({name}) R {parent} 1 1 0 -1 0 0 0 0 0 {own} 0 {waited} 0 20 0 1 0 {start} 0 0\n"
        )

    def end(self, pid: int) -> None:
        (self.procfs / str(pid) / "stat").unlink()
        (self.procfs / str(pid)).rmdir()

    def package(self, zone: str, name: str, microjoules: int, most: int = 262143328850) -> Path:
        folder = self.powercap / zone
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in (("name", name), ("energy_uj", microjoules), ("max_energy_range_uj", most)):
            (folder / file).write_text(f"{content}\n")
        return folder

    def read(self, *readings: GpuReading) -> HostReading:
        found = self.watch.read(readings or (chassis(),), self.now)
        assert found is not None
        return found

    def percents(self, *readings: GpuReading) -> dict[int, float] | None:
        processes = self.read(*readings).processes
        return None if processes is None else {p.pid: round(p.cpu_percent, 1) for p in processes}


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    yield Machine(tmp_path)
    psutil.PROCFS_PATH = "/proc"


def working(machine: Machine) -> None:
    """Busy enough to be looked at, and looked at once."""
    machine.read()
    machine.spend(0.5, 10)
    assert machine.read().processes is None


# -- whether at all ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "readings",
    [
        (),
        (card(),),
        (card(FanReading(index=0, percent=30, rpm=1500, rpm_is_measured=True)),),
        (card(FanReading(index=0, percent=30, label="told", rpm=1500)),),
    ],
)
def test_without_a_fan_of_the_machine_nothing_is_looked_at(
    tmp_path: Path, readings: tuple[GpuReading, ...]
) -> None:
    def untouchable(_now: float) -> float:
        raise AssertionError

    assert HostWatch(tmp_path, tmp_path, cpu_temperature=untouchable).read(readings, 5.0) is None


def test_psutil_is_loaded_only_where_it_is_needed() -> None:
    code = (
        "import sys; from pathlib import Path; from gpuwhyd.processes.host import HostWatch\n"
        "from tests.processes.test_host import chassis, card\n"
    )
    told = (
        "watch = HostWatch(Path('/proc'), Path('/sys'))\nfor m in [m for m in sys.modules if m.startswith('psutil')]: del sys.modules[m]\n"
        "watch.read((card(),), 1.0); print('psutil' in sys.modules); watch.read((chassis(),), 1.0); print('psutil' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code + told], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "True"]


def test_a_gpu_whose_fan_is_one_of_the_machine_is_enough(machine: Machine) -> None:
    fan = FanReading(index=0, label="gpu_fan", rpm=2600, rpm_is_measured=True)
    assert machine.read(card(fan)).cpu_temperature_celsius == 55
    assert machine.read(card(fan), chassis(celsius=71)).cpu_temperature_celsius == 71
    assert machine.read(chassis(celsius=None)).cpu_temperature_celsius == 55
    machine.celsius = None
    assert machine.read(chassis(celsius=None)).cpu_temperature_celsius is None


# -- utilization and power --------------------------------------------------------------------------------------------


def test_utilization_is_that_of_the_whole_machine_since_the_last_tick(machine: Machine) -> None:
    assert machine.read().cpu_utilization_percent is None
    machine.spend(0.25, 2)
    assert machine.read().cpu_utilization_percent == pytest.approx(25)
    machine.spend(1, 2)
    assert machine.read().cpu_utilization_percent == pytest.approx(100)
    machine.spend(0, 2)
    assert machine.read().cpu_utilization_percent == pytest.approx(0)
    assert machine.read().cpu_utilization_percent is None


@pytest.mark.parametrize("content", ["", "cpu", "cpu  x y\n", "intr 5\n", None])
def test_a_stat_file_that_cannot_be_understood_says_nothing(machine: Machine, content: str | None) -> None:
    if content is None:
        (machine.procfs / "stat").unlink()
    else:
        (machine.procfs / "stat").write_text(content)
    for _ in range(3):
        found = machine.read()
        assert (found.cpu_utilization_percent, found.processes) == (None, None)
        machine.now += 10
    assert found.cpu_temperature_celsius == 70


def test_power_is_that_of_the_packages_only(machine: Machine) -> None:
    machine.package("intel-rapl:0", "package-0", 5_000_000)
    machine.package("intel-rapl:1", "package-1", 1_000_000)
    for zone, name in (
        ("intel-rapl:0:0", "core"), ("intel-rapl:0:1", "dram"), ("intel-rapl:2", "psys"), ("intel-rapl-mmio:0", "package-0")
    ):  # fmt: skip
        machine.package(zone, name, 1_000_000)
    assert machine.read().cpu_power_watts is None
    machine.spend(0, 2)
    machine.package("intel-rapl:0", "package-0", 65_000_000)
    machine.package("intel-rapl:1", "package-1", 11_000_000)
    for zone, name in (
        ("intel-rapl:0:0", "core"),
        ("intel-rapl:2", "psys"),
        ("intel-rapl-mmio:0", "package-0"),
    ):
        machine.package(zone, name, 99_000_000)
    assert machine.read().cpu_power_watts == pytest.approx(35)


def test_a_counter_that_goes_round_goes_on(machine: Machine) -> None:
    machine.package("intel-rapl:0", "package-0", 90_000_000, most=100_000_000)
    machine.read()
    machine.spend(0, 2)
    machine.package("intel-rapl:0", "package-0", 10_000_000, most=100_000_000)
    assert machine.read().cpu_power_watts == pytest.approx(10)


def test_a_counter_that_began_anew_says_nothing(machine: Machine) -> None:
    machine.package("intel-rapl:0", "package-0", 90_000_000)
    machine.read()
    machine.spend(0, 2)
    machine.package("intel-rapl:0", "package-0", 10_000)
    assert machine.read().cpu_power_watts is None
    machine.spend(0, 2)
    machine.package("intel-rapl:0", "package-0", 40_010_000)
    assert machine.read().cpu_power_watts == pytest.approx(20)


def test_power_over_a_sleep_of_the_machine_is_not_known(machine: Machine) -> None:
    machine.package("intel-rapl:0", "package-0", 1_000_000)
    machine.read()
    machine.now += 3600
    machine.package("intel-rapl:0", "package-0", 2_000_000)
    assert machine.read().cpu_power_watts is None


def test_of_two_looks_at_once_the_second_repeats_the_first(machine: Machine) -> None:
    machine.package("intel-rapl:0", "package-0", 0)
    machine.read()
    machine.spend(0, 2)
    machine.package("intel-rapl:0", "package-0", 30_000_000)
    assert machine.read().cpu_power_watts == pytest.approx(15)
    machine.now += 0.01
    machine.package("intel-rapl:0", "package-0", 31_000_000)
    assert machine.read().cpu_power_watts == pytest.approx(15)


@pytest.mark.parametrize("content", ["", "-5", "x", "9" * 40, None])
def test_counters_that_cannot_be_read_say_nothing(machine: Machine, content: str | None) -> None:
    """As of a package whose counter is for root only: half of the machine's power would be a lie."""
    machine.package("intel-rapl:1", "package-1", 0)
    zone = machine.package("intel-rapl:0", "package-0", 0)
    machine.read()
    machine.spend(0, 2)
    machine.package("intel-rapl:1", "package-1", 30_000_000)
    (zone / "energy_uj").unlink()
    if content is not None:
        (zone / "energy_uj").write_text(content)
    assert machine.read().cpu_power_watts is None
    machine.package("intel-rapl:0", "package-0", 0)
    machine.spend(0, 61)
    assert machine.read().cpu_power_watts is None
    machine.spend(0, 2)
    machine.package("intel-rapl:0", "package-0", 10_000_000)
    assert machine.read().cpu_power_watts == pytest.approx(5)


# -- who works --------------------------------------------------------------------------------------------------------


def test_the_busiest_processes_are_told_as_parts_of_the_whole_machine(machine: Machine) -> None:
    for pid, seconds in ((10, 5), (11, 100), (12, 0)):
        machine.process(pid, seconds=seconds)
    working(machine)
    machine.process(10, seconds=5 + 16)
    machine.process(11, seconds=100 + 4, name="a ) R 9 (b")
    machine.process(12, seconds=0.3)
    machine.spend(0.51, 10)
    assert machine.percents() == {10: 40, 11: 10}


def test_they_are_looked_at_every_ten_seconds_and_told_meanwhile(machine: Machine) -> None:
    machine.process(10, seconds=0)
    working(machine)
    machine.spend(0.5, 9)
    machine.process(10, seconds=18)
    assert machine.percents() is None
    machine.spend(0.5, 1)
    machine.process(10, seconds=20)
    assert machine.percents() == {10: 50}
    found = machine.read().processes
    machine.spend(0.5, 2)
    machine.process(10, seconds=99)
    assert machine.read().processes is found


def test_an_idle_cpu_under_a_quiet_fan_is_not_looked_at(machine: Machine) -> None:
    machine.process(10, seconds=0)
    for seconds in range(2, 40, 2):
        machine.spend(0.14, 2)
        machine.process(10, seconds=seconds)
        assert machine.read().processes is None


def test_under_a_fan_that_is_up_it_is_looked_who_works(machine: Machine) -> None:
    machine.process(10, seconds=0)
    machine.read(chassis(2000))
    machine.spend(0.1, 10)
    assert machine.percents(chassis(2299)) is None
    assert machine.percents(chassis(2300)) is None
    machine.spend(0.1, 10)
    machine.process(10, seconds=2)
    assert machine.percents(chassis(2300)) == {10: 5}
    machine.spend(0.1, 2)
    assert machine.percents(chassis(None)) is None


def test_what_is_long_ago_is_not_now(machine: Machine) -> None:
    machine.process(10, seconds=0)
    working(machine)
    machine.spend(0, 61)
    machine.process(10, seconds=30)
    assert machine.percents() is None
    machine.spend(0.5, 2)
    assert machine.percents() is None
    machine.spend(0.5, 10)
    machine.process(10, seconds=32)
    assert machine.percents() == {10: 5}


def test_a_pid_that_another_process_got_begins_anew(machine: Machine) -> None:
    machine.process(10, seconds=4, start=500)
    machine.process(11, seconds=400, start=500)
    working(machine)
    machine.process(10, seconds=24, start=900)
    machine.process(11, seconds=4, start=900)
    machine.spend(1, 10)
    assert machine.percents() == {10: 60, 11: 10}


def test_a_process_that_vanishes_while_it_is_looked_at_is_left_out(machine: Machine) -> None:
    machine.process(10, seconds=0)
    machine.process(11, seconds=0)
    working(machine)
    (machine.procfs / "10/stat").unlink()
    machine.process(11, seconds=20)
    machine.spend(0.6, 10)
    assert machine.percents() == {11: 50}


def test_a_build_is_seen_as_its_make_although_no_compiler_lives_long(machine: Machine) -> None:
    machine.process(10, seconds=1, children=500, name="make")
    machine.process(20, seconds=0, parent=10, name="sh")
    machine.process(30, seconds=6, parent=20, name="cc1")
    working(machine)
    machine.end(20)
    machine.end(30)
    # cc1 had used 6 s before the first look, which it had been told for then; 2 s since, and other compilers 16 s
    machine.process(10, seconds=1, children=500 + 6 + 2 + 16, name="make")
    machine.process(31, seconds=2, parent=10, start=900, name="cc1")
    machine.spend(0.5, 10)
    assert machine.percents() == {10: 45, 31: 5}


def test_a_child_that_nobody_waited_for_takes_nothing_from_its_parent(machine: Machine) -> None:
    machine.process(10, seconds=0)
    machine.process(20, seconds=50, parent=10)
    machine.process(30, seconds=50, parent=31)
    machine.process(31, seconds=50, parent=30)
    working(machine)
    for pid in (20, 30, 31):
        machine.end(pid)
    machine.process(10, seconds=20)
    machine.spend(0.5, 10)
    assert machine.percents() == {10: 50}


def test_at_most_ten_processes_are_told(machine: Machine) -> None:
    for pid in range(100, 120):
        machine.process(pid, seconds=0)
    working(machine)
    for pid in range(100, 120):
        machine.process(pid, seconds=(pid - 98) * 0.2)
    machine.spend(1, 10)
    percents = machine.percents()
    assert percents is not None
    assert list(percents) == list(range(119, 109, -1))


def test_without_a_fan_in_between_it_begins_anew(machine: Machine) -> None:
    machine.process(10, seconds=0)
    working(machine)
    machine.spend(0.5, 10)
    assert machine.watch.read((), machine.now) is None
    machine.process(10, seconds=20)
    found = machine.read()
    assert (found.processes, found.cpu_utilization_percent, found.cpu_power_watts) == (None, None, None)


def test_a_real_process_that_works_is_found() -> None:
    """A whole CPU of this machine, whatever else it does; others may have to be waited for."""
    watch = HostWatch(Path("/proc"), Path("/sys"))
    now = 1000.0
    with running((sys.executable, "-c", "while True: pass"), settled=True) as loop:
        used = psutil.Process(loop.pid)
        watch.read((chassis(2000),), now)
        watch.read((chassis(4000),), now + 10)
        before, began = sum(used.cpu_times()[:2]), psutil.cpu_times()
        until(lambda: sum(used.cpu_times()[:2]) >= before + 0.5, deadline_seconds=60)
        found = watch.read((chassis(4000),), now + 20)
        passed = sum(psutil.cpu_times()[:8]) - sum(began[:8])
    assert found is not None
    assert found.cpu_utilization_percent is not None
    assert found.cpu_utilization_percent > 1
    (mine,) = [process for process in found.processes or () if process.pid == loop.pid]
    assert mine.cpu_percent == pytest.approx(100 * 0.5 / passed, rel=0.5)


LINE = b"7 (a) b) S 1 1 1 0 -1 0 0 0 0 0 11 12 13 14 20 0 1 0 500 0 0\n"


@given(
    st.binary(max_size=200)
    | st.builds(lambda a, b: LINE[:a] + b + LINE[a:], st.integers(0, 60), st.binary(max_size=9))
)
@example(b"")
@example(LINE.replace(b"11", b"9" * 5000))
def test_any_bytes_give_times_or_none(raw: bytes) -> None:
    found = parse_cpu_time(raw)
    assert found is None or min(found.start, found.parent, found.own, found.children) >= 0


def test_a_line_of_stat_is_understood() -> None:
    found = parse_cpu_time(LINE)
    assert found is not None
    assert (found.parent, found.own, found.children, found.start) == (1, 23, 27, 500)


def test_a_look_at_five_hundred_processes_is_cheap(machine: Machine) -> None:
    """It is done every 10 s: 1 % of one CPU would be 100 ms. Measured: 8 ms."""
    for pid in range(1000, 1500):
        machine.process(pid, seconds=1)
    working(machine)
    machine.spend(0.5, 10)
    before = time.process_time()
    assert machine.read().processes == ()
    assert time.process_time() - before < 0.1
