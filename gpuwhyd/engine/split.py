"""One tick's excess power -> what programs get of it by their engine time, by a proxy, and what stays unattributed."""

from collections.abc import Mapping
from typing import NamedTuple


class Split(NamedTuple):
    """Excess power, split: by engine time, by a proxy, and what stays unattributed."""

    timed_watts: float
    """For all programs whose engine time is known; each has its part of `engine_percent`."""
    engine_percent: float
    """Of all of them together; not 0."""
    watts_per_byte: float
    """For each byte that programs hold whose engine time is unknown."""
    guessed_watts: float
    """For all of those."""
    rest_watts: float

    @classmethod
    def of(
        cls, excess: float, known: Mapping[str, float], unknown: Mapping[str, float], explained: float
    ) -> "Split":
        visible, rest = sum(known.values()), excess * (1 - explained)
        timed, engines = (excess * explained, visible) if visible > 0 else (0.0, 1.0)
        if unknown and rest > 0:
            # who holds memory, and came with the load, is the best proxy where nobody tells engine times
            return cls(timed, engines, rest / sum(unknown.values()), rest, 0.0)
        return cls(timed, engines, 0.0, 0.0, rest)
