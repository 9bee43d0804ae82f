"""All that is known of one card over time: what an explanation is made from."""

from dataclasses import dataclass, field

from gpuwhyd.engine.ended import Hottest
from gpuwhyd.engine.fan_level import FanLevel
from gpuwhyd.engine.heat import Heat
from gpuwhyd.engine.rules import RuleBook
from gpuwhyd.engine.spikes import SpikeWatch
from gpuwhyd.model import GpuIdentity


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
    heat_at_onset_watts: float | None = None

    def is_loud(self, now: float) -> bool:
        """A spike is open, and its fan is not quiet in it."""
        return self.watch.fan_is_up and not self.level.is_quiet(now)
