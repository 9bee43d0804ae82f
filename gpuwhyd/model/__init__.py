"""The values that cross layers: frozen, units in the names, `None` for what is not known.

A reading is what one backend says of one GPU. A snapshot is one tick of the whole machine. An event is what the
engine makes of a row of snapshots, an explanation is its answer at this moment, a report is all of it for the outputs.
"""

from gpuwhyd.model.events import (
    AlertEvent,
    BackendEvent,
    Event,
    EventKind,
    GpuEvent,
    Report,
    Spike,
    SpikeEvent,
)
from gpuwhyd.model.explanation import Cause, Evidence, Explanation, Outlook, Suspect
from gpuwhyd.model.gpu import (
    CHASSIS,
    PCI_ADDRESS,
    FanControl,
    FanCurvePoint,
    FanReading,
    GpuIdentity,
    GpuProcess,
    GpuReading,
)
from gpuwhyd.model.host import HostProcess, HostReading, HostUse
from gpuwhyd.model.plain import as_plain
from gpuwhyd.model.programs import GpuUse, ProcessExit, ProcessIdentity, Program, ProgramKind
from gpuwhyd.model.snapshot import BackendHealth, Snapshot
from gpuwhyd.model.source import FieldSource, Lack
from gpuwhyd.model.states import BackendState, FanMode, GpuState, Severity

__all__ = [
    "CHASSIS",
    "PCI_ADDRESS",
    "AlertEvent",
    "BackendEvent",
    "BackendHealth",
    "BackendState",
    "Cause",
    "Event",
    "EventKind",
    "Evidence",
    "Explanation",
    "FanControl",
    "FanCurvePoint",
    "FanMode",
    "FanReading",
    "FieldSource",
    "GpuEvent",
    "GpuIdentity",
    "GpuProcess",
    "GpuReading",
    "GpuState",
    "GpuUse",
    "HostProcess",
    "HostReading",
    "HostUse",
    "Lack",
    "Outlook",
    "ProcessExit",
    "ProcessIdentity",
    "Program",
    "ProgramKind",
    "Report",
    "Severity",
    "Snapshot",
    "Spike",
    "SpikeEvent",
    "Suspect",
    "as_plain",
]
