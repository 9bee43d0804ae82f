"""What the NVML backend says of a card: every quantity, what cards lack, and what drivers get wrong."""

import time

import pytest

from gpuwhyd.backends.base import Probe
from gpuwhyd.backends.nvml_card import throttle_names
from gpuwhyd.backends.plausible import within
from gpuwhyd.model import BackendState, FanMode, GpuState
from tests.backends.nvml_rig import SECOND, NvmlRig
from tests.backends.sysfs_watch import touched
from tests.fake_nvml.control import (
    FUNCTION_NOT_FOUND,
    NOT_SUPPORTED,
    SENSORS,
    FakeProcess,
    Fault,
)


@pytest.fixture
def rig(tmp_path):
    with NvmlRig(tmp_path) as rig:
        yield rig


def test_every_quantity_of_a_working_card_in_its_unit(rig):
    card = rig.add_card(
        temperature=71,
        memory_temperature=84,
        power_instant_mw=212_500,
        power_average_mw=208_000,
        energy_mj=5_000_250,
        utilization=96,
        memory_utilization=40,
        encoder=12,
        decoder=3,
        memory_used=3 << 30,
        core_clock=1900,
        memory_clock=7000,
        pstate=2,
        throttle_reasons=0x4,
    )
    card.set_fan(0, percent=57, rpm=1900, target=58)
    assert rig.backend.probe().answer is Probe.READY
    read = rig.read()
    assert read.state is BackendState.READY
    (reading,) = read.readings
    assert (reading.backend, reading.state) == ("nvml", GpuState.AWAKE)
    assert (reading.gpu.id, reading.gpu.pci_address) == ("pci_0000_01_00_0", "0000:01:00.0")
    assert (reading.gpu.name, reading.gpu.vendor) == ("NVIDIA GeForce RTX 3070", "nvidia")
    assert reading.gpu.uuid == "GPU-00000000-0000-4000-8000-000000000000"
    assert (reading.gpu.driver, reading.gpu.vbios_version) == ("nvidia 550.54.14", "94.04.25.00.1c")
    assert (reading.temperature_celsius, reading.memory_temperature_celsius) == (71.0, 84.0)
    assert reading.temperature_limit_celsius == 95.0
    assert (reading.power_watts, reading.power_average_watts) == (212.5, 208.0)
    assert (reading.energy_joules, reading.power_limit_watts) == (5000.25, 220.0)
    assert (reading.utilization_percent, reading.memory_utilization_percent) == (96.0, 40.0)
    assert (reading.encoder_percent, reading.decoder_percent) == (12.0, 3.0)
    assert (reading.memory_used_bytes, reading.memory_total_bytes) == (3 << 30, 8 << 30)
    assert (reading.core_clock_mhz, reading.memory_clock_mhz) == (1900.0, 7000.0)
    assert (reading.core_clock_max_mhz, reading.memory_clock_max_mhz) == (2100.0, 7001.0)
    assert (reading.performance_state, reading.throttle_reasons) == (2, ("power-cap",))
    (fan,) = reading.fans
    assert (fan.percent, fan.rpm, fan.target_percent, fan.mode) == (57.0, 1900.0, 58.0, FanMode.AUTO)
    assert not fan.rpm_is_measured
    assert reading.processes == ()


def test_each_fan_has_its_own_values_and_one_by_hand_makes_the_card_manual(rig):
    card = rig.add_card(number_of_fans=3)
    card.set_fan(0, percent=30, rpm=1100)
    card.set_fan(1, percent=80, rpm=2600, target=81, policy=1)
    card.set_fan(2, percent=35, rpm=1300)
    reading = rig.reading()
    assert [(fan.index, fan.percent, fan.rpm) for fan in reading.fans] == [
        (0, 30.0, 1100.0),
        (1, 80.0, 2600.0),
        (2, 35.0, 1300.0),
    ]
    assert [fan.mode for fan in reading.fans] == [FanMode.AUTO, FanMode.MANUAL, FanMode.AUTO]
    assert (reading.fan_mode, reading.fan_percent, reading.fan_rpm) == (FanMode.MANUAL, 80.0, 2600.0)
    card.set_fan(1, policy=0)
    assert rig.reading().fan_mode is FanMode.AUTO


def test_a_stopped_fan_is_a_fan(rig):
    rig.add_card(temperature=44).set_fan(0, percent=0, rpm=0)
    for _ in range(40):
        reading = rig.reading()
    assert (reading.fan_mode, reading.fan_percent, reading.fan_rpm) == (FanMode.AUTO, 0.0, 0.0)


@pytest.mark.parametrize("fans", [0, None])
def test_a_laptop_or_passive_card_has_no_fan_of_its_own(rig, fans):
    rig.add_card(number_of_fans=fans)
    reading = rig.reading()
    assert (reading.fan_mode, reading.fans, reading.fan_percent) == (FanMode.NONE, (), None)


def test_a_card_whose_fans_answer_nothing_has_none_unless_asking_failed(rig):
    card = rig.add_card()
    card.set_fan(0, percent=None, rpm=None)
    assert rig.reading().fan_mode is FanMode.NONE
    card.set_fan(0, percent=Fault(999), rpm=Fault(999))
    rig.later(700)
    assert rig.reading().fan_mode is FanMode.UNKNOWN


@pytest.mark.parametrize("name", ["NVIDIA A10G", "NVIDIA A40", "Tesla T4", "NVIDIA L40S", "NVIDIA A40-48Q"])
def test_a_passive_board_that_says_0_percent_has_no_fan(rig, name):
    rig.add_card(name=name).set_fan(0, percent=0, rpm=None)
    reading = rig.reading()
    assert (reading.fan_mode, reading.fans) == (FanMode.NONE, ())


@pytest.mark.parametrize("name", ["NVIDIA RTX A4000", "Quadro P400", "NVIDIA GeForce RTX 4090"])
def test_names_like_those_of_passive_boards_keep_their_stopped_fan(rig, name):
    rig.add_card(name=name).set_fan(0, percent=0, rpm=0)
    assert rig.reading().fan_mode is FanMode.AUTO


def test_a_fan_that_stands_still_on_a_hot_loaded_card_for_a_minute_is_none(rig):
    card = rig.add_card(name="NVIDIA New Board", temperature=70, power_instant_mw=180_000)
    card.set_fan(0, percent=0, rpm=None)
    modes = [rig.reading().fan_mode for _ in range(33)]
    assert modes[0] is FanMode.AUTO
    assert modes[29] is FanMode.AUTO
    assert modes[-1] is FanMode.NONE
    card.set(temperature=40, power_instant_mw=20_000)
    assert rig.reading().fan_mode is FanMode.NONE
    card.set_fan(0, percent=35)
    assert rig.reading().fan_mode is FanMode.AUTO


def test_a_fan_that_turned_once_is_never_taken_for_none(rig):
    card = rig.add_card(temperature=70, power_instant_mw=180_000)
    rig.reading()
    card.set_fan(0, percent=0, rpm=0)
    modes = {rig.reading().fan_mode for _ in range(40)}
    assert modes == {FanMode.AUTO}
    card.set_fan(0, percent=0xFFFFFFFF, rpm=65535)
    assert rig.reading().fan_mode is FanMode.UNKNOWN


def test_what_a_card_does_not_support_is_none_and_never_0(rig):
    rig.add_card(**dict.fromkeys(SENSORS))
    reading = rig.reading()
    assert reading.state is GpuState.AWAKE
    assert reading.gpu.name == "NVIDIA GeForce RTX 3070"
    values = {
        name: getattr(reading, name)
        for name in reading.__dataclass_fields__
        if name.endswith(("celsius", "watts", "joules", "percent", "bytes", "mhz"))
    }
    assert len(values) == 18
    assert set(values.values()) == {None}
    assert (reading.performance_state, reading.throttle_reasons) == (None, None)


def test_values_that_no_card_can_have_are_left_out(rig):
    card = rig.add_card(
        temperature=255,
        memory_temperature=0xFFFFFFFF,
        power_instant_mw=0xFFFFFFFF,
        power_average_mw=0,
        power_usage_mw=0xFFFFFFFF,
        power_limit_mw=0xFFFFFFFF,
        utilization=0xFFFFFFFF,
        encoder=101,
        pstate=32,
        core_clock=0xFFFFFFFF,
        max_core_clock=0xFFFFFFFF,
        memory_total=0,
        throttle_reasons=0xFFFFFFFF,
    )
    card.set_fan(0, percent=0xFFFFFFFF, rpm=65535, target=4000)
    reading = rig.reading()
    assert reading.state is GpuState.AWAKE
    assert (reading.temperature_celsius, reading.memory_temperature_celsius) == (None, None)
    assert (reading.power_watts, reading.power_average_watts, reading.power_limit_watts) == (None, None, None)
    assert (reading.utilization_percent, reading.encoder_percent) == (None, None)
    assert (reading.performance_state, reading.core_clock_mhz, reading.memory_total_bytes) == (
        None,
        None,
        None,
    )
    assert (reading.fan_percent, reading.fan_rpm) == (None, None)
    assert reading.throttle_reasons is None
    assert reading.core_clock_max_mhz is None


def test_the_highest_clocks_are_asked_for_once(rig):
    rig.add_card()
    for _ in range(5):
        assert rig.reading().core_clock_max_mhz == 2100.0
    assert rig.driver.calls("nvmlDeviceGetMaxClockInfo") == 2, "core and memory"


def test_a_card_that_does_not_tell_its_highest_clocks_is_read_all_the_same(rig):
    card = rig.add_card()
    card.fail("nvmlDeviceGetMaxClockInfo", NOT_SUPPORTED)
    reading = rig.reading()
    assert (reading.state, reading.core_clock_max_mhz) == (GpuState.AWAKE, None)
    assert reading.core_clock_mhz is not None


def test_a_fan_told_more_than_100_percent_is_believed(rig):
    rig.add_card().set_fan(0, percent=118, rpm=65535)
    reading = rig.reading()
    assert (reading.fan_percent, reading.fan_rpm) == (118.0, None)


def test_without_instant_power_the_older_function_is_used(rig):
    card = rig.add_card(power_instant_mw=None, power_average_mw=None, power_usage_mw=150_000)
    reading = rig.reading()
    assert (reading.power_watts, reading.power_average_watts) == (150.0, None)
    card.set(power_usage_mw=0)
    assert rig.reading().power_watts is None


def test_the_limit_of_a_card_with_margins_is_its_temperature_plus_the_margin(rig):
    card = rig.add_card(threshold_slowdown=None, temperature=60, margin_temperature=27)
    assert rig.reading().temperature_limit_celsius == 87.0
    card.set(temperature=62, margin_temperature=26)  # the two are not read at the same moment
    assert rig.reading().temperature_limit_celsius == 87.0
    card.set(temperature=90, margin_temperature=-3)
    assert rig.reading().temperature_limit_celsius == 87.0
    card.set(margin_temperature=None)
    assert rig.reading().temperature_limit_celsius is None


def test_memory_of_drivers_without_version_2_counts_what_the_driver_reserves(rig):
    rig.add_card(memory_used=1 << 30, memory_reserved=1 << 28)
    assert rig.reading().memory_used_bytes == 1 << 30
    rig.driver.fail("nvmlDeviceGetMemoryInfo_v2", FUNCTION_NOT_FOUND)
    assert rig.reading().memory_used_bytes == (1 << 30) + (1 << 28)


def test_throttle_reasons_have_generic_names_and_idle_is_none_of_them():
    assert throttle_names(0) == throttle_names(1) == ()
    assert throttle_names(0x7FF) == (
        "app-clocks",
        "power-cap",
        "hw-slowdown",
        "sync-boost",
        "sw-thermal",
        "hw-thermal",
        "power-brake",
        "display-clocks",
        "board-limit",
        "reliability",
    )
    assert throttle_names(0x20 | 1 << 14) == ("sw-thermal", "bit-14")


OLD_DRIVER_LACKS = (
    "nvmlDeviceGetFanSpeedRPM",
    "nvmlDeviceGetTargetFanSpeed",
    "nvmlDeviceGetFanControlPolicy_v2",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetMarginTemperature",
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetTemperatureV",
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetGraphicsRunningProcesses_v3",
    "nvmlDeviceGetMPSComputeRunningProcesses_v3",
)


def test_a_driver_of_2021_lacks_functions_and_is_read_through_the_older_ones(rig):
    card = rig.add_card(throttle_reasons=0x40, number_of_fans=2)
    card.set_processes(FakeProcess(pid=42, kind="compute+graphics", memory_bytes=1 << 20))
    for function in OLD_DRIVER_LACKS:
        rig.driver.fail(function, FUNCTION_NOT_FOUND)
    reading = rig.reading()
    assert [fan.percent for fan in reading.fans] == [30.0, 30.0]
    assert (reading.fan_rpm, reading.fan_mode) == (None, FanMode.UNKNOWN)
    assert reading.throttle_reasons == ("hw-thermal",)
    assert [(process.pid, process.kind, process.memory_used_bytes) for process in reading.processes] == [
        (42, "compute+graphics", 1 << 20)
    ]


def test_the_oldest_process_lists_have_shorter_entries(rig):
    card = rig.add_card()
    card.set_processes(FakeProcess(pid=42, memory_bytes=5 << 20), FakeProcess(pid=43, memory_bytes=6 << 20))
    for function in rig.driver.functions:
        if function.endswith(("RunningProcesses_v2", "RunningProcesses_v3")):
            rig.driver.fail(function, FUNCTION_NOT_FOUND)
    assert [(process.pid, process.memory_used_bytes) for process in rig.reading().processes] == [
        (42, 5 << 20),
        (43, 6 << 20),
    ]


def test_a_driver_without_numbers_of_fans_has_one(rig):
    rig.add_card().set_fan(0, percent=41)
    rig.driver.fail("nvmlDeviceGetNumFans", FUNCTION_NOT_FOUND)
    rig.driver.fail("nvmlDeviceGetFanSpeed_v2", FUNCTION_NOT_FOUND)
    assert [fan.percent for fan in rig.reading().fans] == [41.0]


def test_the_newer_temperature_function_stands_in_when_the_old_one_is_gone(rig):
    rig.add_card(temperature=48)
    rig.driver.fail("nvmlDeviceGetTemperature", FUNCTION_NOT_FOUND)
    assert rig.reading().temperature_celsius == 48.0


def test_a_card_in_mig_mode_has_power_and_temperature_but_no_load(rig):
    card = rig.add_card(name="NVIDIA A100", utilization=None, encoder=None, decoder=None, number_of_fans=None)
    card.fail("nvmlDeviceGetProcessUtilization", NOT_SUPPORTED)
    card.set_processes(FakeProcess(pid=42, sm=90))
    reading = rig.reading()
    assert (reading.power_watts, reading.utilization_percent) == (21.5, None)
    assert reading.processes[0].engine_percent is None


def test_what_a_card_declined_is_asked_again_only_after_ten_minutes(rig):
    card = rig.add_card(utilization=None)
    rig.reading()
    asked = rig.driver.calls("nvmlDeviceGetUtilizationRates")
    card.set(utilization=50)
    for _ in range(5):
        assert rig.reading().utilization_percent is None
    assert rig.driver.calls("nvmlDeviceGetUtilizationRates") == asked
    assert rig.reading(seconds=601).utilization_percent == 50.0


def test_two_cards_keep_apart(rig):
    rig.add_card(temperature=40)
    rig.add_card(SECOND, name="NVIDIA GeForce GTX 1080", temperature=60)
    first, second = rig.read().readings
    assert (first.gpu.id, first.temperature_celsius) == ("pci_0000_01_00_0", 40.0)
    assert (second.gpu.id, second.gpu.name) == ("pci_0000_02_00_0", "NVIDIA GeForce GTX 1080")
    assert second.temperature_celsius == 60.0


def test_a_read_with_20_processes_costs_less_than_a_millisecond(rig):
    rig.add_card(number_of_fans=2).set_processes(*(FakeProcess(pid=100 + n, sm=5) for n in range(20)))
    rig.reading()
    best = min(_cpu_seconds(rig.backend.read) for _ in range(50))
    assert best < 0.001


def _cpu_seconds(call):
    began = time.process_time()
    call()
    return time.process_time() - began


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), -float("inf"), 0xFFFFFFFF, -1])
def test_no_value_and_values_that_cannot_be_are_none(value):
    assert within(value, 0, 100) is None
    assert within(100, 0, 100) == 100.0


def test_a_tick_asks_the_kernel_for_two_things_and_lists_the_whole_bus_every_ten_seconds(rig):
    rig.add_card()
    rig.backend.probe()
    rig.read()
    status = "bus/pci/devices/0000:01:00.0/power/runtime_status"
    with touched(rig.sysfs.root) as paths:
        rig.read()
    assert paths == ["bus/pci/drivers/nvidia", status]
    with touched(rig.sysfs.root) as paths:
        for _ in range(30):
            rig.read()
    assert paths.count("bus/pci/devices") == 6
    assert len(paths) <= 2 * 30 + 6 + 2, "and whether it may suspend, once a minute"


def test_a_card_that_the_driver_gets_is_read_with_the_next_tick(rig):
    rig.add_card()
    rig.backend.probe()
    assert len(rig.read().readings) == 1
    rig.add_card(SECOND)
    assert len(rig.read().readings) == 2
