"""The power a card draws when nobody uses it, learned per card; what lies above it is excess, which heats.

Until an idle period has been seen the floor is the smaller of what was observed and 15 % of the power limit.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from gpuwhyd.engine.saved import optional_number
from gpuwhyd.model import GpuReading

IDLE_UTILIZATION_PERCENT = 5.0
IDLE_PERFORMANCE_STATE = 8
"""NVIDIA cards idle at P8 and above; utilisation alone misleads there (memory 23 % at P8, an idle L40S says 100 %)."""
FIRST_GUESS_PART = 0.15
TYPICAL_LIMIT_WATTS = 250.0
"""For cards that tell no limit; recorded desktop cards have 120 to 320 W."""
SIGNIFICANT_PART = 0.06
LEAST_SIGNIFICANT_WATTS = 5.0
IDLE_PERIOD_SECONDS = 20.0
SMOOTHING_SECONDS = 5.0
RAISE_SECONDS = 600.0
"""A learned floor follows a higher idle power (another monitor was plugged in) with this time constant."""


@dataclass(slots=True)
class IdleFloor:
    learned_watts: float | None = None
    lowest_idle_watts: float | None = None
    """The least that it was ever learned to be. Clocks that get stuck raise what is learned, and not this."""
    smoothed_watts: float | None = None
    significant_watts: float = LEAST_SIGNIFICANT_WATTS
    """Less excess than this is noise: 6 % of the power limit, at least 5 W. Kept, because it is asked for many times a tick."""
    _lowest_watts: float | None = None
    _highest_watts: float | None = None
    _limit_watts: float | None = None
    _idle_since: float | None = None
    _idle_sum: float = 0.0
    _idle_count: int = 0
    _looks_idle: bool = False

    @property
    def watts(self) -> float | None:
        """The best estimate now; `None` while the card has told no power."""
        if self.learned_watts is not None:
            return self.learned_watts
        if self._lowest_watts is None:
            return None
        return min(self._lowest_watts, FIRST_GUESS_PART * self.scale_watts)

    @property
    def scale_watts(self) -> float:
        """What this card draws at full load: its limit, else a typical one or what it was seen to draw."""
        return self._limit_watts or max(TYPICAL_LIMIT_WATTS, self._highest_watts or 0.0)

    @property
    def is_at_floor(self) -> bool:
        """Whether the card idles by its power; by its utilisation where it tells no power."""
        if self.smoothed_watts is None:
            return self._looks_idle
        return self.smoothed_watts <= (self.watts or 0.0) + self.significant_watts

    @property
    def has_idled_low(self) -> bool:
        """It has idled with less than an unknown card is taken to need."""
        return (
            self.lowest_idle_watts is not None
            and self.lowest_idle_watts < FIRST_GUESS_PART * self.scale_watts
        )

    @property
    def needed_watts(self) -> float:
        """What the card needs at idle: the least with which it ever did; 15 % of its limit while it was seen with no less."""
        if self.lowest_idle_watts is not None and self.has_idled_low:
            return self.lowest_idle_watts
        return FIRST_GUESS_PART * self.scale_watts

    def is_above_need(self, watts: float) -> bool:
        """It draws more than it needs at idle, whatever it has drawn of late."""
        margin = self.significant_watts if self.has_idled_low else 0.0
        return watts > self.needed_watts + margin

    def excess(self, watts: float) -> float:
        return max(0.0, watts - (self.watts or 0.0))

    def feed(self, now: float, dt: float | None, reading: GpuReading, watts: float | None) -> None:
        """One sample; `dt` is `None` at the first and after an interruption."""
        self._limit_watts = reading.power_limit_watts or self._limit_watts
        if reading.performance_state is not None and reading.performance_state >= IDLE_PERFORMANCE_STATE:
            self._looks_idle = True
        elif reading.utilization_percent is not None:
            busiest = max(
                reading.utilization_percent, reading.encoder_percent or 0, reading.decoder_percent or 0
            )
            self._looks_idle = busiest <= IDLE_UTILIZATION_PERCENT
        else:
            self._looks_idle = False
        if watts is not None:
            self._observe(now, dt, watts)
        full_watts = self._limit_watts or self._highest_watts or 0.0
        self.significant_watts = max(LEAST_SIGNIFICANT_WATTS, SIGNIFICANT_PART * full_watts)

    def _observe(self, now: float, dt: float | None, watts: float) -> None:
        if self._lowest_watts is None or watts < self._lowest_watts:
            self._lowest_watts = watts
        if self._highest_watts is None or watts > self._highest_watts:
            self._highest_watts = watts
        if self.smoothed_watts is None or dt is None:
            self.smoothed_watts = watts
        else:
            self.smoothed_watts += (watts - self.smoothed_watts) * (1 - math.exp(-dt / SMOOTHING_SECONDS))
        self._learn(now, dt, watts)

    def _learn(self, now: float, dt: float | None, watts: float) -> None:
        if not self._looks_idle or dt is None:
            self._idle_since, self._idle_sum, self._idle_count = None, 0.0, 0
            return
        if self._idle_since is None:
            self._idle_since = now
        self._idle_sum += watts
        self._idle_count += 1
        if now - self._idle_since < IDLE_PERIOD_SECONDS:
            return
        mean = self._idle_sum / self._idle_count
        self.lowest_idle_watts = mean if self.lowest_idle_watts is None else min(self.lowest_idle_watts, mean)
        if self.learned_watts is None or mean < self.learned_watts:
            self.learned_watts = mean
        else:
            self.learned_watts += (mean - self.learned_watts) * (
                1 - math.exp(-(now - self._idle_since) / RAISE_SECONDS)
            )
        self._idle_since, self._idle_sum, self._idle_count = now, 0.0, 0

    def saved(self) -> dict[str, object]:
        return {"learned_watts": self.learned_watts, "lowest_idle_watts": self.lowest_idle_watts}

    @classmethod
    def restored(cls, saved: Mapping[str, object]) -> "IdleFloor":
        """Raises TypeError when the saved form is not ours."""
        learned = optional_number(saved.get("learned_watts"))
        lowest = optional_number(saved.get("lowest_idle_watts"))
        return cls(learned_watts=learned, lowest_idle_watts=learned if lowest is None else lowest)
