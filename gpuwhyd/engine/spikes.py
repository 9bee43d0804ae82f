"""One card's open spike: how it opens, what it remembers, how it ends. Phases change by the table in `phases.py`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from gpuwhyd.engine.fan_level import FanLevel
from gpuwhyd.engine.phases import Change, Phase, after
from gpuwhyd.engine.saved import optional_number, restore
from gpuwhyd.engine.settings import SpikeSettings
from gpuwhyd.model import GpuReading, Snapshot, Spike


@dataclass(frozen=True, slots=True, kw_only=True)
class LastSpike:
    """What a quiet card still tells of its last spike."""

    spike_id: str
    ended_usec: int
    program: str | None
    ended_boottime_seconds: float | None = None
    """`None` when that was before the last reboot. The wall clock may have been set since."""


@dataclass(slots=True)
class SpikeWatch:
    """Feed it one level a tick; it gives the change that happened, and keeps the spike up to date."""

    phase: Phase = Phase.QUIET
    spike: Spike | None = None
    last: LastSpike | None = None
    _settled_at: float | None = None

    @property
    def fan_is_up(self) -> bool:
        return self.phase is Phase.SPIKING

    def feed(
        self,
        snapshot: Snapshot,
        reading: GpuReading,
        level: FanLevel,
        settings: SpikeSettings,
        *,
        mid_load: bool,
    ) -> tuple[Change | None, Spike | None]:
        """The change of this tick and the spike it concerns, opened or ended by it. (`None`, `None`) when nothing."""
        now = snapshot.boottime_seconds
        change, since = self._change(now, level, settings, mid_load=mid_load)
        self.phase, before = after(self.phase, change), self.phase
        if self.spike is not None and self.phase is not Phase.QUIET:
            self._remember(reading, cycles=int(before is Phase.SETTLING and self.phase is Phase.SPIKING))
        if before is Phase.QUIET and self.phase is Phase.SPIKING:
            self.spike = _opened(snapshot, reading, level, before_start=mid_load)
            return change, self.spike
        if before is Phase.SPIKING and self.phase is Phase.SETTLING:
            self._settled_at = since
        if before is not Phase.QUIET and self.phase is Phase.QUIET:
            if change is Change.FOUND_NEW_REST:
                level.accept_new_rest()
            ended_by = "new-rest" if change is Change.FOUND_NEW_REST else "rest"
            return change, self._end(snapshot.wall_usec, now, since if since is not None else now, ended_by)
        return None, None

    def vanish(self, seen_last_at: float, ended_by: str) -> Spike | None:
        """The GPU was removed, or the machine rebooted: the spike as it ended when it was last seen, if one was open."""
        if self.spike is None:
            return None
        self.phase = after(self.phase, Change.VANISHED)
        # from its beginning on: after a reboot the clock since boot is another, and wall time has gone on
        began = self.spike.began_boottime_seconds
        wall_usec = self.spike.began_usec + round((seen_last_at - began) * 1e6)
        return self._end(wall_usec, seen_last_at, seen_last_at, ended_by)

    def _change(
        self, now: float, level: FanLevel, settings: SpikeSettings, *, mid_load: bool
    ) -> tuple[Change | None, float | None]:
        """What happened, and since when it has been so (for back-dating)."""
        if self.phase is Phase.QUIET:
            return (Change.ROSE, None) if level.has_risen or mid_load else (None, None)
        if self.phase is Phase.SPIKING:
            if (since := level.settled_since(now, settings)) is not None:
                return Change.SETTLED, since
        elif level.has_risen:
            return Change.ROSE, None
        elif self._settled_at is not None and now - self._settled_at >= settings.merge_seconds:
            return Change.RESTED, self._settled_at
        if (since := level.flat_since(now, settings)) is not None:
            return Change.FOUND_NEW_REST, since
        return None, None

    def _remember(self, reading: GpuReading, *, cycles: int) -> None:
        spike = self.spike
        if spike is None:
            return
        percent = _highest(spike.peak_fan_percent, reading.fan_percent)
        rpm = _highest(spike.peak_fan_rpm, reading.fan_rpm)
        celsius = _highest(spike.peak_temperature_celsius, reading.temperature_celsius)
        seen = (spike.peak_fan_percent, spike.peak_fan_rpm, spike.peak_temperature_celsius)
        if cycles or (percent, rpm, celsius) != seen:
            self.spike = replace(
                spike,
                peak_fan_percent=percent,
                peak_fan_rpm=rpm,
                peak_temperature_celsius=celsius,
                cycles=spike.cycles + cycles,
            )

    def _end(self, wall_usec: int, now: float, since: float, ended_by: str) -> Spike | None:
        spike, self.spike, self._settled_at = self.spike, None, None
        if spike is None:
            return None
        since = max(since, spike.began_boottime_seconds)
        ended_usec = max(wall_usec - round((now - since) * 1e6), spike.began_usec)
        return replace(spike, ended_usec=ended_usec, ended_boottime_seconds=since, ended_by=ended_by)

    # -- over a restart -------------------------------------------------------------------------------------------

    def saved(self) -> dict[str, object]:
        return {
            "phase": self.phase.value,
            "spike": None if self.spike is None else asdict(self.spike),
            "last": None if self.last is None else asdict(self.last),
            "settled_at": self._settled_at,
        }

    @classmethod
    def restored(cls, saved: Mapping[str, object]) -> "SpikeWatch":
        """Raises TypeError, ValueError or KeyError when the saved form is not ours."""
        spike, last, settled_at = saved["spike"], saved["last"], saved["settled_at"]
        phase = Phase(str(saved["phase"]))
        if (spike is None) != (phase is Phase.QUIET):
            raise ValueError("a saved spike and its phase contradict each other")
        return cls(
            phase=phase,
            spike=restore(Spike, spike) if spike is not None else None,
            last=restore(LastSpike, last) if last is not None else None,
            _settled_at=optional_number(settled_at),
        )


def _opened(snapshot: Snapshot, reading: GpuReading, level: FanLevel, *, before_start: bool) -> Spike:
    return Spike(
        spike_id=f"{reading.gpu.id}-{snapshot.wall_usec}",
        gpu_id=reading.gpu.id,
        began_usec=snapshot.wall_usec,
        began_boottime_seconds=snapshot.boottime_seconds,
        began_before_start=before_start,
        rest_percent=level.rest_percent,
        rest_rpm=level.rest_rpm,
        peak_fan_percent=reading.fan_percent,
        peak_fan_rpm=reading.fan_rpm,
        peak_temperature_celsius=reading.temperature_celsius,
    )


def _highest(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return one if other is None else other
    return max(one, other)
