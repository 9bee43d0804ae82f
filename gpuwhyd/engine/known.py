"""All that is known of one card over time: what an explanation is made from."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from gpuwhyd.engine.ended import Hottest
from gpuwhyd.engine.fan_level import FanLevel
from gpuwhyd.engine.heat import Heat
from gpuwhyd.engine.held_clocks import HeldClocks
from gpuwhyd.engine.rules import RuleBook
from gpuwhyd.engine.spikes import SpikeWatch
from gpuwhyd.engine.suspicion import Suspicion
from gpuwhyd.engine.tachometers import Tachometers
from gpuwhyd.engine.watchers import Watchers
from gpuwhyd.model import FanMode, GpuIdentity, GpuReading, GpuState, GpuUse


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
    has_fan: bool = True
    """As of the last reading; a card that sleeps or is let go does not tell."""
    heat_at_onset_watts: float | None = None

    def is_loud(self, now: float) -> bool:
        """A spike is open, and its fan is not quiet in it."""
        return self.watch.fan_is_up and not self.level.is_quiet(now)

    def look(self, now: float, reading: GpuReading, uses: Sequence[GpuUse]) -> None:
        """One reading, after `heat` has seen it: what fans, clocks and watchers do."""
        self.watchers.feed(now, reading, uses, heat=self.heat)
        if reading.state is not GpuState.AWAKE:
            self._unread()
            return
        working, watts = self.heat.is_working, self.heat.floor.smoothed_watts
        self.has_fan = reading.fan_mode is not FanMode.NONE
        self.tachometers.feed(now, reading, working=working)
        self.suspicion.feed(now, reading, watts, working=working)
        self.clocks.feed(now, reading, uses, self.heat.floor)

    def interrupted(self) -> None:
        """A gap or a suspend: what must hold without a break starts anew."""
        self._unread()
        self.watchers.interrupted()

    def _unread(self) -> None:
        self.tachometers.interrupted()
        self.suspicion.interrupted()
        self.clocks.interrupted()
