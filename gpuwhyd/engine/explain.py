"""What is known of a card -> its answer and explanation at this moment."""

from collections.abc import Sequence
from dataclasses import replace

from gpuwhyd.engine.answer import Answer
from gpuwhyd.engine.causes import find
from gpuwhyd.engine.causes.facts import Facts, Finding
from gpuwhyd.engine.causes.hotspot import hot_beside
from gpuwhyd.engine.causes.shared_cooler import CPU_LOAD_IS_OVER
from gpuwhyd.engine.evidence import evidence
from gpuwhyd.engine.known import Known
from gpuwhyd.engine.outlook import outlook, worse_cooler
from gpuwhyd.engine.sentences import compose
from gpuwhyd.engine.shared_heat import cpu_side
from gpuwhyd.engine.suspects import Leader, leaders, leading_suspects
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
_NO_READING = Finding(cause=Cause.UNKNOWN, confidence=0.0, marks=("no_reading",), suspects=())


class Moment:
    """One card at one moment, and what is said of it.

    Nothing is worked out before it is asked for: most moments are at rest, and nobody asks. What is known of the card
    changes with its next reading, so ask before that.
    """

    __slots__ = (
        "_answer",
        "_explanation",
        "_finding",
        "_known",
        "_leaders",
        "_reading",
        "_snapshot",
        "_trend",
    )

    def __init__(self, known: Known, snapshot: Snapshot, reading: GpuReading | None) -> None:
        """After the reading was fed to all that is known; `None`: the snapshot has none of this card."""
        self._known, self._snapshot, self._reading = known, snapshot, reading
        self._finding: Finding | None = None
        self._leaders: Sequence[Leader] = ()
        self._trend: str | None = None
        self._answer: Answer | None = None
        self._explanation: Explanation | None = None

    def settle(self) -> None:
        """Works out now what has not been asked for: what is known of the card is about to change."""
        self._explanation = self.explanation

    @property
    def told_by(self) -> tuple[Cause, str]:
        """The cause, and the key of the leading suspect's program, which is empty where nobody is named."""
        finding = self._found()
        if finding.suspects is not None:
            return finding.cause, finding.suspects[0].program.key if finding.suspects else ""
        return finding.cause, self._leaders[0].program.key if self._leaders else ""

    @property
    def answer(self) -> Answer:
        """What it is, and who, with all suspects."""
        if self._answer is None:
            finding, now = self._found(), self._snapshot.boottime_seconds
            share, ledger = finding.unattributed_share, self._known.heat.ledger
            self._answer = Answer(
                cause=finding.cause,
                confidence=round(min(1.0, max(0.0, finding.confidence)), 3),
                suspects=leading_suspects(ledger, now) if finding.suspects is None else finding.suspects,
                unattributed_share=round(ledger.share(ledger.unattributed) if share is None else share, 4),
            )
        return self._answer

    @property
    def explanation(self) -> Explanation:
        """The same with evidence, outlook and the sentence."""
        if self._explanation is None:
            self._explanation = self._explain(self._found(), self.answer)
        return self._explanation

    def _found(self) -> Finding:
        if self._finding is not None:
            return self._finding
        reading = self._reading
        if reading is None or reading.state is GpuState.LOST:
            self._finding = _NO_READING
            return self._finding
        self._leaders = leaders(self._known.heat.ledger, most=2)
        facts = _facts(self._known, self._snapshot, reading, self._leaders)
        finding, self._trend = find(facts), facts.trend
        if not facts.has_fan:
            finding = replace(finding, marks=(*finding.marks, "no_fan"))
        if beside := hot_beside(facts, finding):
            finding = replace(finding, evidence=(*finding.evidence, *beside))
        self._finding = finding
        return finding

    def _explain(self, finding: Finding, answer: Answer) -> Explanation:
        known, reading, now = self._known, self._reading, self._snapshot.boottime_seconds
        spike, last = known.watch.spike, known.watch.last
        load_is_over = finding.cause is Cause.RESIDUAL_HEAT or CPU_LOAD_IS_OVER in finding.marks
        explanation = Explanation(
            gpu_id=known.gpu.id,
            gpu_label=known.label,
            cause=answer.cause,
            confidence=answer.confidence,
            sentence="",
            suspects=answer.suspects,
            unattributed_share=answer.unattributed_share,
            evidence=evidence(known, self._snapshot, finding),
            outlook=_NO_OUTLOOK
            if self._trend is None
            else outlook(known, now, self._trend, load_is_over=load_is_over),
            fan_percent=reading.fan_percent if reading else None,
            fan_rpm=reading.fan_rpm if reading else None,
            temperature_celsius=reading.temperature_celsius if reading else None,
            power_watts=reading.power_watts if reading else None,
            for_seconds=now - spike.began_boottime_seconds if spike and known.is_loud(now) else None,
            spike_id=spike.spike_id if spike else (last.spike_id if last else None),
        )
        return replace(explanation, sentence=compose(explanation))


def _facts(known: Known, snapshot: Snapshot, reading: GpuReading, leading: Sequence[Leader]) -> Facts:
    now, heat = snapshot.boottime_seconds, known.heat
    ledger, trend = heat.ledger, heat.trend(now)
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
        shares=tuple([leader.share for leader in leading]),
        a_leader_stopped=any(leader.stopped_at(now) is not None for leader in leading),
        unattributed_share=ledger.share(ledger.unattributed),
        engine_times_known=ledger.engine_times_known,
        came_with_load=ledger.came_with_load,
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
