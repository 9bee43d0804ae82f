"""Snapshots for the engine, one a tick: what a card and its programs did, as a person would tell it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from gpuwhyd.engine.engine import Engine
from gpuwhyd.engine.settings import EngineSettings
from gpuwhyd.model import (
    BackendHealth,
    BackendState,
    Event,
    EventKind,
    Explanation,
    FanMode,
    FanReading,
    GpuIdentity,
    GpuProcess,
    GpuReading,
    GpuState,
    GpuUse,
    ProcessExit,
    ProcessIdentity,
    Program,
    ProgramKind,
    Report,
    Snapshot,
    SpikeEvent,
)

GPU = GpuIdentity(
    id="pci_0000_01_00_0", name="NVIDIA GeForce RTX 3070", vendor="nvidia", pci_address="0000:01:00.0"
)
QUIET_ENGINE = EngineSettings(rules=())


def unit(name: str, pid: int, *, user: str | None = None, start: int = 100) -> ProcessIdentity:
    """A process of a systemd service."""
    program = Program(kind=ProgramKind.UNIT, key=f"unit:{name}", name=name, unit=name, user=user)
    return ProcessIdentity(pid=pid, start_ticks=start, name=name.removesuffix(".service"), program=program)


@dataclass
class Rig:
    """One engine and one card. Every `tick` feeds one snapshot and keeps all events."""

    engine: Engine = field(default_factory=lambda: Engine(QUIET_ENGINE, boot_id="boot"))
    gpu: GpuIdentity = GPU
    now: float = 1000.0
    step: float = 2.0
    limit: float | None = 220.0
    events: list[Event] = field(default_factory=list)
    report: Report | None = None

    def reading(
        self,
        *,
        fan: float | None = 0.0,
        rpm: float | None = None,
        watts: float | None = 15.0,
        celsius: float | None = 40.0,
        busy: float | None = None,
        mode: FanMode = FanMode.AUTO,
        state: GpuState = GpuState.AWAKE,
        fans: tuple[FanReading, ...] | None = None,
        processes: tuple[GpuProcess, ...] | None = (),
        **others: object,
    ) -> GpuReading:
        """`others`: further fields of the reading."""
        if state is not GpuState.AWAKE:
            return GpuReading(gpu=self.gpu, backend="test", state=state, **others)  # type: ignore[arg-type]
        if fans is None:
            fans = () if mode is FanMode.NONE else (FanReading(index=0, percent=fan, rpm=rpm, mode=mode),)
        return GpuReading(
            gpu=self.gpu,
            backend="test",
            fan_mode=mode,
            fans=fans,
            temperature_celsius=celsius,
            power_watts=watts,
            power_limit_watts=self.limit,
            utilization_percent=busy,
            processes=processes,
            **others,  # type: ignore[arg-type]
        )

    def tick(
        self,
        programs: Mapping[ProcessIdentity, float | None] | None = None,
        *,
        ended: tuple[ProcessIdentity, ...] = (),
        step: float | None = None,
        resumed: bool = False,
        visible: bool = True,
        kind: str = "compute",
        **reading: object,
    ) -> Report:
        """`programs`: who uses the card, with the percent of its engine time; all of one `kind`."""
        self.now += self.step if step is None else step
        programs = programs or {}
        used = tuple(
            GpuProcess(pid=process.pid, kind=kind, engine_percent=percent, memory_used_bytes=1 << 30)
            for process, percent in programs.items()
        )
        if "busy" not in reading:
            reading["busy"] = min(100.0, sum(percent or 0.0 for percent in programs.values()))
        if reading.get("state", GpuState.AWAKE) is GpuState.AWAKE:
            reading["processes"] = used if visible else None
        row = self.reading(**reading)  # type: ignore[arg-type]
        uses = tuple(
            GpuUse(gpu_id=self.gpu.id, process=process, use=use)
            for process, use in zip(programs, used, strict=True)
        )
        return self.feed(
            readings=(row,),
            uses=uses if visible else (),
            exits=tuple(ProcessExit(process=process, boottime_seconds=self.now) for process in ended),
            resumed=resumed,
        )

    def feed(self, **snapshot: object) -> Report:
        snapshot.setdefault("backends", (BackendHealth(name="test", state=BackendState.READY),))
        self.report = self.engine.feed(
            Snapshot(
                boottime_seconds=self.now,
                wall_usec=round((1_700_000_000 + self.now) * 1e6),
                **snapshot,  # type: ignore[arg-type]
            )
        )
        self.events += self.report.events
        return self.report

    def run(
        self,
        seconds: float,
        programs: Mapping[ProcessIdentity, float | None] | None = None,
        **reading: object,
    ) -> "Rig":
        for _ in range(round(seconds / self.step)):
            self.tick(programs, **reading)
        return self

    def restart(self, *, boot_id: str = "boot", settings: EngineSettings = QUIET_ENGINE) -> "Rig":
        """A new engine goes on with what the old one saved."""
        self.engine = Engine(settings, json.loads(json.dumps(self.engine.saved())), boot_id=boot_id)
        return self

    @property
    def answer(self) -> Explanation:
        assert self.report is not None
        return self.report.explanations[self.gpu.id]

    def evidence(self, quantity: str) -> float | str | None:
        return next((e.value for e in self.answer.evidence if e.quantity == quantity), None)

    @property
    def spikes(self) -> list[SpikeEvent]:
        return [event for event in self.events if isinstance(event, SpikeEvent)]

    @property
    def kinds(self) -> list[str]:
        """`started`, `updated`, `ended` in order."""
        return [event.kind.value.removeprefix("spike-") for event in self.spikes]

    def of(self, kind: EventKind) -> list[Event]:
        return [event for event in self.events if event.kind is kind]


def second_gpu(rig: Rig) -> GpuIdentity:
    return replace(rig.gpu, id="pci_0000_02_00_0", pci_address="0000:02:00.0", name="RTX 3090")
