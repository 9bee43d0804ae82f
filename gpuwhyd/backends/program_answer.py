"""What a driver's program said: of each card a reading, and what stood in the places that it came from."""

from collections.abc import Mapping
from typing import NamedTuple

from gpuwhyd.model import GpuReading


class Told(NamedTuple):
    """Of one card."""

    reading: GpuReading
    texts: Mapping[str, str]
    """Place in the answer -> what stands there; without the places that the answer does not have."""


class Answer(NamedTuple):
    """Of all cards."""

    cards: Mapping[str, Told]
    """By GPU id."""
    at: float
    """The monotonic seconds when it came."""
