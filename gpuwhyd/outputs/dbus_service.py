"""The daemon on D-Bus: owns org.gpuwhyd1, answers from the last report, tells everyone what changed.

The other half of `dbus/org.gpuwhyd1.*.xml`. The bus may go away and come back at any time: sampling and journal go on
meanwhile, and the new bus is told everything anew.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from gpuwhyd.bus.connection import BusConnection
from gpuwhyd.bus.messages import MethodCall, SignalMatch
from gpuwhyd.errors import BusError
from gpuwhyd.model import FieldSource, Report
from gpuwhyd.outputs import dbus_views as views
from gpuwhyd.outputs.dbus_announce import Announcer
from gpuwhyd.outputs.dbus_authorization import require_reload_permission
from gpuwhyd.outputs.dbus_contract import BUS_NAME, GPU, MANAGER, ROOT_PATH, CallError, gpu_path, own_error
from gpuwhyd.outputs.dbus_dispatch import Body, Dispatcher, Objects, Served
from gpuwhyd.outputs.dbus_events import EventsReader
from gpuwhyd.outputs.dbus_manager import ManagerViews
from gpuwhyd.outputs.dbus_privacy import ANYONE, Viewer
from gpuwhyd.outputs.dbus_requests import DaemonRequests
from gpuwhyd.outputs.history import History

_log = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 0.25
LONGEST_RETRY_SECONDS = 10.0
UNFINISHED_PER_SENDER = 16
UNFINISHED = 256

ANSWER_LIMIT_BYTES = 64 << 10
"""All that the service asks the bus, logind and polkit is answered in less: the longest is the credentials of a peer with
its groups, of which Linux allows 65536 and nobody has 1000."""

_DBUS = "org.freedesktop.DBus"
_LOGIND = "org.freedesktop.login1"


class BusService:
    """An Output. `run` is to be a task of its own; `serving` is set while the name is ours.

    `reload` and `refresh` do their work and return when it is done, `health` gives what GetHealth answers, `sources` where
    the readings of all GPUs come from, `sample_interval_seconds` the present interval, asked for with every report;
    `on_sleep` is told True before the machine sleeps and False after (only with `follow_logind`: on the system bus).
    `clock` gives seconds; how often is announced goes by it.
    """

    def __init__(
        self,
        *,
        address: str,
        history: History,
        reload: Callable[[], Awaitable[None]],
        refresh: Callable[[], Awaitable[None]],
        health: Callable[[], dict[str, object]],
        sources: Callable[[], tuple[FieldSource, ...]],
        sample_interval_seconds: Callable[[], float],
        on_sleep: Callable[[bool], None] = lambda _going_to_sleep: None,
        follow_logind: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.serving = asyncio.Event()
        self._address = address
        self._on_sleep = on_sleep
        self._follow_logind = follow_logind
        self._clock = clock
        self._report: Report | None = None
        self._reported_at: float | None = None
        self._connection: BusConnection | None = None
        self._announcer: Announcer | None = None
        self._announcing_fails = False
        self._unfinished: dict[asyncio.Task[None], str] = {}
        self._sample_interval_seconds = sample_interval_seconds
        self._views = ManagerViews(
            current=self._current,
            viewer=self._viewer,
            health=health,
            sources=sources,
            sample_interval_seconds=sample_interval_seconds,
        )
        self._events = EventsReader(history=history, current=self._current, viewer=self._viewer)
        self._requests = DaemonRequests(
            refresh=refresh, reload=reload, sample_age=self._sample_age, permit=self._permit_reload
        )
        self._manager = Served(
            methods={
                **self._views.methods(),
                "GetEvents": self._events.get_events,
                "Refresh": self._requests.refresh,
                "Reload": self._requests.reload,
            },
            properties=lambda: views.manager_properties(self._report, sample_interval_seconds()),
        )
        self._dispatcher = Dispatcher(self._objects, ROOT_PATH)

    async def run(self) -> None:
        """Serves until cancelled; connects again for ever, waiting up to 10 s between attempts."""
        retry_seconds = FIRST_RETRY_SECONDS
        told = ""
        while True:
            try:
                reason, retry_seconds, told = await self._serve_once(), FIRST_RETRY_SECONDS, ""
            except BusError as error:
                reason = _in_words(error)
            if reason != told:
                _log.warning("not on D-Bus, trying again: %s", reason)
                told = reason
            await asyncio.sleep(retry_seconds)
            retry_seconds = min(retry_seconds * 2, LONGEST_RETRY_SECONDS)

    async def publish(self, report: Report) -> None:
        self._report = report
        self._reported_at = self._clock()
        self._announce(report)

    async def close(self) -> None:
        """Ends what is going on; the name goes with the connection, which `run` closes when it is cancelled."""
        self._events.close()
        await self._requests.close()
        await self._end_unfinished()

    async def _serve_once(self) -> str:
        """From connecting to losing the connection or the name; gives the reason. Raises BusError."""
        connection = await self._connect()
        try:
            self._connection = connection
            connection.set_handler(self._on_call)
            name_lost = await self._subscribe(connection)
            await connection.request_name(BUS_NAME)
            self._announcer = Announcer(connection)
            if self._report is not None:
                # What happened while the bus was away is in the journal; a signal tells what happens now.
                self._announce(self._report, with_events=False)
            self.serving.set()
            _log.info("serving %s on the bus %s with %s", BUS_NAME, self._address, connection.library)
            return await _first(connection.disconnected(), name_lost.wait())
        finally:
            self.serving.clear()
            self._announcer = None
            self._connection = None
            await self._end_unfinished()
            await connection.close()

    async def _connect(self) -> BusConnection:
        try:
            return await BusConnection.connect(self._address, reply_limit_bytes=ANSWER_LIMIT_BYTES)
        except BusError as error:
            if self._address != "session":
                raise
            remedy = "where there is none: dbus-run-session gpuwhyd --bus session; script/demo brings its own"
            raise BusError(f"{error}; {remedy}") from error

    def _announce(self, report: Report, *, with_events: bool = True) -> None:
        if self._announcer is None:
            return
        interval = self._sample_interval_seconds()
        try:
            self._announcer.announce(report, interval, now_seconds=self._clock(), with_events=with_events)
            self._announcing_fails = False
        except Exception:  # noqa: BLE001 - a fault in what is shown must not end sampling and journal; it is logged
            if not self._announcing_fails:
                _log.exception("a report could not be announced on D-Bus")
            self._announcing_fails = True

    async def _subscribe(self, connection: BusConnection) -> asyncio.Event:
        """Follows logind if so wished; gives the event that our name is taken away."""
        name_lost = asyncio.Event()

        def on_name_lost(_path: str, body: tuple[object, ...]) -> None:
            if body == (BUS_NAME,):
                name_lost.set()

        def on_prepare_for_sleep(_path: str, body: tuple[object, ...]) -> None:
            match body:
                case (bool(going_to_sleep),):
                    self._on_sleep(going_to_sleep)
                case _:
                    _log.warning("logind's PrepareForSleep came as %r", body)

        lost = SignalMatch(sender=_DBUS, path="/org/freedesktop/DBus", interface=_DBUS, member="NameLost")
        await connection.subscribe(lost, on_name_lost)
        if self._follow_logind:
            sleep = SignalMatch(
                sender=_LOGIND,
                path="/org/freedesktop/login1",
                interface="org.freedesktop.login1.Manager",
                member="PrepareForSleep",
            )
            await connection.subscribe(sleep, on_prepare_for_sleep)
        return name_lost

    def _objects(self) -> Objects:
        report = self._report
        objects = {ROOT_PATH: {MANAGER: self._manager}}
        if report is not None:
            for gpu_id, reading in views.readings_by_id(report).items():
                properties = lambda reading=reading: views.gpu_properties(report, reading)  # noqa: E731 - bound to this GPU
                objects[gpu_path(gpu_id)] = {GPU: Served(properties=properties)}
        return objects

    def _on_call(self, call: MethodCall) -> None:
        connection = self._connection
        if connection is None:
            return
        try:
            signature, answer = self._dispatcher.answer(call)
            if isinstance(answer, Coroutine):
                self._start(connection, call, signature, answer)
            else:
                connection.reply(call, signature, answer)
        except CallError as error:
            connection.error(call, error.name, str(error))

    def _start(
        self, connection: BusConnection, call: MethodCall, signature: str, answer: Coroutine[Any, Any, Body]
    ) -> None:
        if (
            len(self._unfinished) >= UNFINISHED
            or Counter(self._unfinished.values())[call.sender] >= UNFINISHED_PER_SENDER
        ):
            answer.close()
            raise own_error("TooManyRequests", "too many of your calls are not answered yet; wait for them")
        task = asyncio.create_task(self._answer_later(connection, call, signature, answer))
        self._unfinished[task] = call.sender

        def finished(task: asyncio.Task[None]) -> None:
            del self._unfinished[task]
            answer.close()  # a task that is cancelled before its first step has not begun to await it

        task.add_done_callback(finished)

    async def _answer_later(
        self,
        connection: BusConnection,
        call: MethodCall,
        signature: str,
        answer: Coroutine[Any, Any, Body],
    ) -> None:
        try:
            connection.reply(call, signature, await answer)
        except CallError as error:
            connection.error(call, error.name, str(error))
        except Exception:  # noqa: BLE001 - one faulty answer must not cost the caller its reply; it is logged
            _log.exception("fault while answering D-Bus method %s", call.member)
            text = "gpuwhyd made a mistake; `journalctl -u gpuwhyd` has the details"
            connection.error(call, own_error("Failed", text).name, text)

    async def _end_unfinished(self) -> None:
        tasks = tuple(self._unfinished)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _current(self) -> Report | None:
        return self._report

    def _sample_age(self) -> float | None:
        if self._reported_at is None:
            return None
        return self._clock() - self._reported_at

    async def _viewer(self, sender: str) -> Viewer:
        """Who cannot be identified sees what everyone may see."""
        if self._connection is None:
            return ANYONE
        try:
            return Viewer(uid=(await self._connection.credentials(sender)).uid)
        except BusError as error:
            _log.debug("%s is nobody: %s", sender, error)
            return ANYONE

    async def _permit_reload(self, call: MethodCall) -> None:
        if self._connection is None:
            raise own_error("NotAuthorized", "the bus is gone")
        await require_reload_permission(self._connection, call)


async def _first(disconnected: Coroutine[Any, Any, str], name_lost: Coroutine[Any, Any, object]) -> str:
    """The reason why serving ends: whichever comes first."""
    lost = asyncio.ensure_future(disconnected)
    taken = asyncio.ensure_future(name_lost)
    try:
        await asyncio.wait({lost, taken}, return_when=asyncio.FIRST_COMPLETED)
        return lost.result() if lost.done() else f"the name {BUS_NAME} was taken away"
    finally:
        lost.cancel()
        taken.cancel()


def _in_words(error: BusError) -> str:
    """The same at each attempt, so that it is logged once: the bus's own text names the connection of the attempt."""
    if error.name != f"{_DBUS}.Error.AccessDenied":
        return str(error)
    return (
        f"the bus lets nobody but root own {BUS_NAME}, and root by the policy that `gpuwhyd install` puts there: "
        "systemctl start gpuwhyd. As a plain user: gpuwhyd --bus session"
    )
