"""The lines of a recording -> the snapshots that were recorded, or RecordingError with the line and what would be right."""

import json
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from gpuwhyd.errors import RecordingError
from gpuwhyd.model import (
    BackendHealth,
    BackendState,
    FanReading,
    GpuIdentity,
    GpuProcess,
    GpuReading,
    GpuUse,
    HostReading,
    HostUse,
    ProcessExit,
    ProcessIdentity,
    Snapshot,
)
from gpuwhyd.recording.typed import Check, WrongFieldError, decoder, many, show, whole

FORMAT = 1
LINE_LIMIT = 16 * 1024 * 1024
"""Characters; a snapshot of 8 cards with 500 processes has 100,000."""
KEPT_PROCESSES = 4096
MARK = "gpuwhyd_recording"

_READY = BackendState.READY


@dataclass(frozen=True, slots=True, kw_only=True)
class _Exit:
    pid: int
    boottime_seconds: float


@dataclass(
    slots=True, kw_only=True
)  # not frozen, which is three times as fast: it lives as long as a line is read
class _Line:
    """One snapshot as it is written; what is not said is as in `Snapshot`."""

    boottime_seconds: float
    wall_usec: int | None = None
    gpus: tuple[GpuIdentity, ...] = ()
    processes: tuple[ProcessIdentity, ...] = ()
    readings: tuple[GpuReading, ...] = ()
    exits: tuple[_Exit, ...] = ()
    nameless: tuple[int, ...] = ()
    host: HostReading | None = None
    backends: tuple[BackendHealth, ...] | None = None
    resumed: bool = False
    processes_hidden: bool = False


class _Reader:
    """What has been introduced so far: GPUs by id, processes by pid."""

    def __init__(self, started_usec: int) -> None:
        self._started_usec = started_usec
        self._first_seconds: float | None = None
        self._last_seconds = float("-inf")
        self._gpus: dict[str, GpuIdentity] = {}
        self._processes: dict[int, ProcessIdentity] = {}
        self._read: dict[str, tuple[object, GpuReading]] = {}
        """By GPU: what was said of it last, and what was made of that. An idle card's readings repeat."""
        self._used: dict[str, list[GpuUse]] = {}
        """By GPU, as of the last line in which it has processes; of none since processes came or went."""
        self._told: list[object] | None = None
        """The GPU and the processes of each reading in the line before, and what was made of them; `None` when processes
        have come or gone since."""
        self._uses_before: tuple[GpuUse, ...] = ()
        self._backends: tuple[BackendHealth, ...] | None = None
        decode_reading = decoder(
            GpuReading,
            gpu=self._gpu,
            processes=_processes(decoder(GpuProcess)),
            fans=_as_before(many(decoder(FanReading))),
        )

        def reading(item: Any) -> GpuReading:
            if type(item) is not dict:
                return decode_reading(item)
            gpu = item.get("gpu")
            before = self._read.get(gpu) if type(gpu) is str else None
            if before is not None and before[0] == item:
                return before[1]
            found = decode_reading(item if "backend" in item else {**item, "backend": "recording"})
            self._read[found.gpu.id] = item, found
            return found

        # in the order in which a line may use what it introduces
        self._parts = {
            "gpus": many(self._introduce_gpu(decoder(GpuIdentity))),
            "processes": many(self._introduce_process(decoder(ProcessIdentity))),
            "nameless": many(self._forget),
            "readings": many(reading),
        }
        self._decode = decoder(_Line, **{name: lambda item: item for name in self._parts})

    def snapshot(self, table: Any) -> Snapshot:
        if type(table) is dict:
            table = dict(table)
            for name, check in self._parts.items():
                if name in table:
                    try:
                        table[name] = check(table[name])
                    except WrongFieldError as error:
                        raise WrongFieldError(f"{name}: {error}") from None
        line: _Line = self._decode(table)
        if line.boottime_seconds < self._last_seconds:
            raise WrongFieldError(
                f"boottime_seconds: must not run back: {line.boottime_seconds:g} comes after {self._last_seconds:g}"
            )
        self._last_seconds = line.boottime_seconds
        if self._first_seconds is None:
            self._first_seconds = line.boottime_seconds
        if line.backends is not None:
            self._backends = line.backends
        uses, host_uses = self._uses(line), self._host_uses(line)
        return Snapshot(
            boottime_seconds=line.boottime_seconds,
            wall_usec=self._wall_usec(line),
            readings=line.readings,
            uses=uses,
            exits=tuple([self._exit(item) for item in line.exits]),
            host=line.host,
            host_uses=host_uses,
            backends=self._backends if self._backends is not None else _backends_of(line.readings),
            resumed=line.resumed,
            processes_hidden=line.processes_hidden,
        )

    def _gpu(self, item: Any) -> GpuIdentity:
        gpu = self._gpus.get(item) if type(item) is str else None
        if gpu is None:
            raise WrongFieldError(f"{show(item)} was not introduced in `gpus`, here or in a line above")
        return gpu

    def _introduce_gpu(self, decode: Any) -> Any:
        def introduce(item: Any) -> GpuIdentity:
            gpu: GpuIdentity = decode(item)
            self._gpus[gpu.id] = gpu
            self._read.pop(gpu.id, None)
            return gpu

        return introduce

    def _introduce_process(self, decode: Any) -> Any:
        def introduce(item: Any) -> ProcessIdentity:
            process: ProcessIdentity = decode(item)
            self._processes[process.pid] = process
            self._told = None
            return process

        return introduce

    def _forget(self, item: Any) -> int:
        pid = whole(item)
        self._processes.pop(pid, None)
        self._told = None
        return pid

    def _uses(self, line: _Line) -> tuple[GpuUse, ...]:
        """Most are what they were in the line before: those are made once."""
        told: list[object] = [part for reading in line.readings for part in (reading.gpu, reading.processes)]
        if self._told is not None and _are_the_same(told, self._told):
            return self._uses_before
        if self._told is None:
            self._used.clear()
        uses: list[GpuUse] = []
        for reading in line.readings:
            if reading.processes:
                before = self._used.get(reading.gpu.id, ())
                self._used[reading.gpu.id] = found = self._uses_of(reading.gpu.id, reading.processes, before)
                uses += found
        self._told, self._uses_before = told, tuple(uses)
        return self._uses_before

    def _uses_of(
        self, gpu_id: str, processes: Sequence[GpuProcess], before: Sequence[GpuUse]
    ) -> list[GpuUse]:
        """`before`: those in an earlier line, since which no process came or went; most are at the same place again."""
        known, uses = self._processes, []
        for use, then in zip_longest(processes, before[: len(processes)]):
            if then is not None and then.use is use:
                uses.append(then)
            elif (process := known.get(use.pid)) is not None:
                uses.append(GpuUse(gpu_id=gpu_id, process=process, use=use))
        return uses

    def _host_uses(self, line: _Line) -> tuple[HostUse, ...]:
        used = line.host.processes or () if line.host is not None else ()
        return tuple(
            [HostUse(process=self._processes[use.pid], use=use) for use in used if use.pid in self._processes]
        )

    def _exit(self, item: _Exit) -> ProcessExit:
        process = self._processes.pop(item.pid, None)
        self._told = None
        if process is None:
            raise WrongFieldError(
                f"exits: pid {item.pid} was not introduced in `processes`, or has ended before"
            )
        return ProcessExit(process=process, boottime_seconds=item.boottime_seconds)

    def _wall_usec(self, line: _Line) -> int:
        if line.wall_usec is not None:
            return line.wall_usec
        return self._started_usec + round((line.boottime_seconds - (self._first_seconds or 0.0)) * 1e6)


def _as_before(check: Check) -> Check:
    """What is the same in one line after the other is made once."""
    last: tuple[Any, Any] = None, None

    def read(item: Any) -> Any:
        nonlocal last
        before, found = last
        if before is None or item != before:
            found = check(item)
            last = item, found
        return found

    return read


def _processes(decode: Callable[[object], GpuProcess]) -> Check:
    """Most processes say in each line what they said in the one before, at the same place: those are made once."""
    known: dict[object, GpuProcess] = {}

    def process(item: Any) -> GpuProcess:
        try:
            key = tuple(item.items())
            found = known.get(key)
        except (AttributeError, TypeError):  # no table, or one with an array in it: `decode` says so
            return decode(item)
        if found is None:
            found = decode(item)
            if len(known) >= KEPT_PROCESSES:
                known.clear()
            known[key] = found
        return found

    every = many(process)
    last: tuple[list[Any], tuple[GpuProcess, ...]] = [], ()

    def processes(items: Any) -> tuple[GpuProcess, ...] | None:
        nonlocal last
        if items is None:
            return None
        before, found = last
        if type(items) is list and len(items) == len(before):
            if items == before:
                return found
            pairs = zip(items, before, found, strict=True)
            found = tuple([use if item == seen else process(item) for item, seen, use in pairs])
        else:
            found = every(items)
        last = items, found
        return found

    return processes


def _are_the_same(one: Sequence[object], other: Sequence[object]) -> bool:
    """The very same objects, in the same order."""
    return len(one) == len(other) and all(map(operator.is_, one, other))


def _backends_of(readings: tuple[GpuReading, ...]) -> tuple[BackendHealth, ...]:
    names = dict.fromkeys(reading.backend for reading in readings)
    return tuple(BackendHealth(name=name, state=_READY) for name in names)


def snapshots(lines: Iterable[str], source: str) -> Iterator[Snapshot]:
    """All snapshots in their order; `source` names the file in errors. Empty lines are passed over.

    A last line without its line feed is what a recorder that was killed leaves behind: it is passed over when it is
    no JSON. Raises RecordingError.
    """
    reader: _Reader | None = None
    for place, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            table = _parse(line)
        except WrongFieldError as error:
            if reader is not None and not line.endswith("\n"):
                return
            raise RecordingError(f"{source}: line {place}: {error}") from None
        try:
            if reader is None:
                reader = _Reader(_started_usec(table))
            else:
                yield reader.snapshot(table)
        except WrongFieldError as error:
            raise RecordingError(f"{source}: line {place}: {error}") from None
    if reader is None:
        raise RecordingError(f'{source}: is empty; a recording begins with a line {{"{MARK}": {FORMAT}}}')


def _parse(line: str) -> Any:
    if len(line) > LINE_LIMIT:
        raise WrongFieldError(f"has more than {LINE_LIMIT} characters")
    try:
        return _JSON.decode(line)
    except (ValueError, RecursionError) as error:
        raise WrongFieldError(f"not JSON: {' '.join(str(error).split())}") from None


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number; leave out what is not known")


_JSON = json.JSONDecoder(parse_constant=_no_constant)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    gpuwhyd_recording: int
    version: str = ""
    started_usec: int = 0
    anonymous: bool = False


_decode_header = decoder(_Header)


def _started_usec(table: Any) -> int:
    if type(table) is not dict or MARK not in table:
        raise WrongFieldError(f'not a recording: it must begin with a line {{"{MARK}": {FORMAT}}}')
    header = _decode_header(table)
    if header.gpuwhyd_recording != FORMAT:
        raise WrongFieldError(
            f"format {header.gpuwhyd_recording} is not known, only {FORMAT}; a newer gpuwhyd may read it"
        )
    return header.started_usec
