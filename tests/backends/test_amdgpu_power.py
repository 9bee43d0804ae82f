"""A sleeping AMD card is asked nothing; an idle one is let go; one that begins to work is taken up."""

from collections import Counter

import pytest

from gpuwhyd.backends.base import Probe
from gpuwhyd.model import BackendState, GpuState, Lack
from tests.backends.amdgpu_metrics_tables import table
from tests.backends.amdgpu_rig import SECOND, Card, Rig
from tests.backends.sysfs_watch import touched

DRIVER = "bus/pci/drivers/amdgpu"
MEMORY_OF_THE_PCI_CORE = {"vendor", "device", "revision"}
"""Configuration that the kernel read when it found the card (drivers/pci/pci-sysfs.c): no access to the card."""


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


def of_card(rig, paths):
    """What of the card was opened, without its directory's name."""
    return [path.split(f"{rig.card.address}/", 1)[1] for path in paths if f"{rig.card.address}/" in path]


@pytest.mark.parametrize("status", ["suspended", "suspending", "resuming"])
def test_for_an_hour_a_sleeping_card_is_asked_only_whether_it_sleeps(rig, status):
    rig.card.set_status(status)
    rig.card.set(**{"power/control": "auto", "product_name": "Radeon", "unique_id": "1f"})
    with touched(rig.tmp_path) as paths:
        assert rig.backend.probe().answer is Probe.READY
        for _ in range(1800):
            answer = rig.tick()
        rig.backend.sources()
        rig.backend.close()
    assert (answer.state, answer.readings[0].state) == (BackendState.ASLEEP, GpuState.ASLEEP)
    files = Counter(of_card(rig, [path.removeprefix("sys/") for path in paths]))
    assert files.pop("power/runtime_status") == 1800
    assert set(files) <= MEMORY_OF_THE_PCI_CORE
    assert max(files.values()) <= 4  # once in its life, not every tick
    elsewhere = {path.removeprefix("sys/") for path in paths if rig.card.address not in path}
    assert elsewhere <= {DRIVER, "module/amdgpu/version", "proc/sys/kernel/osrelease",
                         "share/libdrm/amdgpu.ids", "share/misc/pci.ids", "share/hwdata/pci.ids"}  # fmt: skip


def test_a_card_that_falls_asleep_is_left_alone_from_the_next_tick_on(rig):
    rig.reading()
    rig.card.set_status("suspended")
    with touched(rig.sysfs) as paths:
        for _ in range(1800):
            reading = rig.reading()
    assert set(of_card(rig, paths)) == {"power/runtime_status"}
    assert reading.gpu.vbios_version == "113-TEST-01"
    assert (reading.temperature_celsius, reading.can_suspend) == (None, None)


def test_doctor_knows_of_a_card_that_was_never_awake_and_does_not_wake_it(rig):
    rig.card.set_status("suspended")
    rig.tick()
    assert {source.lack for source in rig.backend.sources()} == {Lack.ASLEEP}
    rig.card.set_status("active")
    rig.tick()
    assert rig.sources()["power_watts"].lack is None


def test_of_a_sleeping_card_it_is_told_once_that_it_sleeps(rig):
    rig.tick()
    assert rig.sources()["power_watts"].source == "hwmon/hwmon3/power1_average"
    assert rig.sources()["energy_joules"].lack is Lack.NO_SENSOR
    rig.card.set_status("suspended")
    rig.tick()
    [told] = rig.backend.sources()
    assert (told.quantity, told.lack) == ("", Lack.ASLEEP)


def test_the_sources_are_made_anew_only_when_they_change(rig):
    rig.tick()
    rig.tick()
    before = rig.backend.sources()
    for _ in range(60):
        rig.tick()
    assert rig.backend.sources() is before
    rig.card.set(gpu_busy_percent="x")
    rig.tick()
    assert rig.sources()["utilization_percent"].lack is Lack.UNREADABLE


def test_beside_a_sleeping_card_only_the_other_is_read(rig):
    Card(rig.sysfs, SECOND)
    rig.card.set_status("suspended")
    with touched(rig.sysfs) as paths:
        answer = rig.tick()
    assert [reading.state for reading in answer.readings] == [GpuState.ASLEEP, GpuState.AWAKE]
    assert set(of_card(rig, paths)) <= MEMORY_OF_THE_PCI_CORE | {"power/runtime_status"}


# -- let go -------------------------------------------------------------------------------------------------------


def idle(rig, **files):
    rig.card.set(gpu_busy_percent="0", mem_busy_percent="0", **{"power/control": "auto"}, **files)


def run(rig, seconds):
    """Ticks for so long; what of the card was opened."""
    with touched(rig.sysfs) as paths:
        for _ in range(int(seconds / 2)):
            rig.tick()
    return set(of_card(rig, paths))


LET_GO = {"power/runtime_status", "mem_info_vram_used"}


def test_an_idle_card_is_let_go_after_a_minute_and_then_only_watched(rig):
    idle(rig)
    run(rig, 64)
    answer = rig.tick()
    assert (answer.state, answer.readings[0].state) == (BackendState.ASLEEP, GpuState.UNKNOWN)
    assert "let go" in answer.message
    assert run(rig, 50) == LET_GO


def test_a_card_that_was_let_go_is_taken_up_when_its_memory_is_used(rig):
    idle(rig)
    run(rig, 64)
    rig.card.set(mem_info_vram_used=str(1_000_000_000 + (17 << 20)))
    assert rig.reading().state is GpuState.AWAKE


@pytest.mark.parametrize("used", ["1000000000", "1008000000", "992000000", "", "x"])
def test_small_change_of_its_memory_does_not_take_it_up(rig, used):
    idle(rig)
    run(rig, 64)
    rig.card.set(mem_info_vram_used=used)
    assert rig.reading().state is GpuState.UNKNOWN


def test_a_program_that_left_counts_too_or_the_next_would_not_be_seen(rig):
    idle(rig)
    run(rig, 64)
    rig.card.set(mem_info_vram_used="500000000")
    assert rig.reading().state is GpuState.AWAKE
    run(rig, 64)
    rig.card.set(mem_info_vram_used="1000000000")
    assert rig.reading().state is GpuState.AWAKE


def test_a_card_that_was_let_go_and_slept_is_read_as_soon_as_it_is_woken(rig):
    idle(rig)
    run(rig, 64)
    rig.card.set_status("suspended")
    assert rig.tick().readings[0].state is GpuState.ASLEEP
    rig.card.set_status("active")
    assert rig.reading().state is GpuState.AWAKE


@pytest.mark.parametrize(
    "working",
    [
        {"gpu_busy_percent": "30"},
        {"vcn_busy_percent": "25"},
        {"gpu_metrics": table(1, 3, average_mm_activity=25)},
    ],
)
def test_a_card_at_work_is_kept(rig, working):
    idle(rig)
    rig.card.set(**working)
    assert "hwmon/hwmon3/temp1_input" in run(rig, 200)
    assert rig.reading().state is GpuState.AWAKE


def test_a_card_that_says_1_percent_for_ever_idles(rig):
    idle(rig)
    rig.card.set(gpu_busy_percent="1", vcn_busy_percent="0")
    run(rig, 64)
    assert rig.reading().state is GpuState.UNKNOWN


def test_a_card_that_does_not_tell_its_load_is_rather_let_go_than_kept_awake(rig):
    idle(rig)
    rig.card.set(gpu_busy_percent=None)
    run(rig, 64)
    assert rig.reading().state is GpuState.UNKNOWN


def test_a_card_that_may_not_suspend_is_read_on(rig):
    idle(rig)
    rig.card.set(**{"power/control": "on"})
    run(rig, 200)
    assert rig.reading().state is GpuState.AWAKE
    assert rig.reading().can_suspend is False
