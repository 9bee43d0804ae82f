"""Refresh and Reload: the two methods that make the daemon do something, and answer when it is done."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from gpuwhyd.bus.messages import MethodCall
from gpuwhyd.errors import ConfigError, GpuwhydError
from gpuwhyd.outputs.dbus_contract import own_error
from gpuwhyd.outputs.dbus_dispatch import Body

_log = logging.getLogger(__name__)

FRESH_SECONDS = 0.5
"""A younger sample answers Refresh: so many callers in a row cost two samples a second, not one each."""
REFRESH_SECONDS = 10.0
"""Twice the default deadline of a backend."""


class DaemonRequests:
    """The work belongs to the daemon, not to the caller: it goes on when the caller or the bus goes away.

    `sample_age` gives the seconds since the last report, `None` before the first; `permit` raises CallError for a
    caller that may not reload.
    """

    def __init__(
        self,
        *,
        refresh: Callable[[], Awaitable[None]],
        reload: Callable[[], Awaitable[None]],
        sample_age: Callable[[], float | None],
        permit: Callable[[MethodCall], Awaitable[None]],
    ) -> None:
        self._refresh_now = refresh
        self._reload_now = reload
        self._sample_age = sample_age
        self._permit = permit
        self._refreshing: asyncio.Task[None] | None = None
        self._reloading = asyncio.Lock()
        self._work: set[asyncio.Task[None]] = set()
        self._senders: set[str] = set()

    async def refresh(self, _call: MethodCall) -> Body:
        age = self._sample_age()
        if age is not None and age < FRESH_SECONDS:
            return ()
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = self._start(self._refresh_now())
        done, _ = await asyncio.wait({self._refreshing}, timeout=REFRESH_SECONDS)
        if not done:
            raise own_error(
                "Failed",
                f"no sample within {REFRESH_SECONDS:g} s; `gpuwhy doctor` tells which backend is late",
            )
        _check(done.pop(), "no sample was taken")
        return ()

    async def reload(self, call: MethodCall) -> Body:
        if call.sender in self._senders:
            raise own_error("TooManyRequests", "your last Reload has not been answered yet")
        self._senders.add(call.sender)
        try:
            await self._permit(call)
            task = self._start(self._reload_in_turn())
            await asyncio.wait({task})
            _check(task, "the configuration was not reloaded")
        finally:
            self._senders.discard(call.sender)
        return ()

    async def close(self) -> None:
        for task in tuple(self._work):
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)

    async def _reload_in_turn(self) -> None:
        # Two at once must not share one result: the file may have changed after the first had read it.
        async with self._reloading:
            await self._reload_now()

    def _start(self, work: Awaitable[None]) -> asyncio.Task[None]:
        async def run() -> None:
            await work

        task = asyncio.create_task(run())
        self._work.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and not isinstance(error, GpuwhydError):
            _log.error("a request over D-Bus failed", exc_info=error)


def _check(task: asyncio.Task[None], failure: str) -> None:
    """Raises CallError for what went wrong; a bug's own text stays in the journal."""
    if task.cancelled():
        raise own_error("Failed", f"{failure}: gpuwhyd is stopping")
    error = task.exception()
    if error is None:
        return
    if isinstance(error, ConfigError):
        raise own_error("ConfigInvalid", str(error)) from error
    if isinstance(error, GpuwhydError):
        raise own_error("Failed", str(error)) from error
    raise own_error(
        "Failed", f"{failure}: gpuwhyd made a mistake; `journalctl -u gpuwhyd` has the details"
    ) from error
