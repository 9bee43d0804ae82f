"""Whether ordinary users may see each other's processes at all.

Where /proc is mounted with hidepid, what gpuwhyd tells everybody must not name processes either.
"""

import logging
import re
import time
from collections.abc import Callable
from pathlib import Path

_log = logging.getLogger(__name__)

_NOT_HIDDEN = ("0", "off")
"""Everything else hides: 1 noaccess, 2 invisible, 4 ptraceable (proc(5); the words since Linux 5.8)."""
_OCTAL = re.compile(r"\\([0-7]{3})")

LOOK_AGAIN_SECONDS = 10.0
"""An administrator who remounts /proc waits so long at most; reading a mount table each tick would cost 0.2 ms."""


class HidepidWatch:
    """`processes_are_hidden`, at most LOOK_AGAIN_SECONDS old."""

    def __init__(self, procfs: Path, monotonic_seconds: Callable[[], float] = time.monotonic) -> None:
        self._procfs = procfs
        self._monotonic_seconds = monotonic_seconds
        self._read_at_seconds = float("-inf")
        self._hidden = True

    def __call__(self) -> bool:
        now = self._monotonic_seconds()
        if now - self._read_at_seconds >= LOOK_AGAIN_SECONDS:
            self._hidden = processes_are_hidden(self._procfs)
            self._read_at_seconds = now
        return self._hidden


def processes_are_hidden(procfs: Path) -> bool:
    """True when /proc is mounted with hidepid other than 0.

    It asks for the mounts of PID 1 first: a service with ProtectProc= has a /proc of its own, which says nothing about
    what users see. Those of this process are looked at where PID 1's may not be read. Without any mount table there is
    no mounted procfs, hence nobody to hide from; a table that cannot be read counts as hidden.
    """
    for reader in ("1", "self"):
        table = procfs / reader / "mountinfo"
        try:
            text = table.read_text(errors="surrogateescape")
        except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
            continue
        except OSError as error:
            if reader == "1":
                continue  # the usual answer for a daemon run by an ordinary user
            _log.warning("%s cannot be read (%s): processes are treated as hidden", table, error)
            return True
        answer = is_hidden_in(text, procfs)
        if answer is not None:
            return answer
    return False


def is_hidden_in(mountinfo: str, procfs: Path = Path("/proc")) -> bool | None:
    """What a mount table (proc(5), `mountinfo`) says of the procfs at this path, else of /proc; None: not mounted.

    A later line covers an earlier one at the same place.
    """
    found: dict[str, bool] = {}
    for line in mountinfo.split("\n"):
        mount, separator, source = line.partition(" - ")
        fields, (kind, *options) = mount.split(" "), source.split(" ")
        if separator and kind == "proc" and len(fields) > 5 and fields[3] == "/":
            found[_OCTAL.sub(lambda code: chr(int(code[1], 8)), fields[4])] = _hides(options[-1:])
    return found.get(str(procfs), found.get("/proc"))


def _hides(super_options: list[str]) -> bool:
    words = (word.partition("=") for options in super_options for word in options.split(","))
    return any(name == "hidepid" and value not in _NOT_HIDDEN for name, _, value in words)
