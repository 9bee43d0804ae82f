"""Everything the engine keeps for one card, and what it makes of each reading of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gpuwhyd.engine.ended import told_at_the_end
from gpuwhyd.engine.explain import Moment
from gpuwhyd.engine.fan_level import STANDSTILL_RPM, FanLevel
from gpuwhyd.engine.heat import FIRST_STEP_SECONDS
from gpuwhyd.engine.hot_spots import HotSpots
from gpuwhyd.engine.idle_floor import IdleFloor
from gpuwhyd.engine.known import Known
from gpuwhyd.engine.ledger import Ledger
from gpuwhyd.engine.neighbours import Neighbour
from gpuwhyd.engine.outlook import follow_cooler
from gpuwhyd.engine.phases import Change
from gpuwhyd.engine.rules import Firing, RuleBook
from gpuwhyd.engine.saved import optional_number, restore, table
from gpuwhyd.engine.settings import EngineSettings
from gpuwhyd.engine.shared_heat import Cooler, cools_the_machine, has_no_fan, shared_ledger, shared_reading
from gpuwhyd.engine.spikes import LastSpike, SpikeWatch
from gpuwhyd.engine.tachometers import Tachometers
from gpuwhyd.engine.telling import Telling
from gpuwhyd.engine.thermal.card import Thermal
from gpuwhyd.model import (
    EventKind,
    Explanation,
    FanMode,
    GpuIdentity,
    GpuReading,
    GpuState,
    GpuUse,
    ProcessExit,
    Snapshot,
    Spike,
    as_plain,
)

GAP_SECONDS = 30.0
"""After a longer pause between readings, what must hold without a break starts anew."""
BRIDGED_SECONDS = 90.0
"""A pause in which a cooler does not forget: its heat is followed across it."""
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
    """One card over time."""

    def __init__(self, gpu: GpuIdentity) -> None:
        self.known = Known(gpu=gpu, label=gpu.name)
        self.backend = ""
        self.state = GpuState.UNKNOWN
        self.missing_since: float | None = None
        self._moment: Moment | None = None
        self.fan_is_moving = False
        """It rises, or is up and has not found its speed: worth looking more often."""
        self._telling = Telling()
        self._last_at: float | None = None
        self._seen_last_at = 0.0
        """The same also when it was before a reboot."""
        self._just_restored = False

    @property
    def open_spike(self) -> Spike | None:
        return self.known.watch.spike

    @property
    def was_read(self) -> bool:
        """At least once in this run of the engine."""
        return self._moment is not None

    @property
    def explanation(self) -> Explanation | None:
        """The answer of the last reading; `None` before the first."""
        return None if self._moment is None else self._moment.explanation

    # -- one reading ----------------------------------------------------------------------------------------------

    def feed(
        self,
        snapshot: Snapshot,
        reading: GpuReading,
        uses: Sequence[GpuUse],
        exits: Sequence[ProcessExit],
        settings: EngineSettings,
        cooler: Cooler | None = None,
        neighbours: Sequence[Neighbour] = (),
        *,
        is_new: bool = False,
    ) -> Outcome:
        """One reading of this card; snapshots come in the order of their time.

        `cooler`: what else heats the cooler, where the fan is one of the machine's. `neighbours`: all that heats in this
        machine, of which the card may be one. `is_new`: it has come while the engine ran.
        """
        known = self.known
        now = snapshot.boottime_seconds
        first = self._last_at is None
        dt = FIRST_STEP_SECONDS if self._last_at is None else max(0.0, now - self._last_at)
        broken = first or snapshot.resumed or dt > GAP_SECONDS
        known.driver_events.feed(
            now, reading.state, resumed=snapshot.resumed, missing_since=self.missing_since, is_new=is_new
        )
        known.gpu, self.backend, self.state, self.missing_since = (
            reading.gpu,
            reading.backend,
            reading.state,
            None,
        )
        before, self._last_at = self._last_at, now
        self._seen_last_at = now
        if self._just_restored and reading.processes is not None:
            known.heat.ledger.resume(now, uses)
            self._just_restored = False
        if broken:
            if snapshot.resumed:
                known.level.unseen()
            else:
                known.level.interrupted()
            known.rules.interrupted()
            known.heat.interrupted()
            known.interrupted()
        known.cooler, alone = cooler, reading
        if cooler is not None and cools_the_machine(reading):
            reading = shared_reading(reading, cooler)
            known.heat.feed_booked(now, dt, reading, shared_ledger(cooler), broken=broken)
        elif reading.state is GpuState.AWAKE:
            known.heat.feed(now, dt, reading, uses, exits, broken=broken, slept=snapshot.resumed)
        else:
            known.heat.feed_nothing(now, dt, exits)
            known.rules.interrupted()
        known.look(now, reading, uses, neighbours)
        change, spike = self._follow_fan(snapshot, reading, settings, before=before)
        gap = broken and not (first or snapshot.resumed) and dt <= BRIDGED_SECONDS
        follow_cooler(self.known, snapshot, dt, reading, settings.spike, broken=broken and not gap, gap=gap)
        known.judge(now, reading)
        unsteady = known.watch.spike is not None and known.level.flat_seconds(now) < MOVING_SECONDS
        self.fan_is_moving = reading.state is GpuState.AWAKE and (unsteady or known.level.may_be_rising)
        if change is Change.ROSE and spike is not None:
            known.heat_at_onset_watts = known.cooled_watts
            known.worked_in_spike = False
        known.worked_in_spike |= known.heat.is_working
        self._moment = moment = Moment(known, snapshot, reading)
        if known.is_loud(now):
            started = change is Change.ROSE and spike is not None
            hottest, heat_watts = known.hottest, known.cooled_watts
            if hottest.is_now(moment.told_by[0], heat_watts, started=started):
                hottest.answer, hottest.heat_watts = moment.answer, heat_watts
        kind = self._kind(now, change, spike, moment)
        if reading.state is GpuState.AWAKE:
            firings = self._weigh_rules(now, alone, settings)
        else:
            firings = known.rules.reconfigured(now, alone.gpu, settings.rules)
        return Outcome(spike_kind=kind, spike=spike or known.watch.spike, firings=tuple(firings))

    def _weigh_rules(self, now: float, reading: GpuReading, settings: EngineSettings) -> list[Firing]:
        loss = self.known.thermal.history.loss_part
        return self.known.rules.feed(
            now,
            reading,
            settings.rules,
            fan_stalled=self.known.tachometers.stalled,
            cooling_loss_percent=None if loss is None else 100 * loss,
        )

    def missing(self, snapshot: Snapshot) -> None:
        """The snapshot has no reading of this card: nothing is concluded from that yet."""
        if self.missing_since is None:
            self.missing_since = snapshot.boottime_seconds
            self.known.level.interrupted()
            self.known.rules.interrupted()
            self.fan_is_moving = False
        self._moment = Moment(self.known, snapshot, None)

    def vanish(self, snapshot: Snapshot, ended_by: str) -> Spike | None:
        """The card was removed, or the machine rebooted: the spike that ended by that, if one was open."""
        if self._moment is not None:
            self._moment.settle()
        spike = self._remembered(self.known.watch.vanish(self._seen_last_at, ended_by))
        if self._moment is None:
            self._moment = Moment(self.known, snapshot, None)
        return spike

    def gone(self) -> None:
        """It is only remembered from now on: nobody asks it, and the last snapshot is let go of."""
        self._moment = None

    def end_alerts(self) -> list[Firing]:
        """With its removal: nothing would ever clear them."""
        return self.known.rules.end(self._seen_last_at)

    def _follow_fan(
        self, snapshot: Snapshot, reading: GpuReading, settings: EngineSettings, *, before: float | None
    ) -> tuple[Change | None, Spike | None]:
        """The change of the fan's phase since `before`. No fan, or no word of it: no change."""
        known = self.known
        now = snapshot.boottime_seconds
        mid_load = before is None and self._is_mid_load(reading)
        if reading.state is GpuState.ASLEEP and not reading.fans:
            known.level.asleep(now)
        elif reading.state is GpuState.UNKNOWN and not reading.fans:
            known.level.unseen()
            return None, None
        elif reading.state is GpuState.LOST:
            known.level.interrupted()
            return None, None
        elif has_no_fan(reading) or (reading.fan_percent is None and reading.fan_rpm is None):
            return None, None
        else:
            known.level.feed(
                now,
                reading.fan_percent,
                reading.fan_rpm,
                reading.fan_rpm_max,
                idle=known.heat.floor.is_at_floor,
                in_spike=known.watch.fan_is_up or mid_load,
                settings=settings.spike,
            )
        if snapshot.resumed and before is not None:
            known.level.slept_since(before)
        change, spike = known.watch.feed(snapshot, reading, known.level, settings.spike, mid_load=mid_load)
        return change, self._remembered(spike)

    def _is_mid_load(self, reading: GpuReading) -> bool:
        """People install this because the fan is loud now: excess power and a turning fan at the first sample."""
        known = self.known
        if (
            known.level.rest_is_known
            or known.watch.fan_is_up
            or reading.fan_mode in {FanMode.MANUAL, FanMode.NONE}
        ):
            return False
        turning = (reading.fan_percent or 0.0) > 0 or (reading.fan_rpm or 0.0) >= STANDSTILL_RPM
        busy = reading.utilization_percent is None or reading.utilization_percent > BUSY_UTILIZATION_PERCENT
        return turning and busy and known.heat.is_working

    def told_at_the_end(self, spike: Spike) -> Explanation | None:
        """What a spike that has just ended is told with."""
        if self._moment is None:
            return None
        hottest = self.known.hottest.answer or self._moment.answer
        shown = replace(spike, peak_fan_percent=None) if self.known.level.percent_lies else spike
        return told_at_the_end(shown, hottest, self._moment.explanation, self.known.cooled())

    def _remembered(self, spike: Spike | None) -> Spike | None:
        if spike is not None and spike.ended_usec is not None:
            self.known.watch.last = LastSpike(
                spike_id=spike.spike_id,
                ended_usec=spike.ended_usec,
                program=self.known.hottest.program,
                ended_boottime_seconds=None if spike.ended_by == "reboot" else spike.ended_boottime_seconds,
            )
        return spike

    def _kind(
        self, now: float, change: Change | None, spike: Spike | None, moment: Moment
    ) -> EventKind | None:
        """The event of this tick: started, ended, or updated because the answer has changed for a while."""
        if spike is None:
            seen = self.state is GpuState.AWAKE and self.known.is_loud(now)
            if not seen or not self._telling.is_due(now, *moment.told_by):
                return None
            kind = EventKind.SPIKE_UPDATED
        else:
            kind = EventKind.SPIKE_STARTED if change is Change.ROSE else EventKind.SPIKE_ENDED
        self._telling.told(now, *moment.told_by, started=kind is EventKind.SPIKE_STARTED)
        return kind

    # -- over a restart -------------------------------------------------------------------------------------------

    def saved(self) -> dict[str, object]:
        """What is kept over a restart of the daemon, as JSON takes it."""
        return {
            "gpu": as_plain(self.known.gpu),
            "backend": self.backend,
            "label": self.known.label,
            "level": self.known.level.saved(),
            "floor": self.known.heat.floor.saved(),
            "ledger": self.known.heat.ledger.saved(),
            "watch": self.known.watch.saved(),
            "tachometers": self.known.tachometers.saved(),
            "hot_spots": self.known.hot_spots.saved(),
            "thermal": self.known.thermal.saved(),
            "rules": self.known.rules.saved(),
            "told": self._telling.saved(),
            "last_at": self._last_at,
            "heat_at_onset_watts": self.known.heat_at_onset_watts,
        }

    def take_over(self, saved: Mapping[str, object], *, same_boot: bool) -> None:
        """Goes on with what `saved()` gave; TypeError, ValueError or KeyError when it is not that.

        After a reboot only what was learned of the card is taken over, and the open spike, to be closed.
        """
        self.known.level = FanLevel.restored(table(saved["level"]))
        self.known.heat.floor = IdleFloor.restored(table(saved["floor"]))
        self.known.watch = SpikeWatch.restored(table(saved["watch"]))
        self.known.rules = RuleBook(table(saved["rules"]), same_boot=same_boot)
        self.known.tachometers = Tachometers.restored(table(saved.get("tachometers", {})))
        self.known.hot_spots = HotSpots.restored(table(saved.get("hot_spots", {})))
        self.known.thermal = Thermal.restored(table(saved.get("thermal", {})))
        self.known.label = str(saved.get("label", self.known.label))
        self.backend = str(saved.get("backend", self.backend))
        ledger, telling = Ledger.restored(table(saved["ledger"])), Telling.restored(saved["told"])
        last_at = optional_number(saved["last_at"])
        self._seen_last_at = last_at or 0.0
        if same_boot:
            self.known.heat.ledger, self._telling, self._last_at = ledger, telling, last_at
            self.known.heat_at_onset_watts = optional_number(saved["heat_at_onset_watts"])
            self._just_restored = True
        elif self.known.watch.last is not None:
            self.known.watch.last = replace(self.known.watch.last, ended_boottime_seconds=None)
        if self.known.watch.spike is not None and telling.answer is not None:
            self.known.hottest.last_told(telling.answer[0], ledger, self._seen_last_at)


def restored_card(saved: object, *, same_boot: bool) -> Card:
    """The card that `saved()` described; TypeError, ValueError or KeyError when it is not that."""
    item = table(saved)
    card = Card(restore(GpuIdentity, item["gpu"]))
    card.take_over(item, same_boot=same_boot)
    return card
