"""How warm a card got for its power, day by day: whether it gets warmer than it used to.

Every whole spike gives one number, the temperature that its fitted model leads to at the same power and the same fan speed.
What surrounds the card and what its cooler does are both in it, and cannot be told apart by it.
"""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

from gpuwhyd.engine.saved import optional_number
from gpuwhyd.engine.thermal.model import Constants

POWER_PART = 0.5
FAN_PART = 0.5
"""Where spikes are compared: in the middle of what cards do, so that little is read from beyond what was seen."""
RECENT_DAYS = 3
EARLIER_DAYS = 5
EARLIER_SPIKES = 10
"""So much is needed: the last days on which there were spikes, and those before that they are held against."""
MOST_DAYS = 60
JOINED_DAYS = 40
LEAST_WARMING_KELVIN = 5.0
DAY_USEC = 86_400_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Worse:
    """What a card's own history says of its cooling now."""

    loss_part: float
    """By which part it warms more than it did at the same power and the same fan speed."""
    rested_before: bool
    """With the heat that is in the cooler now the fan would have stayed at rest then."""


@dataclass(slots=True)
class Day:
    """The mean of one day's spikes, or of several days of long ago."""

    day: int
    celsius: float
    spikes: int


@dataclass(slots=True)
class History:
    """Days with spikes, the latest last."""

    days: list[Day] = field(default_factory=list)
    loss_part: float | None = None
    """By which part it warms more than before, at the same power and fan speed; `None` while that cannot be told."""

    def add(self, wall_usec: int, constants: Constants, scale_watts: float) -> None:
        """One spike's constants."""
        celsius = constants.steady(POWER_PART * scale_watts, FAN_PART)
        day = wall_usec // DAY_USEC
        if self.days and self.days[-1].day == day:
            last = self.days[-1]
            last.spikes += 1
            last.celsius += (celsius - last.celsius) / last.spikes
        elif not self.days or self.days[-1].day < day:
            self.days.append(Day(day, celsius, 1))
        else:  # the clock was set back: whatever was right, days must go on
            self.days[-1].day = day
        if len(self.days) > MOST_DAYS:
            self._join()
        self.loss_part = self._loss(constants.ambient_celsius)

    def _loss(self, ambient_celsius: float) -> float | None:
        """Of the last days the least, so that a hot one or a bad fit says nothing; of those before the median."""
        recent, earlier = self.days[-RECENT_DAYS:], self.days[:-RECENT_DAYS]
        if len(earlier) < EARLIER_DAYS or sum(day.spikes for day in earlier) < EARLIER_SPIKES:
            return None
        before = statistics.median(day.celsius for day in earlier)
        now = min(day.celsius for day in recent)
        warming = before - ambient_celsius
        return None if warming < LEAST_WARMING_KELVIN else (now - before) / warming

    def _join(self) -> None:
        """The oldest days two by two, so that years fit in and a cooler that clogs slowly is held against its youth."""
        old, rest = self.days[:JOINED_DAYS], self.days[JOINED_DAYS:]
        joined = []
        for one, two in zip(old[::2], old[1::2], strict=True):
            spikes = one.spikes + two.spikes
            mean = (one.celsius * one.spikes + two.celsius * two.spikes) / spikes
            joined.append(Day(one.day, mean, spikes))
        self.days = joined + rest

    def saved(self) -> dict[str, object]:
        return {
            "days": [[day.day, day.celsius, day.spikes] for day in self.days],
            "loss_part": self.loss_part,
        }

    @classmethod
    def restored(cls, saved: Mapping[str, object]) -> "History":
        """Raises TypeError or ValueError when the saved form is not ours."""
        days = saved.get("days", [])
        if not isinstance(days, list):
            raise TypeError("days of a saved history must be a list")
        return cls(
            days=[_day(item) for item in days][-MOST_DAYS:],
            loss_part=optional_number(saved.get("loss_part")),
        )


def _day(saved: object) -> Day:
    if not isinstance(saved, list) or len(saved) != 3:
        raise TypeError("a day of a saved history must have three numbers")
    day, celsius, spikes = (optional_number(value) for value in saved)
    if day is None or celsius is None or spikes is None or spikes < 1:
        raise ValueError("a day of a saved history lacks something")
    return Day(int(day), celsius, int(spikes))
