"""What was learned of one card's cooler and fan, and the outlook that follows from it."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from gpuwhyd.engine.saved import optional_number, restore, table
from gpuwhyd.engine.thermal.fan import FanResponse
from gpuwhyd.engine.thermal.forecast import Peak, peak, seconds_until_quiet
from gpuwhyd.engine.thermal.height import Height
from gpuwhyd.engine.thermal.history import History, Worse
from gpuwhyd.engine.thermal.model import Constants, Fitted, Idle, first_guess, fit, follow
from gpuwhyd.engine.thermal.record import BIN_SECONDS, Record

IDLE_SECONDS = 120.0
"""What the card comes to at idle is averaged over so long."""
LOOK_SECONDS = 6.0
"""After a load the fan's way down is foretold when it ends and so long after, and later when a quarter of the time has passed
again. The model is fitted each time that has doubled: that takes as long as some ticks."""
LOAD_LOOK_SECONDS = 30.0
"""While a load lasts it is fitted after so long, and each time that has doubled."""
USABLE_KELVIN = 4.0
GOOD_KELVIN = 2.5
"""A model that misses a record by more foretells nothing, or teaches nothing; of recorded cards it misses 0.3 to 1.5 K."""
LEAST_RISE_KELVIN = 10.0
"""A record in which the temperature moved less tells nothing of time constants."""
FORETOLD_SECONDS = 12.0
LEAST_SECONDS = 20.0
"""What is foretold so long after a load is held against what came, if that was at least so far away."""
MOST_ERRORS = 7
LEAST_ERRORS = 3
MOST_ERROR_PART = 1.0
"""With so many predictions wrong by more than this in the median, none is told any more."""
SEEN_SECONDS = 90.0
"""Where a load leads to is told after so much of it: before that all coolers warm alike."""
LOAD_SECONDS = 60.0
"""What a load draws is averaged over so long: games draw theirs in bursts."""
CLEARLY_HIGHER_PERCENT = 3.0
CLEARLY_KELVIN = 1.0
NEW_PART = 0.5
LARGEST_CHANGE = 1.5
"""What one spike counts against those before, and by which factor at most it changes a constant."""


@dataclass(slots=True)
class Sample:
    """What matters of one moment; speeds in percent of the fan's top speed."""

    percent: float
    rest: float
    settle: float
    """A fan at most so many points above rest is back at rest."""
    celsius: float | None
    watts: float
    """All that the card draws; of one that does not tell, what its utilisation makes of it."""
    idle_watts: float
    scale_watts: float
    wall_usec: int
    working: bool
    heating: bool
    """It draws clearly more than at idle at this very moment."""
    is_cold: bool
    """There is next to no heat of programs in the cooler."""


@dataclass(slots=True)
class Thermal:
    """Feed it one sample a tick, and let it `look` while a fan is up."""

    learned: Constants | None = None
    """From whole spikes of this card."""
    fan: FanResponse = field(default_factory=FanResponse)
    idle: Idle | None = None
    history: History = field(default_factory=History)
    errors: list[float] = field(default_factory=list)
    """Of the last predictions of quiet: parts of the time that was left."""
    _record: Record = field(default_factory=Record)
    _is_whole: bool = False
    """The record goes back to when the fan was at rest and nothing worked."""
    _has_gap: bool = False
    """Somewhere since then nobody looked: good enough for an outlook, not to learn from."""
    _quiet_at: float | None = None
    _height: Height = field(default_factory=Height)
    _working: bool = False
    _rest: float = 0.0
    _changed_at: float = 0.0
    """When a load began or ended."""
    _look_at: float = 0.0
    _looked_at: float = -math.inf
    _saw_fall: bool = False
    """At the last look the fan had been seen to fall."""
    _constants: Constants | None = None
    """As last fitted in this spike."""
    _fit_at: float = 0.0
    _fitted_at: float = -math.inf
    _foretold: tuple[float, float] | None = None
    """(boottime when quiet was foretold, boottime that was said)."""

    @property
    def error_part(self) -> float | None:
        """By which part of the time that was left predictions were wrong, in the median; `None` before the first."""
        return statistics.median(self.errors) if self.errors else None

    @property
    def is_often_wrong(self) -> bool:
        """This card is not understood: better no outlook than that."""
        error = self.error_part
        return error is not None and len(self.errors) >= LEAST_ERRORS and error > MOST_ERROR_PART

    def interrupted(self) -> None:
        """A gap, a fan that somebody else governs, a card that is not read: nothing is learned across it."""
        self._record.clear()
        self.fan.interrupted()
        self._is_whole = False
        self._quiet_at = self._foretold = None
        self._height.forget()
        self._look_at = self._fit_at = 0.0
        self._constants = None

    def feed(self, now: float, dt: float, sample: Sample, *, gap: bool = False) -> None:
        """One sample, `dt` seconds after the one before; `gap`: too long to say what was in between."""
        if gap:
            self._has_gap = True
            self.fan.gap()
        if sample.working != self._working:
            self._height.forget()
            self._began_anew(now, sample)
        self._rest = sample.rest
        rested = self.fan.feed(
            now, dt, sample.percent, sample.rest, sample.settle, sample.celsius, heating=sample.heating
        )
        if sample.celsius is None:
            self._record.clear()
            self._is_whole = False
        elif self._record.feed(dt, sample.watts, sample.percent / 100, sample.celsius) and not (
            self.fan.is_up or sample.working
        ):
            self._is_whole, self._has_gap = True, False
            if sample.is_cold:
                self._follow_idle(sample, sample.celsius)
        if sample.working and self._height.feed(now, dt, sample.percent, self.fan.felt_celsius, sample.watts):
            self._began_anew(now, sample)
        if rested is not None:
            self._compare(rested)
            self._learn(sample)

    def _began_anew(self, now: float, sample: Sample) -> None:
        """A load, another load, or none any more."""
        self._working, self._changed_at = sample.working, now
        soon = LOAD_LOOK_SECONDS if sample.working else 0.0
        self._look_at = max(now + soon, self._looked_at + LOOK_SECONDS)
        self._fit_at = max(now, self._fitted_at + LOOK_SECONDS) + LOOK_SECONDS
        self._quiet_at = self._foretold = None

    def look(self, now: float, sample: Sample) -> None:
        """While the fan is up: looks ahead again when that is due, and as soon as it is seen to fall."""
        if now < self._look_at and (sample.working or self._saw_fall or not self.fan.is_seen_to_fall):
            return
        self._saw_fall = self.fan.is_seen_to_fall
        passed = now - self._changed_at
        self._looked_at = now
        self._look_at = now + max(LOOK_SECONDS, passed / (1 if sample.working else 4))
        fitted = self._followed(now, sample)
        if sample.working:
            self._look_up(now, sample, fitted)
            return
        self._quiet_at = self._quiet(now, sample, fitted)
        if self._quiet_at is not None:  # nor is it left at "now", when the fan is still up then
            self._look_at = min(self._look_at, max(now + LOOK_SECONDS, self._quiet_at))
        if self._foretold is None and self._quiet_at is not None and passed >= FORETOLD_SECONDS:
            self._foretold = (now, self._quiet_at)

    def _followed(self, now: float, sample: Sample) -> Fitted | None:
        """The model as of now, fitted anew only when twice as much has passed as at the last fit."""
        if not self._record.bins:
            return None
        if self._constants is None or now >= self._fit_at:
            fitted = self._fit(sample)
            self._constants = None if fitted is None else fitted.constants
            self._fitted_at = now
            self._fit_at = now + max(2 * LOOK_SECONDS, now - self._changed_at)
            return fitted
        return follow(self._record.bins, self._constants)

    def quiet_in(self, now: float) -> float | None:
        """Seconds until the fan is back at rest, as far as that was looked at; `None` when nobody can tell."""
        if self._quiet_at is None or self.is_often_wrong:
            return None
        return max(0.0, self._quiet_at - now)

    @property
    def peak(self) -> Peak | None:
        """Where the fan settles when the load goes on, if that is clearly higher than now and well enough known."""
        return self._height.told

    def worse(self, watts: float) -> Worse | None:
        """How much warmer the card gets than it used to, and whether its fan rested then at this steady power."""
        loss, learned, onset = self.history.loss_part, self.learned, self.fan.onset_celsius
        if loss is None or learned is None:
            return None
        warming = learned.steady(watts, self._rest / 100) - learned.ambient_celsius
        before = learned.ambient_celsius + warming / (1 + loss)
        return Worse(loss_part=loss, rested_before=onset is not None and before < onset - CLEARLY_KELVIN)

    def _look_up(self, now: float, sample: Sample, fitted: Fitted | None) -> None:
        """Where the load leads to, by a model that has seen a whole spike, or enough of this one."""
        joules = seconds = 0.0
        for b in reversed(self._record.bins):
            joules += b.watts * b.seconds
            seconds += b.seconds
            if seconds >= LOAD_SECONDS or seconds >= now - self._changed_at:
                break
        watts = joules / seconds if seconds else sample.watts
        coming = None
        if fitted is not None and fitted.error_kelvin <= GOOD_KELVIN:
            coming = peak(fitted.constants, self.fan, rest=sample.rest, watts=watts)
        if coming is not None and coming.fan_percent < sample.percent + CLEARLY_HIGHER_PERCENT:
            coming = None
        seen = now - self._changed_at >= SEEN_SECONDS and (self._is_whole or self.learned is not None)
        self._height.look(now, coming, watts, known=seen)

    def _quiet(self, now: float, sample: Sample, fitted: Fitted | None) -> float | None:
        known = self.fan.onset(sample.rest) is not None
        if fitted is not None and fitted.error_kelvin <= USABLE_KELVIN and known:
            seconds = seconds_until_quiet(
                fitted,
                self.fan,
                percent=sample.percent,
                rest=sample.rest,
                settle=sample.settle,
                watts=sample.idle_watts,
            )
        elif (falls := self.fan.falls_per_second) is not None:
            seconds = max(0.0, sample.percent - sample.rest - sample.settle) / falls
        else:
            seconds = None
        return None if seconds is None else now + seconds

    def _fit(self, sample: Sample) -> Fitted | None:
        bins = self._record.bins
        prior = self.learned or first_guess(sample.scale_watts)
        if self.idle is not None:
            warmer = self.idle.celsius - prior.steady(self.idle.watts, self.idle.fan_part)
            prior = replace(prior, ambient_celsius=prior.ambient_celsius + warmer)
        if self._is_whole:
            return fit(bins, prior, self.idle, learned=self.learned is not None)
        return follow(bins, prior)

    def _follow_idle(self, sample: Sample, celsius: float) -> None:
        fan_part = sample.percent / 100
        if self.idle is None:
            self.idle = Idle(watts=sample.watts, fan_part=fan_part, celsius=celsius)
            return
        new = BIN_SECONDS / (BIN_SECONDS + IDLE_SECONDS)
        self.idle = Idle(
            watts=self.idle.watts + (sample.watts - self.idle.watts) * new,
            fan_part=self.idle.fan_part + (fan_part - self.idle.fan_part) * new,
            celsius=self.idle.celsius + (celsius - self.idle.celsius) * new,
        )

    def _compare(self, rested: float) -> None:
        """What was foretold at the end of the load against what came."""
        foretold, self._foretold, self._quiet_at = self._foretold, None, None
        if foretold is None or self._working or rested - foretold[0] < LEAST_SECONDS:
            return
        said_at, said = foretold
        self.errors = [*self.errors, abs(said - rested) / (rested - said_at)][-MOST_ERRORS:]

    def _learn(self, sample: Sample) -> None:
        """From a spike that is over, if nothing is missing in it."""
        temperatures = [b.celsius for b in self._record.bins]
        if not self._is_whole or self._has_gap or max(temperatures) - min(temperatures) < LEAST_RISE_KELVIN:
            return
        fitted = self._fit(sample)
        if fitted is None or fitted.error_kelvin > GOOD_KELVIN or not fitted.constants.are_possible:
            return
        before, seen = self.learned, fitted.constants
        self.learned = seen if before is None else _nearer(before, seen)
        self.history.add(sample.wall_usec, seen, sample.scale_watts)

    # -- over a restart -------------------------------------------------------------------------------------------

    def saved(self) -> dict[str, object]:
        return {
            "learned": None if self.learned is None else asdict(self.learned),
            "fan": self.fan.saved(),
            "idle": None if self.idle is None else asdict(self.idle),
            "errors": list(self.errors),
            "history": self.history.saved(),
        }

    @classmethod
    def restored(cls, saved: Mapping[str, object]) -> "Thermal":
        """Raises TypeError or ValueError when the saved form is not ours; an empty one is a card never seen."""
        learned, idle, errors = saved.get("learned"), saved.get("idle"), saved.get("errors", [])
        if not isinstance(errors, list):
            raise TypeError("errors of saved predictions must be a list")
        constants = None if learned is None else restore(Constants, learned)
        if constants is not None and not constants.are_possible:
            raise ValueError("saved constants of a cooler are impossible")
        return cls(
            learned=constants,
            fan=FanResponse.restored(table(saved.get("fan", {}))),
            idle=None if idle is None else restore(Idle, idle),
            history=History.restored(table(saved.get("history", {}))),
            errors=[abs(optional_number(error) or 0.0) for error in errors][-MOST_ERRORS:],
        )


def _nearer(before: Constants, seen: Constants) -> Constants:
    """One spike's constants against those known before, by their ratio."""

    def mean(old: float, new: float) -> float:
        ratio = min(LARGEST_CHANGE, max(1 / LARGEST_CHANGE, new / old))
        return old * math.exp(NEW_PART * math.log(ratio))

    return Constants(
        ambient_celsius=seen.ambient_celsius,
        die_kelvin_per_watt=mean(before.die_kelvin_per_watt, seen.die_kelvin_per_watt),
        fast_kelvin_per_watt=mean(before.fast_kelvin_per_watt, seen.fast_kelvin_per_watt),
        slow_kelvin_per_watt=mean(before.slow_kelvin_per_watt, seen.slow_kelvin_per_watt),
        fast_seconds=mean(before.fast_seconds, seen.fast_seconds),
        slow_seconds=mean(before.slow_seconds, seen.slow_seconds),
    )
