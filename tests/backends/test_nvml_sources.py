"""Where NVML's quantities come from and why one is missing, as `gpuwhy doctor` tells it."""

import dataclasses
import threading
import time

import pytest

from gpuwhyd.backends.base import Probe
from gpuwhyd.model import FanMode, GpuState, Lack
from tests.backends.nvml_rig import ADDRESS, SECOND, NvmlRig
from tests.fake_nvml.control import (
    FUNCTION_NOT_FOUND,
    NO_PERMISSION,
    NOT_SUPPORTED,
    UNKNOWN,
    FakeInstance,
    Fault,
)

ARGUMENT_VERSION_MISMATCH, DEPRECATED, INVALID_ARGUMENT = 25, 26, 2
NOT_OF_NVML = {"gpu", "backend", "state", "fans", "hotspot_celsius", "fan_control", "can_suspend"}


@pytest.fixture
def rig(tmp_path):
    with NvmlRig(tmp_path) as rig:
        yield rig


def sources(rig, *, index=0):
    """quantity -> its source, of one card, after a tick."""
    gpu = rig.read().readings[index].gpu
    found = [source for source in rig.backend.sources() if source.gpu_id == gpu.id]
    assert all(source.backend == "nvml" for source in found)
    assert len({source.quantity for source in found}) == len(found)
    return {source.quantity: source for source in found}


def lack(rig, quantity):
    source = sources(rig)[quantity]
    return source.lack, source.advice


def test_every_quantity_that_nvml_reads_is_told_with_its_function(rig):
    rig.add_card(memory_temperature=80)
    found = sources(rig)
    reading = rig.reading()
    read = {
        field.name
        for field in dataclasses.fields(reading)
        if field.name not in NOT_OF_NVML and getattr(reading, field.name) is not None
    }
    assert set(found) == read | {"fan_percent", "fan_rpm"}
    assert [source for source in found.values() if source.lack is not None] == []
    assert found["fan_percent"].source == "nvmlDeviceGetFanSpeed_v2"
    assert found["power_watts"].source == "NVML_FI_DEV_POWER_INSTANT"
    assert found["temperature_limit_celsius"].source == "nvmlDeviceGetTemperatureThreshold"
    assert found["processes"].source == "nvmlDeviceGetComputeRunningProcesses_v3"


def test_the_functions_that_stand_in_on_an_old_driver_are_named(rig):
    rig.add_card()
    for function in (
        "nvmlDeviceGetFanSpeed_v2", "nvmlDeviceGetNumFans", "nvmlDeviceGetMemoryInfo_v2",
        "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetComputeRunningProcesses_v3",
    ):  # fmt: skip
        rig.driver.fail(function, FUNCTION_NOT_FOUND)
    rig.driver.cards[0].set(power_instant_mw=None)
    found = sources(rig)
    assert found["fan_percent"].source == "nvmlDeviceGetFanSpeed"
    assert found["memory_used_bytes"].source == "nvmlDeviceGetMemoryInfo"
    assert found["throttle_reasons"].source == "nvmlDeviceGetCurrentClocksThrottleReasons"
    assert found["power_watts"].source == "nvmlDeviceGetPowerUsage"
    assert found["processes"].source == "nvmlDeviceGetComputeRunningProcesses_v2"
    assert all(found[name].lack is None for name in ("fan_percent", "memory_used_bytes", "power_watts"))


def test_what_a_card_does_not_support_has_no_sensor_and_no_advice(rig):
    rig.add_card(encoder=None)
    assert lack(rig, "encoder_percent") == (Lack.NO_SENSOR, "")
    assert lack(rig, "memory_temperature_celsius") == (Lack.NO_SENSOR, "")


@pytest.mark.parametrize(
    ("quantity", "functions", "branch"),
    [
        ("fan_rpm", ["nvmlDeviceGetFanSpeedRPM"], "570"),
        ("fan_rpm", ["nvmlDeviceGetNumFans"], "570"),
        ("fan_mode", ["nvmlDeviceGetFanControlPolicy_v2"], "525"),
    ],
)
@pytest.mark.parametrize("code", [FUNCTION_NOT_FOUND, ARGUMENT_VERSION_MISMATCH])
def test_what_the_driver_is_too_old_for_names_the_driver_that_has_it(rig, quantity, functions, branch, code):
    rig.driver.load("515.65.01")
    rig.add_card()
    for function in functions:
        rig.driver.fail(function, code)
    assert lack(rig, quantity) == (
        Lack.OLD_DRIVER,
        f"NVIDIA driver {branch} or newer has it, if that supports the card; this is 515.65.01",
    )


def test_a_limit_that_only_a_newer_driver_tells_is_the_drivers_fault_not_the_cards(rig):
    rig.add_card(threshold_slowdown=None)
    rig.driver.fail("nvmlDeviceGetMarginTemperature", FUNCTION_NOT_FOUND)
    told, advice = lack(rig, "temperature_limit_celsius")
    assert told is Lack.OLD_DRIVER
    assert "570" in advice


@pytest.mark.parametrize("code", [NOT_SUPPORTED, INVALID_ARGUMENT])
def test_a_field_that_an_older_driver_cannot_know_is_its_fault_and_of_a_newer_one_the_cards(rig, code):
    rig.driver.load("470.223.02")
    rig.add_card(power_average_mw=Fault(code))
    told, advice = lack(rig, "power_average_watts")
    assert told is Lack.OLD_DRIVER
    assert "535" in advice
    rig.driver.load("550.54.14")
    rig.backend.close()
    assert rig.backend.probe().answer is Probe.READY
    assert lack(rig, "power_average_watts") == (Lack.NO_SENSOR, "")


def test_a_driver_that_should_have_the_function_is_not_called_old(rig):
    rig.driver.load("580.82.07")
    rig.add_card()
    rig.driver.fail("nvmlDeviceGetFanSpeedRPM", FUNCTION_NOT_FOUND)
    told, advice = lack(rig, "fan_rpm")
    assert told is Lack.UNREADABLE
    assert "newer" not in advice


def test_what_is_forbidden_says_so(rig):
    rig.add_card(utilization=Fault(NO_PERMISSION))
    told, advice = lack(rig, "utilization_percent")
    assert told is Lack.NO_PERMISSION
    assert "root" in advice


def test_a_partitioned_cards_processes_are_forbidden_and_its_use_has_no_sensor(rig):
    card = rig.add_card(utilization=None, memory_utilization=None, encoder=None, decoder=None)
    card.partition(FakeInstance(gpu_instance=1, result=NO_PERMISSION), aggregate=NO_PERMISSION)
    assert lack(rig, "processes")[0] is Lack.NO_PERMISSION
    assert lack(rig, "utilization_percent")[0] is Lack.NO_SENSOR


def test_one_list_of_processes_that_is_forbidden_is_enough_to_tell_why_there_are_none(rig):
    card = rig.add_card()
    for version in ("_v3", "_v2", ""):
        card.fail(f"nvmlDeviceGetGraphicsRunningProcesses{version}", NO_PERMISSION)
    assert rig.reading().processes is None
    assert lack(rig, "processes")[0] is Lack.NO_PERMISSION


def test_an_error_is_told_in_words_while_it_lasts(rig):
    card = rig.add_card()
    card.fail("nvmlDeviceGetPerformanceState", UNKNOWN)
    told, advice = lack(rig, "performance_state")
    assert told is Lack.UNREADABLE
    assert "Unknown Error" in advice
    assert "journalctl -k" in advice
    card.fail("nvmlDeviceGetPerformanceState", 0)
    assert lack(rig, "performance_state") == (None, "")


def test_an_error_of_the_usual_function_is_not_taken_for_an_old_driver(rig):
    card = rig.add_card(temperature=Fault(UNKNOWN))
    card.fail("nvmlDeviceGetTemperatureV", FUNCTION_NOT_FOUND)
    assert lack(rig, "temperature_celsius")[0] is Lack.UNREADABLE


def test_an_error_that_came_before_what_is_read_now_is_not_told(rig):
    card = rig.add_card()
    card.fail("nvmlDeviceGetMemoryInfo_v2", UNKNOWN)
    assert sources(rig)["memory_used_bytes"].source == "nvmlDeviceGetMemoryInfo"
    card.fail("nvmlDeviceGetMemoryInfo_v2", 0)
    assert sources(rig)["memory_used_bytes"].source == "nvmlDeviceGetMemoryInfo_v2"


def test_a_value_that_cannot_be_true_is_unreadable(rig):
    rig.add_card(core_clock=4_000_000_000)
    assert lack(rig, "core_clock_mhz") == (Lack.UNREADABLE, "the driver's value cannot be true")


def test_a_function_that_a_newer_driver_has_dropped_is_no_missing_sensor(rig):
    rig.add_card(pstate=Fault(DEPRECATED))
    told, advice = lack(rig, "performance_state")
    assert (told, "update gpuwhyd" in advice) == (Lack.UNREADABLE, True)


@pytest.mark.parametrize(
    ("name", "number_of_fans", "percent"), [("NVIDIA A10G", 1, 0), ("NVIDIA H100 PCIe", 0, 0)]
)
def test_a_card_without_a_fan_says_so_though_the_driver_answers(rig, name, number_of_fans, percent):
    card = rig.add_card(name=name, number_of_fans=number_of_fans)
    card.set_fan(0, percent=percent, rpm=None)
    found = sources(rig)
    assert rig.reading().fan_mode is FanMode.NONE
    for quantity in ("fan_percent", "fan_rpm", "fan_mode"):
        assert (found[quantity].lack, found[quantity].advice) == (
            Lack.NO_SENSOR,
            "it has no fan of its own",
        )


def test_a_sleeping_card_is_told_once_and_no_card_is_woken_to_tell_it(rig):
    rig.add_card(status="suspended", control="auto")
    before = rig.driver.calls()
    (source,) = sources(rig).values()
    assert (source.quantity, source.lack) == ("", Lack.ASLEEP)
    assert source.source == "power/runtime_status"
    assert rig.driver.calls() == before


def test_a_card_that_is_let_alone_is_told_once_and_the_other_in_full(rig):
    rig.add_card(control="auto")
    rig.add_card(SECOND)
    for _ in range(40):
        rig.read()
    (let_go,) = sources(rig).values()
    assert (let_go.quantity, let_go.lack) == ("", Lack.ASLEEP)
    assert "let alone" in let_go.advice
    assert len(sources(rig, index=1)) > 15


def test_a_lost_card_is_told_once_with_what_happened(rig):
    rig.add_card(control="on")
    rig.add_card(SECOND).lose()
    assert rig.read().readings[1].state is GpuState.LOST
    (source,) = sources(rig, index=1).values()
    assert (source.quantity, source.lack) == ("", Lack.UNREADABLE)
    assert SECOND in source.advice


def test_a_card_that_answers_nothing_but_errors_is_told_once(rig):
    rig.add_card(ADDRESS)
    broken = rig.add_card(SECOND)
    rig.read()
    for function in rig.driver.functions:
        if function.startswith("nvmlDevice"):
            broken.fail(function, UNKNOWN)
    (source,) = sources(rig, index=1).values()
    assert (source.quantity, source.lack) == ("", Lack.UNREADABLE)
    assert "nothing but errors" in source.advice


def test_asking_calls_the_driver_not_once_and_before_the_first_read_there_is_nothing(rig):
    rig.add_card()
    assert rig.backend.sources() == ()
    rig.read()
    calls = rig.driver.calls()
    assert rig.backend.sources() == rig.backend.sources() != ()
    assert rig.driver.calls() == calls


def test_it_can_be_asked_while_the_next_read_hangs_in_the_driver(rig):
    rig.add_card(encoder=None)
    before = sources(rig)
    rig.driver.hang("nvmlDeviceGetTemperature")
    reading = threading.Thread(target=rig.backend.read)
    rig.later(700.0)  # what was declined is asked again
    reading.start()
    try:
        deadline = time.monotonic() + 20
        while not rig.driver.hanging:
            assert time.monotonic() < deadline, "the driver was not asked"
        assert {source.quantity: source for source in rig.backend.sources()} == before
    finally:
        rig.driver.release()
        reading.join(20)
