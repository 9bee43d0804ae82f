"""The fans of an AMD card: what they do, who is in charge of them, and whether they are there at all."""

import re
from collections.abc import Iterable
from pathlib import Path

from gpuwhyd.backends.chassis_machine import is_portable
from gpuwhyd.backends.fan_mode import mode_of_all
from gpuwhyd.backends.plausible import RPM
from gpuwhyd.backends.sysfs import Attributes
from gpuwhyd.kernel_files import read_text
from gpuwhyd.model import FanControl, FanMode, FanReading, Lack

STANDSTILL_RPM = 100.0
"""Tachometers of fans that stand still were seen at 5 and 29 RPM; no fan of a card turns slower than a few hundred."""
HIGHEST_STANDING_PERCENT = 30.0
"""Zero-RPM firmware leaves 23 to 28 % on a fan that it has stopped. More than this on a fan that stands still is worth
telling: it is told to turn, and does not."""
_CHANNEL = re.compile(r"fan([0-9]{1,2})_input|pwm([0-9]{1,2})", re.ASCII)
_MODES = {0: FanMode.MANUAL, 1: FanMode.MANUAL, 2: FanMode.AUTO}
"""pwmN_enable: 0 is full speed without control, which no firmware would choose; 1 manual, 2 automatic."""


def is_built_into_portable(sysfs: Path, device: str) -> bool:
    """The card is inside a laptop, whose fans belong to the machine. One in an external case is `removable`."""
    return is_portable(sysfs) and read_text(f"{device}/removable") != "removable"


class FanReader:
    """The fans of one hwmon chip. `names` are the files that it has."""

    def __init__(self, chip: Attributes, names: Iterable[str], *, built_into_portable: bool) -> None:
        found = (match for name in names if (match := _CHANNEL.fullmatch(name)))
        self.numbers = tuple(sorted({int(match[1] or match[2]) for match in found}))
        self._chip = chip
        self._built_into_portable = built_into_portable
        self.are_there = bool(self.numbers)
        """As far as it is known: a laptop's are none until one turns."""
        self._has_turned = False
        self._pwm_full: dict[int, float] = {}
        self._rpm_max: dict[int, float | None] = {}

    def learn(self) -> None:
        """What never changes while the driver is loaded; asking takes the card's time."""
        for number in self.numbers:
            self._pwm_full[number] = self._chip.number(f"pwm{number}_max", 1, 65_535) or 255.0
            # 0 is how a chip says that it has no such limit.
            self._rpm_max[number] = self._chip.number(f"fan{number}_max", 1, RPM[1])

    def read(self, control: FanControl | None) -> tuple[FanMode, tuple[FanReading, ...]]:
        """The card's fan mode and its fans; (NONE, ()) when it has none of its own."""
        if not self.numbers:  # processors with graphics, passive boards: the driver makes no such files
            return FanMode.NONE, ()
        fans = tuple(fan for number in self.numbers if (fan := self._fan(number, control)) is not None)
        if any((fan.rpm or 0.0) > 0 for fan in fans):
            self._has_turned = self.are_there = True
        elif self._built_into_portable and not self._has_turned and any(fan.rpm == 0 for fan in fans):
            # The chip could drive a fan and none is connected: the laptop's controller has them.
            self.are_there = False
            return FanMode.NONE, ()
        return mode_of_all(fans), fans

    def _fan(self, number: int, control: FanControl | None) -> FanReading | None:
        rpm = self._chip.number(f"fan{number}_input", *RPM)
        full = self._pwm_full.get(number, 255.0)
        pwm = self._chip.number(f"pwm{number}", 0, full)
        if rpm is None and pwm is None:
            return None
        if rpm is not None and rpm < STANDSTILL_RPM:
            rpm = 0.0
        told = None if pwm is None else round(100.0 * pwm / full, 1)
        mode = self._mode(number, control)
        return FanReading(
            index=number - 1,
            percent=_percent(told, rpm),
            rpm=rpm,
            # fanN_target is none: the driver gives the current speed there. A duty set by hand is one.
            target_percent=told if mode is FanMode.MANUAL else None,
            mode=mode,
            rpm_is_measured=rpm is not None,
            rpm_max=self._rpm_max.get(number),
        )

    def _mode(self, number: int, control: FanControl | None) -> FanMode:
        """Who is in charge. RDNA 4 has neither `enable` file: there, only a curve can be given to the firmware.

        A user's curve is still the firmware's control, by temperature: AUTO, and `FanControl.curve` shows it. A flat
        one, which tools use for a fixed speed, follows no temperature: MANUAL.
        """
        enable, sensor = f"pwm{number}_enable", f"fan{number}_enable"
        value = self._chip.number(enable, 0, 255)
        if value is not None:
            mode = _MODES.get(int(value), FanMode.UNKNOWN)
        elif (by_hand := self._chip.number(sensor, 0, 1)) is not None:
            # Documented as "sensor enabled"; the driver gives 0 in automatic mode and 1 in any other.
            mode = FanMode.MANUAL if by_hand else FanMode.AUTO
        elif control is not None or self._chip.lacks.get(enable) is Lack.NO_SENSOR:
            mode = FanMode.AUTO
        else:
            mode = FanMode.UNKNOWN
        if mode is FanMode.AUTO and control is not None and _is_flat(control):
            return FanMode.MANUAL
        return mode


def _percent(told: float | None, rpm: float | None) -> float | None:
    """What the fan does, of what it was told (pwm): they differ where pwm is not what drives it."""
    if told is None or rpm is None:
        return told
    if rpm == 0:
        return told if told >= HIGHEST_STANDING_PERCENT else 0.0
    return told or None  # pwm 0 at 1395 RPM was seen on an RX 6600: nobody knows the percent


def _is_flat(control: FanControl) -> bool:
    return len(control.curve) > 1 and len({point.fan_percent for point in control.curve}) == 1
