"""A worker thread for calls that may block for ever."""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")


class LateError(TimeoutError):
    """The deadline has passed; apart from TimeoutError, because a job's own ETIMEDOUT is one."""


class Worker:
    """One daemon thread, one call at a time. It is started by the first call, and by the first after `rest`.

    A call that never returns keeps its thread, and nothing else: the process can still end, because the thread is a
    daemon thread (concurrent.futures would wait for it at exit).
    """

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = (
            queue.SimpleQueue()
        )
        self._name = name
        self._unfinished = 0
        self._has_thread = False

    @property
    def is_busy(self) -> bool:
        """Whether an earlier call has not come back yet."""
        return self._unfinished > 0

    async def call(self, job: Callable[[], T], deadline_seconds: float) -> T:
        """What `job` gives, run in the thread. LateError when it is late; its result is dropped then."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        # A timer of our own: asyncio.wait_for would make a task each time, and this is called several times a tick.
        timer = loop.call_later(deadline_seconds, _expire, future)
        self._unfinished += 1
        if not self._has_thread:
            self._has_thread = True
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        self._jobs.put((job, future))
        try:
            return await future
        finally:
            timer.cancel()

    def rest(self) -> None:
        """There will be no call for a while: the thread ends when its present call does, if ever."""
        if self._has_thread:
            self._has_thread = False
            self._jobs.put(None)

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, future = item
            try:
                result = job()
            except BaseException as error:  # noqa: BLE001 - whatever it is belongs to the caller, who gets it
                self._hand_over(future, future.set_exception, error)
            else:
                self._hand_over(future, future.set_result, result)

    def _hand_over(self, future: asyncio.Future[Any], finish: Callable[[Any], None], outcome: object) -> None:
        try:
            future.get_loop().call_soon_threadsafe(self._finish, future, finish, outcome)
        except RuntimeError:
            log.debug("a late answer found the daemon gone")

    def _finish(self, future: asyncio.Future[Any], finish: Callable[[Any], None], outcome: object) -> None:
        """In the loop's thread."""
        self._unfinished -= 1
        if not future.done():  # else it comes too late, or nobody wants it any more
            finish(outcome)


def _expire(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_exception(LateError())
