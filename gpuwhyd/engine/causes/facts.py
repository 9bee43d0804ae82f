"""What the causes look at, and what each of them says."""

from dataclasses import dataclass

from gpuwhyd.model import Cause, Suspect


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


def quality(facts: Facts) -> float:
    """Less sure where power was guessed from utilisation, or its split from who holds memory."""
    return (1.0 if facts.engine_times_known else 0.7) * (1.0 if facts.power_known else 0.85)
