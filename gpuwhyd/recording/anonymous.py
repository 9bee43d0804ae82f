"""Snapshots in which nothing names a person, a program or a particular card, for recordings that are given away.

Programs become `program-1`, `program-2`, ... in the order in which they are seen; what they are (unit, container, bare
process) and which processes belong together stays, because the answer depends on it. Users, executables, command lines,
UUIDs and the messages of backends are left out. PCI addresses, times and pids stay: they name nobody.
"""

from dataclasses import replace

from gpuwhyd.model import (
    GpuIdentity,
    GpuReading,
    GpuUse,
    HostUse,
    ProcessExit,
    ProcessIdentity,
    Program,
    Snapshot,
)


class Pseudonyms:
    """Who is called what, for one recording."""

    def __init__(self) -> None:
        self._programs: dict[str, Program] = {}

    def of(self, snapshot: Snapshot) -> Snapshot:
        return replace(
            snapshot,
            readings=tuple(_reading(reading) for reading in snapshot.readings),
            uses=tuple(
                GpuUse(gpu_id=use.gpu_id, process=self._process(use.process), use=use.use)
                for use in snapshot.uses
            ),
            host_uses=tuple(
                HostUse(process=self._process(use.process), use=use.use) for use in snapshot.host_uses
            ),
            exits=tuple(
                ProcessExit(process=self._process(item.process), boottime_seconds=item.boottime_seconds)
                for item in snapshot.exits
            ),
            backends=tuple(replace(health, message="") for health in snapshot.backends),
        )

    def _process(self, process: ProcessIdentity) -> ProcessIdentity:
        program = self._program(process.program)
        return ProcessIdentity(
            pid=process.pid, start_ticks=process.start_ticks, name=program.name, program=program
        )

    def _program(self, program: Program) -> Program:
        known = self._programs.get(program.key)
        if known is None:
            name = f"program-{len(self._programs) + 1}"
            known = Program(
                kind=program.kind,
                key=name,
                name=name,
                unit=None if program.unit is None else f"{name}.service",
                container=None if program.container is None else f"container:{name}",
                app=None if program.app is None else name,
            )
            self._programs[program.key] = known
        return known


def _reading(reading: GpuReading) -> GpuReading:
    return replace(reading, gpu=_identity(reading.gpu))


def _identity(gpu: GpuIdentity) -> GpuIdentity:
    return replace(gpu, uuid=None)
