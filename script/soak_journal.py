"""Reads on in a private journald: what the daemon has written since the last look."""

from collections import Counter
from pathlib import Path

from systemd import journal


class WrittenEntries:
    """`read` takes in what is new. `directory`: of one machine id's journal files."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._cursor: str | None = None
        self.entries = 0
        self.bytes = 0
        self.kinds: Counter[str] = Counter()
        self.spike_events: list[tuple[str, str]] = []
        """(GPU, kind), in order."""
        self.doubled: list[str] = []
        self._event_ids: set[str] = set()

    def read(self) -> None:
        """With a new reader each time, because an open one does not see rotated files."""
        reader = journal.Reader(path=str(self._directory))
        try:
            reader.add_match("SYSLOG_IDENTIFIER=gpuwhyd")
            if self._cursor is not None:
                reader.seek_cursor(self._cursor)
                reader.get_next()
            while entry := reader.get_next():
                self._take(entry)
        finally:
            reader.close()

    def disk_bytes(self) -> int:
        return sum(path.stat().st_blocks * 512 for path in self._directory.iterdir())

    def _take(self, entry: dict[str, object]) -> None:
        self._cursor = str(entry["__CURSOR"])
        kind = str(entry.get("GPUWHY_EVENT"))
        self.entries += 1
        self.bytes += sum(
            len(name) + len(str(value)) + 2 for name, value in entry.items() if not name.startswith("_")
        )
        self.kinds[kind] += 1
        if kind.startswith("spike-"):
            self.spike_events.append((str(entry.get("GPUWHY_GPU")), kind))
        event_id = str(entry.get("GPUWHY_EVENT_ID"))
        if event_id in self._event_ids:
            self.doubled.append(event_id)
        self._event_ids.add(event_id)
