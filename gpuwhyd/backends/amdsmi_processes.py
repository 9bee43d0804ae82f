"""Who uses an AMD card, by AMD's library: the processes that have its compute driver (KFD) open. Pure but for the call.

What the library says of a process is weaker than it looks, and is served only where it holds:
 - engine time is fdinfo's of one descriptor, in nanoseconds of graphics; compute through KFD is not in it. So 0 means
   "not known", unless the number of occupied compute units says that nothing runs.
 - memory is not served: the library counts fdinfo's KiB as 1000 bytes and a client once for each descriptor.
 - until ROCm 10 a process is listed on cards that it does not use, with nothing in any field; until then other users'
   processes may be hidden from the unprivileged.
"""

import ctypes
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gpuwhyd.backends.amdsmi_questions import INSUFFICIENT_SIZE, OUT_OF_RESOURCES
from gpuwhyd.model import GpuProcess

_OCCUPANCY_UNKNOWN = 0xFFFF_FFFF
_MOST_PROCESSES = 4096
_FIRST_ROOM = 32
_GROWING_LIST_TRIES = 3
_JITTER_PERCENT = 105.0
"""So much more than all the time there is comes from two clocks that were not read at the same moment."""
_NANO = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the library says of one process on one card."""

    pid: int
    graphics_ns: int = 0
    encoder_ns: int = 0
    memory_bytes: int = 0
    occupied_units: int | None = None
    """Compute units at work at this moment; None when the card or the library cannot tell."""

    @property
    def is_empty(self) -> bool:
        return not (self.graphics_ns or self.encoder_ns or self.memory_bytes or self.occupied_units)


class ProcessList:
    """The library's list of one card, with room that grows as needed; for as long as the card's handle lives.

    The wrapper's own function makes room for 1024 processes (700 KiB) in each call and fails as a whole when one name
    is no UTF-8, which any user can bring about.
    """

    def __init__(self, wrapper: Any, handle: Any) -> None:
        self._function = wrapper.amdsmi_get_gpu_process_list
        self._entry = wrapper.amdsmi_proc_info_t
        self._handle = handle
        self._count = ctypes.c_uint32()
        self._room = (self._entry * _FIRST_ROOM)()

    def fetch(self) -> int:
        """The library's status code."""
        code = INSUFFICIENT_SIZE
        for _ in range(_GROWING_LIST_TRIES):
            self._count.value = len(self._room)
            code = int(self._function(self._handle, ctypes.byref(self._count), self._room))
            needed = self._count.value
            if code not in {OUT_OF_RESOURCES, INSUFFICIENT_SIZE} and needed <= len(self._room):
                return code
            self._room = (self._entry * min(max(2 * len(self._room), needed + 8), _MOST_PROCESSES))()
        return code if code != 0 else INSUFFICIENT_SIZE

    def entries(self) -> tuple[Entry, ...]:
        """Of the last successful fetch."""
        return tuple(_entry(self._room[place]) for place in range(min(self._count.value, len(self._room))))


def _entry(info: Any) -> Entry:
    memory, engines = info.memory_usage, info.engine_usage
    occupied = getattr(info, "cu_occupancy", _OCCUPANCY_UNKNOWN)  # since ROCm 6.4
    return Entry(
        pid=info.pid,
        graphics_ns=engines.gfx,
        encoder_ns=engines.enc,
        memory_bytes=info.mem + memory.vram_mem + memory.gtt_mem + memory.cpu_mem,
        occupied_units=None if occupied == _OCCUPANCY_UNKNOWN else occupied,
    )


def without_strangers(lists: Mapping[str, tuple[Entry, ...]]) -> dict[str, tuple[Entry, ...]]:
    """The lists of all cards without the entries of processes that have nothing here and something on another card."""
    at_home = {entry.pid for entries in lists.values() for entry in entries if not entry.is_empty}
    return {
        card: tuple(entry for entry in entries if not entry.is_empty or entry.pid not in at_home)
        for card, entries in lists.items()
    }


class ProcessWork:
    """From one list of a card to the next: what each process made it work meanwhile."""

    def __init__(self) -> None:
        self._before: dict[int, Entry] = {}
        self._seconds = 0.0
        self._seen_working: set[int] = set()

    def restart(self) -> None:
        """After a gap."""
        self._before = {}

    def weigh(self, entries: Iterable[Entry], *, own_pid: int, seconds: float) -> tuple[GpuProcess, ...]:
        """All processes but our own, by pid. `own_pid`: opening /dev/kfd makes us one. `seconds`: monotonic, of the list."""
        elapsed, self._seconds = seconds - self._seconds, seconds
        before, self._before = self._before, {}
        for entry in entries:
            if entry.pid not in (0, own_pid):
                self._before[entry.pid] = entry
        self._seen_working &= self._before.keys()
        return tuple(
            self._process(entry, before.get(pid), elapsed) for pid, entry in sorted(self._before.items())
        )

    def _process(self, entry: Entry, before: Entry | None, elapsed: float) -> GpuProcess:
        graphics = _percent(entry.graphics_ns, before.graphics_ns if before else None, elapsed)
        encoder = _percent(entry.encoder_ns, before.encoder_ns if before else None, elapsed)
        if graphics or encoder or entry.occupied_units:
            self._seen_working.add(entry.pid)
        rests = entry.occupied_units == 0 and entry.pid not in self._seen_working
        return GpuProcess(
            pid=entry.pid,
            kind="holder" if rests else "compute",
            engine_percent=graphics or (0.0 if graphics == 0.0 and entry.occupied_units == 0 else None),
            encoder_percent=encoder if entry.encoder_ns else None,
        )


def _percent(now_ns: int, before_ns: int | None, elapsed_seconds: float) -> float | None:
    """None when it cannot be told: the first time, and when the counter went back or ran faster than time."""
    if before_ns is None or elapsed_seconds <= 0:
        return None
    percent = (now_ns - before_ns) * _NANO / elapsed_seconds * 100.0
    return min(percent, 100.0) if 0.0 <= percent <= _JITTER_PERCENT else None
