"""What is simulated: cards, and programs that load them over time. `docs/simulation.md` is the manual.

Times of a scenario count from its beginning. The daemon joins it at `join_seconds`; the simulated machine was booted
`UPTIME_SECONDS` before it began.
"""

from dataclasses import dataclass

from gpuwhyd.model import FanMode

UPTIME_SECONDS = 3600.0
"""So long the simulated machine has been up when a scenario begins, so that nothing looks like a boot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThermalModel:
    """Two exponentials in parallel. Real cards: a fast part of 10 to 47 s, a slow one of 240 to 480 s."""

    die_seconds: float = 12.0
    die_kelvin_per_watt: float = 0.06
    heatsink_seconds: float = 300.0
    """With the fan standing; less when it turns, because the same mass then loses its heat faster."""
    heatsink_kelvin_per_watt: float = 0.7
    """With the fan standing."""
    fan_cooling: float = 6.0
    """The heatsink loses its heat by 1 + so many times better with the fan at 100 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FanModel:
    count: int = 2
    mode: FanMode = FanMode.AUTO
    manual_percent: float = 70.0
    """What the fan is pinned to when `mode` is manual."""
    zero_rpm: bool = True
    start_celsius: float = 52.0
    """A zero-RPM fan starts here (real cards: 50 to 61) ..."""
    stop_celsius: float = 47.0
    """... and stops here (3 to 10 K lower)."""
    min_percent: float = 30.0
    curve: tuple[tuple[float, float], ...] = ((50.0, 30.0), (70.0, 60.0), (85.0, 100.0))
    """Temperature and percent, rising; between the points it is a straight line."""
    lag_seconds: float = 4.0
    rpm_max: float = 3200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    name: str
    pci_address: str
    ambient_celsius: float = 24.0
    idle_watts: float = 15.0
    limit_watts: float = 220.0
    temperature_limit_celsius: float = 83.0
    memory_total_bytes: int = 8 << 30
    thermal: ThermalModel = ThermalModel()
    fan: FanModel | None = None
    """`None`: a card without a fan of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadStep:
    at_seconds: float
    """Since the program's start."""
    percent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedProgram:
    name: str
    card: int
    """Its place among the scenario's cards, from 0."""
    start_seconds: float = 0.0
    exit_seconds: float | None = None
    """It never exits when `None`."""
    load: tuple[LoadStep, ...]
    """How long the card's engine works for it, as steps."""
    watts_at_full_load: float | None = None
    """What it draws above idle at 100 %; all up to the card's limit when `None`."""
    memory_bytes: int = 1 << 30
    repeat_seconds: float | None = None
    """It starts anew, as another process, so long after each start."""
    unit: str | None = None
    user_unit: str | None = None
    container: str | None = None
    app: str | None = None
    user: str = "root"
    uid: int = 0
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    cards: tuple[Card, ...]
    programs: tuple[SimulatedProgram, ...] = ()
    speed: float = 1.0
    join_seconds: float = 0.0
    seed: int = 1

    def seconds(self, boottime_seconds: float) -> float:
        """The scenario's time at a moment of the simulated machine's CLOCK_BOOTTIME."""
        return boottime_seconds - UPTIME_SECONDS
