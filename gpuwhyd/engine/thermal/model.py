"""How a card's temperature follows its power: a die on two heat stores, whose constants are fitted to a record of it.

    celsius = ambient + die * watts + fast + slow

where each store creeps towards its kelvin per watt times the power, with its time constant; both are smaller the more
air the fan moves. Constants are those at full fan.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul

from gpuwhyd.engine.thermal.record import Bin

STILL_AIR = 0.45
"""What a cooler without a fan's air gives off of what it does at full speed; in between it is taken to grow with the speed.
Between 0.4 and 0.5 logs of real cards are fitted best."""
NOISE_KELVIN = 1.5
"""What sensors round and the model leaves out; fits of logs of real cards leave 0.9 to 1.7 K."""

LATE_BINS = 3
"""What the model misses in so many last ones is taken for heat that it does not know of."""
IDLE_WEIGHT = 10.0
"""What the card comes to at idle counts as so many bins: that is where it goes when the load is over."""
LEAST_PART = 0.2
"""No part of a cooler is better than expected by a larger factor."""
PINNED = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    ambient_celsius: float
    die_kelvin_per_watt: float
    fast_kelvin_per_watt: float
    slow_kelvin_per_watt: float
    fast_seconds: float
    slow_seconds: float

    @property
    def are_possible(self) -> bool:
        """No cooler of a graphics card is outside of these bounds."""
        per_watt = (self.die_kelvin_per_watt, self.fast_kelvin_per_watt, self.slow_kelvin_per_watt)
        return (
            -40 < self.ambient_celsius < 80
            and all(0 < kelvin < 20 for kelvin in per_watt)
            and 1 < self.fast_seconds < self.slow_seconds < 3600
        )

    def steady(self, watts: float, fan_part: float) -> float:
        """The temperature that this power leads to in the end."""
        stores = (self.fast_kelvin_per_watt + self.slow_kelvin_per_watt) * resistance(fan_part)
        return self.ambient_celsius + (self.die_kelvin_per_watt + stores) * watts


def first_guess(scale_watts: float) -> Constants:
    """For a card that draws so much at full load: it warms by 45 K or so then, as recorded ones do."""
    return Constants(
        ambient_celsius=27.0,
        die_kelvin_per_watt=12.0 / scale_watts,
        fast_kelvin_per_watt=14.0 / scale_watts,
        slow_kelvin_per_watt=20.0 / scale_watts,
        fast_seconds=22.0,
        slow_seconds=240.0,
    )


_GUESS_SPREADS = (8.0, 0.5, 0.5, 0.5)
"""How far from the guess a card may be: kelvin, and parts of the other constants."""
_GUESS_SPREAD_OF_SECONDS = (0.5, 0.4)
_LEARNED_PART = 0.4
"""So much of that spread is left when the constants were learned on this very card."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    constants: Constants
    fast_watts: float
    slow_watts: float
    """The stores now, as the power that holds them there at full fan."""
    error_kelvin: float
    """Root mean square of what the model misses."""
    off_kelvin: float
    """By how much the card has been warmer than the model in the last seconds."""


def follow(bins: Sequence[Bin], constants: Constants) -> Fitted:
    """The same with constants as they are: where a record began in mid-load, nothing can be fitted to it."""
    factors = [resistance(b.fan_part) for b in bins]
    fast, fast_now = _store(bins, factors, constants.fast_seconds)
    slow, slow_now = _store(bins, factors, constants.slow_seconds)
    per_die, per_fast, per_slow = (
        constants.die_kelvin_per_watt,
        constants.fast_kelvin_per_watt,
        constants.slow_kelvin_per_watt,
    )
    missed = [
        b.celsius - (constants.ambient_celsius + per_die * b.watts + per_fast * f + per_slow * s)
        for b, f, s in zip(bins, fast, slow, strict=True)
    ]
    return Fitted(
        constants=constants,
        fast_watts=fast_now,
        slow_watts=slow_now,
        error_kelvin=math.sqrt(sum(map(mul, missed, missed)) / len(missed)),
        off_kelvin=sum(missed[-LATE_BINS:]) / len(missed[-LATE_BINS:]),
    )


def resistance(fan_part: float) -> float:
    """Of the cooler, as a multiple of that at full fan."""
    return 1 / (STILL_AIR + (1 - STILL_AIR) * fan_part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """What a card comes to when it is left alone."""

    watts: float
    fan_part: float
    celsius: float


def fit(bins: Sequence[Bin], prior: Constants, idle: Idle | None, *, learned: bool) -> Fitted | None:
    """The constants that explain the record best, near those known before; `None` when there is too little of it."""
    if len(bins) < 4:
        return None
    spread = _LEARNED_PART if learned else 1.0
    logs_fast = _around(prior.fast_seconds, spread * _GUESS_SPREAD_OF_SECONDS[0])
    logs_slow = _around(prior.slow_seconds, spread * _GUESS_SPREAD_OF_SECONDS[1])
    known = _Known(bins, prior, spread, idle)
    fasts = [known.store(math.exp(log)) for log in logs_fast]
    slows = [known.store(math.exp(log)) for log in logs_slow]
    tried = []
    for log_fast, fast, far_fast in zip(logs_fast, fasts, _PENALTIES, strict=True):
        for log_slow, slow, far_slow in zip(logs_slow, slows, _PENALTIES, strict=True):
            _, misfit = known.solve(fast, slow)
            tried.append((misfit + far_fast + far_slow, log_fast, log_slow))
    best = min(misfit for misfit, _, _ in tried)
    likely = [math.exp((best - misfit) / 2) for misfit, _, _ in tried]
    fast_seconds = math.exp(sum(p * t[1] for p, t in zip(likely, tried, strict=True)) / sum(likely))
    slow_seconds = math.exp(sum(p * t[2] for p, t in zip(likely, tried, strict=True)) / sum(likely))
    (ambient, per_die, per_fast, per_slow), _ = known.solve(
        known.store(fast_seconds), known.store(slow_seconds)
    )
    constants = Constants(
        ambient_celsius=ambient,
        die_kelvin_per_watt=per_die,
        fast_kelvin_per_watt=per_fast,
        slow_kelvin_per_watt=per_slow,
        fast_seconds=fast_seconds,
        slow_seconds=slow_seconds,
    )
    return follow(bins, constants)


_STEPS = (-1.3, 0.0, 1.3)
_PENALTIES = tuple(step * step for step in _STEPS)


def _around(seconds: float, spread: float) -> list[float]:
    return [math.log(seconds) + step * spread for step in _STEPS]


def _store(bins: Sequence[Bin], factors: Sequence[float], seconds: float) -> tuple[list[float], float]:
    """A store's mean in each bin, and what it is at the end; steady at the start."""
    level = bins[0].watts * factors[0]
    means = []
    for b, factor in zip(bins, factors, strict=True):
        goal = b.watts * factor
        span = b.seconds / (seconds * factor)
        after = goal + (level - goal) * math.exp(-span)
        means.append(goal + (level - after) / span)
        level = after
    return means, level


class _Known:
    """What is the same for all time constants of one fit: the record's sums of products."""

    def __init__(self, bins: Sequence[Bin], prior: Constants, spread: float, idle: Idle | None) -> None:
        self.bins = bins
        self.factors = [resistance(b.fan_part) for b in bins]
        self.watts, self.celsius = [b.watts for b in bins], [b.celsius for b in bins]
        self.count = float(len(bins))
        self.sum_w, self.sum_c = sum(self.watts), sum(self.celsius)
        self.ww, self.wc = _dot(self.watts, self.watts), _dot(self.watts, self.celsius)
        self.cc = _dot(self.celsius, self.celsius)
        self.idle = None
        if idle is not None:
            stored = idle.watts * resistance(idle.fan_part)
            self.idle = (1.0, idle.watts, stored, stored, idle.celsius)
            self.cc += IDLE_WEIGHT * idle.celsius**2
        self.means = (
            prior.ambient_celsius,
            prior.die_kelvin_per_watt,
            prior.fast_kelvin_per_watt,
            prior.slow_kelvin_per_watt,
        )
        spreads = (
            _GUESS_SPREADS[0],
            *(
                spread * part * max(mean, 1e-6)
                for part, mean in zip(_GUESS_SPREADS[1:], self.means[1:], strict=True)
            ),
        )
        self.strengths = [(NOISE_KELVIN / s) ** 2 for s in spreads]

    def store(self, seconds: float) -> "_Stored":
        levels, _ = _store(self.bins, self.factors, seconds)
        return _Stored(
            levels, sum(levels), _dot(levels, levels), _dot(levels, self.watts), _dot(levels, self.celsius)
        )

    def solve(self, fast: "_Stored", slow: "_Stored") -> tuple[list[float], float]:
        """Ridge regression -> ambient and kelvin per watt, and the misfit in units of the noise, squared."""
        both = _dot(fast.levels, slow.levels)
        rows = [
            [self.count, self.sum_w, fast.total, slow.total, self.sum_c],
            [self.sum_w, self.ww, fast.by_watts, slow.by_watts, self.wc],
            [fast.total, fast.by_watts, fast.squares, both, fast.by_celsius],
            [slow.total, slow.by_watts, both, slow.squares, slow.by_celsius],
        ]
        if self.idle is not None:
            for row, one in zip(rows, self.idle, strict=False):
                for k, other in enumerate(self.idle):
                    row[k] += IDLE_WEIGHT * one * other
        right = [row[4] for row in rows]
        penalty = 0.0
        for i, (strength, mean) in enumerate(zip(self.strengths, self.means, strict=True)):
            rows[i][i] += strength
            rows[i][4] += strength * mean
            penalty += strength * mean * mean
            right[i] += strength * mean
        x = _solved([row.copy() for row in rows])
        for i in (1, 2, 3):
            if x[i] < LEAST_PART * self.means[i]:  # nothing gets colder by power
                rows[i][i] += PINNED
                rows[i][4] += PINNED * LEAST_PART * self.means[i]
                x = _solved([row.copy() for row in rows])
        least = self.cc + penalty - sum(map(mul, x, right))
        return x, least / NOISE_KELVIN**2


@dataclass(frozen=True, slots=True)
class _Stored:
    """A store's levels for one time constant, and its sums of products."""

    levels: list[float]
    total: float
    squares: float
    by_watts: float
    by_celsius: float


def _dot(one: list[float], two: list[float]) -> float:
    return float(sum(map(mul, one, two)))


def _solved(rows: list[list[float]]) -> list[float]:
    """Gauss; the ridge keeps every pivot above 0."""
    n = len(rows)
    for i in range(n):
        pivot = rows[i]
        for j in range(i + 1, n):
            row = rows[j]
            part = row[i] / pivot[i]
            for k in range(i, n + 1):
                row[k] -= part * pivot[k]
    x = [0.0] * n
    for i in reversed(range(n)):
        x[i] = (rows[i][n] - sum(rows[i][k] * x[k] for k in range(i + 1, n))) / rows[i][i]
    return x
