"""What is known of a card -> its explanation at this moment."""

from dataclasses import replace

from gpuwhyd.engine.causes import find
from gpuwhyd.engine.causes.facts import Facts, Finding
from gpuwhyd.engine.causes.shared_cooler import CPU_LOAD_IS_OVER
from gpuwhyd.engine.evidence import evidence
from gpuwhyd.engine.known import Known
from gpuwhyd.engine.outlook import outlook, worse_cooler
from gpuwhyd.engine.sentences import compose
from gpuwhyd.engine.shared_heat import cpu_side
from gpuwhyd.engine.suspects import leading_suspects
from gpuwhyd.model import (
    Cause,
    Explanation,
    FanMode,
    GpuReading,
    GpuState,
    Outlook,
    Snapshot,
    Suspect,
)

WARM_WATTS = 1.0
WARMING_WATTS = 0.1
"""While a card works, the heat of a first short tick is enough to name who works."""
_NO_OUTLOOK = Outlook()
_NO_READING = Finding(cause=Cause.UNKNOWN, confidence=0.0, marks=("no_reading",))


def explain(known: Known, snapshot: Snapshot, reading: GpuReading) -> Explanation:
    """The answer, after the reading was fed to all that is known."""
    if reading.state is GpuState.LOST:
        return _explanation(known, snapshot, reading, _NO_READING)
    facts = _facts(known, snapshot, reading)
    finding = find(facts)
    if not facts.has_fan:
        finding = replace(finding, marks=(*finding.marks, "no_fan"))
    load_is_over = finding.cause is Cause.RESIDUAL_HEAT or CPU_LOAD_IS_OVER in finding.marks
    coming = outlook(known, snapshot.boottime_seconds, facts.trend, load_is_over=load_is_over)
    suspects = facts.suspects if finding.suspects is None else finding.suspects
    return _explanation(known, snapshot, reading, finding, suspects, coming)


def nothing_read(known: Known, snapshot: Snapshot) -> Explanation:
    """The answer while there is no reading of the card."""
    return _explanation(known, snapshot, None, _NO_READING)


def _facts(known: Known, snapshot: Snapshot, reading: GpuReading) -> Facts:
    now, heat = snapshot.boottime_seconds, known.heat
    ledger, trend = heat.ledger, heat.trace.trend(now)
    up, spike, flat_seconds = known.is_loud(now), known.watch.spike, known.level.flat_seconds(now)
    warmed = known.outside.warmed(reading) if up else None
    fault = known.tachometers.fault(now, reading) or known.suspicion.fault(now, reading, trend)
    return Facts(
        asleep=reading.state is GpuState.ASLEEP,
        has_fan=known.has_fan,
        fan_is_up=up,
        fan_turns=known.level.is_turning,
        fan_percent=known.level.believed_percent,
        manual=reading.fan_mode is FanMode.MANUAL,
        flat_seconds=flat_seconds,
        celsius=reading.temperature_celsius,
        trend=trend,
        working=heat.is_working,
        warm=ledger.heat_watts >= (WARMING_WATTS if heat.is_working else WARM_WATTS),
        heat_watts=ledger.heat_watts,
        significant_watts=heat.floor.significant_watts,
        suspects=leading_suspects(ledger, now),
        unattributed_share=ledger.share(ledger.unattributed),
        engine_times_known=ledger.engine_times_known,
        power_known=reading.power_watts is not None or reading.power_average_watts is not None,
        wall_usec=snapshot.wall_usec,
        let_go=reading.state is GpuState.UNKNOWN,
        fault=fault,
        clocks=known.clocks.held(now, reading, heat.floor),
        watched=known.watchers.watched(now, reading),
        hot=known.hot_spots.hot(now, reading),
        driver_event=known.driver_events.event(now, spike.began_boottime_seconds, flat_seconds)
        if spike and not known.worked_in_spike
        else None,
        warmed=warmed,
        neighbours_suspects=leading_suspects(warmed.by.heat.ledger, now) if warmed else (),
        worse=worse_cooler(known) if up else None,
        cpu=cpu_side(now, reading, ledger, known.cooler) if up and known.cooler is not None else None,
    )


def _explanation(
    known: Known,
    snapshot: Snapshot,
    reading: GpuReading | None,
    finding: Finding,
    suspects: tuple[Suspect, ...] = (),
    outlook: Outlook = _NO_OUTLOOK,
) -> Explanation:
    spike, last, ledger = known.watch.spike, known.watch.last, known.heat.ledger
    loud = known.is_loud(snapshot.boottime_seconds)
    up_since = spike.began_boottime_seconds if spike and loud else None
    explanation = Explanation(
        gpu_id=known.gpu.id,
        gpu_label=known.label,
        cause=finding.cause,
        confidence=round(min(1.0, max(0.0, finding.confidence)), 3),
        sentence="",
        suspects=suspects,
        unattributed_share=round(
            ledger.share(ledger.unattributed)
            if finding.unattributed_share is None
            else finding.unattributed_share,
            4,
        ),
        evidence=evidence(known, snapshot, finding),
        outlook=outlook,
        fan_percent=reading.fan_percent if reading else None,
        fan_rpm=reading.fan_rpm if reading else None,
        temperature_celsius=reading.temperature_celsius if reading else None,
        power_watts=reading.power_watts if reading else None,
        for_seconds=None if up_since is None else snapshot.boottime_seconds - up_since,
        spike_id=spike.spike_id if spike else (last.spike_id if last else None),
    )
    return replace(explanation, sentence=compose(explanation))
