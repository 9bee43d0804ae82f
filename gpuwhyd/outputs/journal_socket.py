"""A sender of the journal's native protocol that never waits.

`systemd.journal.send` blocks, and holds the interpreter's lock, while journald stalls (measured: 5.65 s of a 6 s stop).
Protocol: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/
"""

import array
import contextlib
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

from gpuwhyd.outputs.journal_entries import FIELD_NAME

JOURNAL_SOCKET = Path("/run/systemd/journal/socket")

_SIOCOUTQ = 0x5411
"""<linux/sockios.h>, unix(7): bytes of ours that the receiver has not read yet."""


class Sent(StrEnum):
    TAKEN = "taken"
    BUSY = "busy"
    """journald is there and does not read: try later."""
    AWAY = "away"
    """Nobody holds the socket: try later. What was sent before and not yet seen read may be lost."""
    REFUSED = "refused"
    """This entry will never be taken: it is too large."""


class Receipt(StrEnum):
    READ = "read"
    """journald has read everything that was sent before this question."""
    UNREAD = "unread"
    LOST = "lost"
    """journald's socket was closed meanwhile: what was not yet seen read may be lost."""


class JournalSocket:
    """One connected datagram socket; connects again when journald comes back with a new one.

    Connected, because the kernel then tells when the receiver is gone (ECONNREFUSED), even if a new socket stands at
    the same path by then, and because it is cheaper than a path walk each time (2.9 against 4.0 us, measured).
    """

    def __init__(self, path: Path = JOURNAL_SOCKET) -> None:
        self.path = path
        self.reason = ""
        """Why the last attempt was not taken, for a log line."""
        self._socket: socket.socket | None = None
        self._inode: tuple[int, int] | None = None

    def exists(self) -> bool:
        """Whether this machine has a journal at all; journald's socket file stays while journald is stopped."""
        return self.path.exists()

    def reachable(self) -> bool:
        """Whether somebody holds the socket, as far as known without sending."""
        return self._connected() is not None

    def send(self, fields: Iterable[tuple[str, str]]) -> Sent:
        """Hand over one entry. No fields at all make an empty datagram, which journald reads and drops.

        Raises ValueError for a field name that the journal does not know.
        """
        data = encode(fields)
        connection = self._connected()
        if connection is None:
            return Sent.AWAY
        try:
            connection.send(data)
        except OSError as error:
            if error.errno in (errno.EMSGSIZE, errno.ENOBUFS) and data:
                return self._send_large(connection, data)
            return self._not_taken(error)
        return Sent.TAKEN

    def receipt(self) -> Receipt:
        """Whether what was sent so far has been read. The count of unread bytes is looked at first, and only then
        whether the receiver lives: a receiver that dies unread leaves a count of 0 too.
        """
        connection = self._socket
        if connection is None:
            return Receipt.LOST
        if _unread_bytes(connection) > 0:
            return Receipt.LOST if self._abandoned() else Receipt.UNREAD
        try:
            connection.send(b"")
        except OSError as error:
            return Receipt.UNREAD if self._not_taken(error) is Sent.BUSY else Receipt.LOST
        return Receipt.READ

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connected(self) -> socket.socket | None:
        if self._socket is not None:
            return self._socket
        connection = socket.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        )
        try:
            connection.connect(str(self.path))
        except OSError as error:
            connection.close()
            self.reason = error.strerror or str(error)
            return None
        self._socket = connection
        self._inode = self._inode_at_path()
        return connection

    def _send_large(self, connection: socket.socket, data: bytes) -> Sent:
        """A datagram has a limit; a sealed memory file has not, and journald maps it without copying."""
        try:
            memory = os.memfd_create("gpuwhyd-journal-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError as error:
            self.reason = f"{len(data)} bytes are too many for a datagram, and memfd: {error.strerror}"
            return Sent.REFUSED
        try:
            with contextlib.closing(os.fdopen(memory, "wb", buffering=0, closefd=False)) as file:
                file.write(data)
            seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, seals)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [memory]))
            connection.sendmsg([], [rights])
        except OSError as error:
            return self._not_taken(error)
        finally:
            os.close(memory)
        return Sent.TAKEN

    def _not_taken(self, error: OSError) -> Sent:
        self.reason = error.strerror or str(error)
        busy = error.errno in (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM)
        if busy and not self._abandoned():
            return Sent.BUSY
        self.close()
        return Sent.AWAY

    def _abandoned(self) -> bool:
        """A socket that somebody still holds open, while journald listens on a new one at the same path."""
        now = self._inode_at_path()
        if now is None or now == self._inode:
            return False
        self.close()
        return True

    def _inode_at_path(self) -> tuple[int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino


def encode(fields: Iterable[tuple[str, str]]) -> bytes:
    """One entry in the native protocol. A value with a newline is framed by its length, so that no value can pass for
    another field. Characters that UTF-8 does not have become `?`.
    """
    parts: list[bytes] = []
    for name, text in fields:
        if not FIELD_NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} is not a journal field name: A to Z, 0 to 9 and _, at most 64, a letter first"
            )
        value = text.encode("utf-8", "replace")
        if b"\n" in value:
            parts += [name.encode(), b"\n", struct.pack("<Q", len(value)), value, b"\n"]
        else:
            parts += [name.encode(), b"=", value, b"\n"]
    return b"".join(parts)


def _unread_bytes(connection: socket.socket) -> int:
    answer = fcntl.ioctl(connection, _SIOCOUTQ, bytes(4))
    return int(struct.unpack("i", answer)[0])
