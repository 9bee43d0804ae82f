"""Events as the engine makes them, with the real fields of a spike on an RTX 3070."""

from gpuwhyd.model import (
    AlertEvent,
    BackendEvent,
    Cause,
    Event,
    EventKind,
    Evidence,
    Explanation,
    GpuEvent,
    GpuIdentity,
    Program,
    ProgramKind,
    Report,
    Severity,
    Snapshot,
    Spike,
    SpikeEvent,
    Suspect,
)

WALL_USEC = 1_700_000_000_000_000
GPU = GpuIdentity(
    id="pci_0000_01_00_0", name="NVIDIA GeForce RTX 3070", vendor="nvidia", pci_address="0000:01:00.0"
)
OLLAMA = Suspect(
    program=Program(
        kind=ProgramKind.UNIT,
        key="unit:ollama.service",
        name="ollama.service",
        unit="ollama.service",
        user="ollama",
    ),
    share=0.81,
    power_watts=171.5,
    pids=(4242, 4243),
)
BURNER = Suspect(
    program=Program(
        kind=ProgramKind.UNIT, key="unit:burner.service", name="burner.service", unit="burner.service"
    ),
    share=0.1,
    alive=False,
    stopped_seconds_ago=12.0,
)


def explanation(*suspects: Suspect, sentence: str = "GPU 0 (RTX 3070): fan at 57 %.") -> Explanation:
    return Explanation(
        gpu_id=GPU.id,
        gpu_label="GPU 0 (RTX 3070)",
        cause=Cause.WORKLOAD,
        confidence=0.8333,
        sentence=sentence,
        suspects=suspects,
        evidence=(Evidence(quantity="power_watts", value=212.0, unit="W"),),
        fan_percent=57.0,
        temperature_celsius=78.0,
        power_watts=212.0,
    )


def spike_event(
    kind: EventKind = EventKind.SPIKE_STARTED,
    *,
    number: int = 0,
    wall_usec: int = WALL_USEC,
    answer: Explanation | None = None,
    gpu: GpuIdentity = GPU,
) -> SpikeEvent:
    began_usec = wall_usec - 40_000_000
    return SpikeEvent(
        kind=kind,
        wall_usec=wall_usec + number,
        boottime_seconds=540.0,
        gpu=gpu,
        spike=Spike(
            spike_id=f"{gpu.id}-{began_usec}",
            gpu_id=gpu.id,
            began_usec=began_usec,
            began_boottime_seconds=500.0,
            ended_boottime_seconds=530.0 if kind is EventKind.SPIKE_ENDED else None,
        ),
        explanation=explanation(OLLAMA, BURNER) if answer is None else answer,
    )


def alert_event(
    kind: EventKind = EventKind.ALERT_RAISED,
    severity: Severity = Severity.ERROR,
    rule: str = "overheating",
    wall_usec: int = WALL_USEC,
) -> AlertEvent:
    return AlertEvent(
        kind=kind,
        wall_usec=wall_usec,
        boottime_seconds=540.0,
        gpu=GPU,
        rule=rule,
        severity=severity,
        metric="temperature_margin_celsius",
        value=2.0,
        threshold=3.0,
        for_seconds=10.0,
        explanation=explanation(OLLAMA),
        sentence="GPU 0 (RTX 3070): 2 degC below its limit.",
    )


def gpu_event(kind: EventKind = EventKind.GPU_LOST, wall_usec: int = WALL_USEC) -> GpuEvent:
    return GpuEvent(
        kind=kind, wall_usec=wall_usec, boottime_seconds=540.0, gpu=GPU, sentence="GPU 0 is lost."
    )


def backend_event(kind: EventKind = EventKind.BACKEND_FAILING, wall_usec: int = WALL_USEC) -> BackendEvent:
    return BackendEvent(
        kind=kind,
        wall_usec=wall_usec,
        boottime_seconds=540.0,
        backend="nvml",
        sentence="nvml does not answer.",
    )


def one_of_each() -> tuple[Event, ...]:
    return (
        spike_event(EventKind.SPIKE_STARTED),
        spike_event(EventKind.SPIKE_UPDATED),
        spike_event(EventKind.SPIKE_ENDED),
        alert_event(EventKind.ALERT_RAISED),
        alert_event(EventKind.ALERT_CLEARED),
        gpu_event(EventKind.GPU_ADDED),
        gpu_event(EventKind.GPU_REMOVED),
        gpu_event(EventKind.GPU_LOST),
        backend_event(EventKind.BACKEND_FAILING),
        backend_event(EventKind.BACKEND_RECOVERED),
    )


def report(*events: Event, headline: str = "GPU 0 (RTX 3070): quiet.", hidden: bool = False) -> Report:
    snapshot = Snapshot(boottime_seconds=540.0, wall_usec=WALL_USEC, processes_hidden=hidden)
    return Report(
        snapshot=snapshot, events=events, explanations={GPU.id: explanation(OLLAMA)}, headline=headline
    )
