"""Reports as the daemon makes them, for tests of the D-Bus service: two cards, two users' programs, real sentences."""

from dataclasses import replace

from gpuwhyd.engine.sentences import compose, headline
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
    GpuIdentity,
    GpuProcess,
    GpuReading,
    GpuUse,
    ProcessIdentity,
    Program,
    ProgramKind,
    Report,
    Severity,
    Snapshot,
    Spike,
    SpikeEvent,
    Suspect,
)

OTHER_UID = 1
"""`daemon`, on every Debian: the bus lets in only users that the machine knows."""
SECRET = "--api-key=hunter2"
PRIVATE_NAMES = ("ollama", "4242", SECRET, "/usr/bin/ollama", "blender", "4343", "last-program")
"""What nobody but root may find anywhere under hidepid."""

CARD = GpuIdentity(
    id="pci_0000_01_00_0",
    name="NVIDIA GeForce RTX 3070",
    vendor="nvidia",
    pci_address="0000:01:00.0",
    uuid="GPU-1234",
    driver="nvidia 550.54.14",
)
BARE_CARD = GpuIdentity(
    id="pci_0000_02_00_0", name="NVIDIA A10G", vendor="nvidia", pci_address="0000:02:00.0"
)
CARD_PATH = "/org/gpuwhyd1/gpus/pci_0000_01_00_0"

SERVICE = Program(
    kind=ProgramKind.UNIT,
    key="unit:ollama.service",
    name="ollama.service",
    unit="ollama.service",
    user="ollama",
)
SERVICE_PROCESS = ProcessIdentity(
    pid=4242,
    start_ticks=81723,
    name="ollama",
    uid=0,
    user="ollama",
    executable="/usr/bin/ollama",
    command_line=("ollama", "serve", SECRET),
    program=SERVICE,
)
OTHERS_PROCESS = ProcessIdentity(
    pid=4343,
    start_ticks=90000,
    name="blender",
    uid=OTHER_UID,
    user="carla",
    executable="/opt/blender/blender",
    command_line=("blender", "-b", "scene.blend"),
    program=Program(kind=ProgramKind.PROCESS, key="process:4343:90000", name="blender", user="carla"),
)


def reading(gpu: GpuIdentity = CARD, *, fan_percent: float = 57.0, power_watts: float = 212.0) -> GpuReading:
    return GpuReading(
        gpu=gpu,
        backend="nvml",
        fan_mode=FanMode.AUTO,
        fans=(FanReading(index=0, percent=fan_percent, rpm=1800.0, mode=FanMode.AUTO),),
        temperature_celsius=78.0,
        power_watts=power_watts,
        power_limit_watts=240.0,
        utilization_percent=95.0,
        memory_used_bytes=4 << 30,
        memory_total_bytes=8 << 30,
        performance_state=0,
        throttle_reasons=(),
        processes=(GpuProcess(pid=4242, memory_used_bytes=3 << 30),),
    )


def explanation(
    gpu: GpuIdentity = CARD, *, for_seconds: float | None = 40.0, fan_percent: float = 57.0
) -> Explanation:
    bare = Explanation(
        gpu_id=gpu.id,
        gpu_label="GPU 0 (RTX 3070)",
        cause=Cause.WORKLOAD if for_seconds is not None else Cause.QUIET,
        confidence=0.9,
        sentence="",
        suspects=(
            Suspect(program=SERVICE, share=0.81, process_name="ollama", power_watts=170.0, pids=(4242,)),
            Suspect(program=OTHERS_PROCESS.program, share=0.1, power_watts=20.0, pids=(4343,)),
        ),
        unattributed_share=0.09,
        evidence=(
            Evidence(quantity="average_power_watts", value=212.0, unit="W"),
            Evidence(quantity="last_spike_program", value="last-program"),
        ),
        fan_percent=fan_percent,
        fan_rpm=1800.0,
        temperature_celsius=78.0,
        power_watts=212.0,
        for_seconds=for_seconds,
        spike_id="pci_0000_01_00_0-1700000000000000",
    )
    return replace(bare, sentence=compose(bare))


def spike_event(kind: EventKind = EventKind.SPIKE_STARTED, boottime_seconds: float = 100.0) -> SpikeEvent:
    return SpikeEvent(
        kind=kind,
        wall_usec=1_700_000_000_000_000,
        boottime_seconds=boottime_seconds,
        gpu=CARD,
        spike=Spike(
            spike_id="pci_0000_01_00_0-1700000000000000",
            gpu_id=CARD.id,
            began_usec=1_700_000_000_000_000,
            began_boottime_seconds=boottime_seconds,
            peak_fan_percent=57.0,
        ),
        explanation=explanation(),
    )


def alert_event() -> AlertEvent:
    return AlertEvent(
        kind=EventKind.ALERT_RAISED,
        wall_usec=1_700_000_000_000_000,
        boottime_seconds=100.0,
        gpu=CARD,
        rule="high-usage",
        severity=Severity.NOTICE,
        metric="utilization_percent",
        value=95.0,
        threshold=50.0,
        for_seconds=60.0,
        explanation=explanation(),
        sentence="GPU 0 (RTX 3070) is used above 50 % for 60 s, most by ollama.service.",
    )


def report(
    *,
    boottime_seconds: float = 100.0,
    readings: tuple[GpuReading, ...] | None = None,
    explanations: tuple[Explanation, ...] | None = None,
    events: tuple[SpikeEvent | AlertEvent, ...] = (),
    hidden: bool = False,
) -> Report:
    cards = (reading(),) if readings is None else readings
    answers = tuple(explanation(card.gpu) for card in cards) if explanations is None else explanations
    return Report(
        snapshot=Snapshot(
            boottime_seconds=boottime_seconds,
            wall_usec=1_700_000_000_000_000 + int(boottime_seconds * 1e6),
            readings=cards,
            uses=tuple(
                GpuUse(gpu_id=CARD.id, process=process, use=GpuProcess(pid=process.pid, engine_percent=50.0))
                for process in (OTHERS_PROCESS, SERVICE_PROCESS)
            ),
            backends=(BackendHealth(name="nvml", state=BackendState.READY),),
            processes_hidden=hidden,
        ),
        events=events,
        explanations={answer.gpu_id: answer for answer in answers},
        headline=headline(answers),
    )
