"""What is said of a card at one moment, before words are made of it."""

from dataclasses import dataclass

from gpuwhyd.model import Cause, Suspect


@dataclass(frozen=True, slots=True)
class Answer:
    """What it is, and who."""

    cause: Cause
    confidence: float
    suspects: tuple[Suspect, ...]
    unattributed_share: float
    """The part of the heat that they leave unexplained."""
