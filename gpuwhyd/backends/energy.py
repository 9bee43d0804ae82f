"""Power from counters of energy, as some cards tell only those."""

from collections.abc import Sequence

LONGEST_WINDOW_SECONDS = 150.0
"""An average over more says nothing of now. A card that is let go is read every 120 s (grip.py)."""


class EnergyMeter:
    """Draws power from the best of a card's counters: the first one that moves, as long as it is there."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[float, float]] = {}
        self._chosen: str | None = None
        self._source: str | None = None

    @property
    def source(self) -> str | None:
        """The name of the counter that was used last; `None` while none counts."""
        return self._source

    def read(
        self, counters: Sequence[tuple[str, float | None]], now: float
    ) -> tuple[float | None, float | None]:
        """(watts, joules) from (name, joules) of each counter, the better one first; `now` is monotonic seconds.

        Watts are the average since the counter last moved. They are `None` at first, and when it stands still, is 0,
        went backwards (it started anew) or moved too long ago.
        """
        present = {name: joules for name, joules in counters if joules}
        before = self._before
        watts = {name: _watts(before.get(name), joules, now) for name, joules in present.items()}
        self._before = {
            name: old if (old := before.get(name)) is not None and old[0] == joules else (joules, now)
            for name, joules in present.items()
        }
        if self._chosen not in present:
            self._chosen = next((name for name, value in watts.items() if value is not None), None)
        name = self._source = self._chosen or next(iter(present), None)
        return (None, None) if name is None else (watts[name], present[name])


def _watts(before: tuple[float, float] | None, joules: float, now: float) -> float | None:
    if before is None:
        return None
    gained, seconds = joules - before[0], now - before[1]
    return gained / seconds if gained > 0 and 0 < seconds <= LONGEST_WINDOW_SECONDS else None
