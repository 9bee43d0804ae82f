"""A hot spot or memory that is hot while the core is cool, and whether it is what the fan runs for. What is usual is learned
per card.

A fan that is up is mostly up for the core as well. So a hot spot is called its reason only where the core alone explains no
such fan: it is clearly faster than it was at such a core without anything hot, or than any card's own curve makes it.

The hot spot of a healthy card is 8 to 20 K above its edge under load; GDDR6X runs at 90 to 105 degC, beside a core of 65 to 80.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gpuwhyd.engine.saved import optional_number, table
from gpuwhyd.engine.thermal.fan import STILL_PERCENT
from gpuwhyd.model import FanMode, GpuReading

COOL_CORE_CELSIUS = 60.0
"""Cards' own curves start the fan at 50 to 61 degC of the core, and hold it low up to there."""
HOT_SPOT_CELSIUS = 80.0
HOT_SPOT_KELVIN = 30.0
"""So far above a cool core it is half as much again as the most that is usual."""
HOT_MEMORY_CELSIUS = 90.0
"""Limits are 95 (HBM) to 110 (GDDR6X); fans are driven by the memory from about 90 on."""
UNUSUAL_KELVIN = 12.0
UNUSUAL_CELSIUS = 75.0
"""A difference of so much more than usual counts from so hot a spot on."""
RELEASE_KELVIN = 3.0
HELD_SECONDS = 10.0
STEP_KELVIN = 10.0
"""What is usual is kept for core temperatures in steps of this."""
LEARNED_SECONDS = 600.0
"""It is known after so long in a step,"""
SLOWEST_SECONDS = 6 * 3600.0
"""and follows what is seen with at most this time constant: paste that dries does so over months."""
FASTER_PERCENT = 5.0
"""A fan that is no faster than it was at this core temperature when nothing was hot runs for the core, whatever else is hot."""
FASTER_PART = 0.2
"""And so much of its rise has to be what the core does not explain: for less nobody would name it."""
FAN_STEP_KELVIN = 2.0
FAN_SECONDS = 20.0
"""So long the core has to have been in a step; of its fan the fastest counts, so that its lag after a load is in it."""
STANDING_ONSET_CELSIUS, TURNING_ONSET_CELSIUS = 50.0, 43.0
"""No card's own curve leaves rest for a colder core: fans that stand still at rest were seen to start at 50 to 61 degC, and of
those that turn the coldest, a GTX 1080's, is 4 points above its rest at 50.
"""
ONSET_KELVIN = 3.0
"""So much below where this card's fan left rest before: sensors round, and a fan feels the core some seconds late."""
STEEPEST_PERCENT_PER_KELVIN = 2.6
"""Recorded curves have 1.4 to 2.6 points a kelvin,"""
STARTS_WITH_PERCENT = 30.0
"""and a fan that stood still begins with 20 to 30 %."""
FORGETS_KELVIN_PER_SECOND = 0.1
"""A fan that falls by 0.2 points a second, as the slowest do, is still up for what the core was minutes ago."""
MOST_FAN_STEPS = 60
MOST_STEPS = 16
LONGEST_STEP_SECONDS = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hot:
    """What is hot while the core is cool."""

    what: str
    """`hotspot` or `memory`."""
    celsius: float
    for_seconds: float
    usual_celsius: float | None = None
    """What this card has shown at this core temperature; `None` where that is not what tells."""
    drives_fan: bool = False
    """The core alone explains no such fan."""


@dataclass(slots=True)
class HotSpots:
    _usual: dict[int, tuple[float, float]] = field(default_factory=dict)
    """By step of the core's temperature: seconds seen, and the mean difference in kelvin."""
    _fastest: dict[int, tuple[float, float]] = field(default_factory=dict)
    """The same in finer steps: seconds seen, and the fan's highest percent."""
    _warmest: float | None = None
    """The core, since the fan was last at rest."""
    _warmest_lately: float | None = None
    """The same, but what is long ago counts less: the core that the fan may still feel."""
    _drives_fan: bool = False
    _since: float | None = None
    _what: str | None = None
    _last_at: float | None = None

    def feed(self, now: float, reading: GpuReading, *, fan_is_up: bool) -> None:
        """One reading; `fan_is_up`: a spike is open, as of the reading before."""
        dt = 0.0 if self._last_at is None else min(now - self._last_at, LONGEST_STEP_SECONDS)
        self._last_at = now
        self._follow_core(dt, reading.temperature_celsius, fan_is_up=fan_is_up)
        if reading.hotspot_celsius is None and reading.memory_temperature_celsius is None:
            self._since = self._what = None
            self._drives_fan = False
            return
        what = self._hot(reading)
        if what is None:
            self._since = self._what = None
            self._drives_fan = False
            self._learn(dt, reading)
            self._learn_fan(dt, reading)
        elif what != self._what:
            self._since, self._what = now, what

    def interrupted(self) -> None:
        """A gap, a suspend, a card that is not read."""
        self._since = self._what = self._last_at = None
        self._drives_fan = False

    def judge(
        self, now: float, reading: GpuReading, *, rest_percent: float | None, onset_celsius: float | None
    ) -> None:
        """The same reading, once its fan was followed: does it run for what is hot? `onset_celsius`: where this card's fan
        left rest in earlier spikes.
        """
        if self._since is None or now - self._since < HELD_SECONDS:
            return
        faster = self._unexplained_percent(reading.fan_percent, rest_percent, onset_celsius)
        clearly = max(FASTER_PERCENT, FASTER_PART * ((reading.fan_percent or 0.0) - (rest_percent or 0.0)))
        self._drives_fan = faster is not None and faster >= (0.5 if self._drives_fan else 1.0) * clearly

    def hot(self, now: float, reading: GpuReading) -> Hot | None:
        """What is hot, once it has been so for long enough."""
        if self._since is None or now - self._since < HELD_SECONDS:
            return None
        is_memory = self._what == "memory"
        celsius = reading.memory_temperature_celsius if is_memory else reading.hotspot_celsius
        if celsius is None or self._what is None:
            return None
        core = reading.temperature_celsius
        is_far = core is not None and celsius - core >= HOT_SPOT_KELVIN
        usual = None if is_memory or is_far else self.usual_kelvin(reading)
        return Hot(
            what=self._what,
            celsius=celsius,
            for_seconds=now - self._since,
            usual_celsius=None if usual is None or core is None else core + usual,
            drives_fan=self._drives_fan,
        )

    def usual_kelvin(self, reading: GpuReading) -> float | None:
        """How far above the core the hot spot is at this core temperature; `None` until that is known."""
        if reading.temperature_celsius is None:
            return None
        seconds, kelvin = self._usual.get(_step(reading.temperature_celsius), (0.0, 0.0))
        return kelvin if seconds >= LEARNED_SECONDS else None

    def _hot(self, reading: GpuReading) -> str | None:
        core, spot, memory = (
            reading.temperature_celsius,
            reading.hotspot_celsius,
            reading.memory_temperature_celsius,
        )
        if core is None or core > COOL_CORE_CELSIUS + self._slack(self._what):
            return None
        if memory is not None and memory >= HOT_MEMORY_CELSIUS - self._slack("memory"):
            return "memory"
        if spot is None:
            return None
        slack, usual = self._slack("hotspot"), self.usual_kelvin(reading)
        unusual = usual is not None and spot - core >= usual + UNUSUAL_KELVIN - slack
        far = spot - core >= HOT_SPOT_KELVIN - slack
        if (far and spot >= HOT_SPOT_CELSIUS - slack) or (unusual and spot >= UNUSUAL_CELSIUS - slack):
            return "hotspot"
        return None

    def _follow_core(self, dt: float, core: float | None, *, fan_is_up: bool) -> None:
        if core is None:
            return
        if self._warmest is None or self._warmest_lately is None or not fan_is_up:
            self._warmest = self._warmest_lately = core
            return
        self._warmest = max(self._warmest, core)
        self._warmest_lately = max(self._warmest_lately - FORGETS_KELVIN_PER_SECOND * dt, core)

    def _unexplained_percent(
        self, percent: float | None, rest: float | None, onset: float | None
    ) -> float | None:
        """How much of the fan's speed no core explains that was as warm as this one since it left rest; `None`: not known.

        The first that is known counts: that this card's fan is at rest then, what it did then, what any card's does.
        """
        warmest, lately = self._warmest, self._warmest_lately
        if percent is None or warmest is None or lately is None:
            return None
        if onset is not None and rest is not None and warmest <= onset - ONSET_KELVIN:
            return percent - rest
        at = _fan_step(lately)
        if self._fastest.get(at, (0.0, 0.0))[0] >= FAN_SECONDS:
            return percent - max(fastest for step, (_, fastest) in self._fastest.items() if step <= at)
        if rest is None:
            return None
        stands = rest < STILL_PERCENT
        begins = STANDING_ONSET_CELSIUS if stands else TURNING_ONSET_CELSIUS
        if onset is not None:
            begins = max(begins, onset - ONSET_KELVIN)
        if warmest <= begins:
            return percent - rest
        base = STARTS_WITH_PERCENT if stands else rest
        return percent - base - STEEPEST_PERCENT_PER_KELVIN * max(0.0, lately - begins)

    def _slack(self, what: str | None) -> float:
        """What is hot stays so for some kelvin: sensors jump by one or two."""
        return RELEASE_KELVIN if what is not None and what == self._what else 0.0

    def _learn(self, dt: float, reading: GpuReading) -> None:
        core, spot = reading.temperature_celsius, reading.hotspot_celsius
        if core is None or spot is None or dt <= 0 or spot <= core:
            return  # where the driver has one sensor only, both are the same
        step = _step(core)
        if step not in self._usual and len(self._usual) >= MOST_STEPS:
            return
        seconds, kelvin = self._usual.get(step, (0.0, spot - core))
        seconds = min(seconds + dt, SLOWEST_SECONDS)
        self._usual[step] = seconds, kelvin + (spot - core - kelvin) * dt / seconds

    def _learn_fan(self, dt: float, reading: GpuReading) -> None:
        if reading.temperature_celsius is None or reading.fan_percent is None or dt <= 0:
            return
        if reading.fan_mode is FanMode.MANUAL:
            return  # somebody else's doing, which says nothing of the card
        step = _fan_step(reading.temperature_celsius)
        if step in self._fastest or len(self._fastest) < MOST_FAN_STEPS:
            seconds, percent = self._fastest.get(step, (0.0, 0.0))
            sinks = (
                (percent - reading.fan_percent) * dt / SLOWEST_SECONDS
            )  # a test of the fan is not for ever
            self._fastest[step] = min(seconds + dt, FAN_SECONDS), max(percent - sinks, reading.fan_percent)

    # -- over a restart -------------------------------------------------------------------------------------------

    def saved(self) -> dict[str, object]:
        return {
            "fan": {str(step): list(pair) for step, pair in self._fastest.items()},
            "core": {"warmest": self._warmest, "warmest_lately": self._warmest_lately},
            **{str(step): list(pair) for step, pair in self._usual.items()},
        }

    @classmethod
    def restored(cls, saved: Mapping[str, object]) -> "HotSpots":
        """Raises TypeError or ValueError when the saved form is not ours."""
        usual = {step: pair for step, pair in saved.items() if step not in {"fan", "core"}}
        core = table(saved.get("core", {}))
        return cls(
            _usual=_pairs(usual, MOST_STEPS),
            _fastest=_pairs(table(saved.get("fan", {})), MOST_FAN_STEPS),
            _warmest=optional_number(core.get("warmest")),
            _warmest_lately=optional_number(core.get("warmest_lately")),
        )


def _pairs(saved: Mapping[str, object], most: int) -> dict[int, tuple[float, float]]:
    pairs = {}
    for step, pair in list(table(saved).items())[:most]:
        if not isinstance(pair, list) or len(pair) != 2:
            raise TypeError("two numbers were expected in the saved state")
        seconds, value = optional_number(pair[0]), optional_number(pair[1])
        if seconds is None or value is None or seconds < 0:
            raise ValueError("a saved step of temperatures is none")
        pairs[int(step)] = seconds, value
    return pairs


def _step(celsius: float) -> int:
    return int(celsius // STEP_KELVIN)


def _fan_step(celsius: float) -> int:
    return int(celsius // FAN_STEP_KELVIN)
