"""What the thermal side is told of each reading, and what it says of the time to come."""

from gpuwhyd.engine.known import Known
from gpuwhyd.engine.settings import SpikeSettings
from gpuwhyd.engine.thermal.card import Sample
from gpuwhyd.engine.thermal.history import Worse
from gpuwhyd.model import FanMode, GpuReading, GpuState, Outlook, Snapshot

TOP_RPM = 4000.0
"""For fans that tell RPM alone and no maximum; only ratios matter then."""
COLD_PART = 0.02
"""A cooler that holds less than this part of a full load's heat is as good as cold."""


def follow_cooler(
    known: Known,
    snapshot: Snapshot,
    dt: float,
    reading: GpuReading,
    settings: SpikeSettings,
    *,
    broken: bool,
    gap: bool,
) -> None:
    """One reading, after fan and heat were followed.

    `broken`: nothing goes on from what was before; `gap`: it does, but nobody looked for a moment.
    """
    sample = None
    if not broken and reading.state is GpuState.AWAKE and reading.fan_mode is not FanMode.MANUAL:
        sample = _sample(known, snapshot.wall_usec, reading, settings)
    if sample is None:
        known.thermal.interrupted()
        return
    now, control = snapshot.boottime_seconds, reading.fan_control
    if control is not None:
        told = control.zero_rpm_stop_celsius if control.zero_rpm_enabled is not False else None
        known.thermal.fan.told_stop_celsius = told
    known.thermal.feed(now, dt, sample, gap=gap)
    if known.watch.fan_is_up:
        known.thermal.look(now, sample)


def outlook(known: Known, now: float, trend: str, *, load_is_over: bool) -> Outlook:
    """The time to come, as far as it is known."""
    if load_is_over:
        return Outlook(trend=trend, quiet_in_seconds=known.thermal.quiet_in(now))
    coming = known.thermal.peak
    climbs = trend != "falling" and known.heat.is_working and known.is_loud(now)
    if coming is None or not climbs:
        return Outlook(trend=trend)
    percent = None if known.level.believed_percent is None else coming.fan_percent
    return Outlook(trend=trend, peak_fan_percent=percent, peak_temperature_celsius=coming.celsius)


def worse_cooler(known: Known) -> Worse | None:
    """How the card's cooling compares with its own history, at the heat that is in the cooler now."""
    excess = max(known.cooled_watts, known.heat.excess_watts)
    return known.thermal.worse((known.heat.floor.watts or 0.0) + excess)


def _sample(known: Known, wall_usec: int, reading: GpuReading, settings: SpikeSettings) -> Sample | None:
    level, heat = known.level, known.heat
    if (percent := level.believed_percent) is not None:
        rest, settle = level.rest_percent, settings.settle_percent
    elif (rpm := level.believed_rpm) is not None:
        scale = 100 / (reading.fan_rpm_max or TOP_RPM)
        percent, settle = rpm * scale, settings.settle_rpm * scale
        rest = None if level.rest_rpm is None else level.rest_rpm * scale
    else:
        return None
    if rest is None:
        return None
    idle_watts, scale_watts = heat.floor.watts or 0.0, heat.floor.scale_watts
    return Sample(
        percent,
        rest,
        settle,
        reading.temperature_celsius,
        idle_watts + heat.excess_watts,
        idle_watts,
        scale_watts,
        wall_usec,
        heat.is_working,
        heat.excess_watts > heat.floor.significant_watts,
        known.cooled_watts < COLD_PART * scale_watts,
    )
