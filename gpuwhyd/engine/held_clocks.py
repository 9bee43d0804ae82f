"""Clocks, and with them power, that stay high though nobody uses the card."""

from collections.abc import Sequence
from dataclasses import dataclass

from gpuwhyd.engine.idle_floor import IDLE_UTILIZATION_PERCENT, IdleFloor
from gpuwhyd.engine.ledger import engine_weight
from gpuwhyd.model import GpuReading, GpuUse

HELD_SECONDS = 60.0
"""Drivers leave the clocks up for some seconds after a load."""
FAST_PERFORMANCE_STATE = 2
"""NVIDIA's P0 to P2 are for work."""
MEMORY_PART = 0.8
CORE_PART = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    for_seconds: float
    watts: float
    needed_watts: float
    """What the card needs at idle, as far as it was seen."""
    seen_lower: bool
    """It has idled with less; otherwise `needed_watts` is a guess by its power limit."""
    performance_state: int | None
    core_clock_mhz: float | None
    memory_clock_mhz: float | None


@dataclass(slots=True)
class HeldClocks:
    _since: float | None = None

    def feed(self, now: float, reading: GpuReading, uses: Sequence[GpuUse], floor: IdleFloor) -> None:
        """One reading, after the floor has seen it."""
        watts = floor.smoothed_watts
        held = watts is not None and floor.is_above_need(watts)
        if not held or not _has_no_load(reading, uses) or not _is_fast(reading):
            self._since = None
        elif self._since is None:
            self._since = now

    def interrupted(self) -> None:
        """A gap, a suspend, a card that is not read."""
        self._since = None

    def held(self, now: float, reading: GpuReading, floor: IdleFloor) -> Held | None:
        """Once it has been so for long enough."""
        if self._since is None or now - self._since < HELD_SECONDS or floor.smoothed_watts is None:
            return None
        return Held(
            for_seconds=now - self._since,
            watts=floor.smoothed_watts,
            needed_watts=floor.needed_watts,
            seen_lower=floor.has_idled_low,
            performance_state=reading.performance_state,
            core_clock_mhz=reading.core_clock_mhz,
            memory_clock_mhz=reading.memory_clock_mhz,
        )


def _has_no_load(reading: GpuReading, uses: Sequence[GpuUse]) -> bool:
    """Memory utilisation does not count: it was seen at 23 % on a card that idled at P8."""
    percents = (reading.utilization_percent, reading.encoder_percent, reading.decoder_percent)
    if reading.utilization_percent is None or any(
        percent is not None and percent > IDLE_UTILIZATION_PERCENT for percent in percents
    ):
        return False
    return sum(engine_weight(use.use) or 0.0 for use in uses) <= IDLE_UTILIZATION_PERCENT


def _is_fast(reading: GpuReading) -> bool:
    state = reading.performance_state
    return (
        (state is not None and state <= FAST_PERFORMANCE_STATE)
        or _reaches(reading.memory_clock_mhz, reading.memory_clock_max_mhz, MEMORY_PART)
        or _reaches(reading.core_clock_mhz, reading.core_clock_max_mhz, CORE_PART)
    )


def _reaches(mhz: float | None, most_mhz: float | None, part: float) -> bool:
    return mhz is not None and bool(most_mhz) and mhz >= part * (most_mhz or 0.0)
