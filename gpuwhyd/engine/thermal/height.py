"""Where a load leads to, as far as that is worth telling: what two looks agree on, while fan and temperature still move."""

import math
from dataclasses import dataclass, field

from gpuwhyd.engine.flat import Flat
from gpuwhyd.engine.thermal.forecast import Peak

AGREE_PERCENT = 4.0
"""Two looks in a row may differ by so much. A cooler that the model does not fit is told another height at each of them."""
FLAT_SECONDS = 60.0
FLAT_PERCENT = 1.0
FLAT_KELVIN = 1.0
"""A card that has moved by no more in so long is where its load leads to, whatever the model thinks."""
SMOOTHED_SECONDS = 15.0
OTHER_LOAD_PART = 0.2
"""A load that draws so much more or less than what was looked at is another one; games draw theirs in bursts of seconds."""


@dataclass(slots=True)
class Height:
    """Feed it one sample a tick while a card works, and what each look expects."""

    told: Peak | None = None
    _expected: Peak | None = None
    """By the last look; told when the next one agrees."""
    _expected_watts: float | None = None
    """The load that was looked at."""
    _watts: float | None = None
    _percent: Flat = field(default_factory=Flat)
    _celsius: Flat = field(default_factory=Flat)

    def feed(self, now: float, dt: float, percent: float, celsius: float | None, watts: float) -> bool:
        """One sample of a card that works; whether its load has become another one."""
        self._percent.feed(now, percent, FLAT_PERCENT)
        self._celsius.feed(now, celsius, FLAT_KELVIN)
        before = watts if self._watts is None else self._watts
        self._watts = watts + (before - watts) * math.exp(-dt / SMOOTHED_SECONDS)
        expected = self._expected_watts
        if expected is not None and abs(self._watts - expected) > OTHER_LOAD_PART * expected:
            self.forget()
            return True
        if self.told is not None and (percent >= self.told.fan_percent or self._is_flat(now)):
            self.told = None
        return False

    def look(self, now: float, coming: Peak | None, watts: float, *, known: bool) -> None:
        """What a look expects at that load; `known`: enough was seen of the card to tell it."""
        before, self._expected, self._expected_watts = self._expected, coming, watts
        agree = (
            coming is not None
            and before is not None
            and abs(coming.fan_percent - before.fan_percent) <= AGREE_PERCENT
        )
        self.told = coming if agree and known and not self._is_flat(now) else None

    def forget(self) -> None:
        """Another load, or none: what comes now has nothing to do with what was expected."""
        self.told = self._expected = self._expected_watts = self._watts = None
        self._percent.since = self._celsius.since = None

    def _is_flat(self, now: float) -> bool:
        return min(self._percent.seconds(now), self._celsius.seconds(now)) >= FLAT_SECONDS
