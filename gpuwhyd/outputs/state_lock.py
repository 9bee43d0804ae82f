"""One daemon for one state: two would overwrite what the other has learned, and tell the journal each event twice."""

import contextlib
import fcntl
import logging
import os
from io import FileIO
from pathlib import Path

from gpuwhyd.errors import StateError
from gpuwhyd.processes.procfs import read_stat

log = logging.getLogger(__name__)


def lock_state(state: Path, procfs: Path = Path("/proc")) -> FileIO | None:
    """Holds the state in this file for this process until the result is closed or the process ends, however it ends.

    `None` where there can be no lock: what cannot be written there cannot be overwritten either. Raises StateError when
    another gpuwhyd holds it.
    """
    path = state.with_name(state.name + ".lock")  # not the state itself, which is replaced with each save
    try:
        state.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # read only: a file that is open for writing would keep its file system from being remounted read-only
        file = FileIO(path, "r", opener=_opened)
    except OSError as error:
        log.debug("%s: no lock: %s", path, error)
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _pid_in(file)
        file.close()
        if _has_ended(holder, procfs):
            log.warning(
                "a gpuwhyd that has ended (pid %s) still hangs in a driver; starting beside it", holder
            )
            return None
        raise StateError(
            f"another gpuwhyd{f' (pid {holder})' if holder else ''} keeps its state in {state.parent}: end that one "
            "first (the service: systemctl stop gpuwhyd), or start this one with --state-dir DIR --journal off"
        ) from None
    except OSError as error:  # a file system without locks
        file.close()
        log.debug("%s: no lock: %s", path, error)
        return None
    # on a full disk a refused one is not told who holds it
    with contextlib.suppress(OSError), FileIO(path, "w", opener=_opened) as pid_file:
        pid_file.write(f"{os.getpid()}\n".encode())
    return file


def _opened(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW, 0o600)


def _pid_in(file: FileIO) -> str:
    text = (file.read(20) or b"").strip()
    return text.decode() if text.isdigit() else ""


def _has_ended(pid: str, procfs: Path) -> bool:
    """Killed, but not gone: one of its threads hangs in a driver call, and with it all that it had open. systemd starts
    the next one all the same, and the old one will write nothing any more.
    """
    try:
        stat = read_stat(procfs / pid) if pid else None
    except OSError:
        return False
    return stat is not None and stat.state in {"Z", "X"}
