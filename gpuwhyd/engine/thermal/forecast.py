"""What comes next, by the model: when the fan is quiet again after a load, and where a load leads to in the end."""

import math
from dataclasses import dataclass

from gpuwhyd.engine.thermal.fan import (
    FELT_SECONDS,
    PERCENT_PER_KELVIN,
    POINTS_PER_SECOND,
    STILL_PERCENT,
    FanResponse,
)
from gpuwhyd.engine.thermal.model import Constants, Fitted, resistance

FIRST_STEP_SECONDS = 3.0
STEP_GROWTH = 0.06
"""Steps grow with the time looked ahead: far ahead nobody needs seconds."""
LONGEST_SECONDS = 900.0
"""The longest after-runs on logs of real cards last 12 minutes: a forecast of more is wrong, and better left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """Where a card ends when its load goes on."""

    fan_percent: float
    celsius: float


def seconds_until_quiet(
    fitted: Fitted, fan: FanResponse, *, percent: float, rest: float, settle: float, watts: float
) -> float | None:
    """How long the fan stays up at idle power; `None` when it is not known where it comes back, or does not."""
    onset, back, felt = fan.onset(rest), fan.stops_at(rest, settle), fan.felt_celsius
    if onset is None or felt is None:
        return None
    model, base = fitted.constants, fan.base(rest)
    steepness = fan.steepness(rest) or PERCENT_PER_KELVIN
    if back is None:
        back = math.inf
    elif rest >= STILL_PERCENT:
        steepness = 0.0  # where it comes back says more than the curve by which it rose
    quiet = base if rest < STILL_PERCENT else base + settle
    falls = fan.falls_per_second or POINTS_PER_SECOND
    fast, slow = fitted.fast_watts, fitted.slow_watts
    if model.slow_kelvin_per_watt > 0:
        slow += fitted.off_kelvin / model.slow_kelvin_per_watt
    bottom = model.ambient_celsius + model.die_kelvin_per_watt * watts
    seconds, step = 0.0, FIRST_STEP_SECONDS
    while seconds < LONGEST_SECONDS:
        factor = resistance(percent / 100)
        goal = watts * factor
        fast = goal + (fast - goal) * math.exp(-step / (model.fast_seconds * factor))
        slow = goal + (slow - goal) * math.exp(-step / (model.slow_seconds * factor))
        celsius = bottom + model.fast_kelvin_per_watt * fast + model.slow_kelvin_per_watt * slow
        felt_before, percent_before = felt, percent
        felt += (celsius - felt) * step / (step + FELT_SECONDS)
        wanted = base + max(0.0, steepness * (felt - onset))
        percent = max(min(wanted, percent), percent - falls * step)
        if percent <= quiet and felt <= back:
            late = max(_part(percent_before, percent, quiet), _part(felt_before, felt, back))
            return seconds + step * late
        seconds += step
        step = FIRST_STEP_SECONDS + STEP_GROWTH * seconds
    return None


def _part(before: float, after: float, level: float) -> float:
    """At which part of a step something came down to a level; 0 when it was there before."""
    return 0.0 if before <= level else (before - level) / (before - after)


def peak(model: Constants, fan: FanResponse, *, rest: float, watts: float) -> Peak | None:
    """Where this power leads to; `None` while the fan's curve is not known."""
    onset = fan.onset(rest)
    steepness = fan.steepness(rest)
    if steepness is None or onset is None:
        return None
    base = fan.base(rest)
    low, high = base, 100.0
    for _ in range(10):  # more air, less heat: there is one point where curve and cooler agree
        middle = (low + high) / 2
        wanted = base + steepness * (model.steady(watts, middle / 100) - onset)
        if wanted > middle:
            low = middle
        else:
            high = middle
    return Peak(fan_percent=high, celsius=model.steady(watts, high / 100))
