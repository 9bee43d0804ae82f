"""The answer for one GPU at one moment."""

from dataclasses import dataclass
from enum import StrEnum

from gpuwhyd.model.programs import Program


class Cause(StrEnum):
    QUIET = "quiet"
    WORKLOAD = "workload"
    WORKLOAD_MIXED = "workload-mixed"
    RESIDUAL_HEAT = "residual-heat"
    HIDDEN_WORKLOAD = "hidden-workload"
    MONITOR = "monitor"
    IDLE_CLOCKS = "idle-clocks"
    HOTSPOT = "hotspot"
    MANUAL_FAN = "manual-fan"
    FAN_FAULT = "fan-fault"
    NEIGHBOUR_HEAT = "neighbour-heat"
    SHARED_COOLER = "shared-cooler"
    DRIVER_EVENT = "driver-event"
    AMBIENT = "ambient"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    program: Program
    share: float
    """Part of the heat still in the cooler that it put there, 0 to 1."""
    cpu_share: float | None = None
    """What of `share` it made through the CPU, where CPU and GPU share a cooler."""
    process_name: str | None = None
    """Its busiest process, where the program is more than a bare process."""
    power_watts: float | None = None
    """Its part of the card's power above idle, averaged over about half a minute."""
    pids: tuple[int, ...] = ()
    alive: bool = True
    stopped_seconds_ago: float | None = None
    """Since it last worked, when it no longer does."""
    memory_used_bytes: int | None = None
    engine_percent: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    quantity: str
    value: float | str
    unit: str = ""
    since_usec: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    trend: str = "unknown"
    """`rising`, `steady`, `falling` or `unknown`."""
    quiet_in_seconds: float | None = None
    """When the fan is expected to be at rest, once the load is over."""
    peak_fan_percent: float | None = None
    """Where a fan that still rises is expected to settle when the load goes on as it is."""
    peak_temperature_celsius: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The answer for one GPU at one moment. Shares of `suspects` and `unattributed_share` never sum over 1."""

    gpu_id: str
    gpu_label: str
    """How sentences name the card: `GPU 0 (RTX 3070)`."""
    cause: Cause
    confidence: float
    sentence: str
    suspects: tuple[Suspect, ...] = ()
    unattributed_share: float = 0.0
    evidence: tuple[Evidence, ...] = ()
    outlook: Outlook = Outlook()
    fan_percent: float | None = None
    fan_rpm: float | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    for_seconds: float | None = None
    """How long the fan has been up, in a spike."""
    spike_id: str | None = None
    """The open spike, or when quiet the last one."""
