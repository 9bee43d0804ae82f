"""Everything the engine keeps for one card, and what it makes of each reading of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gpuwhyd.engine.causes import Facts, Finding, find
from gpuwhyd.engine.ended import Hottest, told_at_the_end
from gpuwhyd.engine.fan_level import STANDSTILL_RPM, FanLevel
from gpuwhyd.engine.heat import FIRST_STEP_SECONDS, Heat
from gpuwhyd.engine.idle_floor import IdleFloor
from gpuwhyd.engine.ledger import Ledger
from gpuwhyd.engine.phases import Change
from gpuwhyd.engine.rules import Firing, RuleBook
from gpuwhyd.engine.saved import optional_number, restore, table
from gpuwhyd.engine.sentences import compose
from gpuwhyd.engine.settings import EngineSettings
from gpuwhyd.engine.spikes import LastSpike, SpikeWatch
from gpuwhyd.engine.suspects import PAUSED_SECONDS, leading_suspects
from gpuwhyd.engine.telling import Telling
from gpuwhyd.model import (
    Cause,
    EventKind,
    Evidence,
    Explanation,
    FanMode,
    GpuIdentity,
    GpuReading,
    GpuState,
    GpuUse,
    Outlook,
    ProcessExit,
    Snapshot,
    Spike,
    Suspect,
    as_plain,
)

GAP_SECONDS = 30.0
"""After a longer pause between readings, what must hold without a break starts anew."""
WARM_WATTS = 1.0
WARMING_WATTS = 0.1
"""While a card works, the heat of a first short tick is enough to name who works."""
REST_PART = 0.1
"""At the latest when so little of its most heat is left a cooler is taken to need no fan."""
MOVING_SECONDS = 20.0
BUSY_UTILIZATION_PERCENT = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one reading led to."""

    spike_kind: EventKind | None = None
    spike: Spike | None = None
    """The spike that the event is about; the open one when there is no event."""
    firings: tuple[Firing, ...] = ()


class Card:
    """One card over time. `label` is how sentences name it: `GPU 0 (RTX 3070)`."""

    def __init__(self, gpu: GpuIdentity) -> None:
        self.gpu = gpu
        self.label = gpu.name
        self.backend = ""
        self.state = GpuState.UNKNOWN
        self.missing_since: float | None = None
        self.explanation: Explanation | None = None
        self.fan_is_moving = False
        """It rises, or is up and has not found its speed: worth looking more often."""
        self._level = FanLevel()
        self._heat = Heat()
        self._watch = SpikeWatch()
        self._rules = RuleBook()
        self._telling = Telling()
        self._last_at: float | None = None
        self._seen_last_at = 0.0
        """The same also when it was before a reboot."""
        self._just_restored = False
        self._heat_at_onset_watts: float | None = None
        self._hottest = Hottest()

    @property
    def open_spike(self) -> Spike | None:
        return self._watch.spike

    # -- one reading ----------------------------------------------------------------------------------------------

    def feed(
        self,
        snapshot: Snapshot,
        reading: GpuReading,
        uses: Sequence[GpuUse],
        exits: Sequence[ProcessExit],
        settings: EngineSettings,
    ) -> Outcome:
        """One reading of this card; snapshots come in the order of their time."""
        now = snapshot.boottime_seconds
        first = self._last_at is None
        dt = FIRST_STEP_SECONDS if self._last_at is None else max(0.0, now - self._last_at)
        broken = first or snapshot.resumed or dt > GAP_SECONDS
        self.gpu, self.backend, self.state, self.missing_since = (
            reading.gpu,
            reading.backend,
            reading.state,
            None,
        )
        before, self._last_at = self._last_at, now
        self._seen_last_at = now
        if self._just_restored and reading.processes is not None:
            self._heat.ledger.resume(now, uses)
            self._just_restored = False
        if broken:
            if snapshot.resumed:
                self._level.unseen()
            else:
                self._level.interrupted()
            self._rules.interrupted()
            self._heat.interrupted()
        if reading.state is GpuState.AWAKE:
            self._heat.feed(now, dt, reading, uses, exits, broken=broken, slept=snapshot.resumed)
        else:
            self._heat.feed_nothing(now, dt, exits)
            self._rules.interrupted()
        change, spike = self._follow_fan(snapshot, reading, settings, before=before)
        unsteady = self._watch.spike is not None and self._level.flat_seconds(now) < MOVING_SECONDS
        self.fan_is_moving = reading.state is GpuState.AWAKE and (unsteady or self._level.may_be_rising)
        if change is Change.ROSE and spike is not None:
            self._heat_at_onset_watts = self._heat.ledger.heat_watts
        self.explanation = self._explain(snapshot, reading)
        if self._is_loud(now):
            started = change is Change.ROSE and spike is not None
            self._hottest.look(self.explanation, self._heat.ledger.heat_watts, started=started)
        kind = self._kind(now, change, spike)
        awake = reading.state is GpuState.AWAKE
        firings = self._rules.feed(now, reading, settings.rules) if awake else ()
        return Outcome(spike_kind=kind, spike=spike or self._watch.spike, firings=tuple(firings))

    def missing(self, snapshot: Snapshot) -> None:
        """The snapshot has no reading of this card: nothing is concluded from that yet."""
        if self.missing_since is None:
            self.missing_since = snapshot.boottime_seconds
            self._level.interrupted()
            self._rules.interrupted()
            self.fan_is_moving = False
        self.explanation = self._explanation(snapshot, None, _NO_READING, (), Outlook())

    def vanish(self, snapshot: Snapshot, ended_by: str) -> Spike | None:
        """The card was removed, or the machine rebooted: the spike that ended by that, if one was open."""
        spike = self._remembered(self._watch.vanish(self._seen_last_at, ended_by))
        if self.explanation is None:
            self.explanation = self._explanation(snapshot, None, _NO_READING, (), Outlook())
        return spike

    def end_alerts(self, settings: EngineSettings) -> list[Firing]:
        """With its removal: nothing would ever clear them."""
        return self._rules.end(self._seen_last_at, settings.rules)

    def _follow_fan(
        self, snapshot: Snapshot, reading: GpuReading, settings: EngineSettings, *, before: float | None
    ) -> tuple[Change | None, Spike | None]:
        """The change of the fan's phase since `before`. No fan, or no word of it: no change."""
        now = snapshot.boottime_seconds
        mid_load = before is None and self._is_mid_load(reading)
        if reading.state is GpuState.ASLEEP:
            self._level.asleep(now)
        elif reading.state is GpuState.UNKNOWN:
            self._level.unseen()
            return None, None
        elif reading.state is GpuState.LOST:
            self._level.interrupted()
            return None, None
        elif _has_no_fan(reading) or (reading.fan_percent is None and reading.fan_rpm is None):
            return None, None
        else:
            self._level.feed(
                now,
                reading.fan_percent,
                reading.fan_rpm,
                reading.fan_rpm_max,
                idle=self._heat.floor.is_at_floor,
                in_spike=self._watch.fan_is_up or mid_load,
                settings=settings.spike,
            )
        if snapshot.resumed and before is not None:
            self._level.slept_since(before)
        change, spike = self._watch.feed(snapshot, reading, self._level, settings.spike, mid_load=mid_load)
        return change, self._remembered(spike)

    def _is_mid_load(self, reading: GpuReading) -> bool:
        """People install this because the fan is loud now: excess power and a turning fan at the first sample."""
        if (
            self._level.rest_is_known
            or self._watch.fan_is_up
            or reading.fan_mode in {FanMode.MANUAL, FanMode.NONE}
        ):
            return False
        turning = (reading.fan_percent or 0.0) > 0 or (reading.fan_rpm or 0.0) >= STANDSTILL_RPM
        busy = reading.utilization_percent is None or reading.utilization_percent > BUSY_UTILIZATION_PERCENT
        return turning and busy and self._heat.is_working

    def told_at_the_end(self, spike: Spike) -> Explanation | None:
        """What a spike that has just ended is told with."""
        hottest = self._hottest.explanation or self.explanation
        if hottest is None or self.explanation is None:
            return None
        shown = replace(spike, peak_fan_percent=None) if self._level.percent_lies else spike
        return told_at_the_end(shown, hottest, self.explanation, self._heat.ledger)

    def _remembered(self, spike: Spike | None) -> Spike | None:
        if spike is not None and spike.ended_usec is not None:
            self._watch.last = LastSpike(
                spike_id=spike.spike_id, ended_usec=spike.ended_usec, program=self._hottest.program
            )
        return spike

    def _kind(self, now: float, change: Change | None, spike: Spike | None) -> EventKind | None:
        """The event of this tick: started, ended, or updated because the answer has changed for a while."""
        if spike is None:
            seen = self.state is GpuState.AWAKE and self._is_loud(now)
            if not seen or not self._telling.is_due(now, self.explanation):
                return None
            kind = EventKind.SPIKE_UPDATED
        else:
            kind = EventKind.SPIKE_STARTED if change is Change.ROSE else EventKind.SPIKE_ENDED
        self._telling.told(now, self.explanation, started=kind is EventKind.SPIKE_STARTED)
        return kind

    def _is_loud(self, now: float) -> bool:
        """A spike is open, and its fan is not quiet in it."""
        return self._watch.fan_is_up and not self._level.is_quiet(now)

    # -- the answer -----------------------------------------------------------------------------------------------

    def _explain(self, snapshot: Snapshot, reading: GpuReading) -> Explanation:
        now, ledger = snapshot.boottime_seconds, self._heat.ledger
        let_go = reading.state is GpuState.UNKNOWN
        if let_go and not self._is_loud(now):
            return self._explanation(snapshot, reading, _LET_GO, (), Outlook())
        if reading.state is GpuState.LOST:
            return self._explanation(snapshot, reading, _NO_READING, (), Outlook())
        facts = Facts(
            asleep=reading.state is GpuState.ASLEEP,
            has_fan=not _has_no_fan(reading),
            fan_is_up=self._is_loud(now),
            fan_turns=self._level.is_turning,
            fan_percent=self._level.believed_percent,
            manual=reading.fan_mode is FanMode.MANUAL,
            flat_seconds=self._level.flat_seconds(now),
            celsius=reading.temperature_celsius,
            trend=self._heat.trace.trend(now),
            working=self._heat.is_working,
            warm=ledger.heat_watts >= (WARMING_WATTS if self._heat.is_working else WARM_WATTS),
            suspects=leading_suspects(ledger, now),
            unattributed_share=ledger.share(ledger.unattributed),
            engine_times_known=ledger.engine_times_known,
            power_known=reading.power_watts is not None or reading.power_average_watts is not None,
        )
        finding = find(facts)
        if let_go and finding.cause is not Cause.RESIDUAL_HEAT:
            finding = _COOLING
        if not facts.has_fan:
            finding = replace(finding, marks=(*finding.marks, "no_fan"))
        outlook = Outlook(trend=facts.trend)
        if finding.cause is Cause.RESIDUAL_HEAT and facts.warm:
            # quiet again when no more heat is left than there was when the fan rose
            target = max(self._heat_at_onset_watts or 0.0, REST_PART * self._hottest.heat_watts)
            outlook = replace(outlook, quiet_in_seconds=ledger.seconds_until(target))
        return self._explanation(snapshot, reading, finding, facts.suspects, outlook)

    def _explanation(
        self,
        snapshot: Snapshot,
        reading: GpuReading | None,
        finding: Finding,
        suspects: tuple[Suspect, ...],
        outlook: Outlook,
    ) -> Explanation:
        spike, last = self._watch.spike, self._watch.last
        loud = self._is_loud(snapshot.boottime_seconds)
        up_since = spike.began_boottime_seconds if spike and loud else None
        explanation = Explanation(
            gpu_id=self.gpu.id,
            gpu_label=self.label,
            cause=finding.cause,
            confidence=round(min(1.0, max(0.0, finding.confidence)), 3),
            sentence="",
            suspects=suspects,
            unattributed_share=round(self._heat.ledger.share(self._heat.ledger.unattributed), 4),
            evidence=self._evidence(snapshot, finding),
            outlook=outlook,
            fan_percent=reading.fan_percent if reading else None,
            fan_rpm=reading.fan_rpm if reading else None,
            temperature_celsius=reading.temperature_celsius if reading else None,
            power_watts=reading.power_watts if reading else None,
            for_seconds=None if up_since is None else snapshot.boottime_seconds - up_since,
            spike_id=spike.spike_id if spike else (last.spike_id if last else None),
        )
        return replace(explanation, sentence=compose(explanation))

    def _evidence(self, snapshot: Snapshot, finding: Finding) -> tuple[Evidence, ...]:
        """What the answer rests on, machine-readable."""
        now, heat, spike, last = snapshot.boottime_seconds, self._heat, self._watch.spike, self._watch.last
        evidence = [Evidence(quantity=mark, value=1.0) for mark in finding.marks]
        if spike is not None and spike.began_before_start:
            evidence.append(Evidence(quantity="began_before_start", value=1.0, since_usec=spike.began_usec))
        if heat.working_since is not None:
            since = snapshot.wall_usec - round((now - heat.working_since) * 1e6)
            if (average := heat.trace.average_watts(heat.working_since - 1e-6)) is not None:
                watts, over = average
                evidence.append(
                    Evidence(quantity="average_power_watts", value=watts, unit="W", since_usec=since)
                )
                evidence.append(Evidence(quantity="average_over_seconds", value=over, unit="s"))
            if (low := heat.trace.lowest_celsius(heat.working_since - PAUSED_SECONDS)) is not None:
                evidence.append(
                    Evidence(quantity="temperature_low_celsius", value=low, unit="degC", since_usec=since)
                )
        if heat.floor.watts is not None:
            evidence.append(Evidence(quantity="idle_floor_watts", value=heat.floor.watts, unit="W"))
        if self._level.rest_percent is not None and not self._level.percent_lies:
            evidence.append(Evidence(quantity="fan_rest_percent", value=self._level.rest_percent, unit="%"))
        elif self._level.rest_rpm is not None:
            if self._level.percent_lies:
                evidence.append(Evidence(quantity="fan_percent_untrusted", value=1.0))
            evidence.append(Evidence(quantity="fan_rest_rpm", value=self._level.rest_rpm, unit="RPM"))
        evidence += [Evidence(quantity="alert", value=name) for name in self._rules.raised()]
        if not heat.ledger.engine_times_known:
            evidence.append(Evidence(quantity="engine_times_unknown", value=1.0))
        if last is not None and spike is None:
            ago = max(0.0, (snapshot.wall_usec - last.ended_usec) / 1e6)
            evidence.append(
                Evidence(quantity="last_spike_seconds_ago", value=ago, unit="s", since_usec=last.ended_usec)
            )
            if last.program:
                evidence.append(Evidence(quantity="last_spike_program", value=last.program))
        return tuple(evidence)

    # -- over a restart -------------------------------------------------------------------------------------------

    def saved(self) -> dict[str, object]:
        """What is kept over a restart of the daemon, as JSON takes it."""
        return {
            "gpu": as_plain(self.gpu),
            "label": self.label,
            "level": self._level.saved(),
            "floor": self._heat.floor.saved(),
            "ledger": self._heat.ledger.saved(),
            "watch": self._watch.saved(),
            "rules": self._rules.saved(),
            "told": self._telling.saved(),
            "last_at": self._last_at,
            "heat_at_onset_watts": self._heat_at_onset_watts,
        }

    def take_over(self, saved: Mapping[str, object], *, same_boot: bool) -> None:
        """Goes on with what `saved()` gave; TypeError, ValueError or KeyError when it is not that.

        After a reboot only what was learned of the card is taken over, and the open spike, to be closed.
        """
        self._level = FanLevel.restored(table(saved["level"]))
        self._heat.floor = IdleFloor.restored(table(saved["floor"]))
        self._watch = SpikeWatch.restored(table(saved["watch"]))
        self._rules = RuleBook(table(saved["rules"]), same_boot=same_boot)
        self.label = str(saved.get("label", self.label))
        ledger, telling = Ledger.restored(table(saved["ledger"])), Telling.restored(saved["told"])
        last_at = optional_number(saved["last_at"])
        self._seen_last_at = last_at or 0.0
        if same_boot:
            self._heat.ledger, self._telling, self._last_at = ledger, telling, last_at
            self._heat_at_onset_watts = optional_number(saved["heat_at_onset_watts"])
            self._just_restored = True
        if self._watch.spike is not None and telling.answer is not None:
            self._hottest.last_told(self.gpu.id, telling.answer[0], ledger, self._seen_last_at)


_LET_GO = Finding(cause=Cause.QUIET, confidence=0.6, marks=("let_go",))
"""An idle card whose backend does not look for a moment, so that it can fall asleep."""
_COOLING = Finding(cause=Cause.RESIDUAL_HEAT, confidence=0.4, marks=("let_go",))
"""The same while its fan was up when it was last seen."""
_NO_READING = Finding(cause=Cause.UNKNOWN, confidence=0.0, marks=("no_reading",))


def restored_card(saved: object, *, same_boot: bool) -> Card:
    """The card that `saved()` described; TypeError, ValueError or KeyError when it is not that."""
    item = table(saved)
    card = Card(restore(GpuIdentity, item["gpu"]))
    card.take_over(item, same_boot=same_boot)
    return card


def _has_no_fan(reading: GpuReading) -> bool:
    return reading.fan_mode is FanMode.NONE
