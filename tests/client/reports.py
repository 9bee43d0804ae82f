"""Reports of the daemon for the client's tests: values of the model, nothing made by hand in another form."""

import dataclasses
import json

from gpuwhyd import __version__
from gpuwhyd.model import (
    AlertEvent,
    BackendHealth,
    BackendState,
    Cause,
    EventKind,
    Evidence,
    Explanation,
    FanMode,
    FanReading,
    FieldSource,
    GpuIdentity,
    GpuProcess,
    GpuReading,
    GpuState,
    GpuUse,
    Lack,
    Outlook,
    ProcessIdentity,
    Program,
    ProgramKind,
    Report,
    Severity,
    Snapshot,
    Spike,
    SpikeEvent,
    Suspect,
    as_plain,
)

WALL_USEC = 1_764_000_000_000_000
SPIKE_ID = f"pci_0000_01_00_0-{WALL_USEC}"
GPU = GpuIdentity(
    id="pci_0000_01_00_0",
    name="NVIDIA GeForce RTX 3070",
    vendor="nvidia",
    pci_address="0000:01:00.0",
    driver="nvidia 550.54.14",
)
SECOND_GPU = GpuIdentity(
    id="pci_0000_41_00_0", name="NVIDIA A40", vendor="nvidia", pci_address="0000:41:00.0"
)
SENTENCE = (
    "GPU 0 (RTX 3070): fan at 57 % for 40 s because ollama.service (ollama, pid 4242, user ollama) made 81 % of its "
    "heat: 212 W on average over 3 min, 52 to 78 degC."
)
QUIET_SENTENCE = "GPU 1 (A40): no fan of its own; 30 W, little to do."
OLLAMA = Program(
    kind=ProgramKind.UNIT,
    key="unit:ollama.service",
    name="ollama.service",
    unit="ollama.service",
    user="ollama",
)
BLENDER = Program(kind=ProgramKind.PROCESS, key="process:812:9", name="blender", user="eva")


def explanation(**changes) -> Explanation:
    """The card is loud because of ollama.service; blender has exited."""
    whole = Explanation(
        gpu_id=GPU.id,
        gpu_label="GPU 0 (RTX 3070)",
        cause=Cause.WORKLOAD,
        confidence=0.92,
        sentence=SENTENCE,
        suspects=(
            Suspect(
                program=OLLAMA,
                share=0.81,
                process_name="ollama",
                power_watts=212.0,
                pids=(4242, 4243, 4244, 4245, 4246),
                memory_used_bytes=6 << 30,
                engine_percent=95.0,
            ),
            Suspect(
                program=BLENDER,
                share=0.09,
                power_watts=24.0,
                pids=(812,),
                alive=False,
                stopped_seconds_ago=130.0,
            ),
        ),
        unattributed_share=0.1,
        evidence=(
            Evidence(quantity="average_power_watts", value=212.0, unit="W", since_usec=WALL_USEC),
            Evidence(quantity="average_over_seconds", value=180.0, unit="s"),
            Evidence(quantity="engine_times_unknown", value=1.0),
        ),
        outlook=Outlook(trend="rising"),
        fan_percent=57.0,
        temperature_celsius=78.0,
        power_watts=235.0,
        for_seconds=40.0,
        spike_id=SPIKE_ID,
    )
    return dataclasses.replace(whole, **changes)


def quiet_explanation(**changes) -> Explanation:
    whole = Explanation(
        gpu_id=SECOND_GPU.id,
        gpu_label="GPU 1 (A40)",
        cause=Cause.QUIET,
        confidence=0.9,
        sentence=QUIET_SENTENCE,
    )
    return dataclasses.replace(whole, **changes)


def reading() -> GpuReading:
    return GpuReading(
        gpu=GPU,
        backend="nvml",
        fan_mode=FanMode.AUTO,
        fans=(FanReading(index=0, percent=57.0, rpm=1450.0, mode=FanMode.AUTO),),
        temperature_celsius=78.0,
        power_watts=235.4,
        utilization_percent=95.0,
        memory_used_bytes=int(6.1 * 2**30),
        memory_total_bytes=8 << 30,
        throttle_reasons=(),
    )


def sources() -> tuple[FieldSource, ...]:
    """Of the first card: most of it is read, its driver is too old for one, and it lacks another."""
    read = {
        "fan_percent": "nvmlDeviceGetFanSpeed_v2",
        "temperature_celsius": "nvmlDeviceGetTemperature",
        "power_watts": "NVML_FI_DEV_POWER_INSTANT",
        "utilization_percent": "nvmlDeviceGetUtilizationRates",
    }
    return (
        *(FieldSource(gpu_id=GPU.id, backend="nvml", quantity=name, source=read[name]) for name in read),
        FieldSource(
            gpu_id=GPU.id,
            backend="nvml",
            quantity="temperature_limit_celsius",
            source="nvmlDeviceGetMarginTemperature",
            lack=Lack.OLD_DRIVER,
            advice="NVIDIA driver 570 or newer has it",
        ),
        FieldSource(
            gpu_id=GPU.id,
            backend="nvml",
            quantity="memory_temperature_celsius",
            source="NVML_FI_DEV_MEMORY_TEMP",
            lack=Lack.NO_SENSOR,
        ),
    )


def second_reading(state: GpuState = GpuState.AWAKE) -> GpuReading:
    return GpuReading(gpu=SECOND_GPU, backend="nvml", state=state, fan_mode=FanMode.NONE, power_watts=30.0)


def use(pid: int = 4242, name: str = "ollama", program: Program = OLLAMA) -> GpuUse:
    process = ProcessIdentity(
        pid=pid,
        start_ticks=81723,
        name=name,
        uid=998,
        user="ollama",
        command_line=("ollama", "serve"),
        program=program,
    )
    return GpuUse(
        gpu_id=GPU.id,
        process=process,
        use=GpuProcess(pid=pid, kind="compute", memory_used_bytes=6 << 30, engine_percent=95.0),
    )


def loud_report(*, cause_of_first: Explanation | None = None, events=(), uses=None) -> Report:
    """Two GPUs: the first is loud, the second is quiet."""
    first = cause_of_first or explanation()
    return Report(
        snapshot=Snapshot(
            boottime_seconds=5000.0,
            wall_usec=WALL_USEC + 40_000_000,
            readings=(reading(), second_reading()),
            uses=(use(),) if uses is None else uses,
            backends=(BackendHealth(name="nvml", state=BackendState.READY),),
        ),
        events=tuple(events),
        explanations={GPU.id: first, SECOND_GPU.id: quiet_explanation()},
        headline=first.sentence,
    )


def empty_report() -> Report:
    """A machine without any GPU."""
    waiting = BackendHealth(name="nvml", state=BackendState.WAITING, message="install the NVIDIA driver")
    return Report(snapshot=Snapshot(boottime_seconds=1.0, wall_usec=WALL_USEC, backends=(waiting,)))


def spike(**changes) -> Spike:
    whole = Spike(
        spike_id=SPIKE_ID,
        gpu_id=GPU.id,
        began_usec=WALL_USEC,
        began_boottime_seconds=4960.0,
        peak_fan_percent=71.0,
        peak_temperature_celsius=82.0,
    )
    return dataclasses.replace(whole, **changes)


def spike_event(
    kind: EventKind, seconds: float, *, of: Spike | None = None, why: Explanation | None = None
) -> SpikeEvent:
    return SpikeEvent(
        kind=kind,
        wall_usec=WALL_USEC + round(seconds * 1e6),
        boottime_seconds=4960.0 + seconds,
        gpu=GPU,
        spike=of or spike(),
        explanation=why or explanation(),
    )


def whole_spike() -> tuple[SpikeEvent, ...]:
    """Started, gone over to the after-run, ended after 333 s."""
    after_run = explanation(
        cause=Cause.RESIDUAL_HEAT,
        sentence="GPU 0 (RTX 3070): fan at 44 % for 5 min because of the heat that ollama.service left.",
        outlook=Outlook(trend="falling", quiet_in_seconds=240.0),
    )
    ended = spike(ended_usec=WALL_USEC + 333_000_000, ended_boottime_seconds=5293.0, ended_by="rest")
    over = explanation(
        cause=Cause.QUIET, sentence="GPU 0 (RTX 3070): quiet again.", suspects=(), unattributed_share=0.0
    )
    return (
        spike_event(EventKind.SPIKE_STARTED, 2),
        spike_event(EventKind.SPIKE_UPDATED, 200, why=after_run),
        spike_event(EventKind.SPIKE_ENDED, 343, of=ended, why=over),
    )


def alert(kind: EventKind = EventKind.ALERT_RAISED, seconds: float = 60) -> AlertEvent:
    return AlertEvent(
        kind=kind,
        wall_usec=WALL_USEC + round(seconds * 1e6),
        boottime_seconds=4960.0 + seconds,
        gpu=GPU,
        rule="overheating",
        severity=Severity.ERROR,
        metric="temperature_margin_celsius",
        value=2.0,
        threshold=3.0,
        for_seconds=10.0,
        explanation=explanation(),
        sentence="GPU 0 (RTX 3070): 2 degC below its limit for 10 s.",
    )


def health(**changes) -> dict[str, object]:
    """What GetHealth answers when all is well."""
    return {
        "version": __version__,
        "started_usec": WALL_USEC - 11_000_000_000,
        "uptime_seconds": 11_000.0,
        "samples": 5461,
        "last_sample_seconds_ago": 1.2,
        "sample_interval_seconds": 2.0,
        "backends": [{"name": "nvml", "state": "ready", "message": ""}],
        "bus_library": "dbus-next 0.2.3",
        "python": "3.11.2",
        "journal": {"state": "ready", "queued": 0, "dropped": 0},
        "state_file": "/var/lib/gpuwhyd/state.json",
        "config_file": "/etc/gpuwhyd/gpuwhyd.toml",
        "processes_hidden": False,
        "memory_bytes": 29 << 20,
        "cpu_seconds": 12.0,
        "threads": 3,
        "notes": [],
    } | changes


def plain(value: object) -> dict[str, object]:
    """As it arrives at the client: what is not known is left out."""
    return json.loads(json.dumps(as_plain(value)))
