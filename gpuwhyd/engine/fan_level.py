"""How loud the fan is against its rest level: what rest is, which of percent and RPM to believe, and has it risen.

Measured on real cards: rest levels run from 0 to 41 %; a Vega shows 20 to 28 % while its tachometer says 0; one card
says RPM 0 up to 79 %; a tachometer chatters between 0 and 345 RPM at 1 to 4 %; resting fans creep by 1 to 3 points.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from gpuwhyd.engine.flat import Flat
from gpuwhyd.engine.saved import optional_number
from gpuwhyd.engine.settings import SpikeSettings

STANDSTILL_RPM = 100.0
"""Tachometers of fans that stand still were seen at 5 and 29 RPM."""
IMPLAUSIBLE_REST_RPM_PERCENT = 35.0
"""RPM 0 at a commanded percent above the highest seen on standing fans (28 %) means: no tachometer."""
SHOWS_PERCENT_AT_STANDSTILL = 15.0
CALM_SECONDS = 5.0
"""A fan that turns is called quiet after so long at rest: it hunts around the edge of rest while it comes down."""
RAISE_SECONDS = 60.0
"""An idle card's rest follows a fan that creeps up by a point and stays there, not one that goes on and on."""
WAVER_PERCENT = 2.0
"""A fan that rests goes to and fro by so much; where it does by more, nobody knows what its rest is."""
FLAT_PERCENT = 1.0
FLAT_RPM_PART = 0.04
"""RPM of a fan held at one speed varies by 1 to 3 %."""


@dataclass(slots=True)
class FanLevel:
    """Feed it one sample a tick; levels are percent and RPM of the fastest fan.

    `rest_percent` and `rest_rpm` are `None` until known: a daemon that starts in mid-load does not know them.
    """

    rest_percent: float | None = None
    rest_rpm: float | None = None
    percent: float | None = None
    rpm: float | None = None
    rpm_has_turned: bool = False
    percent_lies: bool = False
    rpm_lies: bool = False
    _rpm_max: float | None = None
    _samples_up: int = 0
    _at_rest_since: float | None = None
    _stands: bool = False
    _recent: deque[tuple[float, float | None, float | None]] = field(default_factory=deque)
    """Samples of the settle time: (boottime, percent, RPM)."""
    _flat: Flat = field(default_factory=Flat)
    _flat_and_idle: Flat = field(default_factory=Flat)

    # -- what the level means -------------------------------------------------------------------------------------

    @property
    def believed_percent(self) -> float | None:
        return None if self.percent_lies else self.percent

    @property
    def believed_rpm(self) -> float | None:
        return None if self.rpm_lies else self.rpm

    @property
    def is_turning(self) -> bool:
        """Whether air moves; false too when nothing is known."""
        if self.believed_rpm is not None and (self.rpm_has_turned or self.believed_percent is None):
            return self.believed_rpm >= STANDSTILL_RPM
        return (self.believed_percent or 0.0) > 0

    @property
    def has_risen(self) -> bool:
        """Clearly above rest, seen twice in a row (or once by percent and RPM alike)."""
        return self._samples_up >= 2

    @property
    def may_be_rising(self) -> bool:
        """Above rest at this sample; not yet confirmed."""
        return self._samples_up == 1

    @property
    def rest_is_known(self) -> bool:
        return (
            self.rest_percent is not None if self.believed_percent is not None else self.rest_rpm is not None
        )

    def is_quiet(self, now: float) -> bool:
        """It stands still, or has been at rest for some samples."""
        since = self._at_rest_since
        return since is not None and (self._stands or now - since >= CALM_SECONDS)

    def settled_since(self, now: float, settings: SpikeSettings) -> float | None:
        """When the fan came back to rest, once it has stayed there for the settle time; else `None`."""
        since = self._at_rest_since
        return since if since is not None and now - since >= settings.settle_seconds else None

    def flat_since(self, now: float, settings: SpikeSettings) -> float | None:
        """Since when an idle card's fan has not moved, once that is long enough for a new rest level."""
        since = self._flat_and_idle.since
        return since if since is not None and now - since >= settings.new_rest_seconds else None

    def flat_seconds(self, now: float) -> float:
        """For how long the fan has not moved, whatever the card did."""
        return self._flat.seconds(now)

    # -- feeding --------------------------------------------------------------------------------------------------

    def feed(
        self,
        now: float,
        percent: float | None,
        rpm: float | None,
        rpm_max: float | None,
        *,
        idle: bool,
        in_spike: bool,
        settings: SpikeSettings,
    ) -> None:
        """One sample. `idle`: the card's power is at its idle floor; only then may the rest level rise."""
        self.percent, self.rpm, self._rpm_max = percent, rpm, rpm_max
        self._learn_trust()
        first = not self._recent and self.rest_percent is None and self.rest_rpm is None
        self._recent.append((now, percent, rpm))
        while self._recent and now - self._recent[0][0] > settings.settle_seconds + 1e-6:
            if len(self._recent) > 1 and now - self._recent[1][0] >= settings.settle_seconds:
                self._recent.popleft()
            else:
                break
        self._learn_rest(now, first=first, idle=idle, in_spike=in_spike, settings=settings)
        self._count_up(settings)
        self._follow_rest(now, settings)
        self._follow_flat(now, idle=idle)

    def interrupted(self) -> None:
        """A gap or a failed read: what must hold without a break starts anew."""
        self.unseen()
        self._at_rest_since = None

    def unseen(self) -> None:
        """Nobody looks while nothing heats: an idle card is let go, or the machine sleeps. A fan at rest stays there."""
        self._recent.clear()
        self._samples_up = 0
        self._flat.since = self._flat_and_idle.since = None

    def slept_since(self, boottime_seconds: float) -> None:
        """The machine slept from then until now; a fan that is at rest now has been so since."""
        if self._at_rest_since is not None:
            self._at_rest_since = min(self._at_rest_since, boottime_seconds)

    def asleep(self, now: float) -> None:
        """The card is suspended: its fan has nothing to do, and nobody asks how fast it turns."""
        self.percent = self.rpm = None
        self._samples_up = 0
        self._stands = True
        if self._at_rest_since is None:
            self._at_rest_since = now

    def accept_new_rest(self) -> None:
        """The flat level of an idle card is its rest from now on."""
        self.rest_percent, self.rest_rpm = self.percent, self.rpm
        self._samples_up = 0

    def _learn_trust(self) -> None:
        if self.rpm is None or self.percent is None:
            return
        if self.rpm >= STANDSTILL_RPM:
            self.rpm_has_turned = True
            self.rpm_lies = False
        elif (
            self.percent >= IMPLAUSIBLE_REST_RPM_PERCENT
            and not self.rpm_has_turned
            and len(self._recent) >= 2
        ):
            self.rpm_lies = True
            self.percent_lies = False
        stands = self.rpm < STANDSTILL_RPM and not self.rpm_lies
        # above what fans at rest show, a fan that turned before and stands is stuck, or its tachometer starts higher
        shows = SHOWS_PERCENT_AT_STANDSTILL <= self.percent < IMPLAUSIBLE_REST_RPM_PERCENT
        if stands and shows and len(self._recent) >= 2:
            stood = all(r is not None and r < STANDSTILL_RPM for _, _, r in self._recent)
            shown = all(p is not None and p >= SHOWS_PERCENT_AT_STANDSTILL for _, p, _ in self._recent)
            # a tachometer that lags its command by seconds is no reason to disbelieve the command
            if stood and shown and self._recent[-1][0] - self._recent[0][0] >= 5:
                self.percent_lies = True

    def _learn_rest(
        self, now: float, *, first: bool, idle: bool, in_spike: bool, settings: SpikeSettings
    ) -> None:
        if first and not in_spike:
            self.rest_percent, self.rest_rpm = self.percent, self.rpm
            return
        whole = now - self._recent[0][0] >= settings.settle_seconds - 1e-6
        percents = [p for _, p, _ in self._recent if p is not None]
        rpms = [r for _, _, r in self._recent if r is not None]
        if not in_spike or self.rest_is_known or self._has_stopped(percents, rpms):
            self.rest_percent = _lower(self.rest_percent, percents, WAVER_PERCENT, whole=whole)
            self.rest_rpm = _lower(self.rest_rpm, rpms, _flat_rpm(self.rpm), whole=whole)
        flat_since = self._flat_and_idle.since
        if whole and idle and not in_spike and flat_since is not None and now - flat_since >= RAISE_SECONDS:
            self._raise_rest(percents, rpms)

    def _has_stopped(self, percents: list[float], rpms: list[float]) -> bool:
        return (
            (not rpms or max(rpms) < STANDSTILL_RPM)
            and (not percents or self.percent_lies or max(percents) == 0)
            and bool(rpms or percents)
        )

    def _raise_rest(self, percents: list[float], rpms: list[float]) -> None:
        """An idle card's resting fan creeps: follow it, but never through a move that opens a spike."""
        if percents and self.rest_percent is not None and max(percents) - min(percents) <= FLAT_PERCENT:
            self.rest_percent = max(self.rest_percent, min(percents))
        if rpms and self.rest_rpm is not None and max(rpms) - min(rpms) <= _flat_rpm(max(rpms)):
            self.rest_rpm = max(self.rest_rpm, min(rpms))

    def _count_up(self, settings: SpikeSettings) -> None:
        by_percent = _is_up(
            self.believed_percent, self.rest_percent, settings.rise_percent, settings.rise_percent, 0.5
        )
        by_rpm = self._rpm_is_up(settings)
        if self.believed_percent is not None:
            # a rise of RPM alone, while the commanded percent is believed and rests, is chatter or another's fan
            up = by_percent or (
                by_rpm and self.believed_percent > (self.rest_percent or 0.0) + settings.settle_percent
            )
        else:
            up = by_rpm
        self._samples_up = self._samples_up + (2 if by_percent and by_rpm else 1) if up else 0

    def _rpm_is_up(self, settings: SpikeSettings) -> bool:
        rise = 0.08 * self._rpm_max if self._rpm_max else settings.rise_rpm
        return _is_up(self.believed_rpm, self.rest_rpm, rise, settings.start_rpm, STANDSTILL_RPM)

    def _follow_rest(self, now: float, settings: SpikeSettings) -> None:
        if self.believed_percent is not None:
            level, rest, margin = self.believed_percent, self.rest_percent, settings.settle_percent
        elif self.believed_rpm is not None:
            level, rest, margin = self.believed_rpm, self.rest_rpm, settings.settle_rpm
        else:
            return
        # a fan that stands still is at rest, whatever the learned level
        self._stands = level == 0 if self.believed_percent is not None else level < STANDSTILL_RPM
        at_rest = self._stands or (rest is not None and level <= rest + margin)
        if not at_rest:
            self._at_rest_since = None
        elif self._at_rest_since is None:
            self._at_rest_since = now

    def _follow_flat(self, now: float, *, idle: bool) -> None:
        level = self.believed_percent if self.believed_percent is not None else self.believed_rpm
        allowed = FLAT_PERCENT if self.believed_percent is not None else _flat_rpm(level)
        self._flat.feed(now, level, allowed)
        self._flat_and_idle.feed(now, level if idle else None, allowed)

    # -- over a restart -------------------------------------------------------------------------------------------

    def saved(self) -> dict[str, object]:
        """What is worth keeping over a restart of the daemon."""
        return {
            "rest_percent": self.rest_percent,
            "rest_rpm": self.rest_rpm,
            "rpm_has_turned": self.rpm_has_turned,
            "percent_lies": self.percent_lies,
            "rpm_lies": self.rpm_lies,
        }

    @classmethod
    def restored(cls, saved: Mapping[str, object]) -> "FanLevel":
        """Raises TypeError or ValueError when the saved form is not ours."""
        return cls(
            rest_percent=optional_number(saved.get("rest_percent")),
            rest_rpm=optional_number(saved.get("rest_rpm")),
            rpm_has_turned=bool(saved.get("rpm_has_turned")),
            percent_lies=bool(saved.get("percent_lies")),
            rpm_lies=bool(saved.get("rpm_lies")),
        )


def _flat_rpm(rpm: float | None) -> float:
    """By so much the RPM of a fan that is held at one speed may vary."""
    return max(FLAT_RPM_PART * (rpm or 0.0), 30.0)


def _lower(rest: float | None, window: list[float], waver: float, *, whole: bool) -> float | None:
    """Rest as the last samples show it, if that is lower.

    Of a fan that only wavers it is the lowest that it shows, because a rise is heard from there: a
    fan at 32 and 33 % rests at 32. Any greater fall may be a false sample, or pass: there it is the highest that is
    held for the settle time.
    """
    if not window:
        return rest
    steady = max(window) - min(window) <= waver
    if not whole and not (steady and rest is not None):
        return rest
    sustained = min(window) if steady else max(window)
    return sustained if rest is None else min(rest, sustained)


def _is_up(level: float | None, rest: float | None, rise: float, start: float, standstill: float) -> bool:
    if level is None or rest is None:
        return False
    return level >= start if rest < standstill else level >= rest + rise
