"""A worker thread for calls that may block for ever."""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")


class Worker(Generic[T]):
    """One daemon thread, one call at a time.

    A call that never returns keeps its thread, and nothing else: the process can still end, because the thread is a
    daemon thread (concurrent.futures would wait for it at exit).
    """

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[tuple[Callable[[], T], asyncio.Future[T]] | None] = queue.SimpleQueue()
        self._busy: asyncio.Future[T] | None = None
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def is_busy(self) -> bool:
        """Whether an earlier call has not come back yet."""
        return self._busy is not None and not self._busy.done()

    async def call(self, job: Callable[[], T], deadline_seconds: float) -> T:
        """What `job` gives, run in the thread. TimeoutError when it is late; its result is dropped then."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        future.add_done_callback(_retrieve)
        self._busy = future
        self._jobs.put((job, future))
        return await asyncio.wait_for(asyncio.shield(future), deadline_seconds)

    def stop(self) -> None:
        """The thread ends when its present call does, if ever."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, future = item
            try:
                result = job()
            except BaseException as error:  # noqa: BLE001 - whatever it is belongs to the caller, who gets it
                _hand_over(future, lambda f, e=error: f.set_exception(e))  # type: ignore[misc]  # bound now
            else:
                _hand_over(future, lambda f, r=result: f.set_result(r))  # type: ignore[misc]  # bound now


def _hand_over(future: "asyncio.Future[T]", finish: "Callable[[asyncio.Future[T]], None]") -> None:
    def when_wanted() -> None:
        if not future.done():
            finish(future)

    try:
        future.get_loop().call_soon_threadsafe(when_wanted)
    except RuntimeError:
        log.debug("a late answer found the daemon gone")


def _retrieve(future: "asyncio.Future[T]") -> None:
    """A late call's exception is nobody's any more."""
    if not future.cancelled():
        future.exception()
