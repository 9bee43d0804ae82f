"""Which function of NVML each quantity of a card comes from, and why one is missing. Pure.

Made when somebody asks, out of what the last read has left behind: nothing of it is done in a tick.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from gpuwhyd.backends import nvml_library as codes
from gpuwhyd.backends.nvml_questions import DECLINED, Refusals, refusal
from gpuwhyd.backends.unread import unread_source
from gpuwhyd.model import FanMode, FieldSource, GpuReading, GpuState, Lack


class CardRead(NamedTuple):
    """What one read of one card leaves behind; nothing of it is ever changed."""

    reading: GpuReading
    refusals: Refusals
    now: float
    """The monotonic seconds by which the refusals go."""
    complaint: str
    """Why the card cannot be read; empty when it can, or is let alone."""


@dataclass(frozen=True, slots=True)
class _Way:
    """One question that gives a quantity."""

    question: str
    """As `Questions` knows it."""
    since: int = 0
    """The first branch of NVIDIA's driver that has it; 0: all that matter."""
    name: str = ""
    """Of the function or field in nvml.h, where that is not the question."""
    is_field: bool = False
    """A field of nvmlDeviceGetFieldValues: an older driver calls an unknown one not supported."""
    after: str = ""
    """It is asked only when this question was answered."""
    once: bool = False
    """Asked when the card is taken up, and not again."""


# Since when: the first nvml.h that has the function or field, and the driver branch that came with its CUDA (11.8: 520,
# 12.0: 525, 12.2: 535, 12.8: 570; "CUDA Toolkit Release Notes", table of toolkit and driver versions).
_FANS = "nvmlDeviceGetNumFans"
_WAYS: dict[str, tuple[_Way, ...]] = {
    "fan_percent": (
        _Way("nvmlDeviceGetFanSpeed_v2(0)", name="nvmlDeviceGetFanSpeed_v2", after=_FANS),
        _Way("nvmlDeviceGetFanSpeed"),
    ),
    "fan_rpm": (_Way("nvmlDeviceGetFanSpeedRPM(0)", 570, "nvmlDeviceGetFanSpeedRPM", after=_FANS),),
    "fan_mode": (
        _Way("nvmlDeviceGetFanControlPolicy_v2(0)", 525, "nvmlDeviceGetFanControlPolicy_v2", after=_FANS),
    ),
    "temperature_celsius": (_Way("nvmlDeviceGetTemperature"), _Way("nvmlDeviceGetTemperatureV", 570)),
    "memory_temperature_celsius": (_Way("field 82", name="NVML_FI_DEV_MEMORY_TEMP", is_field=True),),
    "temperature_limit_celsius": (
        _Way("nvmlDeviceGetTemperatureThreshold"),
        _Way("nvmlDeviceGetMarginTemperature", 570),
    ),
    "power_watts": (
        _Way("field 186", 535, "NVML_FI_DEV_POWER_INSTANT", is_field=True),
        _Way("nvmlDeviceGetPowerUsage"),
    ),
    "power_average_watts": (_Way("field 185", 535, "NVML_FI_DEV_POWER_AVERAGE", is_field=True),),
    "energy_joules": (_Way("nvmlDeviceGetTotalEnergyConsumption"),),
    "power_limit_watts": (_Way("nvmlDeviceGetEnforcedPowerLimit"),),
    "utilization_percent": (_Way("nvmlDeviceGetUtilizationRates"),),
    "memory_utilization_percent": (_Way("nvmlDeviceGetUtilizationRates"),),
    "encoder_percent": (_Way("nvmlDeviceGetEncoderUtilization"),),
    "decoder_percent": (_Way("nvmlDeviceGetDecoderUtilization"),),
    "memory_used_bytes": (_Way("nvmlDeviceGetMemoryInfo_v2"), _Way("nvmlDeviceGetMemoryInfo")),
    "memory_total_bytes": (_Way("nvmlDeviceGetMemoryInfo_v2"), _Way("nvmlDeviceGetMemoryInfo")),
    "core_clock_mhz": (_Way("nvmlDeviceGetClockInfo(0)", name="nvmlDeviceGetClockInfo"),),
    "core_clock_max_mhz": (
        _Way("nvmlDeviceGetMaxClockInfo(0)", name="nvmlDeviceGetMaxClockInfo", once=True),
    ),
    "memory_clock_mhz": (_Way("nvmlDeviceGetClockInfo(2)", name="nvmlDeviceGetClockInfo"),),
    "memory_clock_max_mhz": (
        _Way("nvmlDeviceGetMaxClockInfo(2)", name="nvmlDeviceGetMaxClockInfo", once=True),
    ),
    "performance_state": (_Way("nvmlDeviceGetPerformanceState"),),
    "throttle_reasons": (
        _Way("nvmlDeviceGetCurrentClocksEventReasons", 535),
        _Way("nvmlDeviceGetCurrentClocksThrottleReasons"),
    ),
    "processes": (
        _Way("nvmlDeviceGetComputeRunningProcesses_v3", 510),
        _Way("nvmlDeviceGetComputeRunningProcesses_v2"),
        _Way("nvmlDeviceGetComputeRunningProcesses"),
    ),
}
"""Quantity -> the ways to it, the better one first. The last one decides why it is missing: it stands for the oldest
drivers, or (the limit) for the newest cards."""

_OF_ITS_OWN_FAN = ("fan_percent", "fan_rpm", "fan_mode")
_UNKNOWN_FAN_MODE = FanMode.UNKNOWN
_LISTS = re.compile(r"nvmlDeviceGet\w+RunningProcesses")
_OF_OLD_DRIVERS = frozenset({codes.FUNCTION_NOT_FOUND, codes.ARGUMENT_VERSION_MISMATCH})


def sources_of(read: CardRead, describe: Callable[[int], str]) -> tuple[FieldSource, ...]:
    """Of one card. `describe` puts an NVML error in words."""
    reading = read.reading
    if reading.state is not GpuState.AWAKE:
        return (unread_source(reading, read.complaint),)
    found = (_source(read, quantity, ways, describe) for quantity, ways in _WAYS.items())
    return tuple(source for source in found if source is not None)


def _source(
    read: CardRead, quantity: str, ways: tuple[_Way, ...], describe: Callable[[int], str]
) -> FieldSource | None:
    """`None`: it was not asked for."""
    reading, lack, advice = read.reading, None, ""
    way = next((way for way in ways if _refusal(read, way) is None), ways[-1])
    if quantity in _OF_ITS_OWN_FAN and reading.fan_mode is FanMode.NONE:
        lack, advice = Lack.NO_SENSOR, "it has no fan of its own"
    elif getattr(reading, quantity) in (None, _UNKNOWN_FAN_MODE):
        way = ways[-1]
        if way.once and _refusal(read, way) is None:
            return None
        lack, advice = _lack(read, quantity, ways, describe)
    return FieldSource(
        gpu_id=reading.gpu.id,
        backend=reading.backend,
        quantity=quantity,
        source=way.name or way.question,
        lack=lack,
        advice=advice,
    )


def _refusal(read: CardRead, way: _Way) -> int | None:
    code = refusal(read.refusals, way.question, float("-inf") if way.once else read.now)
    return refusal(read.refusals, way.after, read.now) if code is None and way.after else code


def _lack(
    read: CardRead, quantity: str, ways: tuple[_Way, ...], describe: Callable[[int], str]
) -> tuple[Lack, str]:
    if quantity == "processes" and _is_forbidden(read):
        return Lack.NO_PERMISSION, "the driver lists a partitioned card's processes to the host's root only"
    refused = [code for way in ways if (code := _refusal(read, way)) is not None]
    for code in refused:
        if code not in DECLINED:
            return Lack.UNREADABLE, f"NVML says {describe(code)!r}; see: journalctl -k -g NVRM"
    way, driver = ways[-1], _branch(read.reading)
    is_too_old = driver is not None and driver < way.since
    decline = _refusal(read, way)
    if decline in _OF_OLD_DRIVERS or (is_too_old and (way.is_field or decline == codes.INVALID_ARGUMENT)):
        if driver is not None and 0 < way.since <= driver:
            return Lack.UNREADABLE, "this driver's library lacks it, which NVIDIA's own does not"
        return Lack.OLD_DRIVER, _newer_driver(read.reading, way.since)
    if decline == codes.NO_PERMISSION:
        return Lack.NO_PERMISSION, "the driver tells it to root only, in a container to the host's"
    if decline == codes.DEPRECATED:
        return Lack.UNREADABLE, "this driver no longer has it; update gpuwhyd"
    if decline is None:
        return Lack.UNREADABLE, "the driver's value cannot be true"
    return Lack.NO_SENSOR, ""


def _is_forbidden(read: CardRead) -> bool:
    return any(
        _LISTS.match(question) and refusal(read.refusals, question, read.now) == codes.NO_PERMISSION
        for question in read.refusals
    )


def _newer_driver(reading: GpuReading, since: int) -> str:
    wanted = f"NVIDIA driver {since} or newer has it" if since else "a newer NVIDIA driver has it"
    has = (reading.gpu.driver or "").removeprefix("nvidia ")
    return f"{wanted}, if that supports the card" + (f"; this is {has}" if has else "")


def _branch(reading: GpuReading) -> int | None:
    """550 of `nvidia 550.54.14`."""
    match = re.search(r"\d+", reading.gpu.driver or "")
    return int(match[0]) if match else None
