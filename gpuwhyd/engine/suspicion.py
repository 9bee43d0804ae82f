"""A fan that no tachometer watches, as with NVML: whether the card heats up as if it did not turn. Only a suspicion."""

from dataclasses import dataclass, field

from gpuwhyd.engine.flat import Flat
from gpuwhyd.engine.tachometers import FanFault
from gpuwhyd.model import FanMode, GpuReading

TOLD_HIGH_PERCENT = 80.0
HIGH_SECONDS = 60.0
"""A fan that has blown at this level for so long has done what it can."""
STEADY_PART = 0.15
STEADY_SECONDS = 180.0
"""Under steady power a healthy card warms by less than 1.5 K in 20 s from here on: the slow part of what was measured takes
240 to 480 s for 63 % of at most 40 K."""
MARGIN_CELSIUS = 3.0


@dataclass(slots=True)
class Suspicion:
    _watts: Flat = field(default_factory=Flat)
    _high_since: float | None = None

    def feed(self, now: float, reading: GpuReading, smoothed_watts: float | None, *, working: bool) -> None:
        """One reading; the power smoothed over some seconds, because games draw theirs in bursts."""
        watts = smoothed_watts if working else None
        self._watts.feed(now, watts, STEADY_PART * (watts or 0.0))
        told = reading.fan_percent
        untold = told is None or told < TOLD_HIGH_PERCENT or reading.fan_mode is FanMode.NONE
        if untold or any(fan.rpm_is_measured for fan in reading.fans):
            self._high_since = None
        elif self._high_since is None:
            self._high_since = now

    def interrupted(self) -> None:
        """A gap, a suspend, a card that is not read."""
        self._high_since = self._watts.since = None

    def fault(self, now: float, reading: GpuReading, trend: str) -> FanFault | None:
        """The suspicion: told high, steady power, and still the card heats up or is at its limit."""
        told = reading.fan_percent
        if self._high_since is None or told is None:
            return None
        seconds = min(now - self._high_since, self._watts.seconds(now) - STEADY_SECONDS + HIGH_SECONDS)
        if seconds < HIGH_SECONDS:
            return None
        margin = None
        if reading.temperature_celsius is not None and reading.temperature_limit_celsius is not None:
            margin = reading.temperature_limit_celsius - reading.temperature_celsius
        at_limit = margin is not None and margin <= MARGIN_CELSIUS
        if trend != "rising" and not at_limit:
            return None
        return FanFault(
            kind="suspected", told_percent=told, for_seconds=now - self._high_since, margin_celsius=margin
        )
