"""The files of one process below /proc, read with bounds and parsed without trust.

A process chooses its own name, arguments and cgroup names, so anything may stand in them. It may also end between any
two reads: the kernel then answers ENOENT when a file is opened and ESRCH when an open one is read. Formats: proc(5) and
the kernel's Documentation/filesystems/proc.rst.
"""

import errno
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

COMMAND_LINE_LIMIT_BYTES = 4096
"""More of a command line tells nobody more; a process may make it as long as it likes (up to 6 MiB, execve(2))."""
_STAT_LIMIT_BYTES = 4096
_STATUS_LIMIT_BYTES = 4096  # Uid stands in the first ten lines
_CGROUP_LIMIT_BYTES = 64 * 1024  # cgroup v1 has about fourteen lines, each with a path of at most 4 KiB

_EFFECTIVE_UID = re.compile(rb"^Uid:[ \t]+[0-9]{1,10}[ \t]+([0-9]{1,10})", re.MULTILINE)
_SHORTAGES = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM))
_GONE = frozenset((errno.ENOENT, errno.ESRCH, errno.ENOTDIR))

Read = TypeVar("Read")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stat:
    """What is needed of /proc/PID/stat."""

    comm: str
    state: str
    threads: int
    start_ticks: int

    @property
    def ended(self) -> bool:
        """A zombie or dead. A leading thread that ended before its siblings shows as a zombie too; that process lives."""
        return self.state in ("Z", "X", "x") and self.threads <= 1


def is_gone(error: OSError) -> bool:
    """The process has ended, or (hidepid=2) is made to look so."""
    return error.errno in _GONE


def parse_stat(raw: bytes) -> Stat | None:
    """The name is whatever the process chose: blanks, parentheses and line feeds. It ends at the last parenthesis."""
    begin, end = raw.find(b"("), raw.rfind(b")")
    fields = raw[end + 1 :].split()
    if begin < 0 or end < begin or len(fields) < 20:
        return None
    threads, start_ticks = fields[17], fields[19]  # fields 20 and 22 of proc(5); the state is field 3
    if not (threads.isdigit() and start_ticks.isdigit() and len(threads) < 20 and len(start_ticks) <= 20):
        return None
    return Stat(
        comm=raw[begin + 1 : end].decode(errors="surrogateescape"),
        state=fields[0].decode(errors="replace"),
        threads=int(threads),
        start_ticks=int(start_ticks),
    )


def parse_uid(raw: bytes) -> int | None:
    """The effective user id of /proc/PID/status, which is the user that ps(1) shows.

    The directory's owner would be cheaper, but it is root for every process that is not dumpable. A process cannot
    forge the line through its name: the kernel escapes line feeds there.
    """
    found = _EFFECTIVE_UID.search(raw)
    return int(found[1]) if found else None


def parse_command_line(raw: bytes) -> tuple[str, ...]:
    """The arguments, at most COMMAND_LINE_LIMIT_BYTES of them; empty for kernel threads.

    Programs that write a title over their arguments (setproctitle) leave NULs behind; all trailing ones are dropped.
    """
    words = raw[:COMMAND_LINE_LIMIT_BYTES].rstrip(b"\0")
    return tuple(word.decode(errors="surrogateescape") for word in words.split(b"\0")) if words else ()


def printable(text: str) -> str:
    """The text with `?` for everything that could forge a line, a terminal sequence or another direction of writing."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def read_stat(process: Path | str) -> Stat | None:
    """None when the kernel's line cannot be understood. Raises OSError: see `is_gone`."""
    return parse_stat(read_file(f"{process}/stat", _STAT_LIMIT_BYTES))


def read_uid(process: Path | str) -> int | None:
    return _unless_hidden(lambda: parse_uid(read_file(f"{process}/status", _STATUS_LIMIT_BYTES)))


def read_command_line(process: Path | str) -> tuple[str, ...] | None:
    """None for kernel threads and for what may not be read."""
    return _unless_hidden(
        lambda: parse_command_line(read_file(f"{process}/cmdline", COMMAND_LINE_LIMIT_BYTES)) or None
    )


def read_executable(process: Path | str) -> str | None:
    """The link's text as the kernel gives it, ` (deleted)` included. It takes the right to trace the process."""
    return _unless_hidden(lambda: os.readlink(f"{process}/exe"))  # noqa: PTH115 - a Path would alter the text


def read_cgroup(process: Path | str) -> str | None:
    """None too on a kernel without cgroups."""
    return _unless_hidden(
        lambda: read_file(f"{process}/cgroup", _CGROUP_LIMIT_BYTES).decode(errors="surrogateescape")
    )


def _unless_hidden(read: Callable[[], Read]) -> Read | None:
    """None for a part that is not there, not for us, or strange (a path too long to be told).

    Shortage of descriptors or memory says nothing about the process, so it is raised: half an identity must not be kept.
    """
    try:
        return read()
    except OSError as error:
        if error.errno in _SHORTAGES:
            raise
        return None


def read_file(path: str, limit: int) -> bytes:
    """At most `limit` bytes. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces: list[bytes] = []
        while limit > 0 and (piece := os.read(descriptor, limit)):
            pieces.append(piece)
            limit -= len(piece)
        return b"".join(pieces)
    finally:
        os.close(descriptor)
