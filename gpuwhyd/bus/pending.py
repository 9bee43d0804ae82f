"""Our own method calls that wait for their answer."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from gpuwhyd.bus.header import Header
from gpuwhyd.bus.messages import BUS_NAME, ERROR_PREFIX
from gpuwhyd.errors import BusError

MOST_PENDING = 256

Body = tuple[object, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingCall:
    """`answer` becomes the body or the error; never an exception, so that an answer nobody awaits is no fault."""

    serial: int
    destination: str
    answer: asyncio.Future[Body | BusError]
    on_answer: Callable[[Body | BusError], None] | None
    """Called with the answer, if one comes, before any later message is looked at."""


class PendingCalls:
    def __init__(self) -> None:
        self._calls: dict[int, PendingCall] = {}
        self._last_serial = 0

    def __len__(self) -> int:
        return len(self._calls)

    def next_serial(self) -> int:
        """The serial of the next message of whatever kind; never 0, never one that waits for an answer."""
        while True:
            self._last_serial = self._last_serial % 0xFFFFFFFF + 1
            if self._last_serial not in self._calls:
                return self._last_serial

    def open(
        self, serial: int, destination: str, on_answer: Callable[[Body | BusError], None] | None
    ) -> PendingCall:
        """BusError when too many wait already: something is wrong, and more calls do not mend it."""
        if len(self._calls) >= MOST_PENDING:
            raise BusError(f"{MOST_PENDING} D-Bus calls wait for an answer already")
        answer: asyncio.Future[Body | BusError] = asyncio.get_running_loop().create_future()
        call = PendingCall(serial=serial, destination=destination, answer=answer, on_answer=on_answer)
        self._calls[serial] = call
        return call

    def close(self, call: PendingCall) -> None:
        self._calls.pop(call.serial, None)

    def find(self, header: Header) -> PendingCall | None:
        """The call that this answers. None for an answer nobody waits for, or from someone who was not asked."""
        call = self._calls.get(header.reply_serial or 0)
        if call is None:
            return None
        asked_exactly = call.destination == BUS_NAME or call.destination.startswith(":")
        # The bus's own errors about a call (no such peer, not allowed, no answer) come from the bus, not from the peer.
        return call if not asked_exactly or header.sender in {call.destination, BUS_NAME} else None

    def answer(self, call: PendingCall, answer: Body | BusError) -> None:
        self.close(call)
        if call.on_answer is not None:
            call.on_answer(answer)
        _settle(call, answer)

    def fail_all(self, reason: str) -> None:
        for call in list(self._calls.values()):
            _settle(call, BusError(f"the bus connection was lost: {reason}", ERROR_PREFIX + "Disconnected"))
        self._calls.clear()


def _settle(call: PendingCall, answer: Body | BusError) -> None:
    if not call.answer.done():
        call.answer.set_result(answer)
