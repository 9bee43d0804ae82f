"""The causes: each a function from the facts of one card at one moment to a finding, or `None` when it does not hold.

They are asked in the order of CAUSES; the first that holds is the answer. Confidences are calibrated by eye on
recordings, not yet measured: a visible program that made all of the heat gets 0.95, the same split by a proxy 0.67.
"""

from collections.abc import Callable
from dataclasses import dataclass

from gpuwhyd.engine.suspects import VISIBLE_SHARE
from gpuwhyd.model import Cause, Suspect

DOMINANT_SHARE = 0.6
"""One suspect with this much of the heat is the answer; with less, when it has twice that of the next."""
PINNED_PERCENT = 60.0
PINNED_BELOW_CELSIUS = 55.0
PINNED_SECONDS = 120.0
"""No recorded card's own curve holds 60 % below 55 degC; the highest was 44 % there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the causes look at."""

    asleep: bool
    has_fan: bool
    fan_is_up: bool
    """A spike is open and the fan is not back at rest."""
    fan_turns: bool
    fan_percent: float | None
    manual: bool
    flat_seconds: float
    """For how long the fan has not moved."""
    celsius: float | None
    trend: str
    working: bool
    """The card draws clearly more than at idle."""
    warm: bool
    """There is heat in the ledger."""
    suspects: tuple[Suspect, ...]
    unattributed_share: float
    engine_times_known: bool
    power_known: bool

    @property
    def visible_share(self) -> float:
        """What visible programs put there, those too that are too small to be named as suspects."""
        return 1 - self.unattributed_share


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    cause: Cause
    confidence: float
    marks: tuple[str, ...] = ()
    """Facts worth telling as evidence: `asleep`, `no_fan`, `fan_pinned`, ..."""


def manual_fan(facts: Facts) -> Finding | None:
    """The fan turns under manual policy; or it is fast, flat and far above what the temperature asks for."""
    if facts.asleep or not facts.has_fan or not facts.fan_turns:
        return None
    if facts.manual:
        return Finding(cause=Cause.MANUAL_FAN, confidence=0.95)
    pinned = (
        facts.fan_percent is not None
        and facts.fan_percent >= PINNED_PERCENT
        and facts.celsius is not None
        and facts.celsius <= PINNED_BELOW_CELSIUS
        and facts.flat_seconds >= PINNED_SECONDS
    )
    return Finding(cause=Cause.MANUAL_FAN, confidence=0.7, marks=("fan_pinned",)) if pinned else None


def quiet(facts: Facts) -> Finding | None:
    """The card sleeps; its fan is at rest; or it has no fan, and neither work nor heat."""
    if facts.asleep:
        return Finding(cause=Cause.QUIET, confidence=0.99, marks=("asleep",))
    if facts.has_fan:
        return None if facts.fan_is_up else Finding(cause=Cause.QUIET, confidence=0.95)
    return None if facts.working or facts.warm else Finding(cause=Cause.QUIET, confidence=0.95)


def residual_heat(facts: Facts) -> Finding | None:
    """The load is over: the card draws no more than at idle and cools down from what the ledger knows."""
    if facts.working:
        return None
    if facts.warm:
        confidence = (0.5 + 0.45 * facts.visible_share) * _quality(facts)
        return Finding(cause=Cause.RESIDUAL_HEAT, confidence=confidence)
    if facts.trend == "falling":
        return Finding(cause=Cause.RESIDUAL_HEAT, confidence=0.5)
    return None


def workload(facts: Facts) -> Finding | None:
    """One suspect's heat dominates."""
    if not facts.warm or not facts.suspects or facts.visible_share < VISIBLE_SHARE:
        return None
    leading = facts.suspects[0].share
    second = facts.suspects[1].share if len(facts.suspects) > 1 else 0.0
    if leading >= DOMINANT_SHARE or (leading >= 2 * second and leading >= facts.unattributed_share):
        return Finding(cause=Cause.WORKLOAD, confidence=(0.35 + 0.6 * leading) * _quality(facts))
    return None


def workload_mixed(facts: Facts) -> Finding | None:
    """Several suspects made the heat together."""
    visible = facts.visible_share
    if not facts.warm or len(facts.suspects) < 2 or visible < VISIBLE_SHARE:
        return None
    return Finding(cause=Cause.WORKLOAD_MIXED, confidence=(0.35 + 0.55 * visible) * _quality(facts))


def hidden_workload(facts: Facts) -> Finding | None:
    """The card works, but what is visible explains less than half of its heat."""
    if not facts.working or not facts.warm:
        return None
    confidence = (0.4 + 0.5 * facts.unattributed_share) * _quality(facts)
    return Finding(cause=Cause.HIDDEN_WORKLOAD, confidence=confidence)


def unknown(_facts: Facts) -> Finding:
    """None of the others holds."""
    return Finding(cause=Cause.UNKNOWN, confidence=0.2)


CAUSES: tuple[Callable[[Facts], Finding | None], ...] = (
    manual_fan,
    quiet,
    residual_heat,
    workload,
    workload_mixed,
    hidden_workload,
    unknown,
)


def find(facts: Facts) -> Finding:
    """The first cause that holds."""
    return next(finding for cause in CAUSES if (finding := cause(facts)) is not None)


def _quality(facts: Facts) -> float:
    """Less sure where power was guessed from utilisation, or its split from who holds memory."""
    return (1.0 if facts.engine_times_known else 0.7) * (1.0 if facts.power_known else 0.85)
