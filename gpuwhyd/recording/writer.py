"""Snapshots -> the lines of a recording. What a line need not say again, a GPU's or process's identity, it leaves out."""

import json
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from gpuwhyd import __version__
from gpuwhyd.model import BackendHealth, GpuIdentity, GpuReading, ProcessIdentity, Snapshot, as_plain
from gpuwhyd.recording.anonymous import Pseudonyms
from gpuwhyd.recording.reader import FORMAT, MARK

_DEFAULTS = {field.name: field.default for field in fields(GpuReading)}


class RecordingWriter:
    """`header`, then `line` for each snapshot in order. With `anonymous`, nothing in them names a person or program."""

    def __init__(self, *, anonymous: bool = False) -> None:
        self._anonymous = anonymous
        self._pseudonyms = Pseudonyms() if anonymous else None
        self._gpus: dict[str, GpuIdentity] = {}
        self._processes: dict[int, ProcessIdentity] = {}
        self._backends: tuple[BackendHealth, ...] | None = None

    def header(self, started_usec: int) -> str:
        """The first line; when the recording began is told to the second."""
        return _line(
            {
                MARK: FORMAT,
                "version": __version__,
                "started_usec": started_usec // 1_000_000 * 1_000_000,
                "anonymous": self._anonymous,
            }
        )

    def line(self, snapshot: Snapshot) -> str:
        """One snapshot."""
        if self._pseudonyms is not None:
            snapshot = self._pseudonyms.of(snapshot)
        table: dict[str, Any] = {
            "boottime_seconds": round(snapshot.boottime_seconds, 6),
            "wall_usec": snapshot.wall_usec,
        }
        new_gpus = [gpu for gpu in (r.gpu for r in snapshot.readings) if self._gpus.get(gpu.id) != gpu]
        self._gpus.update({gpu.id: gpu for gpu in new_gpus})
        table["gpus"] = as_plain(new_gpus)
        table |= self._people(snapshot)
        table["readings"] = [self._reading(reading) for reading in snapshot.readings]
        table["exits"] = [
            {"pid": item.process.pid, "boottime_seconds": item.boottime_seconds} for item in snapshot.exits
        ]
        for item in snapshot.exits:
            self._processes.pop(item.process.pid, None)
        if snapshot.host is not None:
            table["host"] = as_plain(snapshot.host)
        if snapshot.backends != self._backends:
            self._backends = snapshot.backends
            table["backends"] = as_plain(snapshot.backends)
        table["resumed"] = snapshot.resumed or None
        table["processes_hidden"] = snapshot.processes_hidden or None
        said = {name: value for name, value in table.items() if value not in (None, [])}
        return _line(said | {"readings": table["readings"]})

    def _people(self, snapshot: Snapshot) -> dict[str, object]:
        """Who is new since the last line, and who is listed without being known any more."""
        present = {process.pid: process for process in _identities(snapshot)}
        new = [process for pid, process in present.items() if self._processes.get(pid) != process]
        self._processes.update({process.pid: process for process in new})
        listed = {use.pid for reading in snapshot.readings for use in reading.processes or ()}
        listed.update(use.pid for use in (snapshot.host.processes or () if snapshot.host else ()))
        nameless = sorted(
            pid for pid in listed - present.keys() if self._processes.pop(pid, None) is not None
        )
        return {"processes": as_plain(new), "nameless": nameless}

    def _reading(self, reading: GpuReading) -> dict[str, object]:
        said: dict[str, object] = {}
        for name, default in _DEFAULTS.items():
            value = getattr(reading, name)
            if name == "gpu":
                said[name] = reading.gpu.id
            elif value != default:
                said[name] = as_plain(value)
        return said


def _identities(snapshot: Snapshot) -> Iterator[ProcessIdentity]:
    for use in snapshot.uses:
        yield use.process
    for host_use in snapshot.host_uses:
        yield host_use.process
    for ended in snapshot.exits:
        yield ended.process


def _line(table: dict[str, Any]) -> str:
    """In ASCII: what is no UTF-8 in an argument or a path has a form there, and none in a UTF-8 file."""
    return json.dumps(table, separators=(",", ":")) + "\n"
