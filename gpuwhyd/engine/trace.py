"""A short memory of one card's power and temperature, for averages, trends and "52 to 78 degC"."""

from bisect import bisect_left, bisect_right
from collections import deque
from dataclasses import dataclass, field
from operator import itemgetter

TRACE_SECONDS = 180.0
SPACING_SECONDS = 1.0
"""Samples closer than this are joined to one, so that memory is bounded at any interval."""
TREND_SECONDS = 20.0
TREND_CELSIUS = 1.5

_at = itemgetter(0)


@dataclass(slots=True)
class Trace:
    """The last three minutes. An answer costs the same however much is remembered: it is asked for every tick."""

    _samples: deque[tuple[float, float, float, float | None]] = field(default_factory=deque)
    """(boottime, joules and seconds counted until then, degC)."""
    _lows: deque[tuple[float, float]] = field(default_factory=deque)
    """(boottime, degC) of what is lower than everything after it: rising, so the first in a time is its lowest."""
    _joules: float = 0.0
    _seconds: float = 0.0
    """Counted when the oldest sample began."""
    _began: float = 0.0
    """When it did."""

    def feed(self, now: float, dt: float, watts: float | None, celsius: float | None) -> None:
        if self._samples:
            _, joules, seconds, _ = self._samples[-1]
        else:
            joules, seconds, self._began = self._joules, self._seconds, now - dt
        if watts is not None and dt > 0:
            joules += watts * dt
            seconds += dt
        lowest = celsius
        if len(self._samples) > 1 and now - self._samples[-2][0] < SPACING_SECONDS:
            joined_at, *_ = self._samples.pop()
            if self._lows and self._lows[-1][0] == joined_at:
                _, joined = self._lows.pop()
                lowest = joined if celsius is None else min(celsius, joined)
        self._samples.append((now, joules, seconds, celsius))
        if lowest is not None:
            while self._lows and self._lows[-1][1] >= lowest:
                self._lows.pop()
            self._lows.append((now, lowest))
        while now - self._samples[0][0] > TRACE_SECONDS:
            self._began, self._joules, self._seconds, _ = self._samples.popleft()
        while self._lows and now - self._lows[0][0] > TRACE_SECONDS:
            self._lows.popleft()

    def average_watts(self, since: float) -> tuple[float, float, float] | None:
        """Average power since then (at most three minutes back), over how many seconds of known power, and since when that is."""
        if not self._samples:
            return None
        first = bisect_right(self._samples, since, key=_at)
        _, joules, seconds, _ = self._samples[-1]
        began, joules_before, seconds_before, _ = (
            self._samples[first - 1] if first else (self._began, self._joules, self._seconds, None)
        )
        seconds -= seconds_before
        return ((joules - joules_before) / seconds, seconds, began) if seconds > 0 else None

    def lowest_celsius(self, since: float) -> tuple[float, float] | None:
        """The lowest temperature since then (at most three minutes back), and since when that is."""
        first = bisect_left(self._lows, since, key=_at)
        return (self._lows[first][1], max(since, self._samples[0][0])) if first < len(self._lows) else None

    def trend(self, now: float, since: float | None = None) -> str:
        """`rising`, `steady` or `falling` over the last 20 s, but not from before `since`; `unknown` with less than three
        temperatures. What has turned goes where it goes now: the last one that was clearly another tells.
        """
        from_then = now - TREND_SECONDS if since is None else max(since, now - TREND_SECONDS)
        latest: float | None = None
        count = 0
        for at, _, _, celsius in reversed(self._samples):
            if at < from_then:
                break
            if celsius is None:
                continue
            latest, count = celsius if latest is None else latest, count + 1
            if count >= 3 and abs(latest - celsius) >= TREND_CELSIUS:
                return "rising" if latest > celsius else "falling"
        return "steady" if count >= 3 else "unknown"

    def clear(self) -> None:
        self._samples.clear()
        self._lows.clear()
