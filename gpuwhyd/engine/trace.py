"""A short memory of one card's power and temperature, for averages, trends and "52 to 78 degC"."""

from collections import deque
from dataclasses import dataclass, field

TRACE_SECONDS = 180.0
SPACING_SECONDS = 1.0
"""Samples closer than this are joined to one, so that memory is bounded at any interval."""
TREND_SECONDS = 20.0
TREND_CELSIUS = 1.5


@dataclass(slots=True)
class Trace:
    """(boottime, seconds covered, watts, degC) of the last three minutes."""

    _samples: deque[tuple[float, float, float | None, float | None]] = field(default_factory=deque)

    def feed(self, now: float, dt: float, watts: float | None, celsius: float | None) -> None:
        if len(self._samples) > 1 and now - self._samples[-2][0] < SPACING_SECONDS:
            _, earlier_dt, earlier_watts, _ = self._samples.pop()
            if watts is not None and earlier_watts is not None and dt + earlier_dt > 0:
                watts = (watts * dt + earlier_watts * earlier_dt) / (dt + earlier_dt)
            dt += earlier_dt
        self._samples.append((now, dt, watts, celsius))
        while self._samples and now - self._samples[0][0] > TRACE_SECONDS:
            self._samples.popleft()

    def average_watts(self, since: float) -> tuple[float, float] | None:
        """Average power since then (at most three minutes back), and over how many seconds."""
        joules = seconds = 0.0
        for at, dt, watts, _ in reversed(self._samples):
            if at <= since:
                break
            if watts is not None and dt > 0:
                joules += watts * dt
                seconds += dt
        return (joules / seconds, seconds) if seconds > 0 else None

    def lowest_celsius(self, since: float) -> float | None:
        return min((c for at, _, _, c in self._samples if c is not None and at >= since), default=None)

    def trend(self, now: float) -> str:
        """`rising`, `steady` or `falling` over the last 20 s; `unknown` without temperatures."""
        recent: list[float] = []
        for at, _, _, celsius in reversed(self._samples):
            if now - at > TREND_SECONDS:
                break
            if celsius is not None:
                recent.append(celsius)
        if len(recent) < 3:
            return "unknown"
        change = recent[0] - recent[-1]
        if change >= TREND_CELSIUS:
            return "rising"
        return "falling" if change <= -TREND_CELSIUS else "steady"

    def clear(self) -> None:
        self._samples.clear()
