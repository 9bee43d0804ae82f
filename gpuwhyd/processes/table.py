"""Every process that was seen on a GPU: who it is, and when it ended.

A process is told apart by pid and start time. Where the kernel has pidfds (Linux 5.3) one is held for each process:
while it is silent the pid cannot have been given to another, so asking again costs one system call and no file. Without
one (an old kernel, too few descriptors, a /proc that is not this machine's) the start time is compared instead.
"""

import errno
import logging
import os
import select
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from gpuwhyd.model import ProcessExit, ProcessIdentity
from gpuwhyd.processes import procfs as files
from gpuwhyd.processes.cgroup import placement
from gpuwhyd.processes.command_lines import CommandLines
from gpuwhyd.processes.program import program_of
from gpuwhyd.processes.users import UserNames

_log = logging.getLogger(__name__)

_NAMELESS = "?"
"""A process may take an empty name, or blanks."""
_PID_LIMIT = 2**22
"""PID_MAX_LIMIT of the kernel's include/linux/threads.h; drivers have been seen to report garbage above it."""


@dataclass(slots=True)
class _Tracked:
    identity: ProcessIdentity
    pidfd: int | None
    used_at_seconds: float


class ProcessTable:
    """Not thread-safe: all calls come from one worker thread. They may block on /proc and on the user database.

    `use_pidfds` is by default true for the real /proc only, because a pid of any other tree is not one of ours.
    `maximum_pidfds` leaves room below the usual limit of 1024 descriptors; processes above it are watched through
    /proc. `maximum_processes` bounds the memory: above it the one not asked for the longest is forgotten.
    """

    def __init__(
        self,
        procfs: Path,
        *,
        use_pidfds: bool | None = None,
        users: UserNames | None = None,
        clock: Callable[[], float] = time.monotonic,
        idle_seconds: float = 900.0,
        maximum_pidfds: int = 512,
        maximum_processes: int = 4096,
        command_lines: CommandLines | None = None,
    ) -> None:
        self._root = str(procfs)
        self._command_lines = command_lines or CommandLines()
        self._users = users or UserNames(clock=clock)
        self._clock = clock
        self._idle_seconds = idle_seconds
        self._maximum_pidfds = maximum_pidfds
        self._maximum_processes = maximum_processes
        self._live: OrderedDict[int, _Tracked] = OrderedDict()
        self._ended: list[ProcessIdentity] = []
        self._watched: dict[int, _Tracked] = {}
        wanted = procfs == Path("/proc") if use_pidfds is None else use_pidfds
        self._epoll = select.epoll() if wanted else None
        self._reading_fails = False

    def identify(self, pid: int) -> ProcessIdentity | None:
        """Who this is; None when it has ended or is not for us to see. See `identify_all`."""
        return self.identify_all((pid,)).get(pid)

    def identify_all(self, pids: Iterable[int]) -> dict[int, ProcessIdentity]:
        """Who these are, as of now; without those that have ended or are not for us to see.

        Read once in a process's life, so that a later change of its name or cgroup does not show. One that was known
        and has ended is still told until `exits` has reported it: what a driver measured of it a moment ago is its own.
        One that is first seen while it exits has lost its command line and executable already; the rest is true.
        """
        self._notice_ended()
        live, known = self._live, {}
        for pid in pids:
            tracked = live.get(pid)
            if tracked is not None and (tracked.pidfd is not None or self._goes_on(tracked)):
                live.move_to_end(pid)
                known[pid] = tracked.identity
                continue
            if tracked is not None:
                self._end(tracked)
            identity = self._take_up(pid) or self._just_ended(pid)
            if identity is not None:
                known[pid] = identity
        return known

    def exits(self, boottime_seconds: float) -> tuple[ProcessExit, ...]:
        """The processes that ended since the last call, each once, stamped with the time given. A zombie has ended."""
        self._notice_ended()
        for tracked in [tracked for tracked in self._live.values() if tracked.pidfd is None]:
            if not self._goes_on(tracked):
                self._end(tracked)
        ended, self._ended = self._ended, []
        return tuple(ProcessExit(process=identity, boottime_seconds=boottime_seconds) for identity in ended)

    def forget_idle(self, in_use: Collection[int]) -> None:
        """Drop the processes that have not been among `in_use` for `idle_seconds`; their exits are not reported."""
        now = self._clock()
        for pid in in_use:
            if (tracked := self._live.get(pid)) is not None:
                tracked.used_at_seconds = now
        for tracked in [
            tracked for tracked in self._live.values() if now - tracked.used_at_seconds > self._idle_seconds
        ]:
            self._drop(tracked)

    def close(self) -> None:
        """Give back every descriptor; may be called twice. The table knows nobody afterwards and watches no pidfds."""
        for tracked in list(self._live.values()):
            self._drop(tracked)
        self._ended.clear()
        self._command_lines.close()
        if self._epoll is not None:
            self._epoll.close()
            self._epoll = None

    def _just_ended(self, pid: int) -> ProcessIdentity | None:
        return next((ended for ended in reversed(self._ended) if ended.pid == pid), None)

    def _take_up(self, pid: int) -> ProcessIdentity | None:
        if not 0 < pid <= _PID_LIMIT:
            return None
        try:
            pidfd = self._open_pidfd(pid)
        except ProcessLookupError:
            return None
        identity = None
        try:
            identity = self._read(pid, pidfd)
        except OSError as error:
            self._tell_failure(error)
        finally:
            if identity is None and pidfd is not None:
                os.close(pidfd)
        if identity is None:
            return None
        self._reading_fails = False
        tracked = _Tracked(identity=identity, pidfd=pidfd, used_at_seconds=self._clock())
        self._live[pid] = tracked
        if pidfd is not None and self._epoll is not None:
            self._watched[pidfd] = tracked
            self._epoll.register(pidfd, select.EPOLLIN)
        if len(self._live) > self._maximum_processes:
            self._drop(next(iter(self._live.values())))
        return identity

    def _read(self, pid: int, pidfd: int | None) -> ProcessIdentity | None:
        """All files of one process, checked at the end to be of one. Raises OSError for want of descriptors or memory."""
        process = f"{self._root}/{pid}"
        stat = _stat(process)
        if stat is None or stat.ended:
            return None
        uid = files.read_uid(process)
        command_line = self._command_lines.read(process)
        executable = files.read_executable(process)
        place = placement(files.read_cgroup(process) or "")
        user = None if uid is None else self._users.name(uid)
        still_it = _is_silent(pidfd) if pidfd is not None else _is_same(_stat(process), stat.start_ticks)
        if not still_it:
            return None
        name = files.printable(stat.comm).strip() or _NAMELESS
        return ProcessIdentity(
            pid=pid,
            start_ticks=stat.start_ticks,
            name=name,
            uid=uid,
            user=user,
            executable=executable,
            command_line=command_line,
            program=program_of(place, pid=pid, start_ticks=stat.start_ticks, name=name, uid=uid, user=user),
        )

    def _goes_on(self, tracked: _Tracked) -> bool:
        """By its start time. When the files cannot be read, nothing says that it ended."""
        try:
            stat = files.read_stat(f"{self._root}/{tracked.identity.pid}")
        except OSError as error:
            return not files.is_gone(error)
        return stat is None or _is_same(stat, tracked.identity.start_ticks)

    def _open_pidfd(self, pid: int) -> int | None:
        """None where the process has to be watched through /proc. Raises ProcessLookupError when it is gone."""
        if self._epoll is None or len(self._watched) >= self._maximum_pidfds:
            return None
        try:
            return os.pidfd_open(pid)
        except ProcessLookupError:
            raise
        except OSError as error:
            if error.errno in (errno.ENOSYS, errno.EPERM) and not self._watched:
                _log.info(
                    "pidfd_open does not work here (%s): the ends of processes are found in /proc", error
                )
                self._epoll.close()
                self._epoll = None
            return None  # EMFILE and ENFILE pass; EINVAL is the id of a thread

    def _notice_ended(self) -> None:
        if self._epoll is not None:
            for pidfd, _ in self._epoll.poll(0):
                self._end(self._watched[pidfd])

    def _end(self, tracked: _Tracked) -> None:
        self._drop(tracked)
        self._ended.append(tracked.identity)

    def _drop(self, tracked: _Tracked) -> None:
        del self._live[tracked.identity.pid]
        if tracked.pidfd is not None and self._epoll is not None:
            self._epoll.unregister(tracked.pidfd)
            del self._watched[tracked.pidfd]
            os.close(tracked.pidfd)

    def _tell_failure(self, error: OSError) -> None:
        if not self._reading_fails:
            _log.warning("processes cannot be identified: %s", error)
        self._reading_fails = True


def _stat(process: str) -> files.Stat | None:
    """None when it has ended or hides itself. Raises OSError for any other reason."""
    try:
        return files.read_stat(process)
    except PermissionError:
        return None
    except OSError as error:
        if files.is_gone(error):
            return None
        raise


def _is_same(stat: files.Stat | None, start_ticks: int) -> bool:
    return stat is not None and stat.start_ticks == start_ticks and not stat.ended


def _is_silent(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return not poll.poll(0)
