"""Entries on their way to the journal, in order. Pure: whoever owns it saves it and sends from it.

An entry is waiting, then sent, then gone when journald has read it. A doubtful one may be in the journal already: it
was on its way when this process or journald ended.
"""

import dataclasses
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

from gpuwhyd.model import EventKind
from gpuwhyd.outputs.journal_entries import FIELD_NAME, MESSAGE_IDS, Fields

ENTRIES_LIMIT = 1000
BYTES_LIMIT = 4 * 1024 * 1024
"""Days of events on a busy machine, and little memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxEntry:
    event_id: str
    kind: str
    fields: Fields
    doubtful: bool = False

    @property
    def size_bytes(self) -> int:
        return sum(len(name) + len(value) for name, value in self.fields)


class Outbox:
    def __init__(self) -> None:
        self._waiting: deque[OutboxEntry] = deque()
        self._sent: deque[OutboxEntry] = deque()
        self._bytes = 0
        self.dropped = 0
        """Entries given up since the start, because there were too many or one was too large."""

    def __len__(self) -> int:
        return len(self._waiting) + len(self._sent)

    def add(self, entry: OutboxEntry) -> None:
        """Where there is no room the oldest `spike-updated` that waits goes, else the oldest that waits."""
        self._waiting.append(entry)
        self._bytes += entry.size_bytes
        while self._waiting and (len(self) > ENTRIES_LIMIT or self._bytes > BYTES_LIMIT):
            updates = (e for e in self._waiting if e.kind == EventKind.SPIKE_UPDATED)
            victim = next(updates, self._waiting[0])
            self._waiting.remove(victim)
            self._bytes -= victim.size_bytes
            self.dropped += 1

    def collect(self) -> list[dict[str, object]]:
        """As JSON takes it, for `restore` after a restart."""
        return [
            {"event_id": e.event_id, "kind": e.kind, "fields": [list(pair) for pair in e.fields]}
            for e in (*self._sent, *self._waiting)
        ]

    def restore(self, collected: object) -> int:
        """Take back what `collect` gave; all of it is doubtful. Gives how many items were unusable and left out."""
        if not isinstance(collected, list):
            return 0 if collected is None else 1
        entries = [_restored(item) for item in collected]
        for entry in entries:
            if entry is not None:
                self.add(entry)
        return entries.count(None)

    def first(self) -> OutboxEntry | None:
        """The next to send. It is asked for only when nothing is doubtful."""
        return self._waiting[0] if self._waiting else None

    def first_is_sent(self) -> None:
        self._sent.append(self._waiting.popleft())

    def first_is_hopeless(self) -> None:
        self._bytes -= self._waiting.popleft().size_bytes
        self.dropped += 1

    @property
    def unread(self) -> int:
        """How many were sent and not yet seen read."""
        return len(self._sent)

    def sent_are_read(self) -> int:
        """Gives how many are done with."""
        done = len(self._sent)
        self._bytes -= sum(e.size_bytes for e in self._sent)
        self._sent.clear()
        return done

    def sent_are_doubtful(self) -> None:
        """Nobody read them, or journald ended just after: back to the front, in order."""
        while self._sent:
            self._waiting.appendleft(dataclasses.replace(self._sent.pop(), doubtful=True))

    def doubtful_ids(self) -> list[str]:
        return [e.event_id for e in self._waiting if e.doubtful]

    def doubt_is_over(self, asked: Collection[str], written: Collection[str]) -> None:
        """Of the entries `asked` for, the journal has `written`; the others are to be sent."""
        kept = []
        for e in self._waiting:
            if e.event_id in written:
                self._bytes -= e.size_bytes
            else:
                kept.append(dataclasses.replace(e, doubtful=e.doubtful and e.event_id not in asked))
        self._waiting = deque(kept)

    def forget_object_pids(self) -> None:
        """By the time they are sent a pid may be another process, whose command line journald would attach."""
        for index, e in enumerate(self._waiting):
            without = _without_object_pid(e.fields)
            if without != e.fields:
                self._bytes -= e.size_bytes
                self._waiting[index] = dataclasses.replace(e, fields=without)
                self._bytes += self._waiting[index].size_bytes


def _without_object_pid(fields: Fields) -> Fields:
    return tuple(pair for pair in fields if pair[0] != "OBJECT_PID")


def _restored(item: object) -> OutboxEntry | None:
    match item:
        case {"event_id": str(event_id), "kind": str(kind), "fields": list(pairs)} if kind in MESSAGE_IDS:
            fields = _fields(pairs)
            if fields:
                return OutboxEntry(
                    event_id=event_id, kind=kind, fields=_without_object_pid(fields), doubtful=True
                )
    return None


def _fields(pairs: list[object]) -> Fields:
    """Empty when one of the pairs is not a field."""
    fields = []
    for pair in pairs:
        match pair:
            case [str(name), str(value)] if FIELD_NAME.fullmatch(name):
                fields.append((name, value))
            case _:
                return ()
    return tuple(fields)
