"""What is said of a card at one moment, before words are made of it."""

from dataclasses import dataclass

from gpuwhyd.engine.causes.facts import Finding
from gpuwhyd.model import Cause, Suspect


@dataclass(frozen=True, slots=True)
class Answer:
    """What it is, and who."""

    finding: Finding
    suspects: tuple[Suspect, ...]
    unattributed_share: float
    """The part of the heat that they leave unexplained."""
    trend: str | None
    """Of the temperature; `None` without a reading."""

    @property
    def cause(self) -> Cause:
        return self.finding.cause

    @property
    def confidence(self) -> float:
        """0 to 1."""
        return round(min(1.0, max(0.0, self.finding.confidence)), 3)

    @property
    def leader(self) -> str:
        """The key of the leading suspect's program; empty when nobody is named."""
        return self.suspects[0].program.key if self.suspects else ""
