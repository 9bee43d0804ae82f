"""What the engine makes of a row of snapshots, for the outputs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from gpuwhyd.model.explanation import Explanation
from gpuwhyd.model.gpu import GpuIdentity
from gpuwhyd.model.snapshot import Snapshot
from gpuwhyd.model.states import Severity


class EventKind(StrEnum):
    SPIKE_STARTED = "spike-started"
    SPIKE_UPDATED = "spike-updated"
    SPIKE_ENDED = "spike-ended"
    ALERT_RAISED = "alert-raised"
    ALERT_CLEARED = "alert-cleared"
    GPU_ADDED = "gpu-added"
    GPU_REMOVED = "gpu-removed"
    GPU_LOST = "gpu-lost"
    BACKEND_FAILING = "backend-failing"
    BACKEND_RECOVERED = "backend-recovered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spike:
    """The fan leaves rest and comes back: what a person in the room hears as one."""

    spike_id: str
    gpu_id: str
    began_usec: int
    began_boottime_seconds: float
    began_before_start: bool = False
    rest_percent: float | None = None
    rest_rpm: float | None = None
    peak_fan_percent: float | None = None
    peak_fan_rpm: float | None = None
    peak_temperature_celsius: float | None = None
    cycles: int = 1
    """Rises that were merged, because the rests between them were short."""
    ended_usec: int | None = None
    ended_boottime_seconds: float | None = None
    ended_by: str | None = None
    """`rest`, `new-rest`, `removed` or `reboot`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpikeEvent:
    kind: EventKind
    wall_usec: int
    boottime_seconds: float
    gpu: GpuIdentity
    spike: Spike
    explanation: Explanation


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertEvent:
    kind: EventKind
    wall_usec: int
    boottime_seconds: float
    gpu: GpuIdentity
    rule: str
    severity: Severity
    metric: str
    value: float
    threshold: float
    for_seconds: float
    explanation: Explanation
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuEvent:
    kind: EventKind
    wall_usec: int
    boottime_seconds: float
    gpu: GpuIdentity
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendEvent:
    kind: EventKind
    wall_usec: int
    boottime_seconds: float
    backend: str
    sentence: str


Event = SpikeEvent | AlertEvent | GpuEvent | BackendEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What every output gets once a tick."""

    snapshot: Snapshot
    events: tuple[Event, ...] = ()
    explanations: Mapping[str, Explanation] = field(default_factory=dict)
    """By GPU id; one for every GPU of the snapshot."""
    headline: str = ""
