"""The tick: every backend is asked off the event loop with a deadline, and joined with who the processes are."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from gpuwhyd.backends.base import Backend
from gpuwhyd.backends.watch import BackendWatch
from gpuwhyd.model import GpuReading, GpuState, GpuUse, ProcessExit, ProcessIdentity, Snapshot
from gpuwhyd.worker import LateError, Worker

log = logging.getLogger(__name__)

LONGEST_PAUSE_SECONDS = 20.0
"""Sampling stops while the machine goes to sleep, but never for longer: the word that it is back may be lost."""
SLEPT_SECONDS = 1.0
"""CLOCK_BOOTTIME ahead of CLOCK_MONOTONIC by this much more than before: the machine was suspended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSettings:
    interval_seconds: float = 2.0
    fast_interval_seconds: float = 1.0
    """While a fan moves."""
    asleep_interval_seconds: float = 10.0
    """While every GPU sleeps."""
    deadline_seconds: float = 5.0
    """A backend that has not answered by then is failing; everything else goes on."""
    disabled_backends: tuple[str, ...] = ()


class Clock(Protocol):
    """Time as the engine sees it; a simulation runs faster."""

    def boottime_seconds(self) -> float: ...

    def wall_usec(self) -> int: ...

    def real_duration(self, seconds: float) -> float:
        """How many seconds of real time so many of this clock take."""
        ...


class SystemClock:
    def boottime_seconds(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall_usec(self) -> int:
        return time.time_ns() // 1000

    def real_duration(self, seconds: float) -> float:
        return seconds


class Processes(Protocol):
    """Who a pid is and when it ended; called from one worker thread. See processes.table.ProcessTable."""

    def identify_all(self, pids: Iterable[int]) -> dict[int, ProcessIdentity]: ...

    def exits(self, boottime_seconds: float) -> tuple[ProcessExit, ...]: ...

    def forget_idle(self, in_use: Collection[int]) -> None: ...

    def close(self) -> None: ...


class Sampler:
    """`async for snapshot in sampler.snapshots()`: one a tick, for ever.

    `fan_moves` is set by whoever knows, and makes the next ticks come faster.
    """

    def __init__(
        self,
        *,
        backends: Sequence[Backend],
        processes: Processes,
        clock: Clock,
        settings: SamplingSettings,
        processes_hidden: Callable[[], bool] = lambda: False,
        suspended_seconds: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """`suspended_seconds`: how long the machine has slept since boot; `processes_hidden`: may read files."""
        self.fan_moves = False
        self._settings = settings
        self._processes = processes
        self._clock = clock
        self._processes_hidden = processes_hidden
        self._suspended_seconds = suspended_seconds
        self._slept_before = suspended_seconds()
        self._watches = {backend.name: BackendWatch(backend, time.monotonic) for backend in backends}
        self._identifier: Worker[tuple[tuple[GpuUse, ...], tuple[ProcessExit, ...], bool]] = Worker(
            "processes"
        )
        self._wake = asyncio.Event()
        self._awake = asyncio.Event()
        self._awake.set()
        self._resumed = False
        self._all_asleep = False
        self._waiting: list[asyncio.Future[None]] = []
        self._nameless = False
        self._exits: list[ProcessExit] = []
        """Not yet told: what is noticed too late for one tick is told with the next."""
        self._uses: dict[tuple[str, int], GpuUse] = {}
        """Of the last tick: most go on unchanged. Only the worker's thread touches it."""

    @property
    def interval_seconds(self) -> float:
        """Until the next tick, as things are."""
        if self._all_asleep:
            return self._settings.asleep_interval_seconds
        return self._settings.fast_interval_seconds if self.fan_moves else self._settings.interval_seconds

    def reconfigure(self, settings: SamplingSettings) -> None:
        """From the next tick on; a backend that was enabled or disabled only by a restart."""
        self._settings = settings

    async def snapshots(self) -> AsyncIterator[Snapshot]:
        while True:
            await self._while_going_to_sleep()
            self._wake.clear()
            asked, self._waiting = self._waiting, []
            yield await self._snapshot()
            for future in asked:
                if not future.done():
                    future.set_result(None)
            if not self._waiting:
                await self._rest()

    async def refresh(self) -> None:
        """Returns when a snapshot that was begun after this call has been dealt with. Calls that meet share one."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._wake.set()
        await future

    def on_sleep(self, going_to_sleep: bool) -> None:
        """The machine is about to be suspended, or is back."""
        if going_to_sleep:
            self._awake.clear()
        else:
            self._resumed = True
            self._awake.set()
            self._wake.set()

    async def close(self) -> None:
        """Lets go of all hardware that answers."""
        deadline = self._settings.deadline_seconds
        await asyncio.gather(*(watch.close(min(deadline, 2.0)) for watch in self._watches.values()))
        if not self._identifier.is_busy:
            self._processes.close()
        self._identifier.stop()

    # -- one tick -------------------------------------------------------------------------------------------------

    async def _snapshot(self) -> Snapshot:
        deadline = self._settings.deadline_seconds
        due = [watch for watch in self._watches.values() if watch.is_due()]
        if (
            len(due) == 1
        ):  # the usual machine; a task each tick would cost more than the reading of a small card
            answers = [await due[0].ask(deadline)]
        else:
            answers = await asyncio.gather(*(watch.ask(deadline) for watch in due))
        readings = tuple(reading for answer in answers for reading in answer)
        boottime_seconds, wall_usec = self._clock.boottime_seconds(), self._clock.wall_usec()
        readings, uses, exits, hidden = await self._who(readings, boottime_seconds)
        states = {reading.state for reading in readings}
        self._all_asleep = states == {GpuState.ASLEEP}
        resumed, self._resumed = self._has_slept() or self._resumed, False
        return Snapshot(
            boottime_seconds=boottime_seconds,
            wall_usec=wall_usec,
            readings=readings,
            uses=uses,
            exits=exits,
            backends=tuple(watch.health for watch in self._watches.values()),
            resumed=resumed,
            processes_hidden=hidden,
        )

    async def _who(
        self, readings: tuple[GpuReading, ...], boottime_seconds: float
    ) -> tuple[tuple[GpuReading, ...], tuple[GpuUse, ...], tuple[ProcessExit, ...], bool]:
        """Reading /proc can block too (a command line, while its process is being torn down)."""
        try:
            if self._identifier.is_busy:
                raise LateError
            uses, exits, hidden = await self._identifier.call(
                lambda: self._identify(readings, boottime_seconds), self._settings.deadline_seconds
            )
        except LateError:
            if not self._nameless:
                log.warning("reading /proc blocks; who uses the GPUs is not known until it returns")
        except Exception:
            if not self._nameless:
                log.exception("who uses the GPUs is not known: a fault of gpuwhyd, please report it")
        else:
            self._nameless = False
            self._exits.clear()
            return readings, uses, exits, hidden
        self._nameless = True
        nameless = tuple(replace(reading, processes=None) for reading in readings)
        return nameless, (), (), True

    def _identify(
        self, readings: tuple[GpuReading, ...], boottime_seconds: float
    ) -> tuple[tuple[GpuUse, ...], tuple[ProcessExit, ...], bool]:
        """In the worker thread."""
        pids = {process.pid for reading in readings for process in reading.processes or ()}
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
        return tuple(self._uses.values()), tuple(self._exits), self._processes_hidden()

    def _has_slept(self) -> bool:
        slept = self._suspended_seconds()
        before, self._slept_before = self._slept_before, slept
        return slept - before > SLEPT_SECONDS

    async def _rest(self) -> None:
        """Until the next tick is due or somebody wants one now."""
        seconds = self._clock.real_duration(self.interval_seconds)
        alarm = asyncio.get_running_loop().call_later(seconds, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            alarm.cancel()

    async def _while_going_to_sleep(self) -> None:
        if self._awake.is_set():
            return
        try:
            await asyncio.wait_for(self._awake.wait(), LONGEST_PAUSE_SECONDS)
        except TimeoutError:
            self._awake.set()


def suspended_seconds() -> float:
    """How long the machine has been suspended since it booted: CLOCK_BOOTTIME runs on then, CLOCK_MONOTONIC stops."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
