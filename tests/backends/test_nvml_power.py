"""Never wake a sleeping card, never keep an idle one awake. The fake driver counts what would have woken one."""

import pytest

from gpuwhyd.backends.base import Probe
from gpuwhyd.model import BackendState, GpuState
from tests.backends.nvml_rig import ADDRESS, SECOND, NvmlRig, run_python
from tests.fake_nvml.control import FakeDriver, FakeProcess, FakeSample
from tests.fake_nvml.sysfs import AMD, AUDIO, CONTROLLER_3D, INTEL, FakeSysfs


@pytest.fixture
def rig(tmp_path):
    with NvmlRig(tmp_path) as rig:
        yield rig


def states(readings):
    return [reading.state for reading in readings.readings]


def test_a_sleeping_card_is_not_even_reason_to_load_the_library(tmp_path):
    library = FakeDriver.build(tmp_path / "lib")
    sysfs = FakeSysfs(tmp_path / "sys")
    sysfs.add(ADDRESS, status="suspended", control="auto")
    with FakeDriver(library) as driver:
        driver.add_card(ADDRESS)
        said = run_python(
            "from pathlib import Path\n"
            "from gpuwhyd.backends.nvml import NvmlBackend\n"
            f"backend = NvmlBackend(sysfs=Path({str(sysfs.root)!r}), own_pid=1)\n"
            "print(backend.probe().answer)\n"
            "for _ in range(3): read = backend.read()\n"
            "backend.close()\n"
            "print(read.state, read.readings[0].state, read.readings[0].gpu.name)",
            library_folder=library.parent,
        )
        assert said.splitlines() == ["ready", "asleep asleep NVIDIA GPU"]
        assert (driver.loads, driver.calls()) == (0, 0)


@pytest.mark.parametrize("status", ["suspended", "suspending", "resuming"])
def test_a_card_that_is_not_fully_awake_is_not_touched(rig, status):
    rig.add_card(status=status, control="auto")
    before = rig.driver.calls()
    assert rig.backend.probe().answer is Probe.READY
    read = rig.read()
    assert (read.state, states(read)) == (BackendState.ASLEEP, [GpuState.ASLEEP])
    assert read.readings[0].gpu.id == "pci_0000_01_00_0"
    assert rig.driver.calls() == before


@pytest.mark.parametrize("status", ["active", "unsupported", None])
def test_a_card_that_is_awake_or_cannot_suspend_is_read(rig, status):
    rig.sysfs.add(ADDRESS, status=status)
    rig.driver.add_card(ADDRESS)
    assert states(rig.read()) == [GpuState.AWAKE]


def test_a_card_that_falls_asleep_keeps_its_name_and_is_let_go(rig):
    card = rig.add_card(control="auto")
    assert rig.reading().temperature_celsius == 35.0
    rig.sysfs.set_status(ADDRESS, "suspended")
    read = rig.read()
    assert (read.state, states(read)) == (BackendState.ASLEEP, [GpuState.ASLEEP])
    assert read.readings[0].gpu.name == "NVIDIA GeForce RTX 3070"
    assert read.readings[0].temperature_celsius is None
    assert card.attached == 0
    calls = rig.driver.calls()
    for _ in range(10):
        rig.read()
    assert rig.driver.calls() == calls
    rig.sysfs.set_status(ADDRESS, "active")
    assert rig.reading().temperature_celsius == 35.0


def test_beside_a_sleeping_card_only_the_awake_one_is_opened(rig):
    awake = rig.add_card()
    asleep = rig.add_card(SECOND, status="suspended", control="auto")
    assert rig.backend.probe().answer is Probe.READY
    for _ in range(5):
        read = rig.read()
    assert (read.state, states(read)) == (BackendState.READY, [GpuState.AWAKE, GpuState.ASLEEP])
    assert rig.driver.last_init_flags == 2
    assert (awake.attached, asleep.attach_count) == (1, 0)
    rig.sysfs.set_status(SECOND, "active")
    assert states(rig.read()) == [GpuState.AWAKE, GpuState.AWAKE]
    assert asleep.attached == 1


def test_a_driver_that_wakes_the_sleeping_card_all_the_same_is_left_alone(rig, monkeypatch):
    rig.add_card()
    rig.add_card(SECOND, status="suspended", control="auto")
    library = rig.backend._binding()
    initialise = library.initialise

    def waking(**arguments):
        initialise(**arguments)
        rig.sysfs.set_status(SECOND, "active")

    monkeypatch.setattr(library, "initialise", waking)
    read = rig.read()
    assert states(read) == [GpuState.UNKNOWN, GpuState.ASLEEP]
    assert "would wake" in read.message
    assert all(card.attached == 0 for card in rig.driver.cards)
    rig.sysfs.set_status(SECOND, "suspended")
    calls = rig.driver.calls()
    assert states(rig.read()) == [GpuState.UNKNOWN, GpuState.ASLEEP]
    assert rig.driver.calls() == calls


def ticks_until_let_go(rig, limit=200):
    for tick in range(1, limit):
        rig.read()
        if all(card.attached == 0 for card in rig.driver.cards):
            return tick
    return None


def test_an_idle_card_that_may_suspend_is_let_go_after_a_minute_and_then_only_watched(rig):
    card = rig.add_card(control="auto")
    assert ticks_until_let_go(rig) == 31
    calls = rig.driver.calls()
    read = rig.read()
    assert (read.state, states(read)) == (BackendState.ASLEEP, [GpuState.UNKNOWN])
    assert "suspend" in read.message
    rig.sysfs.set_status(ADDRESS, "suspended")
    assert states(rig.read()) == [GpuState.ASLEEP]
    for _ in range(500):
        rig.read()
    assert (rig.driver.calls(), card.attached) == (calls, 0)
    rig.sysfs.set_status(ADDRESS, "active")
    assert states(rig.read()) == [GpuState.AWAKE]
    assert card.attached == 1


def held_share(rig, ticks):
    held = 0
    for _ in range(ticks):
        rig.read()
        held += rig.driver.cards[0].attached
    return held / ticks


def test_a_card_that_something_else_keeps_awake_is_read_once_after_each_pause(rig):
    rig.add_card(control="auto")
    rig.sysfs.set_suspended_time(ADDRESS, 12_345)
    assert ticks_until_let_go(rig) == 31
    awake_at = [tick * 2 for tick in range(1, 250) if GpuState.AWAKE in states(rig.read())]
    assert awake_at[:3] == [60, 180, 300]
    assert held_share(rig, 300) == 0, "it was held beyond the one read"


def test_load_found_after_a_pause_is_followed_at_once(rig):
    card = rig.add_card(control="auto")
    assert ticks_until_let_go(rig) == 31
    card.set(utilization=90, pstate=0)
    card.set_processes(FakeProcess(pid=7, sm=90))
    rig.read(seconds=61)
    assert card.attached == 1
    assert held_share(rig, 100) == 1


def test_a_card_that_never_slept_since_boot_is_held_after_three_pauses_for_half_an_hour(rig):
    rig.add_card(control="auto")
    rig.sysfs.set_suspended_time(ADDRESS, 0)
    for _ in range(31 + 31 + 61 + 61):
        rig.read()
    assert held_share(rig, 850) == 1
    assert ticks_until_let_go(rig) is not None


def test_a_desktop_card_without_runtime_power_management_stays_held(rig):
    rig.add_card(control="on")
    assert held_share(rig, 200) == 1


def test_a_card_that_drives_a_display_stays_held(rig):
    rig.add_card(control="auto")
    rig.sysfs.add_connector(ADDRESS, "card0-DP-1", enabled=False)
    rig.sysfs.add_connector(ADDRESS, "card0-DP-2", enabled=True)
    assert held_share(rig, 100) == 1
    rig.sysfs.add_connector(ADDRESS, "card0-DP-2", enabled=False)
    assert ticks_until_let_go(rig) is not None


@pytest.mark.parametrize(
    ("said", "held"),
    [
        ("Runtime D3 status:          Disabled by default\n", True),
        ("Runtime D3 status:          Not supported\n", True),
        ("Runtime D3 status:          Enabled (fine-grained)\n", False),
        ("something new: {}\n", False),
    ],
)
def test_a_card_that_the_driver_will_not_suspend_stays_held(rig, said, held):
    rig.add_card(control="auto")
    power = rig.procfs / "driver/nvidia/gpus" / ADDRESS / "power"
    power.parent.mkdir(parents=True)
    power.write_text(said + "Video Memory:               Active\n")
    assert (ticks_until_let_go(rig, limit=100) is None) is held


def busy_pstate(card):
    card.set(pstate=2)


def busy_utilization(card):
    card.set(utilization=3)


def busy_encoder(card):
    card.set(encoder=1)


def busy_compute(card):
    card.set_processes(FakeProcess(pid=7))


@pytest.mark.parametrize("keep_busy", [busy_pstate, busy_utilization, busy_encoder, busy_compute])
def test_a_card_in_use_is_not_let_go(rig, keep_busy):
    keep_busy(rig.add_card(control="auto"))
    assert held_share(rig, 100) == 1


def test_a_display_server_that_draws_keeps_the_card_held(rig):
    card = rig.add_card(control="auto")
    card.set_processes(FakeProcess(pid=7, kind="graphics"))
    for _ in range(60):
        card.set_samples(FakeSample(pid=7, time_stamp=rig.wall_us + 2_000_000, sm=2))
        rig.read(2)
        assert card.attached == 1


def test_a_display_server_that_does_nothing_on_the_card_does_not_keep_it_awake(rig):
    rig.add_card(control="auto").set_processes(FakeProcess(pid=7, kind="graphics", memory_bytes=4 << 20))
    assert ticks_until_let_go(rig) == 31


def test_letting_one_card_go_keeps_the_other_read(rig):
    rig.add_card(utilization=50, pstate=0)
    idle = rig.add_card(SECOND, control="auto")
    for _ in range(33):
        read = rig.read()
    assert states(read) == [GpuState.AWAKE, GpuState.UNKNOWN]
    assert (rig.driver.cards[0].attached, idle.attached) == (1, 0)


def test_other_functions_and_other_drivers_cards_are_not_nvmls(rig):
    rig.add_card()
    rig.sysfs.add("0000:01:00.1", device_class=AUDIO, driver="snd_hda_intel")
    rig.sysfs.add("0000:00:02.0", vendor=INTEL, driver="i915")
    rig.sysfs.add("0000:03:00.0", device_class=CONTROLLER_3D, driver="vfio-pci")
    rig.sysfs.add("0000:04:00.0", driver="nouveau")
    rig.sysfs.add("0000:05:00.0", vendor=AMD, driver=None)
    assert [reading.gpu.pci_address for reading in rig.read().readings] == [ADDRESS]


def test_a_card_without_a_display_output_is_a_3d_controller(rig):
    rig.sysfs.add(ADDRESS, device_class=CONTROLLER_3D)
    rig.driver.add_card(ADDRESS)
    assert states(rig.read()) == [GpuState.AWAKE]


def test_a_reading_says_whether_the_card_may_suspend(rig):
    rig.add_card(control="auto")
    assert rig.reading().can_suspend is True
    rig.add_card(SECOND, control="on")
    assert [reading.can_suspend for reading in rig.read().readings] == [True, False]


def test_a_card_that_drives_a_display_cannot_suspend(rig):
    rig.add_card(control="auto")
    rig.sysfs.add_connector(ADDRESS)
    assert rig.reading().can_suspend is False


def test_whether_a_card_may_suspend_is_looked_at_every_half_a_minute(rig):
    rig.add_card(control="auto")
    assert rig.reading().can_suspend is True
    rig.sysfs.set_control(ADDRESS, "on")
    assert rig.reading(seconds=28).can_suspend is True
    assert rig.reading(seconds=2).can_suspend is False


def test_a_card_that_is_let_go_still_says_that_it_may_suspend_and_a_sleeping_one_says_nothing(rig):
    rig.add_card(control="auto")
    assert ticks_until_let_go(rig) == 31
    (let_go,) = rig.read().readings
    assert (let_go.state, let_go.can_suspend) == (GpuState.UNKNOWN, True)
    rig.sysfs.set_status(ADDRESS, "suspended")
    (asleep,) = rig.read().readings
    assert (asleep.state, asleep.can_suspend) == (GpuState.ASLEEP, None)
