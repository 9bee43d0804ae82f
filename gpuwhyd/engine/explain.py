"""What is known of a card -> its answer and explanation at this moment."""

from dataclasses import replace

from gpuwhyd.engine.answer import Answer
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
)

WARM_WATTS = 1.0
WARMING_WATTS = 0.1
"""While a card works, the heat of a first short tick is enough to name who works."""
_NO_OUTLOOK = Outlook()
_NO_READING = Finding(cause=Cause.UNKNOWN, confidence=0.0, marks=("no_reading",))


class Moment:
    """One card at one moment, and what is said of it.

    Nothing is worked out before it is asked for: most moments are at rest, and nobody asks. What is known of the card
    changes with its next reading, so ask before that.
    """

    __slots__ = ("_answer", "_explanation", "_known", "_reading", "_snapshot")

    def __init__(self, known: Known, snapshot: Snapshot, reading: GpuReading | None) -> None:
        """After the reading was fed to all that is known; `None`: the snapshot has none of this card."""
        self._known, self._snapshot, self._reading = known, snapshot, reading
        self._answer: Answer | None = None
        self._explanation: Explanation | None = None

    @property
    def answer(self) -> Answer:
        """What is it, and who."""
        if self._answer is None:
            self._answer = _answer(self._known, self._snapshot, self._reading)
        return self._answer

    @property
    def explanation(self) -> Explanation:
        """The same with evidence, outlook and the sentence."""
        if self._explanation is None:
            self._explanation = _explanation(self._known, self._snapshot, self._reading, self.answer)
        return self._explanation


def _answer(known: Known, snapshot: Snapshot, reading: GpuReading | None) -> Answer:
    if reading is None or reading.state is GpuState.LOST:
        return Answer(_NO_READING, (), _unattributed(known, _NO_READING), None)
    facts = _facts(known, snapshot, reading)
    finding = find(facts)
    if not facts.has_fan:
        finding = replace(finding, marks=(*finding.marks, "no_fan"))
    suspects = facts.suspects if finding.suspects is None else finding.suspects
    return Answer(finding, suspects, _unattributed(known, finding), facts.trend)


def _unattributed(known: Known, finding: Finding) -> float:
    share = finding.unattributed_share
    if share is None:
        share = known.heat.ledger.share(known.heat.ledger.unattributed)
    return round(share, 4)


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


def _explanation(known: Known, snapshot: Snapshot, reading: GpuReading | None, answer: Answer) -> Explanation:
    finding, now = answer.finding, snapshot.boottime_seconds
    spike, last = known.watch.spike, known.watch.last
    load_is_over = finding.cause is Cause.RESIDUAL_HEAT or CPU_LOAD_IS_OVER in finding.marks
    explanation = Explanation(
        gpu_id=known.gpu.id,
        gpu_label=known.label,
        cause=finding.cause,
        confidence=answer.confidence,
        sentence="",
        suspects=answer.suspects,
        unattributed_share=answer.unattributed_share,
        evidence=evidence(known, snapshot, finding),
        outlook=_NO_OUTLOOK
        if answer.trend is None
        else outlook(known, now, answer.trend, load_is_over=load_is_over),
        fan_percent=reading.fan_percent if reading else None,
        fan_rpm=reading.fan_rpm if reading else None,
        temperature_celsius=reading.temperature_celsius if reading else None,
        power_watts=reading.power_watts if reading else None,
        for_seconds=now - spike.began_boottime_seconds if spike and known.is_loud(now) else None,
        spike_id=spike.spike_id if spike else (last.spike_id if last else None),
    )
    return replace(explanation, sentence=compose(explanation))
