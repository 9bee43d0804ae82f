"""How a card's fan answers its temperature: where it leaves rest and comes back, how steep its curve is, how fast it falls.

Speeds are percent of the top speed, also of a fan that tells only RPM.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from gpuwhyd.engine.saved import optional_number

STILL_PERCENT = 0.5
"""A rest level below this is a fan that stands still."""
FELT_SECONDS = 5.0
"""A fan follows the temperature as late as this; recorded ones by 1 to 12 s where their slew rate is no limit."""
STOP_BELOW_KELVIN = (3.0, 10.0)
"""A fan that stands still at rest stops so far below where it began to turn, on logs of real cards."""
LOWEST_STOP_KELVIN = 16.0
LOWER_PART = 0.2
"""Owners report cards, mostly of NVIDIA's own make, whose fans turn from 50 degC or so down to 35 or 40; no log has one. Each of
these stops counts as so much of one that was recorded."""
STILL_TURNS_KELVIN = 1.0
"""Of a fan that turns even below that: it goes on for so long."""
PERCENT_PER_KELVIN = 2.0
"""Of a curve that has not been seen yet; recorded ones have 1.4 to 2.6."""
STEEPNESS_SPREAD = 0.17
"""How far from that they are, in parts."""
LEAST_SPREAD = 0.5
LATENESS_SPREAD = 0.5
"""How well the temperature at which a fan rose is known: half as well as it is known how late the fan feels it."""
JITTER_PERCENT = 1.0
JITTER_KELVIN = 0.5
LESS_PART = 0.3
"""What a sample counts that has the fan turn slower than ever before."""
CALM_SECONDS = 10.0
POINTS_PER_SECOND = 0.8
LEAST_POINTS_PER_SECOND = 0.2
"""Of a fan whose fall has not been seen yet, and of one that has only begun to; recorded ones have 0.2 to 1.4."""
LATE_SECONDS = 3.5
FALL_SECONDS = 6.0
"""A fan begins to fall so long after the load ended; its fall is measured over at least so long."""
MARK_SECONDS = 16.0
FOLLOWS_PART = 0.7
DOWN_KELVIN = 1.5
"""Its way down is a line when it was seen over so much."""
FALL_JITTER_PERCENT = 1.5
FREE_PART = 0.9
"""A fan that falls slower than this part of what it did at first follows the temperature, and falls no more as fast as it can."""
STEADY_SECONDS = 12.0
STEADY_PERCENT = 2.0
STEADY_KELVIN = 1.5
MOST_OF_A_CURVE_PERCENT = 97.0
CLEAR_PERCENT = 5.0
CURVE_KELVIN = 4.0
CURVE_REACH = 4.0
"""A curve seen over so many kelvin tells where it begins, if that is not more than so many times as far away."""
NEW_PART = 0.4
"""What a newly seen value counts against those seen before."""
_BOUNDS = {
    "onset_celsius": (20.0, 110.0),
    "stop_celsius": (10.0, 110.0),
    "start_percent": (0.0, 100.0),
    "percent_per_kelvin": (0.3, 10.0),
    "fall_per_second": (0.05, 20.0),
}


@dataclass(slots=True)
class Curve:
    """A straight line through what was seen of temperature and speed in one rise."""

    count: int = 0
    celsius: float = 0.0
    percent: float = 0.0
    squares: float = 0.0
    products: float = 0.0
    lowest: float = math.inf
    highest: float = -math.inf

    def add(self, celsius: float, percent: float) -> None:
        self.count += 1
        from_mean = celsius - self.celsius
        self.celsius += from_mean / self.count
        self.percent += (percent - self.percent) / self.count
        self.squares += from_mean * (celsius - self.celsius)
        self.products += from_mean * (percent - self.percent)
        self.lowest, self.highest = min(self.lowest, celsius), max(self.highest, celsius)

    least_kelvin: float = CURVE_KELVIN

    @property
    def percent_per_kelvin(self) -> float | None:
        return self.products / self.squares if self.highest - self.lowest >= self.least_kelvin else None

    def begins_at(self, base: float) -> float | None:
        """Where it would meet that speed; `None` when too little of it was seen."""
        steepness = self.percent_per_kelvin
        if steepness is None or steepness < _BOUNDS["percent_per_kelvin"][0]:
            return None
        below = (self.percent - base) / steepness
        return self.celsius - below if 0 <= below <= CURVE_REACH * (self.highest - self.lowest) else None


@dataclass(slots=True)
class FanResponse:
    """What is `None` has not been seen yet."""

    onset_celsius: float | None = None
    """Where it leaves rest."""
    stop_celsius: float | None = None
    """Where a fan that stands still at rest stops again."""
    told_stop_celsius: float | None = None
    """The same as the driver tells it (amdgpu from RDNA3 on): good until it is seen."""
    start_percent: float | None = None
    """The least with which such a fan turns."""
    percent_per_kelvin: float | None = None
    """Steepness of its curve above the onset."""
    fall_per_second: float | None = None
    """The fastest that it was seen to slow down, in points."""
    felt_celsius: float | None = None
    """The temperature as the fan feels it: some seconds late."""
    is_up: bool = False
    _curve: Curve = field(default_factory=Curve)
    _percent: float | None = None
    """Of the last sample, while it turned."""
    _felt_at_rest: float | None = None
    _onset: float | None = None
    """In this spike; `None` when nobody saw it."""
    _onset_spread: float = 1.0
    _rested_at: float = -math.inf
    """So warm it was, as the fan felt it, when it still rested."""
    _down: Curve = field(default_factory=lambda: Curve(least_kelvin=DOWN_KELVIN))
    """Its way down, once it follows the temperature: real fans come down by another line than they went up."""
    _mark: tuple[float, float] | None = None
    _follows: bool = False
    _has_gap: bool = False
    """Not all of this rise was seen: nothing is learned from it."""
    _quiet_since: tuple[float, float | None] | None = None
    _steady: tuple[float, float, float] | None = None
    """(boottime, percent, degC) since when fan and temperature have moved little."""
    _fall: tuple[float, float] | None = None
    """(boottime, percent) when it began to fall after the load."""
    _held_percent: float = 0.0
    """The most it turned since, before it fell."""
    _is_held: bool = False
    _falls_from: float | None = None
    _fell_per_second: float = 0.0
    _fell_fastest: float = 0.0
    _least_onset: float = -math.inf
    """So warm it was when the fan had come down to the least with which it turns."""
    _turned_at: float = math.inf
    """So cold it was since then, and the fan still turned."""

    def onset(self, rest: float) -> float | None:
        """Where the curve begins: as seen in this spike, and in earlier ones."""
        seen, known = self._seen_onset(self.base(rest)), self.onset_celsius
        if seen is None:
            return known
        seen = max(seen, self._least_onset)
        return seen if known is None else known + (seen - known) * NEW_PART

    def _seen_onset(self, base: float) -> float | None:
        """By the curve in this spike; where too little of that was seen, by one point of it and by where the fan rose."""
        curve, rose = self._curve, self._onset
        if (begins := curve.begins_at(base)) is not None:
            return begins if rose is None else max(begins, self._rested_at)
        if not curve.count:
            return rose
        steepness = self.percent_per_kelvin or PERCENT_PER_KELVIN
        below = (curve.percent - base) / steepness
        if rose is None:
            return curve.celsius - below
        trust_in_rise = 1 / self._onset_spread**2
        trust_in_curve = 1 / (STEEPNESS_SPREAD * below) ** 2
        total = trust_in_rise + trust_in_curve
        return (rose * trust_in_rise + (curve.celsius - below) * trust_in_curve) / total

    def steepness(self, rest: float) -> float | None:
        """Percent per kelvin above the onset, as seen in this spike, else in earlier ones."""
        seen = self._curve.percent_per_kelvin
        if seen is not None and seen >= _BOUNDS["percent_per_kelvin"][0]:
            return seen
        if self.percent_per_kelvin is not None or not self._curve.count:
            return self.percent_per_kelvin
        base, onset = self.base(rest), self.onset(rest)
        if onset is None or self._curve.celsius <= onset + 1:
            return None
        return (self._curve.percent - base) / (self._curve.celsius - onset)

    @property
    def is_seen_to_fall(self) -> bool:
        """After the load of this spike, for long enough to say how fast."""
        return self._fell_per_second > 0

    @property
    def falls_per_second(self) -> float | None:
        """As seen in this spike and in earlier ones: a fan that has hardly begun to fall is not slow."""
        if not self._fell_per_second:
            return self.fall_per_second
        return max(self._fell_per_second, self.fall_per_second or LEAST_POINTS_PER_SECOND)

    def stops_at(self, rest: float, settle: float) -> float | None:
        """Where a fan that stands still at rest stops, not where it still turned with nothing but the temperature to keep it
        up; and where another is quiet again, if the temperature, not its slew rate, is what decides that.
        """
        turns_at = self._turned_at - JITTER_KELVIN
        stop, stands = self.stop_celsius, rest < STILL_PERCENT
        if stop is None and stands:
            stop = self.told_stop_celsius
        if stop is not None:
            return min(stop, turns_at)
        if not stands:
            return self._down.begins_at(rest + settle)
        onset = self.onset(rest)
        return None if onset is None else onset - _stops_below(onset - turns_at)

    def base(self, rest: float) -> float:
        """The speed from which the curve goes up."""
        return (self.start_percent or 0.0) if rest < STILL_PERCENT else rest

    def feed(
        self,
        now: float,
        dt: float,
        percent: float,
        rest: float,
        settle: float,
        celsius: float | None,
        *,
        heating: bool,
    ) -> float | None:
        """One sample without a gap before it; since when the fan is quiet again, once that is sure."""
        felt = self.felt_celsius
        if celsius is None or felt is None:
            felt = celsius
        else:
            felt += (celsius - felt) * dt / (dt + FELT_SECONDS)
        self.felt_celsius = felt
        stands = rest < STILL_PERCENT
        if percent <= (STILL_PERCENT if stands else rest + settle):
            if percent <= rest + JITTER_PERCENT:
                self._felt_at_rest = felt
            self._percent = None
            return self._came_to_rest(now, rest) if self.is_up else None
        self._quiet_since = None
        if not self.is_up:
            self.is_up = True
            self._curve, self._fell_per_second, self._fell_fastest = Curve(), 0.0, 0.0
            self._least_onset, self._turned_at = -math.inf, math.inf
            self._steady = self._fall = self._falls_from = None
            rested = self._felt_at_rest
            self._onset = None
            self._rested_at = -math.inf if rested is None else rested
            self._down, self._mark, self._follows = Curve(least_kelvin=DOWN_KELVIN), None, False
            if rested is not None and felt is not None and celsius is not None:
                self._onset = (rested + felt) / 2
                self._onset_spread = LEAST_SPREAD + LATENESS_SPREAD * abs(celsius - felt)
        before, self._percent = self._percent, percent
        # on its way up from nothing it turns slower than it ever would for long
        if (
            stands
            and percent > STILL_PERCENT
            and before is not None
            and abs(percent - before) <= STEADY_PERCENT
        ):
            least = self.start_percent
            self.start_percent = percent if least is None else least + min(0.0, percent - least) * LESS_PART
        self._follow_fall(now, percent, heating=heating)
        if self._fall is not None and felt is not None and percent <= self.base(rest) + JITTER_PERCENT:
            self._least_onset = max(self._least_onset, felt - JITTER_KELVIN)
            self._turned_at = min(self._turned_at, felt)
        if felt is not None and (self._fall is None or self._follows):
            self._follow_curve(now, percent, self.base(rest), felt)
        return None

    def gap(self) -> None:
        """Nobody looked for a moment: the rise goes on, but what it was like is not known."""
        self.felt_celsius = self._felt_at_rest = self._quiet_since = self._steady = self._fall = (
            self._falls_from
        ) = None
        self._has_gap = True

    def interrupted(self) -> None:
        """A gap, or a fan that somebody else governs: nothing is learned from this rise any more."""
        self.is_up = False
        self.felt_celsius = self._felt_at_rest = self._onset = None
        self._curve, self._has_gap = Curve(), False
        self._quiet_since = self._steady = self._fall = self._falls_from = None
        self._fell_per_second = self._fell_fastest = 0.0

    def _came_to_rest(self, now: float, rest: float) -> float | None:
        stands = rest < STILL_PERCENT
        if self._quiet_since is None:
            self._quiet_since = (now, self.felt_celsius)
        since, felt_then = self._quiet_since
        if now - since < CALM_SECONDS:
            return None
        self.is_up = False
        whole, self._has_gap = not self._has_gap, False
        onset = self.onset(rest) if self._onset is not None else None
        if whole and onset is not None:
            if (steepness := self.steepness(rest)) is not None:
                self._learn("percent_per_kelvin", steepness)
            self.onset_celsius = onset
            if felt_then is not None and (stands or self._follows):
                self._learn("stop_celsius", felt_then)
        if whole and self._fell_per_second:
            self._learn("fall_per_second", self._fell_per_second)
        self._onset = self._quiet_since = None
        return since

    def _follow_fall(self, now: float, percent: float, *, heating: bool) -> None:
        if heating:
            self._fall = self._falls_from = None
        elif self._falls_from is None:
            self._falls_from = now + LATE_SECONDS
        elif self._fall is None:
            if now >= self._falls_from:
                self._fall, self._held_percent, self._is_held = (now, percent), percent, False
        elif percent >= self._held_percent - JITTER_PERCENT:
            if self._is_held or now - self._fall[0] >= FALL_SECONDS:  # it is kept up, and falls later
                self._fall, self._held_percent = (now, percent), max(percent, self._held_percent)
                self._is_held = True
        elif self._is_held:
            self._fall = ((self._fall[0] + now) / 2, (self._fall[1] + percent) / 2)
            self._is_held = False
        elif now - self._fall[0] >= FALL_SECONDS:
            fell = (self._fall[1] - percent) / (now - self._fall[0])
            surely = fell - FALL_JITTER_PERCENT / (now - self._fall[0])
            self._fell_fastest = max(self._fell_fastest, surely)
            self._follow_down(now, percent)
            if fell >= FREE_PART * self._fell_fastest:
                self._fell_per_second = fell

    def _follow_down(self, now: float, percent: float) -> None:
        """Whether the fan falls slower than it can, which means that the temperature holds it; then by which line."""
        if self._mark is None:
            self._mark = (now, percent)
        since, before = self._mark
        if now - since >= MARK_SECONDS:
            fell = (before - percent) / (now - since)
            self._follows = fell < FOLLOWS_PART * self._fell_per_second
            self._mark = (now, percent)
        if self._follows and self.felt_celsius is not None:
            self._down.add(self.felt_celsius, percent)

    def _follow_curve(self, now: float, percent: float, base: float, felt: float) -> None:
        """Steepness, from when fan and temperature stand still: then no slew rate is in between.

        Not asked while a fan comes down as fast as it can: a slow one seems to stand still then.
        """
        steady = self._steady
        moved = steady is None or (
            abs(percent - steady[1]) > STEADY_PERCENT or abs(felt - steady[2]) > STEADY_KELVIN
        )
        if steady is None or moved:
            self._steady = (now, percent, felt)
        elif now - steady[0] >= STEADY_SECONDS:
            self._steady = (now, percent, felt)
            if base + CLEAR_PERCENT <= percent <= MOST_OF_A_CURVE_PERCENT:
                self._curve.add(felt, percent)

    def _learn(self, name: str, seen: float) -> None:
        low, high = _BOUNDS[name]
        if not low <= seen <= high:
            return
        known = getattr(self, name)
        setattr(self, name, seen if known is None else known + (seen - known) * NEW_PART)

    def saved(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in _BOUNDS}

    @classmethod
    def restored(cls, saved: Mapping[str, object]) -> "FanResponse":
        """Raises TypeError or ValueError when the saved form is not ours."""
        response = cls()
        for name, (low, high) in _BOUNDS.items():
            value = optional_number(saved.get(name))
            if value is not None and not low <= value <= high:
                raise ValueError(f"a saved fan's {name} is out of its bounds")
            setattr(response, name, value)
        return response


def _stops_below(turns_below: float) -> float:
    """How far below its onset a fan stops of which only is known that it still turned so far below: as likely earlier as later."""
    least, most = max(STOP_BELOW_KELVIN[0], turns_below), STOP_BELOW_KELVIN[1]
    lower = LOWER_PART * (LOWEST_STOP_KELVIN - max(least, most))
    if lower <= 0:
        return least + STILL_TURNS_KELVIN
    half = (max(0.0, most - least) + lower) / 2
    return LOWEST_STOP_KELVIN - half / LOWER_PART if half < lower else most - (half - lower)
