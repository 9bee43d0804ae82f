"""GetEvents: arguments checked, history read in a thread of its own, answers bounded."""

import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial

from gpuwhyd.bus.codec import ObjectPath, dict_body
from gpuwhyd.bus.messages import MethodCall
from gpuwhyd.errors import HistoryError
from gpuwhyd.model import EventKind, Report
from gpuwhyd.outputs.dbus_contract import GPUS_PATH, gpu_path, own_error
from gpuwhyd.outputs.dbus_dispatch import Answer, Body
from gpuwhyd.outputs.dbus_manager import unknown_gpu
from gpuwhyd.outputs.dbus_privacy import Viewer, names_are_hidden, redacted_event
from gpuwhyd.outputs.dbus_views import readings_by_id
from gpuwhyd.outputs.history import History
from gpuwhyd.worker import LateError, Worker

_log = logging.getLogger(__name__)

MOST_EVENTS = 1000
USUAL_EVENTS = 100
ANSWER_BYTES = 512 << 10
"""Of JSON; somewhat more on the bus. Marshalling so much holds the event loop 45 ms with dbus-next (measured)."""
READ_SECONDS = 20.0
MOST_WAITING = 8
_OPTIONS = ("event", "gpu", "spike_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsQuery:
    since_usec: int
    maximum: int
    gpu: str | None = None
    """PCI address, or the id of a GPU that has none."""
    event: str | None = None
    spike_id: str | None = None


def parse_query(body: Body, report: Report | None) -> EventsQuery:
    """The arguments of GetEvents. Raises CallError InvalidArgument or UnknownGpu."""
    since_usec, maximum, options = body
    if not isinstance(since_usec, int) or not isinstance(maximum, int) or not isinstance(options, Mapping):
        raise own_error("InvalidArgument", "GetEvents takes a number, a number and options")
    for key, value in options.items():
        if key not in _OPTIONS:
            raise own_error("InvalidArgument", f"option '{key}' is not known; there is {', '.join(_OPTIONS)}")
        if not isinstance(value, str):
            wanted = "an object path" if key == "gpu" else "a string"
            raise own_error("InvalidArgument", f"option '{key}' must be {wanted}")
    event = options.get("event")
    kinds = [kind.value for kind in EventKind]
    if event is not None and event not in kinds:
        raise own_error("InvalidArgument", f"event '{event}' is not known; there is {', '.join(kinds)}")
    return EventsQuery(
        since_usec=since_usec,
        maximum=min(maximum or USUAL_EVENTS, MOST_EVENTS),
        gpu=_gpu(options["gpu"], report) if "gpu" in options else None,
        event=event,
        spike_id=options.get("spike_id"),
    )


def _gpu(path: str, report: Report | None) -> str:
    """As History wants it, also for a GPU that has been taken out: the path of a PCI device tells its address."""
    for gpu_id, reading in readings_by_id(report).items():
        if gpu_path(gpu_id) == path:
            return reading.gpu.pci_address or gpu_id
    gone = re.fullmatch(
        re.escape(GPUS_PATH) + "/pci_([0-9a-f]{4,8})_([0-9a-f]{2})_([0-9a-f]{2})_([0-7])", path
    )
    if gone is None:
        raise unknown_gpu(report, path)
    domain, bus, device, function = gone.groups()
    return f"{domain}:{bus}:{device}.{function}"


class EventsReader:
    """One thread reads, because systemd's Reader may be used by one thread only and may block on a slow disk."""

    def __init__(
        self,
        *,
        history: History,
        current: Callable[[], Report | None],
        viewer: Callable[[str], Awaitable[Viewer]],
    ) -> None:
        self._history = history
        self._current = current
        self._viewer = viewer
        self._worker = Worker("gpuwhyd-history")
        self._begun = 0
        self._finished = 0
        self._senders: set[str] = set()

    def get_events(self, call: MethodCall) -> Answer:
        return self._events(call.sender, parse_query(call.body, self._current()))

    def close(self) -> None:
        """Does not wait for a read that hangs."""
        self._worker.rest()

    async def _events(self, sender: str, query: EventsQuery) -> Body:
        if sender in self._senders:
            raise own_error("TooManyRequests", "your last GetEvents has not been answered yet")
        self._senders.add(sender)
        try:
            viewer = await self._viewer(sender)
            # Counted where the thread ends a read: one that hangs must not let others pile up behind it.
            if self._begun - self._finished >= MOST_WAITING:
                raise own_error("TooManyRequests", "too many are reading the history; ask again later")
            self._begun += 1
            read = partial(self._read, query, hidden=names_are_hidden(self._current(), viewer))
            return (await self._worker.call(read, READ_SECONDS),)
        except LateError as error:
            _log.warning("the event history did not answer within %g s", READ_SECONDS)
            raise own_error(
                "HistoryUnavailable", f"the journal did not answer within {READ_SECONDS:g} s"
            ) from error
        except HistoryError as error:
            raise own_error("HistoryUnavailable", str(error)) from error
        finally:
            self._senders.discard(sender)

    def _read(self, query: EventsQuery, *, hidden: bool) -> list[object]:
        """In the thread, conversion included: of a large answer it costs more than reading (100 ms for 600 events)."""
        try:
            events = self._history.read(
                since_usec=query.since_usec,
                maximum=query.maximum,
                gpu_pci=query.gpu,
                event=query.event,
                spike_id=query.spike_id,
            )
        finally:
            self._finished += 1
        shown = [redacted_event(event) if hidden else event for event in events]
        return [dict_body(_with_path(event)) for event in _bounded(shown)]


def _with_path(event: dict[str, object]) -> dict[str, object]:
    gpu_id = event.get("gpu_id")
    return {**event, "gpu": ObjectPath(gpu_path(str(gpu_id)))} if gpu_id else event


def _bounded(events: list[dict[str, object]]) -> list[dict[str, object]]:
    """As many of the newest as fit into one answer."""
    budget = ANSWER_BYTES
    for count, event in enumerate(reversed(events)):
        budget -= len(json.dumps(event, default=str))
        if budget < 0:
            return events[len(events) - count :]
    return events
