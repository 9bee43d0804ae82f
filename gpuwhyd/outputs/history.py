"""Past events, read back: from the journal, or from memory on a machine without one."""

import contextlib
import importlib
import json
import logging
import os
from collections import deque
from collections.abc import Callable, Collection, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gpuwhyd.errors import HistoryError
from gpuwhyd.model import EventKind, Report
from gpuwhyd.outputs.journal_entries import MESSAGE_IDS, Record, as_json, record

log = logging.getLogger(__name__)

REMEMBERED = 500
"""Events that are kept in memory: days on a desktop."""
REMEMBERED_BYTES = 1 << 20
"""The same in bytes of JSON, of which an event takes 0.5 to 2 KiB, at worst DETAIL_LIMIT. As dicts they would take more
than twice as much: 4 KiB each, measured."""
IDS_AT_ONCE = 100
"""Event ids in one look-up: a match costs libsystemd one more search in each journal file."""
NESTING_LIMIT = 12
"""Of tables and lists in a record: twice what ours have, and what D-Bus takes."""
_NAMES = ("gpu_id", "gpu_pci", "gpu_name", "spike_id", "rule", "backend", "cause", "message", "severity")
DAMAGED_LIMIT = 100
"""Entries in damaged places of journal files that are stepped over before giving up."""


class History(Protocol):
    def read(
        self,
        *,
        since_usec: int,
        maximum: int,
        gpu_pci: str | None = None,
        event: str | None = None,
        spike_id: str | None = None,
    ) -> list[Record]:
        """The newest `maximum` events at or after `since_usec` (wall clock), newest last, under the model's field names:
        event, wall_usec, message, gpu_id, gpu_pci, gpu_name, cause, confidence, spike_id, duration_seconds, explanation,
        spike, rule, severity, metric, value, threshold, for_seconds, backend; what is not known is left out.

        `gpu_pci` also takes the id of a GPU without a PCI address. May block. Raises HistoryError.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Remembered:
    """What an event is looked up by, and its record as JSON."""

    wall_usec: int
    gpus: tuple[object, ...]
    event: object
    spike_id: object
    detail: bytes


class RecentHistory:
    """The last events of this run, in memory; an output like any other."""

    def __init__(self, remembered: int = REMEMBERED, remembered_bytes: int = REMEMBERED_BYTES) -> None:
        """At most so many events, and so many bytes of them; the newest is kept in any case."""
        self._events: deque[_Remembered] = deque(maxlen=remembered)
        self._most_bytes = remembered_bytes

    async def publish(self, report: Report) -> None:
        for event in report.events:
            item = record(event)
            self._events.append(
                _Remembered(
                    wall_usec=_wall_usec(item),
                    gpus=(item.get("gpu_pci"), item.get("gpu_id")),
                    event=item["event"],
                    spike_id=item.get("spike_id"),
                    detail=as_json(item).encode("ascii"),
                )
            )
        if report.events:
            self._forget()

    async def close(self) -> None:
        """Nothing to let go of."""

    def read(
        self,
        *,
        since_usec: int,
        maximum: int,
        gpu_pci: str | None = None,
        event: str | None = None,
        spike_id: str | None = None,
    ) -> list[Record]:
        if maximum <= 0:
            return []
        found = [
            item
            for item in tuple(self._events)  # a copy: read() may run in another thread than publish()
            if item.wall_usec >= since_usec
            and (gpu_pci is None or gpu_pci in item.gpus)
            and event in (None, item.event)
            and spike_id in (None, item.spike_id)
        ]
        return [json.loads(item.detail) for item in found[-maximum:]]

    def _forget(self) -> None:
        total_bytes = sum(len(item.detail) for item in self._events)
        while total_bytes > self._most_bytes and len(self._events) > 1:
            total_bytes -= len(self._events.popleft().detail)


class JournalHistory:
    """gpuwhyd's events in the journal, through systemd-python. Only entries of this process's own user count: `_UID` is
    set by journald, so that no other user can forge an event. OBJECT_* fields are never looked at.

    Each call opens a reader in its own thread and closes it again: a reader that another thread closes crashes the
    process (https://github.com/systemd/python-systemd/issues/143), and an open one would miss rotated files.
    """

    def __init__(self, *, uid: int | None = None, directory: Path | None = None) -> None:
        """`directory`: of the journal files; this machine's by default."""
        self._uid = os.getuid() if uid is None else uid
        self._directory = directory

    def read(
        self,
        *,
        since_usec: int,
        maximum: int,
        gpu_pci: str | None = None,
        event: str | None = None,
        spike_id: str | None = None,
    ) -> list[Record]:
        if maximum <= 0 or (event is not None and event not in MESSAGE_IDS):
            return []
        kinds = list(MESSAGE_IDS) if event is None else [EventKind(event)]
        matches = [f"MESSAGE_ID={MESSAGE_IDS[kind]}" for kind in kinds]
        matches += [f"GPUWHY_GPU={gpu_pci}"] if gpu_pci is not None else []
        matches += [f"GPUWHY_SPIKE_ID={spike_id}"] if spike_id is not None else []
        found: dict[str, Record] = {}
        with contextlib.closing(self._newest_first(matches, since_usec)) as entries:
            for fields in entries:
                item = _parsed(fields.get("GPUWHY_DETAIL"))
                identity = fields.get("GPUWHY_EVENT_ID")
                if item is None or not isinstance(identity, str) or _wall_usec(item) < since_usec:
                    continue
                found.pop(identity, None)  # should it stand there twice, the earlier counts, at its place
                found[identity] = item
                if len(found) == maximum:
                    break
        return list(reversed(found.values()))

    def written_event_ids(self, event_ids: Collection[str]) -> set[str]:
        """Those of these GPUWHY_EVENT_IDs that stand in the journal. May block. Raises HistoryError."""
        asked = list(event_ids)
        written: set[str] = set()
        for start in range(0, len(asked), IDS_AT_ONCE):
            matches = [f"GPUWHY_EVENT_ID={event_id}" for event_id in asked[start : start + IDS_AT_ONCE]]
            written.update(str(fields.get("GPUWHY_EVENT_ID")) for fields in self._newest_first(matches, 0))
        return written.intersection(asked)

    def _newest_first(self, matches: list[str], since_usec: int) -> Generator[dict[str, Any], None, None]:
        """Our entries that journald got at or after `since_usec`: never before the event itself."""
        with _opened(self._directory) as reader:
            if self._directory is None and not (reader.has_persistent_files() or reader.has_runtime_files()):
                raise HistoryError(
                    "no journal file can be read: none is kept (Storage= in journald.conf), "
                    f"or uid {self._uid} may not read it (group systemd-journal may)"
                )
            for match in (f"_UID={self._uid}", *matches):
                reader.add_match(match)
            reader.seek_tail()
            damaged = 0
            while damaged < DAMAGED_LIMIT:
                try:
                    fields = reader.get_previous()
                except OSError as error:
                    damaged += 1
                    log.debug("A journal entry cannot be read: %s", error)
                    continue
                if not fields or fields["__REALTIME_TIMESTAMP"] < since_usec:
                    return
                yield fields


class CompleteHistory:
    """The journal, completed from memory: an event that still waits for journald, or that was vacuumed away since, is
    there too. Where the journal cannot be read, memory alone.
    """

    def __init__(self, journal: JournalHistory, recent: RecentHistory) -> None:
        self._journal = journal
        self._recent = recent
        self._unusable = ""

    def read(
        self,
        *,
        since_usec: int,
        maximum: int,
        gpu_pci: str | None = None,
        event: str | None = None,
        spike_id: str | None = None,
    ) -> list[Record]:
        written = self._written(since_usec, maximum, gpu_pci, event, spike_id)
        known = {_identity(item) for item in written}
        remembered = self._recent.read(
            since_usec=since_usec, maximum=maximum, gpu_pci=gpu_pci, event=event, spike_id=spike_id
        )
        missing = [item for item in remembered if _identity(item) not in known]
        if missing:
            written = sorted([*written, *missing], key=_wall_usec)
        return written[-maximum:] if maximum > 0 else []

    def _written(
        self, since_usec: int, maximum: int, gpu_pci: str | None, event: str | None, spike_id: str | None
    ) -> list[Record]:
        try:
            written = self._journal.read(
                since_usec=since_usec, maximum=maximum, gpu_pci=gpu_pci, event=event, spike_id=spike_id
            )
        except HistoryError as error:
            if str(error) != self._unusable:
                log.warning("History holds only events since the start: %s", error)
            self._unusable = str(error)
            return []
        self._unusable = ""
        return written


def open_history(
    recent: RecentHistory, *, uid: int | None = None, directory: Path | None = None
) -> tuple[CompleteHistory, Callable[[Collection[str]], set[str]]]:
    """The daemon's history, and the look-up of written event ids that JournalOutput asks for."""
    journal = JournalHistory(uid=uid, directory=directory)
    return CompleteHistory(journal, recent), journal.written_event_ids


def _opened(directory: Path | None) -> Any:
    try:
        # Late, because a daemon without it still runs and says what is missing; by name, because type checkers take
        # the project's own folder systemd/ for that package.
        journal = importlib.import_module("systemd.journal")
    except ImportError as error:
        raise HistoryError(f"reading the journal needs the Python package systemd-python: {error}") from error
    path = None if directory is None else str(directory)
    try:
        return journal.Reader(path=path, converters={"__REALTIME_TIMESTAMP": int})
    except OSError as error:
        raise HistoryError(f"the journal cannot be opened: {error.strerror}") from error


def _parsed(detail: object) -> Record | None:
    if not isinstance(detail, str):
        return None
    try:
        item = json.loads(detail)
    except (ValueError, RecursionError):
        return None
    return item if isinstance(item, dict) and _is_record(item) else None


def _is_record(item: Record) -> bool:
    """Written by us, as far as everybody behind relies on it: any process of our user can write such an entry."""
    wall_usec = item.get("wall_usec")
    return (
        isinstance(item.get("event"), str)
        and isinstance(wall_usec, int)
        and not isinstance(wall_usec, bool)
        and 0 <= wall_usec < 2**63
        and all(isinstance(item.get(name, ""), str) for name in _NAMES)
        and _is_flat(item, NESTING_LIMIT)
    )


def _is_flat(value: object, levels: int) -> bool:
    """At most so many tables and lists in each other."""
    if isinstance(value, dict | list):
        items = value.values() if isinstance(value, dict) else value
        return levels > 0 and all(_is_flat(item, levels - 1) for item in items)
    return True


def _wall_usec(item: Record) -> int:
    wall_usec = item["wall_usec"]
    return wall_usec if isinstance(wall_usec, int) else 0


def _identity(item: Record) -> tuple[object, ...]:
    return tuple(item.get(key) for key in ("event", "wall_usec", "gpu_id", "spike_id", "rule", "backend"))
