"""One connection to a D-Bus message bus, for the service and the client alike.

What others send can delay or confuse only themselves: messages are framed here and bounded in size, in number per turn
and per sender; signals count only from whom they should come; descriptors are never accepted; nothing waits for ever.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Self

from gpuwhyd.bus import library
from gpuwhyd.bus.codec import body_of, clean_text, plain
from gpuwhyd.bus.dial import dial
from gpuwhyd.bus.framing import Discarded, Frame
from gpuwhyd.bus.gate import LONGEST_SIGNATURE, CallGate, Refusal
from gpuwhyd.bus.header import NO_AUTO_START, NO_REPLY_EXPECTED, Header, MessageKind
from gpuwhyd.bus.messages import BUS_NAME, BUS_PATH, ERROR_PREFIX, MethodCall, PeerCredentials, SignalMatch
from gpuwhyd.bus.outgoing import PEER_BYTES, Rank
from gpuwhyd.bus.pending import Body, PendingCall, PendingCalls
from gpuwhyd.bus.readers import Readers
from gpuwhyd.bus.signals import SignalCallback, SignalRouter, is_owner_change, owner_change_match
from gpuwhyd.bus.transport import MESSAGE_LIMIT_BYTES, REPLY_LIMIT_BYTES, Transport
from gpuwhyd.bus.unread import STATISTICS
from gpuwhyd.errors import BusError

__all__ = ["BusConnection", "MethodCall", "PeerCredentials", "SignalMatch"]

_log = logging.getLogger(__name__)

DO_NOT_QUEUE = 0x4  # RequestName; with it the bus answers 1 (ours now), 3 (another's) or 4 (ours already)


class BusConnection:
    """Made by `connect`; used in that event loop only; of no further use once `disconnected`."""

    def __init__(self, sock: socket.socket, reply_limit_bytes: int) -> None:
        self.unique_name = ""
        self._reply_limit_bytes = reply_limit_bytes
        self._pending = PendingCalls()
        self._signals = SignalRouter()
        self._handler: Callable[[MethodCall], None] | None = None
        self._lost = asyncio.Event()
        self._reason = ""
        self._transport = Transport(
            sock, limit_for=self._limit_for, on_message=self._on_message, on_lost=self._on_lost
        )
        self._readers = Readers(
            ask=lambda peer, on_answer: self._ask_bus(
                STATISTICS, "GetConnectionStats", peer or self.unique_name, on_answer
            ),
            too_much=lambda: self._transport.lose("the receivers of what was sent do not read it"),
        )
        self._gate = CallGate(
            serve=self._serve,
            refuse=self._refuse,
            mute=self._transport.mute,
            owes=self._readers.owes,
            later=asyncio.get_running_loop().call_later,
            ask=lambda sender: self._ask_bus(
                BUS_NAME, "GetConnectionCredentials", sender, lambda answer: self._gate.told(sender, answer)
            ),
        )

    @classmethod
    async def connect(
        cls, address: str, *, timeout_seconds: float = 5, reply_limit_bytes: int = REPLY_LIMIT_BYTES
    ) -> Self:
        """A connection that has its unique name.

        `address` is "system", "session" or a D-Bus address list, whose entries are tried in order. An answer of more
        than `reply_limit_bytes` counts as an error. Raises BusError.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                connection = cls(await dial(address), reply_limit_bytes)
                try:
                    (name,) = await connection.call(
                        BUS_NAME, BUS_PATH, BUS_NAME, "Hello", timeout_seconds=timeout_seconds
                    )
                    connection.unique_name = str(name)
                except BaseException:  # raised anew: also a cancelled greeting must not leave its socket open
                    connection._transport.lose("the bus did not greet us")
                    raise
                return connection
        except TimeoutError:
            raise BusError(f"the D-Bus at {address} did not answer within {timeout_seconds:g} s") from None

    @property
    def library(self) -> str:
        """The D-Bus library that marshals here, such as "dbus-next 0.2.3"."""
        return library.description()

    @property
    def dropped(self) -> int:
        """How many messages the bus did not take since it last took all."""
        return self._transport.dropped

    async def call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        body: Sequence[object] = (),
        *,
        timeout_seconds: float = 10.0,
    ) -> tuple[object, ...]:
        """The body of the answer, in plain Python.

        Never starts a service. Raises BusError: with `name` where the other side (or the bus) answered with an error,
        when no answer came in time, when the connection is lost.
        """
        call = self._start_call(destination, path, interface, member, signature, body, None)
        return await self._answer(call, member, timeout_seconds)

    def set_handler(self, handler: Callable[[MethodCall], None]) -> None:
        """`handler` is called for each method call to us, and answers with `reply` or `error`, now or later."""
        self._handler = handler

    def reply(self, call: MethodCall, signature: str = "", body: Sequence[object] = ()) -> None:
        """Answers a call; does nothing where no answer is wanted. TypeError when `body` does not fit `signature`."""
        if call.wants_reply and self._transport.is_open:
            self._gate.charge(call.sender, lambda: self._reply(call, signature, body))

    def _reply(self, call: MethodCall, signature: str, body: Sequence[object]) -> None:
        data = library.marshal(
            MessageKind.METHOD_RETURN,
            self._pending.next_serial(),
            flags=NO_REPLY_EXPECTED,
            destination=call.sender,
            reply_serial=call.serial,
            signature=signature,
            body=body_of(signature, body),
        )
        if len(data) > PEER_BYTES or not self._readers.has_room_for(len(data)):
            self.error(
                call, ERROR_PREFIX + "LimitsExceeded", f"the answer has {len(data)} bytes; ask for less"
            )
            return
        self._send_to_peer(Rank.REPLY, call.sender, data)

    def error(self, call: MethodCall, name: str, message: str) -> None:
        """Answers a call with the D-Bus error `name`; does nothing where no answer is wanted."""
        if call.wants_reply:
            self._send_error(call.sender, call.serial, name, message)

    def emit(
        self,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        body: Sequence[object] = (),
        *,
        destination: str | None = None,
    ) -> None:
        """Sends a signal, to all or to one peer. Never raises for the state of the bus; TypeError as `reply`."""
        data = library.marshal(
            MessageKind.SIGNAL,
            self._pending.next_serial(),
            flags=NO_REPLY_EXPECTED,
            destination=destination,
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=body_of(signature, body),
        )
        self._send_to_peer(Rank.SIGNAL, destination or "", data)

    def together(self) -> AbstractContextManager[None]:
        """The signals and answers that are sent inside are written in one piece at its end."""
        return self._transport.together()

    async def subscribe(self, match: SignalMatch, callback: SignalCallback) -> None:
        """`callback(path, body)` for each such signal from whoever owns `match.sender` at that moment. Raises BusError."""
        if self._signals.must_track(match.sender):
            await self._track_owner(match.sender)
        self._signals.add(match, callback)
        await self._call_bus("AddMatch", match.rule)

    async def request_name(self, name: str) -> None:
        """Owns the well-known `name`. Raises BusError when another does, or the policy of the bus forbids it."""
        (answer,) = await self.call(BUS_NAME, BUS_PATH, BUS_NAME, "RequestName", "su", (name, DO_NOT_QUEUE))
        if answer not in (1, 4):
            raise BusError(f"the bus name {name} is owned by another process; is the daemon running already?")

    async def credentials(self, unique_name: str) -> PeerCredentials:
        """Who this peer is. Unique names are never used twice, so the answer is kept. BusError when it is gone."""
        known = self._gate.callers.credentials(unique_name)
        if known is None:
            answer = await self._call_bus("GetConnectionCredentials", unique_name)
            known = self._gate.callers.learn(unique_name, answer)
        return known

    async def disconnected(self) -> str:
        """Waits until the connection is lost or closed; gives the reason."""
        await self._lost.wait()
        return self._reason

    async def close(self) -> None:
        """Writes what waits, for at most a second, and ends the connection."""
        try:
            async with asyncio.timeout(1):
                await self._transport.drain()
        except TimeoutError:
            _log.warning("closing the bus connection with %d bytes unsent", self._transport.waiting_bytes)
        self._transport.lose("closed")

    async def _track_owner(self, name: str) -> None:
        await self._call_bus("AddMatch", owner_change_match(name))

        def set_owner(answer: Body | BusError) -> None:
            # From the answer itself, not from who awaits it: a change of owner may come right behind.
            if not isinstance(answer, BusError):
                self._signals.owner_is(name, str(answer[0]))
            elif answer.name == ERROR_PREFIX + "NameHasNoOwner":
                self._signals.owner_is(name, "")

        call = self._start_call(BUS_NAME, BUS_PATH, BUS_NAME, "GetNameOwner", "s", (name,), set_owner)
        try:
            await self._answer(call, "GetNameOwner", 10)
        except BusError:
            if self._signals.must_track(name):
                raise

    async def _call_bus(self, member: str, argument: str) -> tuple[object, ...]:
        return await self.call(BUS_NAME, BUS_PATH, BUS_NAME, member, "s", (argument,))

    def _start_call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str,
        body: Sequence[object],
        on_answer: Callable[[Body | BusError], None] | None,
    ) -> PendingCall:
        serial = self._pending.next_serial()
        data = library.marshal(
            MessageKind.METHOD_CALL,
            serial,
            flags=NO_AUTO_START,
            destination=destination,
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=body_of(signature, body),
        )
        call = self._pending.open(serial, destination, on_answer)
        if not self._transport.send(Rank.CALL, destination, data):
            self._pending.close(call)
            lost = f"the bus connection was lost: {self._reason}"
            raise BusError(lost if self._reason else "the bus takes no more calls")
        return call

    async def _answer(self, call: PendingCall, member: str, timeout_seconds: float) -> Body:
        try:
            async with asyncio.timeout(timeout_seconds):
                answer = await call.answer
        except TimeoutError:
            text = f"no answer from {call.destination} to {member} within {timeout_seconds:g} s"
            raise BusError(text, ERROR_PREFIX + "NoReply") from None
        finally:
            self._pending.close(call)
        if isinstance(answer, BusError):
            raise answer
        return answer

    def _send_to_peer(self, rank: Rank, destination: str, data: bytes) -> None:
        if self._transport.send(rank, destination, data):
            self._readers.sent(destination, len(data))

    def _ask_bus(
        self, interface: str, member: str, argument: str, on_answer: Callable[[Body | BusError], None]
    ) -> None:
        """A question that nobody waits for."""
        try:
            self._start_call(BUS_NAME, BUS_PATH, interface, member, "s", (argument,), on_answer)
        except BusError as error:
            asyncio.get_running_loop().call_soon(on_answer, error)

    def _send_error(self, destination: str, serial: int, name: str, message: str) -> None:
        data = library.marshal(
            MessageKind.ERROR,
            self._pending.next_serial(),
            flags=NO_REPLY_EXPECTED,
            destination=destination,
            reply_serial=serial,
            error_name=name,
            signature="s",
            body=[clean_text(message)],
        )
        self._send_to_peer(Rank.REPLY, destination, data)

    def _limit_for(self, header: Header) -> int:
        if header.kind in (MessageKind.METHOD_RETURN, MessageKind.ERROR) and self._pending.find(header):
            return self._reply_limit_bytes
        return MESSAGE_LIMIT_BYTES

    def _on_message(self, message: Frame | Discarded) -> None:
        if isinstance(message, Discarded):
            self._on_discarded(message)
            return
        match message.header.kind:
            case MessageKind.METHOD_CALL:
                self._gate.on_call(message)
            case MessageKind.METHOD_RETURN | MessageKind.ERROR:
                self._on_answer(message)
            case MessageKind.SIGNAL:
                self._on_signal(message)
            case _:
                pass  # the specification: "Unknown types must be ignored"

    def _on_discarded(self, message: Discarded) -> None:
        header = message.header
        if header is None:
            return
        if header.kind == MessageKind.METHOD_CALL:
            self._gate.on_discarded(header, message.total_bytes)
        elif (call := self._pending.find(header)) is not None:
            text = f"the answer has {message.total_bytes} bytes, which is too large"
            self._pending.answer(call, BusError(text, ERROR_PREFIX + "LimitsExceeded"))

    def _refuse(self, refusal: Refusal) -> None:
        self._send_error(refusal.sender, refusal.serial, refusal.name, refusal.text)

    def _serve(self, call: MethodCall) -> None:
        if self._handler is None:
            self.error(call, ERROR_PREFIX + "UnknownMethod", "this connection serves nothing")
            return
        try:
            self._handler(call)
        except Exception:  # noqa: BLE001  a fault in a handler must not end the connection; it is logged
            _log.exception("fault while handling D-Bus method %s", clean_text(call.member, 100))
            self.error(
                call, "org.gpuwhyd1.Error.Failed", "gpuwhyd made a mistake; its journal has the details"
            )

    def _on_answer(self, frame: Frame) -> None:
        call = self._pending.find(frame.header)
        if call is None:
            return
        try:
            body = tuple(plain(value) for value in library.unmarshal_body(frame.header, frame.body))
        except library.MarshalError as error:
            self._pending.answer(call, BusError(f"{call.destination} sent an unreadable answer: {error}"))
            return
        if frame.header.kind == MessageKind.ERROR:
            text = body[0] if body and isinstance(body[0], str) else str(frame.header.error_name)
            self._pending.answer(call, BusError(clean_text(text), frame.header.error_name))
        else:
            self._pending.answer(call, body)

    def _on_signal(self, frame: Frame) -> None:
        header = frame.header
        owner_change = is_owner_change(header)
        callbacks = self._signals.callbacks(header)
        if not (callbacks or owner_change) or len(header.signature) > LONGEST_SIGNATURE:
            return
        try:
            body = tuple(plain(value) for value in library.unmarshal_body(header, frame.body))
        except library.MarshalError:
            _log.warning("unreadable signal %s.%s from %s", header.interface, header.member, header.sender)
            return
        if owner_change:
            self._signals.owner_changed(str(body[0]), str(body[2]))
        for callback in callbacks:
            try:
                callback(header.path or "", body)
            except Exception:  # noqa: BLE001  a fault in a handler must not end the connection; it is logged
                _log.exception("fault while handling D-Bus signal %s", clean_text(str(header.member), 100))

    def _on_lost(self, reason: str) -> None:
        self._reason = reason
        self._lost.set()
        self._pending.fail_all(reason)
