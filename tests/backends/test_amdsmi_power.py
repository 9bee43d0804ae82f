"""AMD's library never wakes a sleeping card and never keeps an idle one awake: the fake counts what would have."""

import pytest

from gpuwhyd.backends.amdsmi import AmdsmiBackend
from gpuwhyd.backends.amdsmi_library import AmdsmiLibrary
from gpuwhyd.backends.base import Probe
from gpuwhyd.backends.grip import IDLE_SECONDS
from gpuwhyd.model import BackendState, GpuState, Lack
from tests.backends.amdsmi_rig import ADDRESS, NO_SYSTEM, SECOND, AmdsmiRig, plug, run_python
from tests.fake_amdsmi.control import FakeProcess, FakeRocm
from tests.fake_nvml.sysfs import AMD, FakeSysfs
from tests.samples import bind


@pytest.fixture
def rig(tmp_path):
    with AmdsmiRig(tmp_path) as rig:
        yield rig


def states(readings):
    return [reading.state for reading in readings.readings]


def test_a_sleeping_card_is_not_even_reason_to_load_the_library(tmp_path):
    sysfs = FakeSysfs(tmp_path / "sys")
    plug(sysfs, ADDRESS, status="suspended", control="auto")
    with FakeRocm.build(tmp_path / "rocm") as rocm:
        rocm.add_card(ADDRESS)
        said = run_python(
            "import sys\nfrom pathlib import Path\n"
            "from gpuwhyd.backends.amdsmi import AmdsmiBackend\n"
            "from gpuwhyd.backends.amdsmi_library import AmdsmiLibrary\n"
            f"backend = AmdsmiBackend(sysfs=Path({str(sysfs.root)!r}), own_pid=1, library=AmdsmiLibrary())\n"
            "print(backend.probe().answer)\n"
            "for _ in range(3): read = backend.read()\n"
            "backend.close()\n"
            "print(read.state, read.readings[0].state, [m for m in sys.modules if m.startswith('amdsmi')])",
            ROCM_PATH=str(rocm.folder),
        )
        assert said.stdout.splitlines() == ["ready", "asleep asleep []"]
        assert (rocm.loads, rocm.calls(), rocm.open_sessions) == (0, 0, 0)


@pytest.mark.parametrize("status", ["suspended", "suspending", "resuming"])
def test_while_a_card_is_not_fully_awake_no_function_is_called(rig, status):
    card = rig.add_card(status=status, control="auto")
    assert rig.backend.probe().answer is Probe.READY
    for _ in range(3):
        read = rig.read()
    assert (read.state, read.message, states(read)) == (BackendState.ASLEEP, "", [GpuState.ASLEEP])
    assert read.readings[0].gpu.id == "pci_0000_0c_00_0"
    assert (rig.rocm.called(), card.opened) == (frozenset(), 0)
    assert set(rig.lacks().values()) == {Lack.ASLEEP}


def test_a_missing_library_is_told_while_the_card_sleeps_too(tmp_path):
    sysfs = FakeSysfs(tmp_path / "sys")
    plug(sysfs, ADDRESS, status="suspended", control="auto")
    library = AmdsmiLibrary(variables={}, system=NO_SYSTEM)
    result = AmdsmiBackend(sysfs=sysfs.root, own_pid=1, library=library).probe()
    assert (result.answer, "is not installed" in result.message) == (Probe.LATER, True)


def test_one_sleeping_card_keeps_the_library_from_the_awake_one_too(rig):
    rig.add_card()
    asleep = rig.add_card(SECOND, status="suspended", control="auto")
    assert rig.backend.probe().answer is Probe.READY
    read = rig.read()
    assert (read.state, states(read)) == (BackendState.ASLEEP, [GpuState.UNKNOWN, GpuState.ASLEEP])
    assert "wake the sleeping card" in read.message
    assert (rig.rocm.called(), asleep.opened) == (frozenset(), 0)
    rig.sysfs.set_status(SECOND, "active")
    assert states(rig.read()) == [GpuState.AWAKE, GpuState.AWAKE]
    assert asleep.opened >= 1


def test_a_sleeping_card_of_the_old_driver_keeps_the_library_away_too(rig):
    rig.add_card()
    rig.sysfs.add("0000:07:00.0", vendor=AMD, status="suspended", control="auto", driver=None)
    bind(rig.sysfs.root, "0000:07:00.0", "radeon")
    read = rig.read()
    assert (read.state, states(read)) == (BackendState.ASLEEP, [GpuState.UNKNOWN])
    assert rig.rocm.called() == frozenset()
    rig.sysfs.set_status("0000:07:00.0", "active")
    assert states(rig.read()) == [GpuState.AWAKE]


def test_a_card_that_falls_asleep_ends_the_session_and_one_that_wakes_begins_a_new_one(rig):
    rig.add_card(control="auto", activity=50)
    assert rig.reading().hotspot_celsius == 45.0
    assert rig.rocm.open_sessions == 1
    rig.sysfs.set_status(ADDRESS, "suspended")
    read = rig.read()
    assert (read.state, states(read)) == (BackendState.ASLEEP, [GpuState.ASLEEP])
    assert read.readings[0].hotspot_celsius is None
    assert rig.rocm.open_sessions == 0
    calls = rig.rocm.calls()
    for _ in range(10):
        rig.read()
    assert rig.rocm.calls() == calls
    rig.sysfs.set_status(ADDRESS, "active")
    assert rig.reading().hotspot_celsius == 45.0


def until_let_go(rig, seconds=2.0, limit=100):
    for tick in range(1, limit):
        rig.read(seconds)
        if rig.rocm.open_sessions == 0:
            return tick * seconds
    return None


def test_an_idle_card_that_may_suspend_is_let_go_and_then_only_watched(rig):
    rig.add_card(control="auto")
    assert until_let_go(rig) == pytest.approx(IDLE_SECONDS, abs=4)
    calls = rig.rocm.calls()
    read = rig.read()
    assert (read.state, states(read)) == (BackendState.ASLEEP, [GpuState.UNKNOWN])
    assert "keep the idle one awake" in read.message
    assert rig.rocm.calls() == calls
    assert rig.read(seconds=70).readings[0].state is GpuState.AWAKE  # the pause is over and it did not sleep


@pytest.mark.parametrize(
    ("busy", "control"),
    [({}, "on"), ({"activity": 7}, "auto")],
    ids=["may not suspend", "works"],
)
def test_a_card_that_works_or_cannot_suspend_is_held(rig, busy, control):
    rig.add_card(control=control, **busy)
    assert until_let_go(rig) is None


def test_a_card_with_a_compute_process_is_held(rig):
    rig.add_card(control="auto").set_processes(FakeProcess(pid=4242, occupied_units=12))
    assert until_let_go(rig) is None


def test_an_idle_card_is_let_go_though_another_one_works(rig):
    rig.add_card(activity=90)
    rig.add_card(SECOND, control="auto")
    assert until_let_go(rig) == pytest.approx(IDLE_SECONDS, abs=4)
    assert states(rig.read()) == [GpuState.UNKNOWN, GpuState.UNKNOWN]


def test_closing_twice_is_harmless_and_gives_the_cards_up(rig):
    rig.add_card()
    rig.backend.close()
    rig.read()
    assert rig.rocm.open_sessions == 1
    rig.backend.close()
    rig.backend.close()
    assert rig.rocm.open_sessions == 0
    assert states(rig.read()) == [GpuState.AWAKE]
