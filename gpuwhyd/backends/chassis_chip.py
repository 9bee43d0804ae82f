"""One hwmon chip of the machine: how fast its fans turn and who regulates them."""

import os
from collections.abc import Sequence
from pathlib import Path

from gpuwhyd.backends.chassis_fans import ChipFans, kind_of_chip, mode_of
from gpuwhyd.backends.hwmon import channels
from gpuwhyd.backends.pci import names_in
from gpuwhyd.backends.plausible import RPM
from gpuwhyd.backends.sysfs import Attributes
from gpuwhyd.kernel_files import read_text
from gpuwhyd.model import FanMode, Lack

MODE_SECONDS = 10.0
"""How often it is asked who regulates the fans: a person or a program changes that, seldom."""
TURNS_RPM = 100.0
"""A fan that stands still was seen at up to 29 RPM."""
_TOP_RPM = (1000.0, RPM[1])
_ENABLE = (0, 1000)
"""Values of `pwmN_enable`; chips have up to about six ways to regulate."""


def found(directory: str, name: str) -> ChipFans:
    """What there is on a chip. Labels are read; no sensor is."""
    fans = {
        number: _label(f"{directory}/fan{number}_label")
        for number in channels(directory, "fan")
        if Path(f"{directory}/fan{number}_input").exists()
    }
    attached = "/usb" in os.path.realpath(directory)
    return ChipFans(directory=directory, name=name, fans=fans, is_attached=attached)


class FanChip:
    """Reads only the fans that it is told to. `rpm` and `mode` by fan number, as of the last `refresh`."""

    def __init__(self, directory: str, name: str, numbers: tuple[int, ...]) -> None:
        self.name = name
        self.files = Attributes(directory)
        self.numbers = numbers
        self.rpm: dict[int, float | None] = dict.fromkeys(numbers)
        self.mode: dict[int, FanMode] = dict.fromkeys(numbers, FanMode.UNKNOWN)
        self._mode_files = _mode_files(directory, numbers)
        self.turned: set[int] = set()
        """Fans that were seen turning: a board has files for fans that nobody has plugged in."""
        self.answers = False
        """The last time any fan could be read."""
        self._kind = kind_of_chip(name)
        self._read_at = self._mode_at = float("-inf")
        self._full_speed_since: float | None = None
        self.rpm_max = self._top_speeds() if self._kind.has_top_speed else {}

    def refresh(self, now: float) -> bool:
        """Reads anew what is due; False when the chip is gone, or its number belongs to another one now."""
        if self.files.text("name") != self.name:
            return False
        if now - self._read_at < self._kind.least_seconds:
            return True
        self._read_at = now
        # what is stale depends on the mode, so it is asked each time where anything can be
        if now - self._mode_at >= (0.0 if self._kind.stale_seconds else MODE_SECONDS):
            self._mode_at = now
            self._read_modes(now)
        stale = self._full_speed_since is not None and now - self._full_speed_since < self._kind.stale_seconds
        self.answers = False
        for number in self.numbers:
            rpm = self.files.number(f"fan{number}_input", *RPM)
            self.answers |= rpm is not None
            if rpm is not None and rpm >= TURNS_RPM:
                self.turned.add(number)
            self.rpm[number] = None if stale else rpm
        return True

    def sources(self, numbers: Sequence[int]) -> tuple[str, Lack | None]:
        """The files of these fans, below the root of sysfs, and why none of them has a value."""
        return self._told([f"fan{number}_input" for number in numbers])

    def mode_sources(self, numbers: Sequence[int]) -> tuple[str, Lack | None]:
        return self._told(
            sorted({self._mode_files[number] for number in numbers if number in self._mode_files})
        )

    def _told(self, names: Sequence[str]) -> tuple[str, Lack | None]:
        lacks = [self.files.lacks.get(name, Lack.UNREADABLE) for name in names] or [Lack.NO_SENSOR]
        place = f"class/hwmon/{Path(self.files.directory).name}"
        said = ", ".join(names) or "pwm*_enable"
        return f"{place}/{said} ({self.name})", None if None in lacks else lacks[0]

    def _read_modes(self, now: float) -> None:
        said = {name: self.files.number(name, *_ENABLE) for name in set(self._mode_files.values())}
        self.mode = dict.fromkeys(self.numbers, FanMode.UNKNOWN) | {
            number: mode_of(self._kind, name, said[name]) for number, name in self._mode_files.items()
        }
        if 0 not in said.values():
            self._full_speed_since = None
        elif self._full_speed_since is None:
            self._full_speed_since = now

    def _top_speeds(self) -> dict[int, float | None]:
        return {number: self.files.number(f"fan{number}_max", *_TOP_RPM) for number in self.numbers}


def _label(path: str) -> str | None:
    """What the driver calls a fan: an EC's firmware may have written it, so anything may stand there."""
    return "".join(letter for letter in read_text(path) if letter.isprintable()).strip() or None


def _mode_files(directory: str, numbers: tuple[int, ...]) -> dict[int, str]:
    """Fan number -> the file that says who regulates it. One for all where a chip has only `pwm1_enable`.

    dell_smm's can only be written; to try to read it is an error each time.
    """
    listed = set(names_in(directory))
    modes = {}
    for number in numbers:
        for name in (f"pwm{number}_enable", f"fan{number}_manual", "pwm1_enable"):
            if name in listed and _is_readable(f"{directory}/{name}"):
                modes[number] = name
                break
    return modes


def _is_readable(path: str) -> bool:
    """For anybody; root may try, and gets an error from the driver."""
    try:
        return bool(os.stat(path).st_mode & 0o444)  # noqa: PTH116 - no Path is needed
    except OSError:  # the chip is just going away
        return False
