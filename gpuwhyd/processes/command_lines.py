"""Command lines, read so that a process whose own cannot be read holds up nobody else.

Of all that is read of a process only this lies in its memory: the kernel waits for the memory's lock, which a task that
hangs in a driver may hold for ever, and for the page, which its owner may have mapped from a file system of their own.
"""

import logging
import queue
import threading
from collections.abc import Callable

from gpuwhyd.processes import procfs

_log = logging.getLogger(__name__)

WAIT_SECONDS = 0.25
"""A thousand times what it takes; and with MOST_WAITING, in sum, a fraction of what a tick may take."""
MOST_WAITING = 4
"""Threads that wait for a command line and may do so for ever. While there are so many none is read."""

CommandLine = tuple[str, ...] | None


class CommandLines:
    """Reads in a thread of its own, and in another one while that hangs. Called from one thread."""

    def __init__(
        self,
        read: Callable[[str], CommandLine] = procfs.read_command_line,
        *,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        self._read = read
        self._wait_seconds = wait_seconds
        self._reader: _Reader | None = None
        self._waiting: list[_Reader] = []

    def read(self, process: str) -> CommandLine:
        """Of the process in this folder of /proc. `None` where there is none, or none in time.

        Raises OSError for want of descriptors or memory.
        """
        self._waiting = [reader for reader in self._waiting if reader.is_alive()]
        if len(self._waiting) >= MOST_WAITING:
            return None
        if self._reader is None:
            self._reader = _Reader(self._read)
            self._reader.start()
        self._reader.jobs.put(process)
        try:
            outcome = self._reader.answers.get(timeout=self._wait_seconds)
        except queue.Empty:
            _log.info("the command line in %s cannot be read now; the process goes without one", process)
            self._waiting.append(self._reader)
            self.close()
            return None
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    def close(self) -> None:
        """Lets the thread end, at once or when what it waits for comes."""
        if self._reader is not None:
            self._reader.jobs.put(None)
            self._reader = None


class _Reader(threading.Thread):
    """Ends with the job `None`. Of a daemon, which therefore need not wait for it."""

    def __init__(self, read: Callable[[str], CommandLine]) -> None:
        super().__init__(name="command-lines", daemon=True)
        self._read = read
        self.jobs: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.answers: queue.SimpleQueue[CommandLine | OSError] = queue.SimpleQueue()

    def run(self) -> None:
        while (process := self.jobs.get()) is not None:
            try:
                self.answers.put(self._read(process))
            except OSError as error:
                self.answers.put(error)
