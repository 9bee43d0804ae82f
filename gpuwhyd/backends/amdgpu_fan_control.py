"""How an AMD card was told to run its fan: the files of gpu_od/fan_ctrl (RDNA 3 and newer, with overdrive on).

Each file has a heading, its value, and the range that it may have (Documentation/gpu/amdgpu/thermal.rst):

    FAN_TARGET_TEMPERATURE:
    83
    OD_RANGE:
    TARGET_TEMPERATURE: 25 105
"""

import re

from gpuwhyd.backends.sysfs import Attributes
from gpuwhyd.model import FanControl, FanCurvePoint, Lack

FOLDER = "gpu_od/fan_ctrl"

_POINT = re.compile(r"[0-9]{1,3}:\s*([0-9]{1,4})C\s+([0-9]{1,4})%", re.ASCII)
_RANGE = "OD_RANGE"
_CELSIUS = (1, 150)
_PERCENT = (0, 100)
_RPM = (0, 30_000)
_YES_OR_NO = (0, 1)


def curve_of(text: str) -> tuple[FanCurvePoint, ...]:
    """A user's own curve by rising temperature; empty while all points are `0C 0%`: then the firmware's holds."""
    points = [
        (int(match[1]), int(match[2]))
        for line in _settings(text)
        if (match := _POINT.fullmatch(line.strip()))
    ]
    chosen = sorted(point for point in points if point != (0, 0))
    if any(celsius > _CELSIUS[1] or percent > _PERCENT[1] for celsius, percent in chosen):
        return ()
    return tuple(
        FanCurvePoint(temperature_celsius=float(celsius), fan_percent=float(percent))
        for celsius, percent in chosen
    )


def value_of(text: str, low: int, high: int) -> int | None:
    """The number below the heading, if it is in [low, high]."""
    for line in _settings(text):
        word = line.strip()
        if word.isascii() and word.isdigit() and len(word) < 10:
            value = int(word)
            return value if low <= value <= high else None
    return None


def read_fan_control(device: Attributes) -> FanControl | None:
    """`None` where the card or its driver has no such files. `device`: the card's sysfs directory."""
    curve = device.text(f"{FOLDER}/fan_curve")
    target = _read(device, "fan_target_temperature", _CELSIUS)
    minimum = _read(device, "fan_minimum_pwm", _PERCENT)
    acoustic_target = _read(device, "acoustic_target_rpm_threshold", _RPM)
    acoustic_limit = _read(device, "acoustic_limit_rpm_threshold", _RPM)
    zero_rpm = _read(device, "fan_zero_rpm_enable", _YES_OR_NO)
    zero_rpm_stop = _read(device, "fan_zero_rpm_stop_temperature", _CELSIUS)
    values = (target, minimum, acoustic_target, acoustic_limit, zero_rpm, zero_rpm_stop)
    if not curve and all(value is None for value in values):
        return None
    return FanControl(
        zero_rpm_enabled=None if zero_rpm is None else bool(zero_rpm),
        zero_rpm_stop_celsius=_float(zero_rpm_stop),
        curve=curve_of(curve or ""),
        target_temperature_celsius=_float(target),
        minimum_percent=_float(minimum),  # called pwm; its range says percent
        acoustic_target_rpm=_float(acoustic_target),
        acoustic_limit_rpm=_float(acoustic_limit),
    )


def _read(device: Attributes, name: str, bounds: tuple[int, int]) -> int | None:
    text = device.text(f"{FOLDER}/{name}")
    value = None if text is None else value_of(text, *bounds)
    if text is not None and value is None:
        device.note(f"{FOLDER}/{name}", Lack.UNREADABLE)
    return value


def _settings(text: str) -> list[str]:
    return text.partition(_RANGE)[0].splitlines()


def _float(value: int | None) -> float | None:
    return None if value is None else float(value)
