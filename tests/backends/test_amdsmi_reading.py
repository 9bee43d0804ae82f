"""What the amdsmi backend says of a card, through the genuine wrapper over a fake library."""

import pytest

from gpuwhyd.backends.base import Probe
from gpuwhyd.errors import BackendError, NoCardError
from gpuwhyd.model import GpuState, Lack
from tests.backends.amdsmi_rig import ADDRESS, SECOND, AmdsmiRig
from tests.fake_amdsmi.control import (
    ALL_BITS,
    BUSY,
    COUNTERS,
    DRIVER_NOT_LOADED,
    IO_ERROR,
    NO_PERMISSION,
    NOT_FOUND,
    NOT_INITIALISED,
    NOT_SUPPORTED,
    NOT_YET_IMPLEMENTED,
    RETRY,
    TIMEOUT,
    Fault,
    wrapper_version,
)

TEMPERATURE = "amdsmi_get_temp_metric"
ENERGY = "amdsmi_get_energy_count"
METRICS = "amdsmi_get_gpu_metrics_info"


@pytest.fixture
def rig(tmp_path):
    with AmdsmiRig(tmp_path) as rig:
        yield rig


@pytest.fixture
def counts_violations(rig):
    """ROCm 6.2 does not know them; all newer ones do."""
    assert not wrapper_version(rig.rocm.wrapper).startswith("6.2")


def test_the_card_is_known_by_its_place_on_the_bus(rig):
    rig.add_card("0001:c1:00.0")
    (rig.sysfs.root / "bus/pci/devices/0001:c1:00.0/device").write_text("0x74a1\n")
    gpu = rig.reading().gpu
    assert (gpu.id, gpu.vendor, gpu.pci_address) == ("pci_0001_c1_00_0", "amd", "0001:c1:00.0")
    assert gpu.pci_id == "1002:74a1"
    assert gpu.uuid is None  # sysfs has another form of it


def test_temperatures_are_degrees_as_sysfs_has_them_in_thousandths(rig):
    rig.add_card(edge=57, hotspot=61, memory=70)
    reading = rig.reading()
    assert (reading.temperature_celsius, reading.hotspot_celsius, reading.memory_temperature_celsius) == (
        57.0,
        61.0,
        70.0,
    )
    assert reading.backend == "amdsmi"


def test_what_sysfs_says_better_is_not_served(rig):
    rig.add_card(activity=50)
    reading = rig.reading()
    assert reading.power_watts is None
    assert reading.utilization_percent is None
    assert reading.memory_used_bytes is None
    assert reading.fans == ()


def test_energy_is_the_counter_times_its_unit_in_microjoules(rig):
    card = rig.add_card()
    card.set_energy(2_000_000_000, 15.259)
    assert rig.reading().energy_joules == pytest.approx(30518.0, rel=1e-6)
    card.set_energy(2_000_065_536, 15.259)
    assert rig.reading().energy_joules == pytest.approx(30519.0, rel=1e-6)


@pytest.mark.parametrize(
    ("count", "unit"),
    [(0, 15.259), (10, 0.0), (10, -1.0), (10, float("nan")), (10, float("inf")), (ALL_BITS, 15.259)],
)
def test_an_energy_that_cannot_be_is_none(rig, count, unit):
    rig.add_card().set_energy(count, unit)
    assert rig.reading().energy_joules is None
    assert rig.lacks()["energy_joules"] is Lack.UNREADABLE


@pytest.mark.parametrize("celsius", [0xFFFF, 65535000, -300, -(2**63), 2**63 - 1, 61_000])
def test_a_temperature_that_cannot_be_is_none(rig, celsius):
    rig.add_card(hotspot=celsius)
    reading = rig.reading()
    assert (reading.state, reading.hotspot_celsius, reading.temperature_celsius) == (
        GpuState.AWAKE,
        None,
        40.0,
    )
    assert rig.lacks()["hotspot_celsius"] is Lack.UNREADABLE


def violated(card, steps, **counters):
    card.set_counters(accumulation_counter=steps, **counters)


@pytest.mark.usefixtures("counts_violations")
def test_violated_limits_are_why_the_clocks_are_held_down(rig):
    card = rig.add_card()
    violated(card, 1000, ppt=500, socket_thm=20)
    assert rig.reading().throttle_reasons is None  # one reading of a counter says nothing
    violated(card, 3000, ppt=2500, socket_thm=20)
    assert rig.reading().throttle_reasons == ("power-cap",)
    violated(card, 5000, ppt=2500, socket_thm=1020)
    assert rig.reading().throttle_reasons == ("sw-thermal",)
    violated(card, 7000, ppt=4000, socket_thm=2000, hbm_thm=50, vr_thm=50, prochot=40)
    assert rig.reading().throttle_reasons == ("power-cap", "sw-thermal", "hw-thermal")
    violated(card, 9000, ppt=4000, socket_thm=2000, hbm_thm=50, vr_thm=50, prochot=40)
    assert rig.reading().throttle_reasons == ()
    assert rig.lacks()["throttle_reasons"] is None


@pytest.mark.usefixtures("counts_violations")
@pytest.mark.parametrize(("steps_violated", "reasons"), [(19, ()), (20, ("power-cap",))])
def test_below_one_percent_of_the_time_a_limit_does_not_count(rig, steps_violated, reasons):
    card = rig.add_card()
    violated(card, 1000)
    rig.read()
    violated(card, 3000, ppt=steps_violated)
    assert rig.reading().throttle_reasons == reasons


@pytest.mark.usefixtures("counts_violations")
@pytest.mark.parametrize(
    "after",
    [
        {"accumulation_counter": 1000},
        {"accumulation_counter": 10},
        {"accumulation_counter": 1010, "ppt": 3000},
    ],
    ids=["stands still", "started anew", "faster than its steps"],
)
def test_counters_that_make_no_sense_say_nothing(rig, after):
    card = rig.add_card()
    violated(card, 1000, ppt=10)
    rig.read()
    card.set_counters(**after)
    assert rig.reading().throttle_reasons is None


@pytest.mark.usefixtures("counts_violations")
def test_a_limit_that_the_card_does_not_count_is_left_out(rig):
    card = rig.add_card()
    violated(card, 1000, hbm_thm=ALL_BITS)
    rig.read()
    violated(card, 2000, hbm_thm=ALL_BITS, ppt=900)
    assert rig.reading().throttle_reasons == ("power-cap",)


@pytest.mark.usefixtures("counts_violations")
def test_a_limit_that_begins_to_be_counted_does_not_spoil_the_others(rig):
    card = rig.add_card()
    violated(card, 1000, hbm_thm=ALL_BITS)
    rig.read()
    violated(card, 2000, hbm_thm=5, ppt=900)
    assert rig.reading().throttle_reasons == ("power-cap",)


def test_a_card_that_counts_no_violations_has_no_sensor_for_them(rig):
    rig.add_card()
    rig.read()
    assert rig.reading().throttle_reasons is None
    assert rig.lacks()["throttle_reasons"] in {Lack.NO_SENSOR, Lack.OLD_DRIVER}
    assert len(COUNTERS) == 6


@pytest.mark.usefixtures("counts_violations")
def test_after_a_gap_the_counters_begin_anew(rig):
    card = rig.add_card()
    violated(card, 1000)
    rig.read()
    rig.sysfs.set_status(ADDRESS, "suspended")
    rig.read()
    rig.sysfs.set_status(ADDRESS, "active")
    violated(card, 9000, ppt=8000)
    assert rig.reading().throttle_reasons is None


@pytest.mark.parametrize(
    ("code", "lack"),
    [
        (NOT_SUPPORTED, Lack.NO_SENSOR),
        (NOT_YET_IMPLEMENTED, Lack.OLD_DRIVER),
        (NO_PERMISSION, Lack.NO_PERMISSION),
    ],
)
def test_what_a_card_declines_is_not_asked_again_for_ten_minutes(rig, code, lack):
    rig.add_card().fail(ENERGY, code)
    assert rig.reading().energy_joules is None
    assert rig.lacks()["energy_joules"] is lack
    for _ in range(5):
        rig.read()
    assert rig.rocm.calls(ENERGY) == 1
    rig.read(seconds=600)
    assert rig.rocm.calls(ENERGY) == 2


def test_one_sensor_that_is_declined_does_not_take_the_others_with_it(rig):
    rig.add_card(edge=None)
    for _ in range(3):
        reading = rig.reading()
    assert (reading.temperature_celsius, reading.hotspot_celsius) == (None, 45.0)
    assert rig.lacks()["temperature_celsius"] is Lack.NO_SENSOR
    assert rig.rocm.calls(TEMPERATURE) == 1 + 3 * 2


@pytest.mark.parametrize("code", [RETRY, TIMEOUT, BUSY, 0xFFFF_FFFF])
def test_what_fails_once_is_asked_again_with_the_next_tick(rig, code):
    card = rig.add_card(hotspot=Fault(code))
    assert rig.reading().hotspot_celsius is None
    assert rig.lacks()["hotspot_celsius"] is Lack.UNREADABLE
    card.set(hotspot=66)
    assert rig.reading().hotspot_celsius == 66.0
    assert rig.lacks()["hotspot_celsius"] is None


def test_a_failing_sensor_is_told_once(rig, caplog):
    caplog.set_level("INFO")
    rig.add_card(hotspot=Fault(IO_ERROR))
    for _ in range(5):
        rig.read()
    assert [record.getMessage() for record in caplog.records if "I/O error" in record.getMessage()] == [
        "GPU 0000:0c:00.0: amdsmi_get_temp_metric(AMDSMI_TEMPERATURE_TYPE_HOTSPOT) gives I/O error; it is left out"
    ]


@pytest.mark.parametrize("code", [NOT_FOUND, IO_ERROR, 6])
def test_a_card_that_is_gone_is_lost_and_the_others_go_on(rig, code):
    lost, _ = rig.add_card(), rig.add_card(SECOND, hotspot=52)
    rig.read()
    lost.fail_all(code)
    read = rig.read()
    assert [reading.state for reading in read.readings] == [GpuState.LOST, GpuState.AWAKE]
    assert read.readings[1].hotspot_celsius == 52.0
    assert read.readings[0].processes is None
    sessions = rig.rocm.calls("amdsmi_init")
    for _ in range(5):
        assert rig.read().readings[0].state is GpuState.LOST
    assert rig.rocm.calls("amdsmi_init") == sessions  # the other card is not disturbed each tick
    lost.fail_all(0)
    read = rig.read(seconds=60)
    assert [reading.state for reading in read.readings] == [GpuState.AWAKE, GpuState.AWAKE]
    assert rig.rocm.calls("amdsmi_init") == sessions + 1


def test_a_card_that_answers_nothing_but_errors_is_unknown_and_alone_a_failure(rig):
    first = rig.add_card()
    rig.read()
    first.fail_all(BUSY)
    with pytest.raises(BackendError, match="answers nothing but errors; see `dmesg"):
        rig.read()
    rig.backend.close()
    rig.add_card(SECOND)
    assert [reading.state for reading in rig.read().readings] == [GpuState.UNKNOWN, GpuState.AWAKE]


@pytest.mark.parametrize("code", [DRIVER_NOT_LOADED, NOT_INITIALISED])
def test_an_unloaded_driver_fails_the_read_and_is_taken_up_when_it_is_back(rig, code):
    card = rig.add_card()
    rig.read()
    card.fail_all(code)
    with pytest.raises(BackendError, match=r"AMD's library: (driver not loaded|not initialised)"):
        rig.read()
    rig.backend.close()
    assert rig.rocm.open_sessions == 0
    card.fail_all(0)
    assert rig.backend.probe().answer is Probe.READY
    assert rig.reading().hotspot_celsius == 45.0


def test_an_initialisation_that_fails_is_a_reason_to_wait(rig):
    rig.add_card()
    rig.read()
    rig.backend.close()
    rig.rocm.fail("amdsmi_init", DRIVER_NOT_LOADED)
    result = rig.backend.probe()
    assert (result.answer, "modprobe amdgpu" in result.message) == (Probe.LATER, True)
    with pytest.raises(BackendError, match="modprobe amdgpu"):
        rig.read()
    rig.rocm.fail("amdsmi_init", 0)
    assert rig.backend.probe().answer is Probe.READY


def test_cards_come_and_go(rig):
    rig.add_card()
    assert len(rig.read().readings) == 1
    rig.add_card(SECOND, hotspot=52)
    assert [reading.hotspot_celsius for reading in rig.read().readings] == [45.0, 52.0]
    rig.unplug(ADDRESS)
    read = rig.read()
    assert [reading.gpu.pci_address for reading in read.readings] == [SECOND]
    assert {source.gpu_id for source in rig.backend.sources()} == {"pci_0000_22_00_0"}
    rig.unplug(SECOND)
    with pytest.raises(NoCardError, match="no card is left"):
        rig.read()
    assert rig.backend.probe().answer is Probe.LATER


def test_a_card_that_the_library_does_not_list_is_unknown(rig, caplog):
    rig.add_card()
    rig.add_card(SECOND)
    rig.rocm._state.card_count = 1
    for _ in range(3):
        assert [reading.state for reading in rig.read().readings] == [GpuState.AWAKE, GpuState.UNKNOWN]
    assert sum("does not list it" in record.getMessage() for record in caplog.records) == 1


def test_a_card_that_cannot_be_asked_where_it_is_does_not_keep_the_others_from_being_read(rig):
    rig.add_card().fail("amdsmi_get_gpu_device_bdf", IO_ERROR)
    rig.add_card(SECOND)
    assert [reading.state for reading in rig.read().readings] == [GpuState.UNKNOWN, GpuState.AWAKE]


def test_an_unlisted_card_alone_is_a_failure_that_says_so(rig):
    rig.add_card()
    rig.rocm._state.card_count = 0
    with pytest.raises(BackendError, match="AMD's library does not list it"):
        rig.read()


def test_handles_of_partitions_are_not_taken_for_cards(rig):
    rig.add_card(hotspot=50)
    rig.rocm.add_card(ADDRESS[:-1] + "1", hotspot=99)
    rig.rocm.add_card(ADDRESS, hotspot=98)
    read = rig.read()
    assert [reading.hotspot_celsius for reading in read.readings] == [50.0]


def test_each_quantity_tells_its_function(rig):
    rig.add_card()
    assert rig.backend.sources() == ()
    rig.read()
    told = {source.quantity: source.source for source in rig.backend.sources()}
    assert told == {
        "temperature_celsius": "amdsmi_get_temp_metric(AMDSMI_TEMPERATURE_TYPE_EDGE)",
        "hotspot_celsius": "amdsmi_get_temp_metric(AMDSMI_TEMPERATURE_TYPE_HOTSPOT)",
        "memory_temperature_celsius": "amdsmi_get_temp_metric(AMDSMI_TEMPERATURE_TYPE_VRAM)",
        "energy_joules": "amdsmi_get_energy_count",
        "throttle_reasons": "amdsmi_get_gpu_metrics_info: violation counters",
        "processes": "amdsmi_get_gpu_process_list",
    }


def test_a_lack_of_permission_comes_with_advice(rig):
    rig.add_card().fail(ENERGY, NO_PERMISSION)
    rig.read()
    (source,) = [source for source in rig.backend.sources() if source.quantity == "energy_joules"]
    assert (source.lack, source.advice) == (Lack.NO_PERMISSION, "run as root, or join the group render")


def test_metrics_that_fail_take_only_the_violations_with_them(rig):
    rig.add_card().fail(METRICS, IO_ERROR)
    reading = rig.reading()
    assert (reading.throttle_reasons, reading.hotspot_celsius) == (None, 45.0)
    assert rig.lacks()["throttle_reasons"] is Lack.UNREADABLE
