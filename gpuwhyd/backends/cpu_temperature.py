"""How hot the CPU is, from the best sensor that the machine has."""

import re
from dataclasses import dataclass
from pathlib import Path

from gpuwhyd.backends.hwmon import MILLI, channels
from gpuwhyd.backends.pci import names_in
from gpuwhyd.backends.sysfs import Attributes
from gpuwhyd.errors import BackendError
from gpuwhyd.kernel_files import read_text

CELSIUS = (1.0, 125.0)
"""No CPU runs outside of it; 0 and 255 are how sensors say that they cannot tell."""
SEARCH_SECONDS = 60.0
"""How often a sensor is looked for again where there is none: its driver may be loaded later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sensor:
    chip: str
    """A regular expression for its name."""
    labels: tuple[str, ...]
    """The channels to believe, the better first (regular expressions); all of the chip's where it has no such label."""


_SENSORS = (
    _Sensor(chip="coretemp", labels=(r"Package id \d+", r"Physical id \d+")),
    # Tctl has an offset on some processors, Tdie has none; where they are the same there is only Tctl (k10temp.rst).
    _Sensor(chip="k10temp", labels=("Tdie", "Tctl")),
    _Sensor(chip="zenpower", labels=("Tdie", "Tctl")),
    _Sensor(chip=r"(cpu|soc|x86_pkg).*(thermal|temp)", labels=()),
    # Where on the board it sits is the maker's secret, and on some it never changes.
    _Sensor(chip="acpitz", labels=()),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chip:
    name: str
    files: Attributes
    inputs: tuple[str, ...]

    def hottest(self) -> float | None:
        """`None` too when another chip has got this one's number: drivers come and go."""
        if self.files.text("name") != self.name:
            return None
        read = (self.files.number(name, *CELSIUS, scale=MILLI) for name in self.inputs)
        return max((celsius for celsius in read if celsius is not None), default=None)


class CpuTemperature:
    """Reads two files a processor each time; which ones is found once. For one thread."""

    def __init__(self, sysfs: Path) -> None:
        self._hwmon = f"{sysfs}/class/hwmon"
        self._chips: tuple[_Chip, ...] = ()
        self._searched_at = float("-inf")

    def read(self, now: float) -> float | None:
        """Degrees Celsius of the hottest CPU; `None` where no sensor tells. `now` is monotonic seconds."""
        hottest = self._hottest()
        if hottest is None and now - self._searched_at >= SEARCH_SECONDS:
            self._searched_at = now
            self._search()
            hottest = self._hottest()
        return hottest

    @property
    def source(self) -> str:
        """The files, below the root of sysfs; empty while there are none."""
        return ", ".join(
            f"class/hwmon/{Path(chip.files.directory).name}/{name}"
            for chip in self._chips
            for name in chip.inputs
        )

    def _hottest(self) -> float | None:
        read = (chip.hottest() for chip in self._chips)
        return max((celsius for celsius in read if celsius is not None), default=None)

    def _search(self) -> None:
        """The first kind of sensor that gives a value."""
        try:
            entries = sorted(names_in(self._hwmon))
        except BackendError:  # a sandbox hides it: then no sensor tells
            entries = []
        named = [(f"{self._hwmon}/{entry}", read_text(f"{self._hwmon}/{entry}/name")) for entry in entries]
        for sensor in _SENSORS:
            self._chips = tuple(
                _Chip(name=name, files=Attributes(directory), inputs=_believed(directory, sensor.labels))
                for directory, name in named
                if re.fullmatch(sensor.chip, name)
            )
            if self._hottest() is not None:
                return
        self._chips = ()


def _believed(directory: str, labels: tuple[str, ...]) -> tuple[str, ...]:
    numbers = channels(directory, "temp")
    found = {number: read_text(f"{directory}/temp{number}_label") for number in numbers}
    for wanted in labels:
        if chosen := [number for number in numbers if re.fullmatch(wanted, found[number])]:
            return tuple(f"temp{number}_input" for number in chosen)
    return tuple(f"temp{number}_input" for number in numbers)
