"""The socket of one bus connection: reads messages in bounded turns, writes what waits, and says once when it is lost."""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable, Iterator

from gpuwhyd.bus.framing import Discarded, Frame, Framer
from gpuwhyd.bus.header import Header, HeaderError
from gpuwhyd.bus.outgoing import TOGETHER_BYTES, Outgoing, Rank

_log = logging.getLogger(__name__)

# A larger message than this is nothing that is ever asked of us: the longest call has some hundred bytes.
MESSAGE_LIMIT_BYTES = 64 * 1024

# The answer to a call of ours may be large (a long history); only who was asked can send it.
REPLY_LIMIT_BYTES = 16 << 20

# How much is done before everything else on the loop has its turn.
_MESSAGES_PER_TURN = 16
_SECONDS_PER_TURN = 0.020
_READ_BYTES = 64 * 1024

# How long the calls of a muted sender are passed over before one is looked at again.
_MUTED_SECONDS = 0.1


class Transport:
    """Owns `sock`, connected, authenticated and non-blocking; runs in the loop it is made in.

    `on_message` is called for each message in order, and what it raises is logged; `on_lost`, with the reason, once,
    however it ends. `limit_for` as for Framer.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        limit_for: Callable[[Header], int],
        on_message: Callable[[Frame | Discarded], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._framer = Framer(limit_for, MESSAGE_LIMIT_BYTES)
        self._on_message = on_message
        self._on_lost = on_lost
        self._outgoing = Outgoing()
        self._writing = False
        self._collecting = False
        self._dropped_before = 0
        self._drained = asyncio.Event()
        self._drained.set()
        self._open = True
        self._loop.add_reader(sock, self._readable)

    @property
    def is_open(self) -> bool:
        return self._open

    @property
    def dropped(self) -> int:
        """How many messages were given up because the bus did not take them."""
        return self._outgoing.dropped

    @property
    def waiting_bytes(self) -> int:
        return self._outgoing.waiting_bytes

    def send(self, rank: Rank, peer: str, data: bytes) -> bool:
        """Writes now, at the end of `together`, or queues. False when the connection is lost or too much waits already."""
        if not self._open:
            return False
        taken = self._outgoing.add(rank, peer, data)
        if self._outgoing.dropped != self._dropped_before == 0:
            _log.warning("the bus does not take what is sent to it; dropping messages")
        self._dropped_before = self._outgoing.dropped
        if not self._writing and not (self._collecting and self._outgoing.waiting_bytes < TOGETHER_BYTES):
            self._write()
        return taken

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What is sent inside is written at the end, in one call if it is small; one inside another does nothing."""
        if self._collecting:
            yield
            return
        self._collecting = True
        try:
            yield
        finally:
            self._collecting = False
            if self._open and not self._writing:
                self._write()

    async def drain(self) -> None:
        """Waits until all that was sent is written, or the connection lost."""
        await self._drained.wait()

    def mute(self, sender: str) -> None:
        """Passes over the method calls of this sender for a moment."""
        if not self._framer.muted:
            self._loop.call_later(_MUTED_SECONDS, self._framer.muted.clear)
        self._framer.muted.add(sender.encode())

    def lose(self, reason: str) -> None:
        """Ends the connection; does nothing when it has ended."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        self._outgoing.clear()
        self._drained.set()
        self._on_lost(reason)

    def _readable(self) -> None:
        """Reads on while the socket is full: what does not fit into it queues in the bus, in front of everybody."""
        deadline = time.monotonic() + _SECONDS_PER_TURN
        while self._read_some() and time.monotonic() < deadline:
            pass

    def _read_some(self) -> bool:
        """Whether it is all worked off and there is more."""
        try:
            data = self._sock.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self.lose(f"reading failed: {error.strerror}")
            return False
        if not data:
            self.lose("the bus closed the connection")
            return False
        self._framer.feed(data)
        if not self._take_turn():
            # Until what has come is worked off, the bus may keep the rest.
            self._loop.remove_reader(self._sock)
            self._loop.call_soon(self._next_turn)
            return False
        return self._open and len(data) == _READ_BYTES

    def _next_turn(self) -> None:
        if not self._open:
            return
        if self._take_turn():
            if self._open:
                self._loop.add_reader(self._sock, self._readable)
        else:
            self._loop.call_soon(self._next_turn)

    def _take_turn(self) -> bool:
        """Handles some of the messages that are there, and writes what they gave rise to; whether that was all."""
        with self.together():
            return self._handle_some()

    def _handle_some(self) -> bool:
        deadline = time.monotonic() + _SECONDS_PER_TURN
        for _ in range(_MESSAGES_PER_TURN):
            try:
                message = self._framer.take()
            except HeaderError as error:
                self.lose(f"the bus sent nonsense: {error}")
                return True
            if message is None:
                return True
            try:
                self._on_message(message)
            except Exception:  # noqa: BLE001  a fault of ours must not leave the messages behind it unread
                _log.exception("fault while handling a D-Bus message")
            if not self._open:
                return True
            if time.monotonic() > deadline:
                break
        return False

    def _write(self) -> None:
        while self._outgoing:
            try:
                self._outgoing.written(self._sock.send(self._outgoing.head()))
            except (BlockingIOError, InterruptedError):
                if not self._writing:
                    self._writing = True
                    self._drained.clear()
                    self._loop.add_writer(self._sock, self._write)
                return
            except OSError as error:
                self.lose(f"writing failed: {error.strerror}")
                return
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._sock)
            self._drained.set()
            if self._outgoing.dropped:
                _log.warning("the bus takes messages again; %d were dropped", self._outgoing.dropped)
                self._outgoing.dropped = 0
