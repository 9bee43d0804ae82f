"""What the causes look at, and what each of them says."""

from dataclasses import dataclass

from gpuwhyd.engine.driver_events import DriverEvent
from gpuwhyd.engine.held_clocks import Held
from gpuwhyd.engine.hot_spots import Hot
from gpuwhyd.engine.neighbours import Warmed
from gpuwhyd.engine.shared_heat import CpuSide
from gpuwhyd.engine.tachometers import FanFault
from gpuwhyd.engine.thermal.history import Worse
from gpuwhyd.engine.watchers import Watched
from gpuwhyd.model import Cause, Evidence, Suspect


@dataclass(
    slots=True, kw_only=True
)  # not frozen, which takes three times as long: made at every tick of a spike
class Facts:
    """What the causes look at; none of them changes it."""

    asleep: bool
    has_fan: bool
    fan_is_up: bool
    """A spike is open and the fan is not back at rest."""
    fan_turns: bool
    fan_percent: float | None
    manual: bool
    flat_seconds: float
    """For how long the fan has not moved."""
    celsius: float | None
    trend: str
    working: bool
    """The card draws clearly more than at idle."""
    warm: bool
    """There is heat in the ledger."""
    heat_watts: float
    """All of it, as the steady power that would hold it there."""
    significant_watts: float
    """Less power above idle than this is noise, and less heat no reason for a fan."""
    shares: tuple[float, ...]
    """Parts of the heat, of the two foremost of the programs that are worth naming."""
    a_leader_stopped: bool
    """One of them works no more."""
    unattributed_share: float
    engine_times_known: bool
    came_with_load: bool
    """Without engine times: it is known who came with the load, and who had sat there before."""
    power_known: bool
    wall_usec: int
    let_go: bool = False
    """Nobody looks for a moment, so that an idle card can fall asleep."""
    fault: FanFault | None = None
    """A fan does not do what it is told, and has not for long enough."""
    clocks: Held | None = None
    """Clocks stay up without a load, and have for long enough."""
    watched: Watched | None = None
    """Only watchers keep it awake or busy, and have for long enough."""
    hot: Hot | None = None
    """The hot spot or the memory is hot while the core is cool, and has been for long enough; the fan need not run for it."""
    driver_event: DriverEvent | None = None
    """Just before the fan rose the machine or the card woke up, or its driver came; and no work has followed."""
    warmed: Warmed | None = None
    """Something beside the card works and heats it."""
    neighbours_suspects: tuple[Suspect, ...] = ()
    """The programs that heat what warms the card."""
    worse: Worse | None = None
    """Its cooling, where its own history is long enough to tell."""
    cpu: CpuSide | None = None
    """The CPU's part, while a fan of the machine is up."""

    @property
    def visible_share(self) -> float:
        """What visible programs put there, those too that are too small to be named as suspects."""
        return 1 - self.unattributed_share

    @property
    def visible_heat_watts(self) -> float:
        """Heat still in the cooler that visible programs put there."""
        return self.visible_share * self.heat_watts if self.warm else 0.0

    @property
    def is_heard(self) -> bool:
        """There is something to explain: the fan is up, or there is none to say that all is well."""
        return self.fan_is_up or not self.has_fan

    def since(self, seconds: float) -> int:
        """The wall clock so long ago, in microseconds."""
        return self.wall_usec - round(seconds * 1e6)


def held_for(seconds: float) -> Evidence:
    """For how long that which a finding says has been so."""
    return Evidence(quantity="held_for_seconds", value=seconds, unit="s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    cause: Cause
    confidence: float
    marks: tuple[str, ...] = ()
    """Facts worth telling as evidence: `asleep`, `no_fan`, `fan_pinned`, ..."""
    evidence: tuple[Evidence, ...] = ()
    """The same with values."""
    suspects: tuple[Suspect, ...] | None = None
    """Who is to be named; `None`: the programs that made the heat."""
    unattributed_share: float | None = None
    """What they leave unexplained; `None`: as the card's own ledger has it."""


def quality(facts: Facts) -> float:
    """Less sure where power was guessed from utilisation."""
    return 1.0 if facts.power_known else 0.85
