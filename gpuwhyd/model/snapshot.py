"""One tick of the whole machine."""

from dataclasses import dataclass

from gpuwhyd.model.gpu import GpuReading
from gpuwhyd.model.host import HostReading, HostUse
from gpuwhyd.model.programs import GpuUse, ProcessExit
from gpuwhyd.model.states import BackendState


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendHealth:
    name: str
    state: BackendState
    message: str = ""
    """What to do or what is waited for; empty when ready."""
    has_no_card: bool = False
    """It looked, and no card of its kind is there: those that it had have gone. Never while it is only not well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One tick. CLOCK_BOOTTIME drives all logic; wall time only labels."""

    boottime_seconds: float
    wall_usec: int
    readings: tuple[GpuReading, ...] = ()
    uses: tuple[GpuUse, ...] = ()
    exits: tuple[ProcessExit, ...] = ()
    host: HostReading | None = None
    """`None` on a machine without a fan that GPU and CPU share."""
    host_uses: tuple[HostUse, ...] = ()
    backends: tuple[BackendHealth, ...] = ()
    resumed: bool = False
    """The machine slept since the last snapshot; rates over that time mean nothing."""
    processes_hidden: bool = False
    """/proc is mounted with hidepid: an ordinary user may not even see that other users' processes exist."""
