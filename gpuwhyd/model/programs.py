"""Who uses a GPU: processes, and the programs that they belong to."""

from dataclasses import dataclass
from enum import StrEnum

from gpuwhyd.model.gpu import GpuProcess


class ProgramKind(StrEnum):
    UNIT = "unit"  # a systemd service or scope, of the system or of a user's manager
    CONTAINER = "container"
    APP = "app"  # a desktop application: flatpak, snap, app-*.scope
    PROCESS = "process"  # none of these: one bare process


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What a suspect is: a unit, container, app or bare process. Equal keys are the same program."""

    kind: ProgramKind
    key: str
    """Stable and unique while the machine runs: `unit:ollama.service`, `process:4242:81723`."""
    name: str
    """For a person: `ollama.service`, `whisper (docker)`, `blender`."""
    unit: str | None = None
    """The systemd unit of the system manager that holds it, as `journalctl -u` takes it."""
    user_unit: str | None = None
    """The unit of a user's own manager, where there is one."""
    slice: str | None = None
    container: str | None = None
    """`docker:0123456789ab`, `lxc:web`, `kubernetes:...`, `podman:...`, `nspawn:...`."""
    app: str | None = None
    user: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentity:
    """A process, told apart from another with the same pid by its start time."""

    pid: int
    start_ticks: int
    """Field 22 of /proc/PID/stat: clock ticks since boot."""
    name: str
    uid: int | None = None
    user: str | None = None
    executable: str | None = None
    command_line: tuple[str, ...] | None = None
    """Private: shown to root and to the process's own user only."""
    program: Program


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuUse:
    """One process on one GPU during one tick."""

    gpu_id: str
    process: ProcessIdentity
    use: GpuProcess


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessExit:
    """A process that was seen on a GPU has ended; its heat stopped then."""

    process: ProcessIdentity
    boottime_seconds: float
