"""The tick: every backend is asked off the event loop with a deadline, and joined with who the processes are."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gpuwhyd.backends.base import Backend
from gpuwhyd.backends.merge import merged
from gpuwhyd.backends.watch import BackendWatch
from gpuwhyd.model import CHASSIS, BackendState, FieldSource, GpuState, Snapshot
from gpuwhyd.who import GpuUsers, Host, Processes, Who

_log = logging.getLogger(__name__)

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
        instead_of: Mapping[str, str] = {},
        gpu_users: GpuUsers | None = None,
        host: Host | None = None,
        monotonic_seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """`suspended_seconds`: how long the machine has slept since boot; `processes_hidden`: may read files.
        By `monotonic_seconds` backends are tried again: a driver's time is real, also where the engine's is not.

        `instead_of`: the name of a fallback -> the name of the backend that makes it needless.
        """
        self.fan_moves = False
        self._settings = settings
        self._clock = clock
        self._suspended_seconds = suspended_seconds
        self._slept_before = suspended_seconds()
        self._watches = {backend.name: BackendWatch(backend, monotonic_seconds) for backend in backends}
        self._instead_of = {
            name: self._watches[other] for name, other in instead_of.items() if other in self._watches
        }
        self._who = Who(processes, processes_hidden=processes_hidden, gpu_users=gpu_users, host=host)
        self._wake = asyncio.Event()
        self._awake = asyncio.Event()
        self._awake.set()
        self._resumed = False
        self._all_asleep = False
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def interval_seconds(self) -> float:
        """Until the next tick, as things are."""
        if self._all_asleep and not self.fan_moves:
            return self._settings.asleep_interval_seconds
        return self._settings.fast_interval_seconds if self.fan_moves else self._settings.interval_seconds

    def reconfigure(self, settings: SamplingSettings) -> None:
        """From the next tick on; a backend that was enabled or disabled only by a restart."""
        self._settings = settings

    async def snapshots(self) -> AsyncIterator[Snapshot]:
        is_first = True
        while True:
            await self._while_going_to_sleep()
            self._wake.clear()
            asked, self._waiting = self._waiting, []
            snapshot = await self._snapshot()
            if is_first and not snapshot.readings:
                _tell_why_there_is_none(snapshot)
            is_first = False
            yield snapshot
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

    def sources(self) -> tuple[FieldSource, ...]:
        """Where each quantity of each GPU was read last, and why one is missing."""
        return tuple(source for watch in self._watches.values() for source in watch.sources())

    def look_anew(self) -> None:
        """Something was plugged, unplugged or loaded: what was not there is looked for with a tick that comes now."""
        for watch in self._watches.values():
            watch.look_anew()
        self._wake.set()

    async def close(self) -> None:
        """Lets go of all hardware that answers."""
        deadline = self._settings.deadline_seconds
        await asyncio.gather(*(watch.close(min(deadline, 2.0)) for watch in self._watches.values()))
        self._who.close()

    # -- one tick -------------------------------------------------------------------------------------------------

    async def _snapshot(self) -> Snapshot:
        deadline = self._settings.deadline_seconds
        due = await self._due()
        # the usual machine; a task each tick would cost more than the reading of a small card
        if len(due) == 1:
            answers = [await due[0].ask(deadline)]
        else:
            answers = await asyncio.gather(*(watch.ask(deadline) for watch in due))
        readings = merged([reading for answer in answers for reading in answer])
        boottime_seconds, wall_usec = self._clock.boottime_seconds(), self._clock.wall_usec()
        who = await self._who.find(readings, boottime_seconds, deadline)
        # fans of the machine itself never sleep; on a laptop whose GPUs do they are looked at as seldom
        states = {reading.state for reading in who.readings if reading.gpu.vendor != CHASSIS}
        self._all_asleep = states == {GpuState.ASLEEP}
        resumed, self._resumed = self._has_slept() or self._resumed, False
        return Snapshot(
            boottime_seconds=boottime_seconds,
            wall_usec=wall_usec,
            readings=who.readings,
            uses=who.uses,
            exits=who.exits,
            host=who.host,
            host_uses=who.host_uses,
            backends=tuple(watch.health for watch in self._watches.values()),
            resumed=resumed,
            processes_hidden=who.hidden,
        )

    async def _due(self) -> list[BackendWatch]:
        """The backends to be asked now: a fallback only while that which it stands in for gives nothing."""
        due = []
        for name, watch in self._watches.items():
            better = self._instead_of.get(name)
            if better is not None and (
                not better.was_asked or better.health.state in {BackendState.READY, BackendState.ASLEEP}
            ):
                await watch.stand_by(
                    f"not needed while {better.health.name} works", self._settings.deadline_seconds
                )
            elif watch.is_due():
                due.append(watch)
        return due

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
            async with asyncio.timeout(LONGEST_PAUSE_SECONDS):
                await self._awake.wait()
        except TimeoutError:
            self._awake.set()


def _tell_why_there_is_none(snapshot: Snapshot) -> None:
    """To the log, where a machine without a GPU would else look like one where all is well. What fails is told by itself."""
    if any(one.state not in {BackendState.WAITING, BackendState.ABSENT} for one in snapshot.backends):
        return
    lacks = [
        f"{one.name}: {one.message}"
        for one in snapshot.backends
        if one.state is BackendState.WAITING and not one.has_no_card
    ]
    if lacks:
        _log.warning("no GPU can be read. %s", "; ".join(lacks))
    else:
        _log.warning(
            "no GPU found; it is taken up when it is there. Does lspci show the card, and lspci -k its driver in use?"
        )


def suspended_seconds() -> float:
    """How long the machine has been suspended since it booted: CLOCK_BOOTTIME runs on then, CLOCK_MONOTONIC stops."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
