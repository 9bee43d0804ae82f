"""Whether those whom we send something read it: asks the bus now and then, and says who is to get no more."""

import logging
import time
from collections.abc import Callable

from gpuwhyd.bus.pending import Body
from gpuwhyd.bus.unread import Backlog, Unread, held_bytes, unread_bytes
from gpuwhyd.errors import BusError

_log = logging.getLogger(__name__)

Answer = Body | BusError


class Readers:
    """`ask` is to ask the bus for the statistics of a peer's connection, or for "" of our own, and to hand on the answer;
    `too_much` is called when the bus holds so much of ours that it is about to read nothing more.
    """

    def __init__(
        self,
        *,
        ask: Callable[[str, Callable[[Answer], None]], None],
        too_much: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._too_much = too_much
        self._clock = clock
        self._unread = Unread()
        self._backlog = Backlog()

    def sent(self, peer: str, length: int) -> None:
        """`peer` is empty for a broadcast."""
        if peer:
            self._unread.sent(peer, length)
            self._ask_about(peer)
        if self._backlog.sent(length):
            self._ask("", self._on_own_statistics)

    def owes(self, peer: str) -> bool:
        """Whether this peer has so much unread that it gets no answers."""
        owes = self._unread.owes(peer)
        if owes:
            self._ask_about(peer)
        return owes

    def has_room_for(self, length: int) -> bool:
        return self._unread.has_room_for(length)

    def _ask_about(self, peer: str) -> None:
        asked = self._unread.question(peer, self._clock())
        if asked is not None:
            self._ask(asked, self._on_statistics)

    def _on_statistics(self, answer: Answer) -> None:
        try:
            self._unread.answered(unread_bytes(answer))
        except BusError as error:
            _log.debug("this bus does not tell what its clients have not read: %s", error)
            self._unread.give_up()

    def _on_own_statistics(self, answer: Answer) -> None:
        try:
            too_much = self._backlog.answered(held_bytes(answer))
        except BusError as error:
            _log.debug("this bus does not tell what it holds of ours: %s", error)
            self._backlog.give_up()
            return
        if too_much:
            self._too_much()
