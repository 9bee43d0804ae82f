"""A clock that runs faster than the real one, for simulations."""

import time
from collections.abc import Callable

from gpuwhyd.backends.simulated_model import UPTIME_SECONDS, Scenario


class ScaledClock:
    """`speed` simulated seconds pass in each real one, from `start_seconds` of simulated CLOCK_BOOTTIME on.

    Its wall time starts with the real one and runs as fast as the rest, so that times and durations agree.
    """

    def __init__(
        self,
        speed: float,
        start_seconds: float = UPTIME_SECONDS,
        *,
        real_seconds: Callable[[], float] = time.monotonic,
        real_wall_usec: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._speed = speed
        self._start_seconds = start_seconds
        self._real_seconds = real_seconds
        self._began_real_seconds = real_seconds()
        self._began_wall_usec = real_wall_usec()

    def boottime_seconds(self) -> float:
        return self._start_seconds + self._elapsed_seconds()

    def wall_usec(self) -> int:
        return self._began_wall_usec + round(self._elapsed_seconds() * 1_000_000)

    def real_duration(self, seconds: float) -> float:
        """How many seconds of real time so many simulated ones take."""
        return seconds / self._speed

    def _elapsed_seconds(self) -> float:
        return (self._real_seconds() - self._began_real_seconds) * self._speed


def scenario_clock(scenario: Scenario) -> ScaledClock:
    """The clock of a simulation that the daemon joins now."""
    return ScaledClock(scenario.speed, UPTIME_SECONDS + scenario.join_seconds)
