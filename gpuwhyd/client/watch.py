"""`gpuwhy watch`: a line for each thing that happens, as it happens; through restarts of the daemon and of the bus."""

import asyncio
import contextlib
import sys
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import cast

from gpuwhyd.client.answer import Options
from gpuwhyd.client.ask import MANAGER, AskError, BusLostError, Daemon, NotRunningError, Plain
from gpuwhyd.client.following import follow
from gpuwhyd.client.gpus import chosen_gpus, gpus_of
from gpuwhyd.client.happenings import (
    ALERT_SIGNALS,
    SPIKE_SIGNALS,
    event_message,
    event_style,
    event_title,
    from_alert_signal,
    from_gpu_signal,
    from_spike_signal,
)
from gpuwhyd.client.history import MOST_EVENTS
from gpuwhyd.client.quantities import clock, number
from gpuwhyd.client.terminal import Terminal, printable, wrap_below

_REMEMBERED_EVENTS = 1000
"""Events that were shown, so that one which comes as a signal and is also read back is not shown twice."""
_OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"


async def watch(options: Options) -> None:
    """Writes until nobody reads any more or it is cancelled.

    Raises AskError when the daemon cannot be asked at first. Later it waits for the daemon and the bus to come back, and
    then shows what happened meanwhile, as far as the daemon knows it.
    """
    watcher = _Watcher(options)
    await follow(options.bus, watcher.session, watcher.bus_lost)


class _Watcher:
    def __init__(self, options: Options) -> None:
        self._options = options
        self._gpu_path: object = None
        self._began = False
        self._known_gpus: set[object] = set()
        self._shown: deque[tuple[object, ...]] = deque(maxlen=_REMEMBERED_EVENTS)
        self._shown_until_usec = _now_usec()

    async def session(self, daemon: Daemon) -> None:
        """Follows the signals on one connection, for ever."""
        heard: asyncio.Queue[Plain] = asyncio.Queue()
        await self._listen(daemon, heard.put_nowait)
        try:
            await self._greet(daemon)
        except NotRunningError:
            if not self._began:
                raise
        while True:
            event = await heard.get()
            self._show(event)
            if event["event"] == "daemon-started":
                await self._catch_up(daemon)

    def bus_lost(self, error: BusLostError) -> None:
        if not self._began:
            raise error
        self._show(_own_event("bus-lost", f"{error}; waiting for it"))

    async def _listen(self, daemon: Daemon, heard: Callable[[Plain], None]) -> None:
        def owner_changed(is_there: bool) -> None:
            text = "gpuwhyd is back" if is_there else "gpuwhyd has stopped; waiting for it"
            heard(_own_event("daemon-started" if is_there else "daemon-stopped", text))

        def signal(
            read: Callable[[str, tuple[object, ...]], Plain], name: str, _path: str, body: tuple[object, ...]
        ) -> None:
            # of another version; the daemon's answers tell what it is about
            with contextlib.suppress(ValueError):
                heard({"wall_usec": _now_usec(), **read(name, body)})

        await daemon.listen_for_owner(owner_changed)
        for member, name in SPIKE_SIGNALS.items():
            await daemon.listen(MANAGER, member, partial(signal, from_spike_signal, name))
        for member, name in ALERT_SIGNALS.items():
            await daemon.listen(MANAGER, member, partial(signal, from_alert_signal, name))
        for member, name in (("InterfacesAdded", "gpu-added"), ("InterfacesRemoved", "gpu-removed")):
            await daemon.listen(_OBJECT_MANAGER, member, partial(signal, from_gpu_signal, name))

    async def _greet(self, daemon: Daemon) -> None:
        """The answer now as the first line; after the bus came back, also what was missed."""
        summary = await daemon.summary()
        if self._options.gpu is not None and self._gpu_path is None:
            self._gpu_path = chosen_gpus(summary, self._options.gpu)[0]["gpu"]
        self._known_gpus |= {gpu.get("gpu") for gpu in gpus_of(summary)}
        text = str(summary.get("headline") or "gpuwhyd is running")
        self._show(_own_event("bus-back" if self._began else "watching", text))
        if self._began:
            await self._catch_up(daemon)
        self._began = True

    async def _catch_up(self, daemon: Daemon) -> None:
        try:
            events = await daemon.events(since_usec=self._shown_until_usec, maximum=MOST_EVENTS)
        except NotRunningError:
            return  # it is gone again; its next start comes here again
        except BusLostError:
            raise
        except AskError as error:
            print(printable(f"What happened meanwhile cannot be shown: {error}"), file=sys.stderr)
            return
        for event in events:
            self._show(event)

    def _show(self, event: Plain) -> None:
        gpu = event.get("gpu")
        if self._gpu_path is not None and gpu is not None and gpu != self._gpu_path:
            return
        key = (event.get("event"), event.get("spike_id") or event.get("rule") or gpu, event.get("wall_usec"))
        if key in self._shown or not self._is_news_of_gpu(event):
            return
        self._shown.append(key)
        self._shown_until_usec = max(self._shown_until_usec, int(number(event.get("wall_usec")) or 0))
        if self._options.as_json:
            from gpuwhyd.client import json_form  # noqa: PLC0415 - only --json needs the model's field names

            print(json_form.one_line(json_form.event(event)), flush=True)
            return
        print("\n".join(event_lines(event, self._options.terminal, datetime.now(UTC))), flush=True)

    def _is_news_of_gpu(self, event: Plain) -> bool:
        """False for a GPU that is added though it was there: a daemon that starts tells all of them."""
        gpu = event.get("gpu")
        if event.get("event") == "gpu-removed":
            self._known_gpus.discard(gpu)
        elif event.get("event") == "gpu-added":
            if gpu in self._known_gpus:
                return False
            self._known_gpus.add(gpu)
        return True


def event_lines(event: Plain, terminal: Terminal, now: datetime) -> list[str]:
    """`12:04:10  fan up     GPU 0 (RTX 3070): fan at 57 % ...`, folded to the terminal's width."""
    event = cast("Plain", printable(event))
    head = f"{clock(event.get('wall_usec'), now)}  {event_title(event):<9}  "
    return wrap_below(head, event_message(event), terminal, " " * 10, event_style(event))


def _own_event(name: str, message: str) -> Plain:
    return {"event": name, "wall_usec": _now_usec(), "message": message}


def _now_usec() -> int:
    return round(datetime.now(UTC).timestamp() * 1e6)
