"""The values that cross layers: frozen, units in the names, `None` for what is not known.

A reading is what one backend says of one GPU. A snapshot is one tick of the whole machine. An event is what the
engine makes of a row of snapshots, an explanation is its answer at this moment, a report is all of it for the outputs.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class GpuState(StrEnum):
    AWAKE = "awake"
    ASLEEP = "asleep"  # runtime-suspended; nothing but its power state was looked at
    LOST = "lost"  # fell off the bus or needs a reset
    UNKNOWN = "unknown"


class FanMode(StrEnum):
    AUTO = "auto"
    MANUAL = "manual"
    NONE = "none"  # the card has no fan of its own
    UNKNOWN = "unknown"


class BackendState(StrEnum):
    READY = "ready"
    WAITING = "waiting"  # may work later: driver or library not there yet
    ABSENT = "absent"  # will not work on this machine
    ASLEEP = "asleep"  # let go of on purpose, because all its GPUs sleep
    FAILING = "failing"  # should work and does not; retried with backoff


class Cause(StrEnum):
    QUIET = "quiet"
    WORKLOAD = "workload"
    WORKLOAD_MIXED = "workload-mixed"
    RESIDUAL_HEAT = "residual-heat"
    HIDDEN_WORKLOAD = "hidden-workload"
    MANUAL_FAN = "manual-fan"
    UNKNOWN = "unknown"


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


class Severity(StrEnum):
    NOTICE = "notice"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class ProgramKind(StrEnum):
    UNIT = "unit"  # a systemd service or scope, of the system or of a user's manager
    CONTAINER = "container"
    APP = "app"  # a desktop application: flatpak, snap, app-*.scope
    PROCESS = "process"  # none of these: one bare process


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuIdentity:
    """What does not change while a card is plugged in."""

    id: str
    """Last element of the D-Bus path: `pci_0000_01_00_0`, or `chassis_NAME` for a fan without a GPU device."""
    name: str
    vendor: str
    """`nvidia`, `amd`, `intel` or `simulated`."""
    pci_address: str | None = None
    """`0000:01:00.0`, lower case."""
    uuid: str | None = None
    driver: str | None = None
    """Driver and version: `nvidia 550.54.14`."""
    vbios_version: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FanReading:
    index: int
    percent: float | None = None
    rpm: float | None = None
    target_percent: float | None = None
    mode: FanMode = FanMode.UNKNOWN
    rpm_is_measured: bool = False
    """True for a real tachometer. NVML's percent and RPM are what the fan was told, not what it does."""
    rpm_max: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProcess:
    """One process as a backend sees it: a pid of the host and its use of one GPU since the last reading."""

    pid: int
    kind: str = "unknown"
    """`compute`, `graphics`, `compute+graphics`, `mps` or `unknown`."""
    memory_used_bytes: int | None = None
    engine_percent: float | None = None
    """Time the card's main engine worked for it since the last reading, 0 to 100; `None` when not measurable."""
    memory_utilization_percent: float | None = None
    encoder_percent: float | None = None
    decoder_percent: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReading:
    """What one backend says of one GPU at one moment; a quantity that it does not offer is `None`, never 0."""

    gpu: GpuIdentity
    backend: str
    state: GpuState = GpuState.AWAKE
    fan_mode: FanMode = FanMode.UNKNOWN
    fans: tuple[FanReading, ...] = ()
    temperature_celsius: float | None = None
    hotspot_celsius: float | None = None
    memory_temperature_celsius: float | None = None
    temperature_limit_celsius: float | None = None
    """Where the card begins to slow itself down."""
    power_watts: float | None = None
    """The most instant draw the card offers."""
    power_average_watts: float | None = None
    energy_joules: float | None = None
    """A counter; only differences mean something, and it may start anew."""
    power_limit_watts: float | None = None
    utilization_percent: float | None = None
    memory_utilization_percent: float | None = None
    encoder_percent: float | None = None
    decoder_percent: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    core_clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    performance_state: int | None = None
    """NVIDIA's P-state: 0 is fastest, 8 and above are idle."""
    throttle_reasons: tuple[str, ...] | None = None
    """Why clocks are held down: `sw-thermal`, `hw-thermal`, `power-cap`, ...; empty when nothing holds them."""
    processes: tuple[GpuProcess, ...] | None = None
    """`None` when the backend cannot tell who uses the card; an empty tuple when nobody does."""

    @property
    def fan_percent(self) -> float | None:
        """The fastest fan: it is the one a person hears."""
        return max((fan.percent for fan in self.fans if fan.percent is not None), default=None)

    @property
    def fan_rpm(self) -> float | None:
        return max((fan.rpm for fan in self.fans if fan.rpm is not None), default=None)

    @property
    def fan_rpm_max(self) -> float | None:
        return max((fan.rpm_max for fan in self.fans if fan.rpm_max is not None), default=None)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendHealth:
    name: str
    state: BackendState
    message: str = ""
    """What to do or what is waited for; empty when ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One tick. CLOCK_BOOTTIME drives all logic; wall time only labels."""

    boottime_seconds: float
    wall_usec: int
    readings: tuple[GpuReading, ...] = ()
    uses: tuple[GpuUse, ...] = ()
    exits: tuple[ProcessExit, ...] = ()
    backends: tuple[BackendHealth, ...] = ()
    resumed: bool = False
    """The machine slept since the last snapshot; rates over that time mean nothing."""
    processes_hidden: bool = False
    """/proc is mounted with hidepid: an ordinary user may not even see that other users' processes exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    program: Program
    share: float
    """Part of the heat still in the cooler that it put there, 0 to 1."""
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


def as_plain(value: object, *, keep_none: bool = False) -> object:
    """A value as dicts, lists, strings and numbers under the model's field names.

    What is not known is left out, or `None` with `keep_none` (JSON). Enums become their strings. Properties such as
    `fan_percent` of a reading are not fields; whoever shows a reading adds them.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = (
            (f.name, as_plain(getattr(value, f.name), keep_none=keep_none)) for f in dataclasses.fields(value)
        )
        return {name: plain for name, plain in items if keep_none or plain is not None}
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, Mapping):
        plains = ((str(key), as_plain(item, keep_none=keep_none)) for key, item in value.items())
        return {key: plain for key, plain in plains if keep_none or plain is not None}
    if isinstance(value, tuple | list | frozenset | set):
        return [as_plain(item, keep_none=keep_none) for item in value]
    return value
