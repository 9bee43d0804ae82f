"""The daemon's own log lines, on the stream that systemd has connected to the journal.

systemd connects stderr once, when the service starts. After journald was stopped together with its sockets that stream
leads nowhere, and journald, when it is back, knows nothing of it: a service then logs nothing more until it is started
again. So it is connected anew here, as systemd does it. Events go another way, see journal.py.
"""

import logging
import os
import socket
from pathlib import Path

STREAM_SOCKET = Path("/run/systemd/journal/stdout")
STDERR = 2
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
_USUAL_PRIORITY = 6
_SEND_BUFFER_BYTES = 8 * 1024 * 1024
"""As sd_journal_stream_fd(3) asks for: a stalled journald holds nobody up for a while."""


def is_the_journal(descriptor: int, journal_stream: str | None) -> bool:
    """Whether it is the stream that systemd names in JOURNAL_STREAM, systemd.exec(5). Programs that a service starts
    have the variable too, a terminal in a desktop session among them, and their stderr is another.
    """
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return journal_stream == f"{status.st_dev}:{status.st_ino}"


class JournalLog(logging.Handler):
    """Writes to `descriptor`, and after its other end has gone puts a new stream in its place. What is logged while
    there is no journald is lost; how many lines that were is told.
    """

    def __init__(self, descriptor: int = STDERR, path: Path = STREAM_SOCKET) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._path = path
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            lines = self.format(record).splitlines()
            priority = _PRIORITIES.get(record.levelno, _USUAL_PRIORITY)
            if not (
                self._written(lines, priority) or (self._connected_anew() and self._written(lines, priority))
            ):
                self._lost += len(lines)
        except Exception:  # noqa: BLE001 - as every handler of the standard library: a log line must not end the daemon
            self.handleError(record)

    def _written(self, lines: list[str], priority: int) -> bool:
        """Each line with its priority in front, as sd-daemon(3) has it."""
        text = "".join(f"<{priority}>{line}\n" for line in lines)
        try:
            _write(self._descriptor, text.encode(errors="replace"))
        except OSError:
            return False
        return True

    def _connected_anew(self) -> bool:
        try:
            with open_stream(self._path) as stream:
                os.dup2(stream.fileno(), self._descriptor, inheritable=self._descriptor == STDERR)
        except OSError:
            return False
        lost, self._lost = self._lost, 0
        if lost:
            self._written([f"the journal was away; {lost} log lines are lost"], _PRIORITIES[logging.WARNING])
        return True


def open_stream(path: Path = STREAM_SOCKET, identifier: str = "gpuwhyd") -> socket.socket:
    """A stream to journald: connection and header as in sd_journal_stream_fd(3). Raises OSError."""
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        stream.connect(str(path))
        stream.shutdown(socket.SHUT_RD)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        # identifier, unit (journald knows it), priority, priorities in front of lines, forwarding to syslog, kmsg, console
        stream.sendall(f"{identifier}\n\n{_USUAL_PRIORITY}\n1\n0\n0\n0\n".encode())
    except OSError:
        stream.close()
        raise
    return stream


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
