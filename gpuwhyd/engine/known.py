"""All that is known of one card over time: what an explanation is made from."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from gpuwhyd.engine.driver_events import DriverEvents
from gpuwhyd.engine.ended import Hottest
from gpuwhyd.engine.fan_level import FanLevel
from gpuwhyd.engine.heat import Heat
from gpuwhyd.engine.held_clocks import HeldClocks
from gpuwhyd.engine.hot_spots import HotSpots
from gpuwhyd.engine.ledger import Ledger
from gpuwhyd.engine.neighbours import Neighbour, Outside
from gpuwhyd.engine.rules import RuleBook
from gpuwhyd.engine.shared_heat import Cooler, has_no_fan, summed
from gpuwhyd.engine.spikes import SpikeWatch
from gpuwhyd.engine.suspicion import Suspicion
from gpuwhyd.engine.tachometers import Tachometers
from gpuwhyd.engine.thermal.card import Thermal
from gpuwhyd.engine.watchers import Watchers
from gpuwhyd.model import CHASSIS, GpuIdentity, GpuReading, GpuState, GpuUse


@dataclass(slots=True)
class Known:
    gpu: GpuIdentity
    label: str
    """How sentences name the card: `GPU 0 (RTX 3070)`."""
    level: FanLevel = field(default_factory=FanLevel)
    heat: Heat = field(default_factory=Heat)
    watch: SpikeWatch = field(default_factory=SpikeWatch)
    rules: RuleBook = field(default_factory=RuleBook)
    hottest: Hottest = field(default_factory=Hottest)
    tachometers: Tachometers = field(default_factory=Tachometers)
    suspicion: Suspicion = field(default_factory=Suspicion)
    clocks: HeldClocks = field(default_factory=HeldClocks)
    watchers: Watchers = field(default_factory=Watchers)
    hot_spots: HotSpots = field(default_factory=HotSpots)
    outside: Outside = field(default_factory=Outside)
    driver_events: DriverEvents = field(default_factory=DriverEvents)
    thermal: Thermal = field(default_factory=Thermal)
    has_fan: bool = True
    """As of the last reading; a card that sleeps or is let go does not tell."""
    cooler: Cooler | None = None
    """What else heats the cooler, where the fan is one of the machine's."""
    heat_at_onset_watts: float | None = None
    worked_in_spike: bool = False
    """The card has worked at some time in the open spike, or the last one."""

    def is_loud(self, now: float) -> bool:
        """A spike is open, and its fan is not quiet in it."""
        return self.watch.fan_is_up and not self.level.is_quiet(now)

    @property
    def cooled_watts(self) -> float:
        """All heat in the cooler, as the steady power that would hold it there."""
        own = self.heat.ledger.heat_watts
        if self.cooler is None or not self._is_beside_the_cpu:
            return own
        return own + self.cooler.cpu.heat.ledger.heat_watts

    def cooled(self) -> Ledger:
        """All heat in the cooler."""
        if self.cooler is None or not self._is_beside_the_cpu:
            return self.heat.ledger
        return summed((self.heat.ledger, self.cooler.cpu.heat.ledger))

    @property
    def _is_beside_the_cpu(self) -> bool:
        """A GPU's fan of which the CPU's heat may be a part; a machine's fan has it in its own ledger."""
        return self.cooler is not None and self.gpu.vendor != CHASSIS

    def look(
        self, now: float, reading: GpuReading, uses: Sequence[GpuUse], neighbours: Sequence[Neighbour]
    ) -> None:
        """One reading, after `heat` has seen it: what fans, clocks, watchers and neighbours do."""
        self.watchers.feed(now, reading, uses, heat=self.heat)
        if reading.state is not GpuState.AWAKE:
            self._unread()
            return
        working, watts = self.heat.is_working, self.heat.floor.smoothed_watts
        self.has_fan = not has_no_fan(reading)
        self.tachometers.feed(now, reading, working=working)
        self.suspicion.feed(now, reading, watts, working=working)
        self.clocks.feed(now, reading, uses, self.heat.floor)
        self.hot_spots.feed(now, reading, fan_is_up=self.watch.fan_is_up)
        self.outside.feed(reading, self.heat, neighbours)

    def judge(self, now: float, reading: GpuReading) -> None:
        """The same reading, after fan and cooler were followed."""
        rest, onset = self.level.rest_percent, self.thermal.fan.onset_celsius
        self.hot_spots.judge(now, reading, rest_percent=rest, onset_celsius=onset)

    def interrupted(self) -> None:
        """A gap or a suspend: what must hold without a break starts anew."""
        self._unread()
        self.watchers.interrupted()

    def _unread(self) -> None:
        self.tachometers.interrupted()
        self.suspicion.interrupted()
        self.clocks.interrupted()
        self.hot_spots.interrupted()
        self.outside.interrupted()
