"""Which processes keep the CPU busy, by the difference between two looks at all of them.

A process is told apart by pid and start time. What a child has used goes over to its parent when that has waited for it
(proc(5), `cutime`): so a build is seen as its `make`, although no compiler lives long enough to be looked at twice.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from heapq import nlargest

from gpuwhyd.kernel_files import read_once
from gpuwhyd.model import HostProcess

MOST_PROCESSES = 10
LEAST_PERCENT = 1.0
"""Of the whole machine; less heats nothing."""
_STAT_LIMIT_BYTES = 4096
_MOST_DIGITS = 20
_MOST_ANCESTORS = 64
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class CpuTime:
    """Of one process, in clock ticks. `children` are the ones it has waited for, with theirs."""

    start: int
    parent: int
    own: int
    children: int

    @property
    def total(self) -> int:
        return self.own + self.children


_NOTHING = CpuTime(start=0, parent=0, own=0, children=0)


def parse_cpu_time(raw: bytes) -> CpuTime | None:
    """Of a line of /proc/PID/stat, whose name is whatever the process chose; it ends at the last parenthesis."""
    fields = raw[raw.rfind(b")") + 1 :].split()
    if len(fields) < 20:
        return None
    # fields 4, 14 to 17 and 22 of proc(5); the first one behind the name is field 3
    wanted = (fields[1], *fields[11:15], fields[19])
    if not all(field.isdigit() and len(field) <= _MOST_DIGITS for field in wanted):
        return None
    parent, user, system, children_user, children_system, start = map(int, wanted)
    return CpuTime(start=start, parent=parent, own=user + system, children=children_user + children_system)


class BusyProcesses:
    """Not thread-safe. Remembers every process of the machine from one look to the next, until `forget`."""

    def __init__(self, procfs: str) -> None:
        self._procfs = procfs
        self._before: dict[int, CpuTime] = {}

    def look(self, pids: Iterable[int], machine_seconds: float) -> tuple[HostProcess, ...] | None:
        """The busiest since the last look, the busiest first; `None` the first time.

        `machine_seconds`: CPU time of all CPUs together that has passed since then, idle or not.
        """
        now = {pid: time for pid in pids if (time := self._read(pid)) is not None}
        before, self._before = self._before, now
        if not before or machine_seconds <= 0:
            return None
        percent_per_tick = 100.0 / (_TICKS_PER_SECOND * machine_seconds)
        busy = {pid: min(100.0, ticks * percent_per_tick) for pid, ticks in _spent(before, now).items()}
        busiest = nlargest(MOST_PROCESSES, busy, key=busy.__getitem__)
        return tuple(
            HostProcess(pid=pid, cpu_percent=busy[pid]) for pid in busiest if busy[pid] >= LEAST_PERCENT
        )

    def forget(self) -> None:
        self._before = {}

    def _read(self, pid: int) -> CpuTime | None:
        """One file, one read: that time, start and parent are of one process. `None` when it has ended meanwhile."""
        try:
            return parse_cpu_time(read_once(f"{self._procfs}/{pid}/stat", _STAT_LIMIT_BYTES))
        except OSError:  # it has ended, or is not for us to see
            return None


def _spent(before: dict[int, CpuTime], now: dict[int, CpuTime]) -> dict[int, int]:
    """Ticks by pid between two looks. A process that was not there before has used all of its own since."""
    own: dict[int, int] = {}
    inherited: dict[int, int] = {}
    for pid, time in now.items():
        old = before.get(pid)
        if old is None or old.start != time.start:
            old = _NOTHING
        own[pid] = max(0, time.own - old.own)
        inherited[pid] = max(0, time.children - old.children)
    for pid, old in before.items():
        if pid in now and now[pid].start == old.start:
            continue
        # It has ended. What it used before the last look was counted then, and is no new work of who waited for it.
        heir = _living_ancestor(old, before, now)
        if heir is not None:
            inherited[heir] = max(0, inherited[heir] - old.total)
    return {pid: own[pid] + inherited[pid] for pid in now}


def _living_ancestor(ended: CpuTime, before: dict[int, CpuTime], now: dict[int, CpuTime]) -> int | None:
    pid = ended.parent
    for _ in range(_MOST_ANCESTORS):
        ancestor = before.get(pid)
        if ancestor is None:
            return None
        if pid in now and now[pid].start == ancestor.start:
            return pid
        pid = ancestor.parent
    return None
