"""A card that is warmed from outside: it gets hotter without work of its own while something beside it works."""

from collections.abc import Sequence
from dataclasses import dataclass

from gpuwhyd.engine.heat import Heat
from gpuwhyd.model import GpuReading

HOT_WATTS = 40.0
COLD_WATTS = 15.0
"""A neighbour heats from the first on, as steady power, and has stopped below the second."""
RISE_KELVIN = 5.0
RELEASE_KELVIN = 2.0
"""So much hotter than when the neighbour began, and until it is no more than that: idle cards vary by 1 to 3 K."""
OWN_PART = 0.25
"""With more heat of its own than this part of the neighbour's, a card may be hot by itself."""
CPU = "the CPU"


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """Something else in the machine that heats."""

    label: str
    """As sentences name it: `GPU 0 (RTX 3070)`, or CPU."""
    heat: Heat


@dataclass(frozen=True, slots=True, kw_only=True)
class Warmed:
    by: Neighbour
    low_celsius: float
    """What the card was at when the neighbour began."""
    celsius: float


@dataclass(slots=True)
class Outside:
    """Feed it every reading of a card, after its own heat has seen it."""

    _low_celsius: float | None = None
    _hot: Neighbour | None = None
    _warmed: bool = False

    def feed(self, reading: GpuReading, own: Heat, neighbours: Sequence[Neighbour]) -> None:
        """`neighbours`: all that heats in this machine; the card itself may be among them."""
        if not neighbours:
            self.interrupted()
            return
        celsius = reading.temperature_celsius
        held = max(HOT_WATTS if self._hot is None else COLD_WATTS, own.ledger.heat_watts / OWN_PART)
        hottest = max(
            (n for n in neighbours if n.heat is not own), key=lambda n: n.heat.ledger.heat_watts, default=None
        )
        if hottest is None or hottest.heat.ledger.heat_watts < held or own.is_working or celsius is None:
            self._hot, self._warmed = None, False
            self._low_celsius = None if own.is_working else celsius
            return
        self._hot = hottest
        self._low_celsius = celsius if self._low_celsius is None else min(self._low_celsius, celsius)
        self._warmed = celsius - self._low_celsius >= (RELEASE_KELVIN if self._warmed else RISE_KELVIN)

    def interrupted(self) -> None:
        """A gap, a suspend, a card that is not read."""
        self._low_celsius, self._hot, self._warmed = None, None, False

    def warmed(self, reading: GpuReading) -> Warmed | None:
        if not self._warmed or self._hot is None or self._low_celsius is None:
            return None
        celsius = reading.temperature_celsius
        return (
            None if celsius is None else Warmed(by=self._hot, low_celsius=self._low_celsius, celsius=celsius)
        )
