"""The tick: a backend that hangs, fails, appears later or has a fault leaves everything else going on."""

import asyncio
import re
import threading
from collections.abc import Callable, Collection, Coroutine, Iterable
from dataclasses import replace
from typing import Any

import pytest

from gpuwhyd.backends.base import BackendReadings, Probe, ProbeResult
from gpuwhyd.backends.deferred import Deferred
from gpuwhyd.backends.watch import FIRST_RETRY_SECONDS, LATER_SECONDS, BackendWatch
from gpuwhyd.errors import BackendError, NoCardError
from gpuwhyd.model import (
    BackendState,
    GpuIdentity,
    GpuProcess,
    GpuReading,
    GpuState,
    ProcessExit,
    ProcessIdentity,
    Program,
    ProgramKind,
    Snapshot,
)
from gpuwhyd.sampler import Sampler, SamplingSettings

PATIENT = SamplingSettings(deadline_seconds=10)
SHORT = SamplingSettings(deadline_seconds=0.05)
"""Where something hangs anyway; elsewhere a busy machine must not look like a hang."""


class ScriptedBackend:
    """Hardware as a test wants it: each read does what `then` says at that moment."""

    def __init__(self, name: str = "scripted") -> None:
        self.name = name
        self.probe_answer = ProbeResult(answer=Probe.READY)
        self.then: Callable[[], BackendReadings] = self.good
        self.state = GpuState.AWAKE
        self.pids: tuple[int, ...] = ()
        self.reads = self.probes = self.closes = 0

    def good(self) -> BackendReadings:
        gpu = GpuIdentity(id=f"{self.name}_0", name="card", vendor="test")
        processes = tuple(GpuProcess(pid=pid) for pid in self.pids)
        return BackendReadings(
            readings=(GpuReading(gpu=gpu, backend=self.name, state=self.state, processes=processes),)
        )

    def probe(self) -> ProbeResult:
        self.probes += 1
        return self.probe_answer

    def read(self) -> BackendReadings:
        self.reads += 1
        return self.then()

    def close(self) -> None:
        self.closes += 1


class KnownProcesses:
    """A machine with these processes."""

    def __init__(self, *pids: int) -> None:
        self.pids = set(pids)
        self.ended: set[int] = set()
        self.look_up: Callable[[], None] = lambda: None

    def identify_all(self, pids: Iterable[int]) -> dict[int, ProcessIdentity]:
        self.look_up()
        return {pid: a_process(pid) for pid in pids if pid in self.pids}

    def exits(self, boottime_seconds: float) -> tuple[ProcessExit, ...]:
        ended, self.ended = self.ended, set()
        return tuple(ProcessExit(process=a_process(pid), boottime_seconds=boottime_seconds) for pid in ended)

    def forget_idle(self, in_use: Collection[int]) -> None:
        pass

    def close(self) -> None:
        pass


def a_process(pid: int) -> ProcessIdentity:
    program = Program(kind=ProgramKind.PROCESS, key=f"process:{pid}:1", name="p")
    return ProcessIdentity(pid=pid, start_ticks=1, name="p", program=program)


class SleepingClock:
    """Time passes only by sleeping, and sleeping takes none."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def boottime_seconds(self) -> float:
        return self.now

    def wall_usec(self) -> int:
        return round(self.now * 1e6)

    def real_duration(self, seconds: float) -> float:
        self.slept.append(seconds)
        self.now += seconds
        return 0.0


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 20))


async def take(sampler: Sampler, count: int) -> list[Snapshot]:
    taken: list[Snapshot] = []
    snapshots = sampler.snapshots()
    async for snapshot in snapshots:
        taken.append(snapshot)
        if len(taken) == count:
            break
    await snapshots.aclose()  # type: ignore[attr-defined]
    return taken


async def ask(watch: BackendWatch) -> tuple[GpuReading, ...]:
    """As the sampler does, with a second's patience."""
    return await watch.ask(1) if watch.is_due() else ()


async def until(holds: Callable[[], bool]) -> None:
    """`run` ends it where it never does."""
    while not holds():
        await asyncio.sleep(0)


async def settled(watch: BackendWatch) -> None:
    """Nothing that it was asked is unanswered."""
    await until(lambda: not watch._worker.is_busy and not watch._is_on_trial())


def build(*backends: ScriptedBackend, clock: SleepingClock | None = None, **parts: Any) -> Sampler:
    parts.setdefault("settings", PATIENT)
    parts.setdefault("processes", KnownProcesses())
    return Sampler(backends=backends, clock=clock or SleepingClock(), **parts)


def test_a_backend_that_hangs_is_failing_and_the_others_are_read() -> None:
    async def test() -> None:
        release, now = threading.Event(), [0.0]
        stuck, well = ScriptedBackend("stuck"), ScriptedBackend("well")

        def hang() -> BackendReadings:
            release.wait(10)
            return stuck.good()

        stuck.then = hang
        sampler = build(stuck, well, settings=SHORT, monotonic_seconds=lambda: now[0])
        for snapshot in await take(sampler, 3):
            states = {health.name: health.state for health in snapshot.backends}
            assert states == {"stuck": BackendState.FAILING, "well": BackendState.READY}
            assert [reading.backend for reading in snapshot.readings] == ["well"]
        assert stuck.reads == 1, "a hung call must not be made again beside itself"
        stuck.then = stuck.good
        release.set()
        await settled(sampler._watches["stuck"])
        now[0] += FIRST_RETRY_SECONDS
        await take(sampler, 1)
        await settled(sampler._watches["stuck"])
        (snapshot,) = await take(sampler, 1)
        assert {reading.backend for reading in snapshot.readings} == {"stuck", "well"}
        await sampler.close()

    run(test())


class SlowBackend(ScriptedBackend):
    """A driver that answers when it is told to, each time anew."""

    def __init__(self, name: str = "slow") -> None:
        super().__init__(name)
        self.then = self.slow
        self.answers = threading.Semaphore(0)

    def slow(self) -> BackendReadings:
        assert self.answers.acquire(timeout=20)
        return self.good()


def test_a_late_backend_is_tried_again_after_growing_pauses_and_keeps_what_it_holds() -> None:
    async def test() -> None:
        backend, now = SlowBackend(), [0.0]
        watch = BackendWatch(backend, lambda: now[0])
        for reads, seconds in enumerate((2, 4, 8, 16, 32, 60, 60), start=1):
            assert watch.is_due()
            assert await watch.ask(0) == ()
            await until(lambda reads=reads: backend.reads == reads and not watch._is_on_trial())
            assert not watch.is_due(), "it has not come back"
            assert "has not returned" in watch.health.message
            backend.answers.release()
            await settled(watch)
            now[0] += seconds - 0.1
            assert not watch.is_due()
            assert watch.health.state is BackendState.FAILING
            assert watch.health.message == "a driver call took too long; `dmesg` may tell why"
            now[0] += 0.1
        assert backend.closes == 0
        await watch.close(1)

    run(test())


def test_a_driver_that_is_slow_every_time_holds_up_the_others_once() -> None:
    async def test() -> None:
        slow, well, now = SlowBackend(), ScriptedBackend("well"), [0.0]
        sampler = build(slow, well, settings=SHORT, monotonic_seconds=lambda: now[0])
        await take(sampler, 1)
        slow.answers.release()
        await settled(sampler._watches["slow"])
        sampler.reconfigure(SamplingSettings(deadline_seconds=3600))
        now[0] += FIRST_RETRY_SECONDS
        assert who_reads(await take(sampler, 3)) == [["well"]] * 3, "and none of them has waited"
        await until(lambda: slow.reads == 2)
        await sampler.close()
        slow.answers.release()

    run(test())


def test_a_backend_that_was_late_is_read_again_as_soon_as_it_has_answered_in_time() -> None:
    async def test() -> None:
        backend, now = SlowBackend(), [0.0]
        watch = BackendWatch(backend, lambda: now[0])
        await watch.ask(0)
        backend.answers.release()
        await settled(watch)
        backend.then = backend.good
        now[0] += FIRST_RETRY_SECONDS
        assert await ask(watch) == ()
        await settled(watch)
        assert watch.health.state is BackendState.FAILING, (
            "whoever is ready and lists no card says that it has gone"
        )
        assert len(await ask(watch)) == 1
        assert watch.health.state is BackendState.READY
        await watch.close(1)

    run(test())


def test_pauses_grow_on_while_a_backend_is_in_time_only_when_it_is_tried() -> None:
    async def test() -> None:
        backend, now = SlowBackend(), [0.0]
        watch = BackendWatch(backend, lambda: now[0])
        for seconds in (2, 4, 8):
            backend.then = backend.slow
            assert await watch.ask(0) == ()
            backend.answers.release()
            await settled(watch)
            backend.then = backend.good
            now[0] += seconds - 0.1
            assert not watch.is_due()
            now[0] += 0.1
            assert await ask(watch) == ()
            await settled(watch)
            assert watch.is_due()
        assert len(await ask(watch)) == 1
        backend.then = backend.slow
        await watch.ask(0)
        backend.answers.release()
        await settled(watch)
        now[0] += FIRST_RETRY_SECONDS
        assert watch.is_due(), "it was in time with a tick, and so begins anew"
        await watch.close(1)

    run(test())


def test_no_tick_waits_again_for_a_driver_that_is_slow_to_let_go() -> None:
    async def test() -> None:
        backend, now, release = ScriptedBackend(), [0.0], threading.Event()
        backend.then = failing
        backend.close = lambda: release.wait(20) and None  # type: ignore[method-assign]
        watch = BackendWatch(backend, lambda: now[0])
        await watch.ask(0.05)
        release.set()
        await settled(watch)
        release.clear()
        now[0] += FIRST_RETRY_SECONDS
        assert watch.is_due()
        assert await watch.ask(3600) == ()
        await until(lambda: backend.reads == 2)
        assert watch._is_on_trial()
        release.set()
        await settled(watch)
        await watch.close(1)

    run(test())


def test_a_sampler_ends_while_a_backend_that_was_late_is_tried() -> None:
    async def test() -> None:
        backend, now = SlowBackend(), [0.0]
        sampler = build(backend, settings=SHORT, monotonic_seconds=lambda: now[0])
        await take(sampler, 1)
        backend.answers.release()
        await settled(sampler._watches["slow"])
        now[0] += FIRST_RETRY_SECONDS
        sampler.reconfigure(SamplingSettings(deadline_seconds=3600))
        await take(sampler, 1)
        await until(lambda: backend.reads == 2)
        await sampler.close()
        backend.answers.release()
        await until(lambda: not sampler._watches["slow"]._worker.is_busy)
        assert backend.closes == 0

    run(test())


def test_a_daemon_can_end_while_a_driver_call_hangs() -> None:
    async def test() -> None:
        stuck, release = ScriptedBackend(), threading.Event()
        stuck.then = lambda: (release.wait(10), stuck.good())[1]
        sampler = build(stuck, settings=SHORT)
        await take(sampler, 1)
        await asyncio.wait_for(sampler.close(), 1)
        release.set()

    run(test())


def test_a_failed_read_closes_backs_off_and_starts_over_with_a_probe() -> None:
    async def test() -> None:
        backend, now = ScriptedBackend(), [0.0]

        def fail() -> BackendReadings:
            raise BackendError("the driver is being reloaded")

        watch = BackendWatch(backend, lambda: now[0])
        assert await ask(watch)
        backend.then = fail
        for seconds in (2, 4, 8, 16, 32, 60, 60):
            reads = backend.reads
            assert await ask(watch) == ()
            assert backend.reads == reads + 1
            assert watch.health.state is BackendState.FAILING
            assert watch.health.message == "the driver is being reloaded"
            now[0] += seconds - 0.1
            assert await ask(watch) == ()
            assert backend.reads == reads + 1, "it must not be asked while it backs off"
            now[0] += 0.1
        assert backend.closes == 7
        backend.then = backend.good
        assert await ask(watch)
        assert watch.health.state is BackendState.READY
        await watch.close(1)

    run(test())


def test_a_library_that_appears_later_is_found() -> None:
    async def test() -> None:
        backend, now = ScriptedBackend(), [0.0]
        backend.probe_answer = ProbeResult(answer=Probe.LATER, message="no library yet")
        watch = BackendWatch(backend, lambda: now[0])
        assert await ask(watch) == ()
        assert (watch.health.state, watch.health.message) == (BackendState.WAITING, "no library yet")
        assert await ask(watch) == ()
        assert backend.probes == 1
        backend.probe_answer = ProbeResult(answer=Probe.READY)
        now[0] += LATER_SECONDS
        assert await ask(watch)
        await watch.close(1)

    run(test())


def test_a_backend_that_can_never_work_is_not_asked_again() -> None:
    async def test() -> None:
        backend = ScriptedBackend()
        backend.probe_answer = ProbeResult(answer=Probe.NEVER, message="not on this machine")
        sampler = build(backend)
        snapshots = await take(sampler, 5)
        assert snapshots[-1].backends[0].state is BackendState.ABSENT
        assert backend.probes == 1
        await sampler.close()

    run(test())


def test_a_fault_of_ours_in_one_backend_does_not_end_sampling(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        broken, well = ScriptedBackend("broken"), ScriptedBackend("well")
        broken.then = lambda: {}["no"]
        sampler = build(broken, well)
        snapshots = await take(sampler, 3)
        assert [reading.backend for reading in snapshots[-1].readings] == ["well"]
        await sampler.close()

    run(test())
    assert caplog.text.count("please report it") == 1


def test_a_backends_own_timeout_error_is_a_failure_not_a_hang() -> None:
    async def test() -> None:
        backend = ScriptedBackend()

        def etimedout() -> BackendReadings:
            raise TimeoutError(110, "Connection timed out")

        backend.then = etimedout
        sampler = build(backend)
        (snapshot,) = await take(sampler, 1)
        assert snapshot.backends[0].state is BackendState.FAILING
        assert "has not returned" not in snapshot.backends[0].message
        await sampler.close()

    run(test())


def test_processes_are_joined_and_those_that_are_gone_left_out() -> None:
    async def test() -> None:
        backend = ScriptedBackend()
        backend.pids = (5, 6)
        sampler = build(backend, processes=KnownProcesses(5))
        (snapshot,) = await take(sampler, 1)
        assert [use.process.pid for use in snapshot.uses] == [5]
        await sampler.close()

    run(test())


def test_a_use_is_kept_until_the_process_or_what_it_does_changes() -> None:
    async def test() -> None:
        backend, processes, identity = ScriptedBackend(), KnownProcesses(), a_process(5)
        processes.identify_all = lambda _pids: {5: identity}  # type: ignore[method-assign]
        reading = replace(backend.good().readings[0], processes=(GpuProcess(pid=5),))
        backend.then = lambda: BackendReadings(readings=(reading,))
        sampler = build(backend, processes=processes)
        first, second = await take(sampler, 2)
        assert second.uses[0] is first.uses[0]
        reading = replace(reading, processes=(GpuProcess(pid=5, engine_percent=90.0),))
        (third,) = await take(sampler, 1)
        assert third.uses[0].use.engine_percent == 90.0
        identity = replace(identity, start_ticks=2)
        (fourth,) = await take(sampler, 1)
        assert fourth.uses[0].process.start_ticks == 2
        reading = replace(reading, processes=())
        (fifth,) = await take(sampler, 1)
        assert fifth.uses == ()
        await sampler.close()

    run(test())


def test_a_proc_that_blocks_leaves_the_cards_users_unknown_not_absent() -> None:
    async def test() -> None:
        release, backend, processes = threading.Event(), ScriptedBackend(), KnownProcesses(5)
        backend.pids = (5,)
        processes.look_up = lambda: release.wait(10) and None
        sampler = build(backend, processes=processes, settings=SHORT)
        for snapshot in await take(sampler, 2):
            assert snapshot.readings[0].processes is None
            assert snapshot.uses == ()
            assert snapshot.processes_hidden, "what cannot be looked up must not be told to all"
        release.set()
        while sampler._who._worker.is_busy:
            await asyncio.sleep(0)
        (snapshot,) = await take(sampler, 1)
        assert [use.process.pid for use in snapshot.uses] == [5]
        await sampler.close()

    run(test())


def test_an_end_that_was_noticed_too_late_for_its_tick_is_told_with_the_next() -> None:
    async def test() -> None:
        release, processes = threading.Event(), KnownProcesses()
        processes.ended = {5}
        processes.look_up = lambda: release.wait(10) and None
        sampler = build(ScriptedBackend(), processes=processes, settings=SHORT)
        assert (await take(sampler, 1))[0].exits == ()
        release.set()
        while sampler._who._worker.is_busy:
            await asyncio.sleep(0)
        first, second = await take(sampler, 2)
        assert [ended.process.pid for ended in first.exits] == [5]
        assert second.exits == ()
        await sampler.close()

    run(test())


def test_a_fault_of_ours_in_looking_up_processes_does_not_end_sampling(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        backend, processes = ScriptedBackend(), KnownProcesses(5)
        backend.pids = (5,)
        processes.look_up = lambda: {}["no"]
        sampler = build(backend, processes=processes)
        for snapshot in await take(sampler, 3):
            assert snapshot.readings[0].processes is None
            assert snapshot.processes_hidden
        processes.look_up = lambda: None
        assert (await take(sampler, 1))[0].uses
        await sampler.close()

    run(test())
    assert caplog.text.count("please report it") == 1


def test_ticks_come_faster_while_a_fan_moves_and_slower_while_all_cards_sleep() -> None:
    async def test() -> None:
        clock, backend = SleepingClock(), ScriptedBackend()
        sampler = build(backend, clock=clock, settings=SamplingSettings())
        await take(sampler, 2)
        sampler.fan_moves = True
        await take(sampler, 2)
        backend.state, sampler.fan_moves = GpuState.ASLEEP, False
        await take(sampler, 2)
        assert clock.slept == [2.0, 1.0, 10.0]
        await sampler.close()

    run(test())


def test_refreshes_that_meet_share_one_sample() -> None:
    async def test() -> None:
        backend, clock = ScriptedBackend(), SleepingClock()
        clock.real_duration = lambda _seconds: 3600.0  # type: ignore[method-assign]
        sampler = build(backend, clock=clock)
        seen: list[Snapshot] = []

        async def consume() -> None:
            async for snapshot in sampler.snapshots():
                seen.append(snapshot)  # noqa: PERF401 - it never ends

        consumer = asyncio.create_task(consume())
        while not seen:
            await asyncio.sleep(0)
        await asyncio.gather(*(sampler.refresh() for _ in range(50)))
        assert len(seen) == 2
        consumer.cancel()
        await asyncio.gather(consumer, return_exceptions=True)
        await sampler.close()

    run(test())


def test_sampling_pauses_while_the_machine_goes_to_sleep_and_marks_the_first_snapshot_after() -> None:
    async def test() -> None:
        backend = ScriptedBackend()
        sampler = build(backend)
        await take(sampler, 1)
        sampler.on_sleep(True)
        waiting = asyncio.create_task(take(sampler, 2))
        for _ in range(20):
            await asyncio.sleep(0)
        assert backend.reads == 1
        sampler.on_sleep(False)
        first, second = await waiting
        assert (first.resumed, second.resumed) == (True, False)
        await sampler.close()

    run(test())


def test_who_is_told_to_stop_in_the_moment_of_a_resume_stops() -> None:
    async def test() -> None:
        sampler = build(ScriptedBackend())
        sampler.on_sleep(True)
        taking = asyncio.create_task(take(sampler, 1_000_000))
        await asyncio.sleep(0)
        sampler.on_sleep(False)
        taking.cancel()
        done, _ = await asyncio.wait({taking}, timeout=10)
        assert done
        assert taking.cancelled()
        await sampler.close()

    run(test())


def test_a_suspend_is_noticed_by_the_clocks_alone() -> None:
    async def test() -> None:
        slept = [0.0]
        sampler = build(ScriptedBackend(), suspended_seconds=lambda: slept[0])
        assert not (await take(sampler, 1))[0].resumed
        slept[0] += 3600
        assert [snapshot.resumed for snapshot in await take(sampler, 2)] == [True, False]
        await sampler.close()

    run(test())


def test_a_suspend_that_is_told_and_seen_is_marked_once() -> None:
    async def test() -> None:
        slept = [0.0]
        sampler = build(ScriptedBackend(), suspended_seconds=lambda: slept[0])
        await take(sampler, 1)
        slept[0] += 3600
        sampler.on_sleep(True)
        sampler.on_sleep(False)
        assert [snapshot.resumed for snapshot in await take(sampler, 3)] == [True, False, False]
        await sampler.close()

    run(test())


def test_threads_end_with_the_sampler() -> None:
    async def test() -> None:
        sampler = build(ScriptedBackend("one"), ScriptedBackend("two"))
        await take(sampler, 1)
        names = {"backend-one", "backend-two", "processes"}
        workers = [thread for thread in threading.enumerate() if thread.name in names]
        assert len(workers) == len(names)
        await sampler.close()
        for thread in workers:
            await asyncio.to_thread(thread.join, 5)
            assert not thread.is_alive()

    run(test())


# -- fallbacks ----------------------------------------------------------------------------------------------------


def the_same_card(*backends: ScriptedBackend) -> None:
    for backend in backends:
        gpu = GpuIdentity(id="pci_0000_01_00_0", name="card", vendor="test")
        reading = GpuReading(gpu=gpu, backend=backend.name)
        backend.good = lambda reading=reading: BackendReadings(readings=(reading,))  # type: ignore[method-assign]
        backend.then = backend.good


def failing() -> BackendReadings:
    raise BackendError("no")


def who_reads(snapshots: list[Snapshot]) -> list[list[str]]:
    return [[reading.backend for reading in snapshot.readings] for snapshot in snapshots]


@pytest.mark.parametrize("fallback_first", [True, False])
def test_a_fallback_is_not_asked_while_the_better_backend_works(fallback_first: bool) -> None:
    async def test() -> None:
        better, fallback = ScriptedBackend("better"), ScriptedBackend("fallback")
        the_same_card(better, fallback)
        order = (fallback, better) if fallback_first else (better, fallback)
        sampler = build(*order, instead_of={"fallback": "better"})
        snapshots = await take(sampler, 3)
        assert who_reads(snapshots) == [["better"]] * 3
        assert (fallback.probes, fallback.reads) == (0, 0), "not even at the start"
        health = {health.name: health for health in snapshots[-1].backends}["fallback"]
        assert (health.state, health.message) == (BackendState.WAITING, "not needed while better works")
        await sampler.close()

    run(test())


def test_a_fallback_takes_over_while_the_better_backend_fails_and_lets_go_when_it_is_back() -> None:
    async def test() -> None:
        better, fallback, now = ScriptedBackend("better"), ScriptedBackend("fallback"), [0.0]
        the_same_card(better, fallback)
        sampler = build(better, fallback, instead_of={"fallback": "better"}, monotonic_seconds=lambda: now[0])
        await take(sampler, 1)
        better.then = failing
        assert who_reads(await take(sampler, 3))[1:] == [["fallback"]] * 2
        assert fallback.closes == 0
        better.then = better.good
        now[0] += FIRST_RETRY_SECONDS
        snapshots = await take(sampler, 3)
        assert who_reads(snapshots)[1:] == [["better"]] * 2
        reads = fallback.reads
        assert fallback.closes == 1, "it must hold nothing of the card"
        await take(sampler, 2)
        assert (fallback.reads, fallback.closes) == (reads, 1)
        better.then = failing
        assert who_reads(await take(sampler, 3))[1:] == [["fallback"]] * 2, "and again"
        await sampler.close()

    run(test())


@pytest.mark.parametrize("answer", [Probe.LATER, Probe.NEVER])
def test_a_fallback_reads_where_the_better_backend_is_not_there(answer: Probe) -> None:
    async def test() -> None:
        better, fallback = ScriptedBackend("better"), ScriptedBackend("fallback")
        better.probe_answer = ProbeResult(answer=answer)
        sampler = build(better, fallback, instead_of={"fallback": "better"})
        assert who_reads(await take(sampler, 2))[1] == ["fallback"]
        await sampler.close()

    run(test())


def test_a_fallback_stays_out_while_the_better_backend_has_let_its_cards_sleep() -> None:
    async def test() -> None:
        better, fallback = ScriptedBackend("better"), ScriptedBackend("fallback")
        better.then = lambda: replace(better.good(), state=BackendState.ASLEEP)
        sampler = build(better, fallback, instead_of={"fallback": "better"})
        await take(sampler, 3)
        assert fallback.probes == 0, "it would wake them"
        await sampler.close()

    run(test())


def test_a_fallback_whose_better_backend_is_disabled_is_asked_like_any_other() -> None:
    async def test() -> None:
        fallback = ScriptedBackend("fallback")
        sampler = build(fallback, instead_of={"fallback": "better"})
        assert who_reads(await take(sampler, 1)) == [["fallback"]]
        await sampler.close()

    run(test())


def test_a_fallback_that_hangs_is_not_closed_until_it_answers() -> None:
    async def test() -> None:
        release, now = threading.Event(), [0.0]
        better, fallback = ScriptedBackend("better"), ScriptedBackend("fallback")
        better.then = failing
        sampler = build(
            better,
            fallback,
            instead_of={"fallback": "better"},
            settings=SHORT,
            monotonic_seconds=lambda: now[0],
        )
        await take(sampler, 2)
        fallback.then = lambda: (release.wait(10), fallback.good())[1]
        await take(sampler, 1)
        better.then = better.good
        now[0] += FIRST_RETRY_SECONDS
        await take(sampler, 2)
        assert fallback.closes == 0
        release.set()
        await settled(sampler._watches["fallback"])
        await take(sampler, 1)
        assert fallback.closes == 1
        await sampler.close()

    run(test())


# -- something was plugged, unplugged or loaded -------------------------------------------------------------------


def gone() -> BackendReadings:
    raise NoCardError("no card is left")


def test_a_backend_whose_last_card_has_gone_waits_for_the_next_and_does_not_fail() -> None:
    async def test() -> None:
        backend, now = ScriptedBackend(), [0.0]
        watch = BackendWatch(backend, lambda: now[0])
        assert await ask(watch)
        assert not watch.health.has_no_card
        backend.then = gone
        assert await ask(watch) == ()
        health = watch.health
        assert (health.state, health.message, health.has_no_card) == (
            BackendState.WAITING,
            "no card is left",
            True,
        )
        assert backend.closes == 1
        backend.then = backend.good
        now[0] += LATER_SECONDS
        assert await ask(watch)
        assert not watch.health.has_no_card
        await watch.close(1)

    run(test())


def test_only_who_has_looked_says_that_there_is_no_card() -> None:
    async def test() -> None:
        backend, now = ScriptedBackend(), [0.0]
        backend.probe_answer = ProbeResult(answer=Probe.LATER, message="no library")
        sampler = build(backend, monotonic_seconds=lambda: now[0])
        assert [health.has_no_card for health in (await take(sampler, 1))[0].backends] == [False]
        backend.probe_answer = ProbeResult(answer=Probe.LATER, message="no card", no_card=True)
        now[0] += LATER_SECONDS
        assert [health.has_no_card for health in (await take(sampler, 1))[0].backends] == [True]
        await sampler.close()

    run(test())


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (ProbeResult(answer=Probe.LATER, message="none on the bus", no_card=True), "no GPU found; .* lspci"),
        (ProbeResult(answer=Probe.NEVER, message="no hwmon"), "no GPU found; .* lspci"),
        (ProbeResult(answer=Probe.LATER, message="load it"), "no GPU can be read. scripted: load it"),
        (ProbeResult(answer=Probe.READY), None),
    ],
)
def test_a_machine_without_a_gpu_is_told_once_in_the_log(
    answer: ProbeResult, told: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        backend = ScriptedBackend()
        backend.probe_answer = answer
        sampler = build(backend)
        await take(sampler, 3)
        await sampler.close()

    run(test())
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(lines) == (0 if told is None else 1)
    assert all(re.match(told or "", line) for line in lines)


@pytest.mark.parametrize("fails", [True, False])
def test_what_may_be_there_now_is_tried_at_once_but_never_more_often_than_a_first_retry(fails: bool) -> None:
    async def test() -> None:
        backend, now = ScriptedBackend(), [0.0]
        backend.then = failing
        if not fails:
            backend.probe_answer = ProbeResult(answer=Probe.LATER)
        watch = BackendWatch(backend, lambda: now[0])
        for _ in range(6):  # a failure's backoff is at a minute then
            now[0] += 60.0
            await ask(watch)
        now[0] += 3.0
        assert not watch.is_due()
        watch.look_anew()
        assert watch.is_due()
        probes = backend.probes
        for _ in range(100):  # a flood of ten seconds
            watch.look_anew()
            await ask(watch)
            now[0] += 0.1
        assert backend.probes - probes == 5
        backend.then, backend.probe_answer = backend.good, ProbeResult(answer=Probe.READY)
        now[0] += FIRST_RETRY_SECONDS
        assert await ask(watch), "the backoff began anew with the last change"
        await watch.close(1)

    run(test())


def test_what_can_never_work_and_what_works_are_left_alone() -> None:
    async def test() -> None:
        never, well = ScriptedBackend("never"), ScriptedBackend("well")
        never.probe_answer = ProbeResult(answer=Probe.NEVER)
        sampler = build(never, well)
        await take(sampler, 1)
        sampler.look_anew()
        await take(sampler, 2)
        assert (never.probes, well.probes) == (1, 1)
        await sampler.close()

    run(test())


def test_a_change_brings_a_tick_forward_that_asks_who_has_waited() -> None:
    async def test() -> None:
        waiting, clock, now = ScriptedBackend(), SleepingClock(), [0.0]
        waiting.probe_answer = ProbeResult(answer=Probe.LATER)
        clock.real_duration = lambda _seconds: 3600.0  # type: ignore[method-assign]
        sampler = build(waiting, clock=clock, monotonic_seconds=lambda: now[0])
        snapshots = sampler.snapshots()
        first = await anext(snapshots)
        second = asyncio.create_task(anext(snapshots))
        waiting.probe_answer = ProbeResult(answer=Probe.READY)
        now[0] += FIRST_RETRY_SECONDS
        await asyncio.sleep(0)  # it rests until the next tick
        sampler.look_anew()
        assert who_reads([first, await second]) == [[], ["scripted"]]
        await snapshots.aclose()  # type: ignore[attr-defined]
        await sampler.close()

    run(test())


def test_a_backend_that_has_nothing_to_read_keeps_no_thread() -> None:
    """Most backends have no card on most machines; a thread for each would cost memory all day."""

    def names() -> set[str]:
        return {thread.name for thread in threading.enumerate()}

    async def look() -> None:
        absent = ScriptedBackend("absent")
        absent.probe_answer = ProbeResult(answer=Probe.LATER)
        sampler = build(absent, ScriptedBackend("present"))
        row = sampler.snapshots()
        await anext(row)
        while "backend-absent" in names():
            await asyncio.sleep(0.001)
        assert "backend-present" in names()
        await row.aclose()
        await sampler.close()

    asyncio.run(asyncio.wait_for(look(), 10))


def test_a_backend_without_a_card_is_looked_for_without_a_thread_and_starts_when_there_is_one() -> None:
    """There are six of them on most machines, and each is looked for every ten seconds."""
    absent, made, asked_in = ["no card"], ScriptedBackend(), list[str]()

    def no_card() -> str:
        asked_in.append(threading.current_thread().name)
        return absent[0]

    async def look() -> None:
        now = [0.0]
        watch = BackendWatch(Deferred("deferred", no_card=no_card, make=lambda: made), lambda: now[0])
        assert await ask(watch) == ()
        assert (watch.health.state, watch.health.message) == (BackendState.WAITING, "no card")
        assert watch.health.has_no_card
        assert watch.was_asked
        assert "backend-deferred" not in {thread.name for thread in threading.enumerate()}
        absent[0] = ""
        assert await ask(watch) == ()  # it is not time yet
        assert asked_in == [threading.current_thread().name]
        now[0] = LATER_SECONDS
        assert len(await ask(watch)) == 1
        assert (made.probes, watch.health.state) == (1, BackendState.READY)
        await watch.close(1)

    run(look())


def test_a_fault_while_a_card_is_looked_for_is_that_backends_own() -> None:
    """It is met outside the worker first, where nobody would survive it for the other backends."""

    def no_card() -> str:
        raise ValueError("a fault of ours")

    async def look() -> None:
        watch = BackendWatch(Deferred("deferred", no_card=no_card, make=ScriptedBackend), lambda: 0.0)
        assert watch.is_due()
        assert await ask(watch) == ()
        assert watch.health.state is BackendState.FAILING
        assert "a fault of ours" in watch.health.message
        await watch.close(1)

    run(look())
