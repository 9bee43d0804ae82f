"""Which processes hold which device nodes of GPUs: a slow index that costs next to nothing.

A look at every descriptor of a machine costs 20 ms with 500 processes and 0.3 s with 16,000: too much for each tick, and
nearly all of it for nothing, because nodes are opened rarely. Since Linux 6.2 `stat` of /proc/PID/fd gives the number
of descriptors as its size, so a quick sweep asks each process for that number and looks only at those that are new or
whose number has changed. What it misses (one descriptor closed, another opened) the full walk finds later.

A sweep is done in slices, one a tick, so that the tick is never held up for long however many processes there are.
"""

import errno
import logging
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gpuwhyd.processes.held_nodes import OF_ONE_NODE, OF_ONE_SHARER, Descriptor, HeldNodes, sharer_of
from gpuwhyd.processes.hidepid import processes_are_hidden
from gpuwhyd.processes.procfs import is_gone, printable, read_cgroup, read_file

_log = logging.getLogger(__name__)

QUICK_SECONDS = 10.0
"""Between sweeps that compare numbers of descriptors."""
FULL_SECONDS = 60.0
FULL_SECONDS_WITHOUT_NUMBERS = 30.0
"""Before Linux 6.2 there is nothing but the full walk."""
EARLY_SECONDS = 4.0
"""The least time between sweeps when somebody is looked for."""
SLICE_SECONDS = 0.05
FIRST_SLICE_SECONDS = 1.0
"""The first walk is awaited: until it is over nothing can be said of anybody."""
GIANT_DESCRIPTORS = 2000
"""A process with more than so many is a busy server, whose number changes always: only full walks look at it."""
MANY_DESCRIPTORS = 256
"""More than nearly all programs have: reading the cgroups of those few costs nothing beside reading their descriptors."""
WALKED_OF_ONE_SHARER = 65_536
"""So many descriptors of processes with many are looked at from one full walk to the next, for each sharer (held_nodes.py):
0.2 s, on a busy machine 0.7 s. With half a million in each process, as systemd allows, one user could make each walk last
for an hour. What is beyond is not looked at: a program there that uses a GPU is not known."""
PROTECTED_PROCESSES = 3
"""So many may refuse although nobody has more rights than we."""
_DESCRIPTORS_AT_A_TIME = 256

_NODE_NAMES = ("card", "renderD", "nvidia", "kfd")
_NODE = re.compile(r".*/(?:dri/(card[0-9]+|renderD[0-9]+)|(nvidia[0-9]+)|(kfd))(?: \(deleted\))?", re.DOTALL)
"""A node that was made anew, as containers do with /dev, is called deleted by those who had it open before."""
_CAPABILITIES = re.compile(rb"^CapEff:[ \t]*([0-9a-fA-F]{1,16})$", re.MULTILINE)
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH, _CAP_SYS_PTRACE = 1 << 1, 1 << 2, 1 << 19
"""Bits of the kernel's include/uapi/linux/capability.h."""
_STATUS_LIMIT_BYTES = 4096
_REFUSALS = frozenset((errno.EACCES, errno.EPERM))


@dataclass(frozen=True, slots=True)
class _Seen:
    """A process as it was when it was looked at last."""

    instance: int
    """The inode of its directory: another process with the same pid has another one."""
    number: int
    walked_at_seconds: float | None
    """None: not all that was there is watched, so that what is new to the index may be old."""


def node_of(link: str) -> str | None:
    """The GPU node that a link in /proc/PID/fd names."""
    if not link.rpartition("/")[2].startswith(_NODE_NAMES):
        return None
    found = _NODE.fullmatch(link)
    return found[1] or found[2] or found[3] if found else None


class GpuIndex:
    """`advance` once a tick, with CLOCK_BOOTTIME; then `descriptors` holds as far as `is_complete` says.

    Nothing is read unless it is called. Links are read, never followed: what they lead to may hang (NFS) or wake.
    """

    def __init__(
        self, procfs: Path, *, own_pid: int, stopwatch: Callable[[], float] = time.monotonic
    ) -> None:
        self._procfs = procfs
        self._root = str(procfs)
        self._own_pid = own_pid
        self._stopwatch = stopwatch
        self._has_numbers: bool | None = None
        self._seen: dict[int, _Seen] = {}
        self._held = HeldNodes()
        self._running: Iterator[None] | None = None
        self._now = self._advanced_at = float("-inf")
        self._quick_at = self._full_at = float("-inf")
        self._listed_at: float | None = None
        """When the processes were listed for the last sweep that was finished."""
        self._is_whole = self._is_refused = False
        self._walked: Counter[str] = Counter()
        """Descriptors of processes with many, by sharer, since the last full walk began."""
        self._told: set[str] = set()
        self._protected: set[int] = set()
        self.full_walks = 0
        """How many there have been; what was learned of device nodes is learned anew with each."""

    @property
    def is_complete(self) -> bool:
        """All processes have been looked at, but for a few that nobody may look into."""
        return self._is_whole and not self._is_refused

    @property
    def descriptors(self) -> Iterator[Descriptor]:
        return iter(self._held)

    def is_still_open(self, descriptor: Descriptor) -> bool:
        """Whether it leads to the same node now."""
        try:
            return node_of(os.readlink(self._link(descriptor.pid, descriptor.number))) == descriptor.node  # noqa: PTH115
        except OSError:  # closed, ended, or not for us any more
            return False

    def advance(self, now: float, *, early: bool = False) -> None:
        """A slice of a sweep, when one is due. `early`: somebody works whom the index does not know."""
        if now - self._advanced_at > FULL_SECONDS:
            self._start_over()
        self._now = self._advanced_at = now
        if self._running is None:
            self._running = self._due(early)
        if self._running is None:
            return
        end = self._stopwatch() + (SLICE_SECONDS if self._is_whole else FIRST_SLICE_SECONDS)
        try:
            for _ in self._running:
                if self._stopwatch() >= end:
                    return
        except OSError as error:
            self._complain(f"who uses a GPU is not told for a while: /proc cannot be read: {error.strerror}")
        self._running = None

    def _start_over(self) -> None:
        """Nobody has asked for so long that what is known is worth nothing."""
        self._running, self._listed_at = None, None
        self._seen = {}
        self._held.clear()
        self._is_whole = self._is_refused = False
        self._full_at = float("-inf")

    def _due(self, early: bool) -> Iterator[None] | None:
        if self._has_numbers is None:
            self._has_numbers = numbers_are_told(self._root)
        pause = FULL_SECONDS if self._has_numbers else FULL_SECONDS_WITHOUT_NUMBERS
        if self._now - self._full_at >= pause:
            self._full_at = self._quick_at = self._now
            return self._sweep(full=True)
        if not self.is_complete:
            return None  # what is not whole is of no use; the next full walk tries again
        waited = self._now - self._quick_at
        if waited >= EARLY_SECONDS if early else self._has_numbers and waited >= QUICK_SECONDS:
            self._quick_at = self._now
            return self._sweep(full=False)
        return None

    def _sweep(self, *, full: bool) -> Iterator[None]:
        """Looks at all processes, or at those that are new or have changed. Ends early when one may not be looked at.

        Raises OSError when descriptors or memory are short.
        """
        listed_at, before = self._now, self._listed_at
        names = os.listdir(self._root)  # noqa: PTH208 - thousands of names
        pids = [int(name) for name in names if name.isascii() and name.isdigit()]
        if full:
            self._walked.clear()
        if full and 1 not in pids and processes_are_hidden(self._procfs):
            self._refuse()
            return
        for pid in pids:
            if pid == self._own_pid:
                continue
            try:
                yield from self._look(pid, full=full, absent_at=before)
            except OSError as error:
                self._seen.pop(pid, None)
                self._held.drop(pid)
                if error.errno in _REFUSALS:
                    if not self._passes_over(pid):
                        self._refuse()
                        return
                elif not is_gone(error):
                    raise
            yield
        self._protected.intersection_update(pids)
        for pid in self._seen.keys() - set(pids):
            del self._seen[pid]
            self._held.drop(pid)
        self._listed_at, self._is_whole = listed_at, True
        if full:
            self._is_refused = False
            self.full_walks += 1

    def _look(self, pid: int, *, full: bool, absent_at: float | None) -> Iterator[None]:
        """One process. Raises OSError."""
        status = os.stat(f"{self._root}/{pid}/fd")  # noqa: PTH116 - a Path object for each would double the cost
        number = status.st_size if self._has_numbers else -1
        seen = self._seen.get(pid)
        if seen is not None and seen.instance != status.st_ino:
            self._held.drop(pid)
            seen = None
        if seen is None:
            before: dict[tuple[int, str], float | None] = {}
        elif not full and (seen.number == number or number > GIANT_DESCRIPTORS):
            return
        else:
            before = {(old.number, old.node): old.absent_at_seconds for old in self._held.of(pid)}
            absent_at = seen.walked_at_seconds
        walked_at = self._now
        names = self._names(pid, number)
        if names is None:
            self._seen[pid] = _Seen(status.st_ino, number, None)
            return
        held: list[Descriptor] = []
        counts: Counter[str] = Counter()
        is_all = True
        for place, name in enumerate(names, 1):
            node = self._node(pid, name)
            if node is not None and name.isdigit():
                if counts[node] < OF_ONE_NODE and len(held) < OF_ONE_SHARER:
                    since = before.get((int(name), node), absent_at)
                    held.append(Descriptor(pid=pid, number=int(name), node=node, absent_at_seconds=since))
                    counts[node] += 1
                else:
                    is_all = False
            if place % _DESCRIPTORS_AT_A_TIME == 0:
                yield
        if held:
            sharer = sharer_of(read_cgroup(f"{self._root}/{pid}"))
            is_all = self._held.keep(pid, held, sharer) and is_all
        else:
            self._held.drop(pid)
        self._seen[pid] = _Seen(status.st_ino, number, walked_at if is_all else None)

    def _names(self, pid: int, number: int) -> list[str] | None:
        """Of all its descriptors; None: they are too many, and what is known of them stays. Raises OSError."""
        if number == 0:  # kernel threads
            return []
        if self._is_too_much(pid, number):
            return None
        names = os.listdir(f"{self._root}/{pid}/fd")  # noqa: PTH208
        return names if self._has_numbers or not self._is_too_much(pid, len(names)) else None

    def _is_too_much(self, pid: int, number: int) -> bool:
        """Whether so many descriptors of its sharer were looked at that those of this process have to wait."""
        if number <= MANY_DESCRIPTORS:
            return False
        sharer = sharer_of(read_cgroup(f"{self._root}/{pid}"))
        if self._walked[sharer] + number <= WALKED_OF_ONE_SHARER:
            self._walked[sharer] += number
            return False
        self._tell_once(
            logging.INFO,
            "%s has too many files open to look at them all: what it does on a GPU may be told of nobody",
            printable(sharer),
        )
        return True

    def _node(self, pid: int, name: str) -> str | None:
        try:
            return node_of(os.readlink(self._link(pid, name)))  # noqa: PTH115
        except OSError as error:
            if is_gone(error):  # closed meanwhile
                return None
            raise

    def _link(self, pid: int, name: str | int) -> str:
        return f"{self._root}/{pid}/fd/{name}"

    def _passes_over(self, pid: int) -> bool:
        """Whether to go on without a process that refuses. With all rights that there are, yes: something else protects
        it, a security module or a sandbox, and that must not hide all others. But not many: then the rights do not hold
        for the processes of this machine (a user namespace of our own).
        """
        if pid not in self._protected and may_look_into_all(self._root):
            self._protected.add(pid)
            self._tell_once(
                logging.INFO,
                "process %d cannot be looked into, whatever the rights; if it uses a GPU, that is not seen,"
                " and so with others that are protected like it",
                pid,
            )
        return pid in self._protected and len(self._protected) <= PROTECTED_PROCESSES

    def _refuse(self) -> None:
        self._complain(
            "who uses the GPUs that NVML does not know is not told: other users' processes may not be looked into"
            " (run as root, or with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH)"
        )

    def _complain(self, complaint: str) -> None:
        """What is known is not whole. The full walks go on trying."""
        self._tell_once(logging.WARNING, complaint)
        self._is_refused = True

    def _tell_once(self, level: int, message: str, *about: object) -> None:
        """Processes come and go as anybody likes, and so may the reasons for a line."""
        if message not in self._told:
            _log.log(level, message, *about)
        self._told.add(message)


def numbers_are_told(procfs: str) -> bool:
    """Whether the size of /proc/PID/fd is the number of descriptors; asked of ourselves.

    A few may be opened or closed by other threads meanwhile; listing opens one.
    """
    try:
        told = os.stat(f"{procfs}/self/fd").st_size  # noqa: PTH116
        there = len(os.listdir(f"{procfs}/self/fd"))  # noqa: PTH208
    except OSError as error:
        _log.debug("%s/self/fd: %s", procfs, error)
        return False
    return told > 0 and abs(told - there) <= 8


def may_look_into_all(procfs: str) -> bool:
    """Whether we have CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH (or CAP_DAC_OVERRIDE), which all descriptors take."""
    try:
        found = _CAPABILITIES.search(read_file(f"{procfs}/self/status", _STATUS_LIMIT_BYTES))
    except OSError as error:
        _log.debug("%s/self/status: %s", procfs, error)
        return False
    held = int(found[1], 16) if found else 0
    return bool(held & _CAP_SYS_PTRACE and held & (_CAP_DAC_READ_SEARCH | _CAP_DAC_OVERRIDE))
