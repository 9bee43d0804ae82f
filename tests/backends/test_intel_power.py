"""Intel's cards are neither woken nor kept awake."""

from pathlib import Path

import pytest

from gpuwhyd.model import BackendState, GpuState
from tests.backends.intel_rig import FILES, RESTING, IntelRig
from tests.backends.sysfs_watch import touched

_HOUR_TICKS = 1800


@pytest.mark.parametrize("driver", FILES)
def test_a_sleeping_card_is_not_touched_in_an_hour(tmp_path: Path, driver: str) -> None:
    rig = IntelRig(tmp_path, driver, control="auto")
    rig.write("power/runtime_status", "suspended")
    here = f"bus/pci/devices/{rig.address}"
    in_memory = {f"{here}/{name}" for name in ("vendor", "device", "revision")}  # of the PCI core, read once
    in_memory.add("proc/sys/kernel/osrelease")
    with touched(tmp_path) as paths:
        for _ in range(_HOUR_TICKS):
            assert rig.reading().state is GpuState.ASLEEP
    assert set(paths) <= {f"bus/pci/drivers/{driver}", f"{here}/power/runtime_status"} | in_memory
    assert sum(path in in_memory for path in paths) < 10
    assert paths.count(f"{here}/power/runtime_status") == _HOUR_TICKS


@pytest.mark.parametrize("status", ["suspended", "suspending", "resuming"])
def test_a_card_that_falls_asleep_after_it_was_read_is_left_alone(tmp_path: Path, status: str) -> None:
    rig = IntelRig(tmp_path, "i915", control="auto")
    rig.read()
    rig.write("power/runtime_status", status)
    with touched(tmp_path) as paths:
        assert rig.read(600.0).state is BackendState.ASLEEP
    assert {path.rsplit("/", 1)[1] for path in paths} == {"i915", "runtime_status"}


@pytest.mark.parametrize("driver", FILES)
def test_an_idle_card_is_let_go_after_a_minute(tmp_path: Path, driver: str) -> None:
    rig = IntelRig(tmp_path, driver, control="auto")
    for _ in range(32):
        readings = rig.rest(2.0)
    rig.write("drm/card1/gt/gt0/rps_act_freq_mhz", "0")
    assert readings.readings[0].state is GpuState.AWAKE
    with touched(tmp_path) as paths:
        assert rig.read().state is BackendState.ASLEEP
    names = {path.removeprefix(f"bus/pci/devices/{rig.address}/") for path in paths}
    allowed = {f"bus/pci/drivers/{driver}", "power/runtime_status"}
    if driver == "i915":
        allowed.add("drm/card1/gt/gt0/rps_act_freq_mhz")  # takes no reference of its own
    assert names == allowed


@pytest.mark.parametrize("driver", FILES)
def test_a_busy_card_is_held(tmp_path: Path, driver: str) -> None:
    rig = IntelRig(tmp_path, driver, control="auto")
    for _ in range(60):
        assert rig.read().state is BackendState.READY


def test_a_card_with_one_busy_gt_is_held(tmp_path: Path) -> None:
    rig = IntelRig(tmp_path, "xe", control="auto")
    for tick in range(60):
        rig.write(RESTING["xe"][0], str(5000 + 2000 * tick))
        assert rig.read().state is BackendState.READY


def test_a_card_that_works_a_tenth_of_the_time_is_held(tmp_path: Path) -> None:
    rig = IntelRig(tmp_path, "i915", control="auto")
    rig.write("drm/card1/gt/gt0/rps_act_freq_mhz", "0")  # as it happens to be whenever it is looked at
    for tick in range(60):
        rig.write(RESTING["i915"][0], str(5000 + 1800 * tick))
        assert rig.read().state is BackendState.READY


@pytest.mark.parametrize(("clock", "state"), [("0", "asleep"), ("300", "asleep"), ("600", "ready")])
def test_without_a_counter_of_rest_the_clock_tells_whether_a_card_is_idle(
    tmp_path: Path, clock: str, state: str
) -> None:
    rig = IntelRig(tmp_path, "i915", control="auto")
    rig.remove(RESTING["i915"][0])
    rig.write("drm/card1/gt/gt0/rps_act_freq_mhz", clock)
    for _ in range(31):
        rig.read()
    rig.write("drm/card1/gt/gt0/rps_act_freq_mhz", "0")
    assert rig.read().state == state


def test_a_card_that_tells_nothing_of_its_gts_is_not_taken_for_idle(tmp_path: Path) -> None:
    rig = IntelRig(
        tmp_path, "xe", {"hwmon/hwmon1/name": "xe", "hwmon/hwmon1/temp1_input": "40000"}, control="auto"
    )
    for _ in range(60):
        assert rig.read().state is BackendState.READY


def test_work_on_a_card_that_was_let_go_is_seen_at_once_with_i915(tmp_path: Path) -> None:
    rig = IntelRig(tmp_path, "i915", control="auto")
    rig.write("drm/card1/gt/gt0/rps_act_freq_mhz", "0")
    for _ in range(33):
        readings = rig.rest(2.0)
    assert readings.readings[0].state is GpuState.UNKNOWN
    rig.write("drm/card1/gt/gt0/rps_act_freq_mhz", "2400")
    assert rig.reading().state is GpuState.AWAKE


def test_a_card_that_stays_awake_all_the_same_is_read_once_in_a_while(tmp_path: Path) -> None:
    rig = IntelRig(tmp_path, "xe", control="auto")
    states = [rig.rest(2.0).readings[0].state for _ in range(160)]
    read = [tick for tick, state in enumerate(states) if state is GpuState.AWAKE and tick > 40]
    assert len(read) in {2, 3}


def test_reading_a_card_costs_few_files(tmp_path: Path) -> None:
    """Of the one with the most sensors: runtime status, driver's listing, and one open for each value."""
    rig = IntelRig(tmp_path, "xe")
    rig.read()
    with touched(tmp_path) as paths:
        rig.read()
    assert len(paths) == len(set(paths)), "nothing is read twice"
    assert len(paths) <= 14


def test_what_an_older_kernel_does_not_have_is_not_asked_for_each_time(tmp_path: Path) -> None:
    files = {"drm/card0/gt_act_freq_mhz": "300", "drm/card0/gt_RPn_freq_mhz": "300"}
    rig = IntelRig(tmp_path, "i915", files, address="0000:00:02.0")
    rig.read()
    with touched(tmp_path) as paths:
        rig.read()
    names = [path.rpartition("/")[2] for path in paths]
    settling = ["drm", "hwmon"]  # directories, listed in the first minute
    assert sorted(name for name in names if name not in settling) == [
        "gt_RPn_freq_mhz",
        "gt_act_freq_mhz",
        "gt_act_freq_mhz",
        "i915",
        "runtime_status",
    ]
