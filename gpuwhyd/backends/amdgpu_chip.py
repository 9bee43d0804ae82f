"""The hwmon chip of an AMD card: which of its channels is which, and what of it changes seldom."""

import re
from dataclasses import dataclass

from gpuwhyd.backends.amdgpu_fans import FanReader
from gpuwhyd.backends.hwmon import MICRO, MILLI, chip_directory, labels
from gpuwhyd.backends.pci import names_in
from gpuwhyd.backends.plausible import CELSIUS, LIMIT_CELSIUS, MEGAHERTZ, WATTS
from gpuwhyd.backends.sysfs import Attributes
from gpuwhyd.kernel_files import read_text
from gpuwhyd.model import FanControl, FanMode, FanReading, Lack

CHIP_NAME = "amdgpu"
_SILENT = frozenset({Lack.ASLEEP, Lack.UNREADABLE})
_LEVEL = re.compile(r"\s*(?:[0-9]{1,3}|S):\s*([0-9]{1,6})\s*Mhz\s*(\*?)\s*", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensors:
    """What the chip says at one moment. Limits are where the driver calls a temperature critical."""

    fan_mode: FanMode = FanMode.UNKNOWN
    fans: tuple[FanReading, ...] = ()
    edge_celsius: float | None = None
    hotspot_celsius: float | None = None
    memory_celsius: float | None = None
    edge_limit_celsius: float | None = None
    hotspot_limit_celsius: float | None = None
    memory_limit_celsius: float | None = None
    power_watts: float | None = None
    power_average_watts: float | None = None
    power_limit_watts: float | None = None
    core_clock_mhz: float | None = None
    memory_clock_mhz: float | None = None


class Chip:
    """One hwmon directory of the card, for as long as it is there: its number changes when the driver is loaded anew.

    Channels have labels, and always had these numbers; before Linux 5.3 temperatures had no labels, and temp1 was edge.
    """

    def __init__(self, directory: str, *, built_into_portable: bool) -> None:
        self.files = Attributes(directory, remembers_lacks=True)
        self.fans = FanReader(self.files, names_in(directory), built_into_portable=built_into_portable)
        temperatures = labels(directory, "temp") or {"edge": 1}
        clocks = labels(directory, "freq") or {"sclk": 1, "mclk": 2}
        self.edge = _name("temp", temperatures.get("edge"), "input")
        self.hotspot = _name("temp", temperatures.get("junction"), "input")
        self.memory = _name("temp", temperatures.get("mem"), "input")
        self.core_clock = _name("freq", clocks.get("sclk"), "input")
        self.memory_clock = _name("freq", clocks.get("mclk"), "input")
        self._limits_celsius: dict[str | None, float | None] = {}
        self._power_limit_watts: float | None = None

    def learn(self) -> None:
        """What changes never or by a user's hand; to be called seldom, while the card is awake."""
        self.files.ask_anew()
        self.fans.learn()
        for name in (self.edge, self.hotspot, self.memory):
            if name is not None:
                self._limits_celsius[name] = self.files.number(limit_of(name), *LIMIT_CELSIUS, scale=MILLI)
        self._power_limit_watts = self.files.number("power1_cap", *WATTS, scale=MICRO)

    def is_gone(self) -> bool:
        return read_text(f"{self.files.directory}/name") != CHIP_NAME

    def read(self, control: FanControl | None) -> Sensors | None:
        """`None` when not one sensor answers, though the chip has some."""
        mode, fans = self.fans.read(control)
        edge, hotspot, memory = (
            self._celsius(self.edge),
            self._celsius(self.hotspot),
            self._celsius(self.memory),
        )
        instant = self.files.number("power1_input", *WATTS, scale=MICRO)
        average = self.files.number("power1_average", *WATTS, scale=MICRO)
        core, memory_clock = self._megahertz(self.core_clock), self._megahertz(self.memory_clock)
        values = (edge, hotspot, memory, instant, average, core, memory_clock)
        if not fans and all(value is None for value in values) and self._should_answer():
            return None
        return Sensors(
            fan_mode=mode,
            fans=fans,
            edge_celsius=edge,
            hotspot_celsius=hotspot,
            memory_celsius=memory,
            edge_limit_celsius=self._limits_celsius.get(self.edge),
            hotspot_limit_celsius=self._limits_celsius.get(self.hotspot),
            memory_limit_celsius=self._limits_celsius.get(self.memory),
            power_watts=instant,
            power_average_watts=average,
            power_limit_watts=self._power_limit_watts,
            core_clock_mhz=core,
            memory_clock_mhz=memory_clock,
        )

    def _should_answer(self) -> bool:
        """Silence is a failure: something refuses now, or the directory is gone. Else there are no sensors."""
        return not _SILENT.isdisjoint(self.files.lacks.values()) or self.is_gone()

    def _celsius(self, name: str | None) -> float | None:
        """0 degC to the thousandth is a sensor that is not there."""
        return None if name is None else self.files.number(name, *CELSIUS, scale=MILLI) or None

    def _megahertz(self, name: str | None) -> float | None:
        return None if name is None else self.files.number(name, *MEGAHERTZ, scale=MICRO)


def find_chip(device: str, *, built_into_portable: bool) -> Chip | None:
    """`None`: the driver makes none (a virtual function, or a kernel without hwmon), or is just coming or going."""
    directory = chip_directory(device, CHIP_NAME)
    return None if directory is None else Chip(directory, built_into_portable=built_into_portable)


def limit_of(temperature: str) -> str:
    """`temp1_input` -> `temp1_crit`."""
    return temperature.replace("_input", "_crit")


def highest_mhz(levels: str) -> float | None:
    """The highest clock of pp_dpm_sclk or pp_dpm_mclk; `None` when there are no levels.

    `1: 1145Mhz *` is the level that holds now, `S:` the one for sleep. Newer cards have no levels between the lowest and
    the highest and show the current clock there, which may be beyond either: a marked line between others says nothing.
    """
    found = [match for line in levels.splitlines() if (match := _LEVEL.fullmatch(line))]
    ends = {0, len(found) - 1}
    clocks = [int(match[1]) for place, match in enumerate(found) if not match[2] or place in ends]
    highest = max(clocks, default=0)
    return float(highest) if 0 < highest <= MEGAHERTZ[1] else None


def _name(kind: str, number: int | None, what: str) -> str | None:
    return None if number is None else f"{kind}{number}_{what}"
