"""Snapshots in which everything that can be said is said, and a short story of one card."""

from dataclasses import replace

from gpuwhyd.model import (
    BackendHealth,
    BackendState,
    FanControl,
    FanCurvePoint,
    FanMode,
    FanReading,
    GpuIdentity,
    GpuProcess,
    GpuReading,
    GpuUse,
    HostProcess,
    HostReading,
    HostUse,
    ProcessExit,
    ProcessIdentity,
    Program,
    ProgramKind,
    Snapshot,
)
from gpuwhyd.recording.writer import RecordingWriter
from tests.engine.rig import Rig, unit

CARD = GpuIdentity(
    id="pci_0000_03_00_0",
    name="AMD Radeon RX 6600",
    vendor="amd",
    pci_address="0000:03:00.0",
    uuid="GPU-secret",
    driver="amdgpu",
    vbios_version="113",
    pci_id="1002:73ff",
)
ALICE = ProcessIdentity(
    pid=77,
    start_ticks=5,
    name="secret-tool",
    uid=1000,
    user="alice",
    executable="/home/alice/secret-tool",
    command_line=("secret-tool", "--password=hunter2"),
    program=Program(
        kind=ProgramKind.UNIT,
        key="unit:secret.service",
        name="secret.service",
        unit="secret.service",
        user_unit="app-secret.service",
        slice="secret.slice",
        container="docker:secret",
        app="org.secret",
        user="alice",
    ),
)
WORK = GpuProcess(
    pid=77,
    kind="compute",
    memory_used_bytes=1 << 30,
    engine_percent=81.5,
    memory_utilization_percent=3.0,
    encoder_percent=1.0,
    decoder_percent=2.0,
)
FULL = Snapshot(
    boottime_seconds=500.25,
    wall_usec=1_700_000_000_250_000,
    readings=(
        GpuReading(
            gpu=CARD,
            backend="amdgpu",
            fan_mode=FanMode.AUTO,
            fans=(
                FanReading(
                    index=0,
                    percent=40.0,
                    rpm=1500.0,
                    target_percent=41.0,
                    mode=FanMode.AUTO,
                    rpm_is_measured=True,
                    rpm_max=3200.0,
                    label="fan1",
                ),
            ),
            temperature_celsius=60.0,
            hotspot_celsius=75.5,
            memory_temperature_celsius=70.0,
            temperature_limit_celsius=100.0,
            power_watts=99.5,
            power_average_watts=98.0,
            energy_joules=1234.5,
            power_limit_watts=120.0,
            utilization_percent=97.0,
            memory_utilization_percent=33.0,
            encoder_percent=1.0,
            decoder_percent=2.0,
            memory_used_bytes=2 << 30,
            memory_total_bytes=8 << 30,
            core_clock_mhz=2400.0,
            core_clock_max_mhz=2600.0,
            memory_clock_mhz=875.0,
            memory_clock_max_mhz=875.0,
            performance_state=0,
            throttle_reasons=("power-cap",),
            fan_control=FanControl(
                zero_rpm_enabled=True,
                zero_rpm_stop_celsius=50.0,
                curve=(FanCurvePoint(temperature_celsius=40.0, fan_percent=25.0),),
                target_temperature_celsius=83.0,
                minimum_percent=15.0,
                acoustic_target_rpm=1450.0,
                acoustic_limit_rpm=3200.0,
            ),
            can_suspend=True,
            processes=(WORK,),
        ),
    ),
    uses=(GpuUse(gpu_id=CARD.id, process=ALICE, use=WORK),),
    host=HostReading(
        cpu_temperature_celsius=80.0,
        cpu_power_watts=45.0,
        cpu_utilization_percent=60.0,
        processes=(HostProcess(pid=77, cpu_percent=25.0),),
    ),
    host_uses=(HostUse(process=ALICE, use=HostProcess(pid=77, cpu_percent=25.0)),),
    backends=(BackendHealth(name="amdgpu", state=BackendState.READY, message="of alice"),),
    resumed=True,
    processes_hidden=True,
)
AFTER = replace(
    FULL,
    boottime_seconds=502.25,
    wall_usec=FULL.wall_usec + 2_000_000,
    readings=(replace(FULL.readings[0], processes=()),),
    uses=(),
    host=None,
    host_uses=(),
    exits=(ProcessExit(process=ALICE, boottime_seconds=502.0),),
    resumed=False,
)
SECRETS = ("secret", "alice", "hunter2")


def story() -> tuple[Rig, list[Snapshot]]:
    """A card at rest, under a load, in its after-run, at rest; the rig that was fed with it, and what it was fed."""
    rig = Rig()
    row: list[Snapshot] = []
    engine = rig.engine
    feed = engine.feed

    def listen(snapshot: Snapshot) -> object:
        row.append(snapshot)
        return feed(snapshot)

    rig.engine = type("Listening", (), {"feed": staticmethod(listen)})()
    game, idle = unit("game.service", 5, user="anna"), unit("idle.service", 6)
    rig.run(60, {idle: 0.0}, fan=30.0)
    rig.run(90, {game: 95.0, idle: 0.0}, fan=60.0, watts=210.0, celsius=75.0)
    rig.tick({idle: 0.0}, ended=(game,), fan=58.0, watts=16.0, celsius=70.0)
    rig.run(60, {idle: 0.0}, fan=45.0, celsius=60.0)
    rig.run(120, {idle: 0.0}, fan=30.0)
    return rig, row


def a_recording() -> str:
    """The story as a file."""
    _, row = story()
    writer = RecordingWriter()
    return writer.header(row[0].wall_usec) + "".join(map(writer.line, row))
