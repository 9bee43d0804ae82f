"""Who uses the cards and the CPU: asked of /proc once a tick, in a thread of its own."""

import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from gpuwhyd.model import (
    GpuReading,
    GpuUse,
    HostReading,
    HostUse,
    ProcessExit,
    ProcessIdentity,
)
from gpuwhyd.worker import LateError, Worker

log = logging.getLogger(__name__)


class Processes(Protocol):
    """Who a pid is and when it ended; called from one worker thread. See processes.table.ProcessTable."""

    def identify_all(self, pids: Iterable[int]) -> dict[int, ProcessIdentity]: ...

    def exits(self, boottime_seconds: float) -> tuple[ProcessExit, ...]: ...

    def forget_idle(self, in_use: Collection[int]) -> None: ...

    def close(self) -> None: ...


class GpuUsers(Protocol):
    """Who uses the cards whose backends cannot tell; called from the same thread. See processes.gpu_users."""

    def complete(self, readings: tuple[GpuReading, ...], boottime_seconds: float) -> tuple[GpuReading, ...]:
        """The same readings, with `processes` where they were `None` and it can be told."""
        ...

    def close(self) -> None: ...


class Host(Protocol):
    """The CPU side of the machine; called from the same thread. See processes.host."""

    def read(self, readings: tuple[GpuReading, ...], boottime_seconds: float) -> HostReading | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """In one tick."""

    readings: tuple[GpuReading, ...]
    uses: tuple[GpuUse, ...] = ()
    exits: tuple[ProcessExit, ...] = ()
    host: HostReading | None = None
    host_uses: tuple[HostUse, ...] = ()
    hidden: bool = True


class Who:
    """Joins the readings with who the processes are. Everything but `find` and `close` runs in the worker's thread."""

    def __init__(
        self,
        processes: Processes,
        *,
        processes_hidden: Callable[[], bool],
        gpu_users: GpuUsers | None,
        host: Host | None,
    ) -> None:
        """`processes_hidden` may read files."""
        self._processes = processes
        self._processes_hidden = processes_hidden
        self._gpu_users = gpu_users
        self._host = host
        self._worker = Worker("processes")
        self._nameless = False
        self._exits: list[ProcessExit] = []
        """Not yet told: what is noticed too late for one tick is told with the next."""
        self._uses: dict[tuple[str, int], GpuUse] = {}
        """Of the last tick: most go on unchanged. Only the worker's thread touches it."""

    async def find(
        self, readings: tuple[GpuReading, ...], boottime_seconds: float, deadline_seconds: float
    ) -> Found:
        """Reading /proc can block too (a command line, while its process is being torn down)."""
        try:
            if self._worker.is_busy:
                raise LateError
            found = await self._worker.call(
                lambda: self._identify(readings, boottime_seconds), deadline_seconds
            )
        except LateError:
            if not self._nameless:
                log.warning("reading /proc blocks; who uses the GPUs is not known until it returns")
        except Exception:  # readings are worth having without names
            if not self._nameless:
                log.exception("who uses the GPUs is not known: a fault of gpuwhyd, please report it")
        else:
            self._nameless = False
            self._exits.clear()
            return found
        self._nameless = True
        return Found(readings=tuple(replace(reading, processes=None) for reading in readings))

    def close(self) -> None:
        """Lets go of the processes, unless a read of them hangs; ends the thread."""
        if not self._worker.is_busy:
            self._processes.close()
            if self._gpu_users is not None:
                self._gpu_users.close()
        self._worker.rest()

    def _identify(self, readings: tuple[GpuReading, ...], boottime_seconds: float) -> Found:
        """In the worker thread."""
        if self._gpu_users is not None:
            readings = self._gpu_users.complete(readings, boottime_seconds)
        host = self._host.read(readings, boottime_seconds) if self._host is not None else None
        on_cpu = (host.processes or ()) if host is not None else ()
        pids = {process.pid for reading in readings for process in reading.processes or ()}
        pids.update(process.pid for process in on_cpu)
        known = self._processes.identify_all(pids)
        before, self._uses = self._uses, {}
        for reading in readings:
            gpu_id = reading.gpu.id
            for process in reading.processes or ():
                identity, place = known.get(process.pid), (gpu_id, process.pid)
                if identity is None:
                    continue
                use = before.get(place)
                if use is None or use.use is not process or use.process is not identity:
                    use = GpuUse(gpu_id=gpu_id, process=identity, use=process)
                self._uses[place] = use
        self._exits += self._processes.exits(boottime_seconds)
        self._processes.forget_idle(known)
        return Found(
            readings=readings,
            uses=tuple(self._uses.values()),
            exits=tuple(self._exits),
            host=host,
            host_uses=tuple(HostUse(process=known[p.pid], use=p) for p in on_cpu if p.pid in known),
            hidden=self._processes_hidden(),
        )
