"""A bus client that does what it likes: blocking, byte by byte, with no rule of ours in its way."""

import contextlib
import os
import socket
import struct
from collections.abc import Iterator, Sequence

from gpuwhyd.bus import library
from gpuwhyd.bus.address import socket_names
from gpuwhyd.bus.codec import body_of
from gpuwhyd.bus.framing import Frame, Framer
from gpuwhyd.bus.header import ALIGNMENT, FIXED_BYTES, MessageKind, read_prefix
from tests.bus.server import INTERFACE, NAME, PATH

BUS = {
    "destination": "org.freedesktop.DBus",
    "path": "/org/freedesktop/DBus",
    "interface": "org.freedesktop.DBus",
}


class RawClient:
    def __init__(self, address: str, uid: int | None = None) -> None:
        """`uid`: connects as that user, for which this process must be root."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(20)
        try:
            self._begin(address, uid)
        except BaseException:
            self.sock.close()
            raise

    def _begin(self, address: str, uid: int | None) -> None:
        with _acting_as(uid):
            self.sock.connect(socket_names(address)[0])
            self.sock.sendall(b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\n")
        assert self.sock.recv(1000).startswith(b"OK")
        self.sock.sendall(b"BEGIN\r\n")
        self._framer = Framer(lambda header: 1 << 27, 1 << 26)
        self._serial = 0
        self.send(MessageKind.METHOD_CALL, **BUS, member="Hello")
        self.unique_name = str(library.unmarshal_body(*parts(self.answer_to(1)))[0])

    def send(
        self, kind: MessageKind, *, signature: str = "", body: Sequence[object] = (), **fields: object
    ) -> int:
        data = self.marshal(kind, signature=signature, body=body, **fields)
        self.sock.sendall(data)
        return self._serial

    def marshal(
        self, kind: MessageKind, *, signature: str = "", body: Sequence[object] = (), **fields: object
    ) -> bytes:
        self._serial += 1
        return library.marshal(
            kind, self._serial, signature=signature, body=body_of(signature, body), **fields
        )

    def call(self, member: str, signature: str = "", body: Sequence[object] = ()) -> int:
        """Calls the test server, and does not wait."""
        return self.send(MessageKind.METHOD_CALL, **to_server(member), signature=signature, body=body)

    def ask(self, member: str, signature: str = "", body: Sequence[object] = ()) -> Frame:
        return self.answer_to(self.call(member, signature, body))

    def own(self, name: str, *, allowed: bool = True) -> None:
        serial = self.send(
            MessageKind.METHOD_CALL, **BUS, member="RequestName", signature="su", body=(name, 4)
        )
        expected = MessageKind.METHOD_RETURN if allowed else MessageKind.ERROR
        assert self.answer_to(serial).header.kind == expected

    def receive(self) -> Frame:
        while (message := self._framer.take()) is None:
            data = self.sock.recv(1 << 16)
            if not data:
                raise EOFError("the bus hung up")
            self._framer.feed(data)
        assert isinstance(message, Frame)
        return message

    def receive_now(self) -> Frame | None:
        """A message if one is there; for a socket that does not block."""
        while (message := self._framer.take()) is None:
            try:
                data = self.sock.recv(1 << 16)
            except BlockingIOError:
                return None
            if not data:
                raise EOFError("the bus hung up")
            self._framer.feed(data)
        assert isinstance(message, Frame)
        return message

    def answer_to(self, serial: int) -> Frame:
        while True:
            frame = self.receive()
            if frame.header.reply_serial == serial:
                return frame

    def close(self) -> None:
        self.sock.close()


@contextlib.contextmanager
def _acting_as(uid: int | None) -> Iterator[None]:
    """The kernel tells the bus the effective user at the moment of connecting."""
    if uid is None:
        yield
        return
    before = os.geteuid()
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(before)


@contextlib.contextmanager
def raw_client(address: str, uid: int | None = None) -> Iterator[RawClient]:
    client = RawClient(address, uid)
    try:
        yield client
    finally:
        client.close()


def to_server(member: str) -> dict[str, object]:
    return {"destination": NAME, "path": PATH, "interface": INTERFACE, "member": member}


def parts(frame: Frame):
    return frame.header, frame.body


def with_field(message: bytes, code: int, signature: bytes, value: bytes) -> bytes:
    """The same little-endian message with one more header field; `value` begins where its type is aligned."""
    prefix = read_prefix(message)
    fields = message[FIXED_BYTES : FIXED_BYTES + prefix.fields_bytes]
    fields += bytes(-len(fields) & 7)
    field = struct.pack("<BB", code, len(signature)) + signature + b"\0"
    fields += field + bytes(-len(field) & (ALIGNMENT[chr(signature[0])] - 1)) + value
    head = message[:12] + struct.pack("<I", len(fields)) + fields + bytes(-len(fields) & 7)
    return head + message[prefix.header_bytes :]


def with_body(message: bytes, body: bytes) -> bytes:
    """The same little-endian message with another body."""
    prefix = read_prefix(message)
    return message[:4] + struct.pack("<I", len(body)) + message[8 : prefix.header_bytes] + body
