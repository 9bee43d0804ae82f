"""The stream from the bus: however it is cut and damaged, messages are whole, bounded, and found again."""

import asyncio
import socket
import struct
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwhyd.bus import library
from gpuwhyd.bus.auth import authenticate
from gpuwhyd.bus.codec import body_of
from gpuwhyd.bus.connection import BusConnection, MethodCall
from gpuwhyd.bus.framing import Discarded, Frame, Framer
from gpuwhyd.bus.header import FIXED_BYTES, HeaderError, MessageKind, read_header, read_prefix
from gpuwhyd.bus.transport import MESSAGE_LIMIT_BYTES
from gpuwhyd.errors import BusError
from tests.bus.raw import with_field
from tests.bus.scripted_bus import Peer, scripted_bus, with_sender
from tests.fuzz.libraries import both
from tests.fuzz.mutation import damaged_bytes, examples

CALL = {"path": "/org/gpuwhyd1", "interface": "org.gpuwhyd1.Manager", "member": "GetEvents"}


def message(
    kind: MessageKind, serial: int, signature: str = "", body: Iterable[object] = (), **fields: object
) -> bytes:
    data = library.marshal(kind, serial, signature=signature, body=body_of(signature, list(body)), **fields)
    return with_sender(data, ":1.42")


def swapped(data: bytes) -> bytes:
    """The same call without a body in the other byte order, as s390x would send it."""
    header = read_header(read_prefix(data), data)
    fields = b""
    for code, text in ((1, header.path), (2, header.interface), (3, header.member), (7, header.sender)):
        assert text is not None
        value = text.encode()
        fields += bytes(-len(fields) & 7) + struct.pack(
            ">B3sI", code, b"\1o\0" if code == 1 else b"\1s\0", len(value)
        )
        fields += value + b"\0"
    return (
        struct.pack(">BBBBIII", ord("B"), 1, 0, 1, 0, header.serial, len(fields))
        + fields
        + bytes(-len(fields) & 7)
    )


MESSAGES = [
    message(MessageKind.METHOD_CALL, 1, **CALL, signature="tua{sv}", body=(5, 9, {"event": "x"})),
    message(MessageKind.METHOD_CALL, 2, path="/", member="Ping"),
    message(
        MessageKind.SIGNAL, 3, path="/a", interface="a.b", member="C", signature="sss", body=("a", "", ":1.9")
    ),
    message(
        MessageKind.METHOD_RETURN, 4, reply_serial=7, signature="aa{sv}", body=([{"pid": 1}, {"a": [1.5]}],)
    ),
    message(MessageKind.ERROR, 5, reply_serial=7, error_name="a.b.C", signature="s", body=("no",)),
    with_field(
        message(MessageKind.METHOD_CALL, 6, **CALL), 42, b"a(yx)", struct.pack("<II", 16, 0) + bytes(16)
    ),
    swapped(message(MessageKind.METHOD_CALL, 7, **CALL)),
    message(MessageKind.METHOD_CALL, 8, **CALL, signature="s", body=("x" * 70_000,)),
]
WORDS = [struct.pack("<I", number) for number in (0, 1, 8, 64, 255, 0xFFFF, 1 << 26, 1 << 27, 0xFFFFFFFF)]
SAMPLES = [b"".join(MESSAGES[:3]), b"".join(MESSAGES[3:7]), *MESSAGES[:7]]
DAMAGED = damaged_bytes(SAMPLES, pieces=[*WORDS, *MESSAGES[:3], b"l\1\0\1", b"\1v\0" * 66, b"\2\1s\0"])
CUTS = st.lists(st.integers(1, 400), min_size=1, max_size=12)


def taken(
    data: bytes, cuts: list[int], *, limit: int = MESSAGE_LIMIT_BYTES
) -> tuple[list[Frame | Discarded], bool]:
    """The messages, and whether the stream was lost behind them."""
    framer = Framer(lambda _header: limit, MESSAGE_LIMIT_BYTES)
    messages: list[Frame | Discarded] = []
    position = turn = 0
    while position < len(data):
        length = cuts[turn % len(cuts)]
        framer.feed(data[position : position + length])
        position, turn = position + length, turn + 1
        try:
            while (found := framer.take()) is not None:
                messages.append(found)
        except HeaderError:
            return messages, True
        assert len(framer._buffer) <= MESSAGE_LIMIT_BYTES + length
    return messages, False


def shown(messages: list[Frame | Discarded]) -> list[object]:
    """Why one was discarded may be worded by how much of it had come."""
    return [(m.total_bytes, m.header) if isinstance(m, Discarded) else m for m in messages]


def total_bytes(found: Frame | Discarded, data: bytes) -> int:
    prefix = read_prefix(data)
    if isinstance(found, Frame):
        assert prefix.header_bytes + len(found.body) == prefix.total_bytes <= MESSAGE_LIMIT_BYTES
        assert data[prefix.header_bytes : prefix.total_bytes] == found.body
        assert found.header == read_header(prefix, data)
    else:
        assert found.total_bytes == prefix.total_bytes
    return prefix.total_bytes


@examples(600)
@given(DAMAGED, CUTS)
def test_the_messages_do_not_depend_on_where_the_stream_is_cut(data: bytes, cuts: list[int]) -> None:
    whole, lost = taken(data, [len(data) or 1])
    pieces, lost_too = taken(data, cuts)

    assert shown(pieces) == shown(whole)
    assert lost == lost_too
    position = 0
    for found in whole:
        position += total_bytes(found, data[position:])
        if isinstance(found, Frame):
            for one in both():
                try:
                    for value in one.library.unmarshal_body(found.header, found.body):
                        one.codec.plain(value)
                except one.library.MarshalError:
                    pass


@examples(180)
@given(st.data(), CUTS)
def test_a_damaged_message_costs_no_other(data: st.DataObject, cuts: list[int]) -> None:
    """As long as its first 16 bytes still say where it ends."""
    first = data.draw(st.sampled_from(MESSAGES))
    head, rest = first[:FIXED_BYTES], bytearray(first[FIXED_BYTES:])
    for _ in range(data.draw(st.integers(1, 6))):
        rest[data.draw(st.integers(0, len(rest) - 1))] = data.draw(st.integers(0, 255))
    others = data.draw(st.lists(st.sampled_from(MESSAGES[:7]), min_size=1, max_size=3))

    messages, lost = taken(head + bytes(rest) + b"".join(others), cuts)

    assert not lost
    alone = [taken(one, [len(one)])[0][0] for one in others]
    assert messages[1:] == alone


@examples(120)
@given(
    st.lists(
        st.tuples(st.integers(1, 1 << 20) | st.integers(65_300, 65_550), st.booleans()),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from([1, 7, 4096, 65536, 1 << 20]),
)
def test_what_is_too_large_is_never_buffered(sizes: list[tuple[int, bool]], chunk: int) -> None:
    stream, expected = b"", []
    for serial, (wanted, in_header) in enumerate(sizes, 1):
        size = min(wanted, 3000) if chunk < 10 else wanted
        if in_header:
            value = struct.pack("<I", size) + b"x" * size + b"\0"
            one = with_field(message(MessageKind.METHOD_CALL, serial, **CALL), 42, b"s", value)
        else:
            one = message(MessageKind.METHOD_CALL, serial, **CALL, signature="ay", body=(bytes(size),))
        stream += one
        expected.append((serial, len(one) <= MESSAGE_LIMIT_BYTES))

    messages, lost = taken(stream, [chunk])

    assert not lost
    assert [isinstance(found, Frame) for found in messages] == [fits for _, fits in expected]
    serials = [found.header.serial if found.header else None for found in messages]
    assert all(found in (wanted, None) for found, (wanted, _) in zip(serials, expected, strict=True))


NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,10}(\.[A-Za-z_][A-Za-z0-9_]{0,10}){1,3}", fullmatch=True)


@pytest.mark.parametrize("writer", both(), ids=lambda one: one.name)
@examples(60)
@given(data=st.data())
def test_a_header_says_what_the_library_was_told(writer: object, data: st.DataObject) -> None:
    fields = {
        "destination": data.draw(st.none() | NAMES),
        "path": data.draw(st.from_regex(r"/|(/[A-Za-z0-9_]{1,9}){1,4}", fullmatch=True)),
        "interface": data.draw(NAMES),
        "member": data.draw(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,40}", fullmatch=True)),
        "error_name": data.draw(NAMES),
        "reply_serial": data.draw(st.integers(1, 2**32 - 1)),
    }
    kind = data.draw(st.sampled_from(MessageKind))
    serial = data.draw(st.integers(1, 2**32 - 1))
    flags = data.draw(st.sampled_from([0, 1, 2, 3]))
    text = data.draw(st.none() | st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=9))
    body = {} if text is None else {"signature": "s", "body": [text]}

    raw = writer.library.marshal(kind, serial, flags=flags, **fields, **body)
    ((frame,), lost) = taken(raw, [1 << 16])

    assert not lost
    assert isinstance(frame, Frame)
    found = {name: getattr(frame.header, name) for name in fields}
    assert found == fields
    assert (frame.header.kind, frame.header.serial, frame.header.flags) == (kind, serial, flags)
    assert frame.header.wants_reply == (kind is MessageKind.METHOD_CALL and not flags & 1)


@examples(40)
@given(damaged_bytes([b"".join(MESSAGES[:7]), *MESSAGES[:7]], pieces=WORDS, most=4))
def test_a_live_connection_answers_afterwards_or_is_lost_and_says_why(data: bytes) -> None:
    whole, faults = is_whole_messages(data), []

    async def play(peer: Peer) -> None:
        await peer.greet()
        peer.writer.write(data)
        if not whole:
            await peer.writer.drain()
            return  # nobody can answer: hang up
        peer.writer.write(
            message(MessageKind.METHOD_CALL, 4000, path="/x", interface="a.b", member="Afterwards")
        )
        while True:
            frame = await peer.message()
            if frame.header.kind == MessageKind.METHOD_CALL:  # the connection asks who calls
                peer.answer(frame, "a{sv}", [{"UnixUserID": library.Variant("u", 0)}])
            if frame.header.reply_serial == 4000:
                answered.set()

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: faults.append(context))
        async with scripted_bus(play) as address:
            connection = await BusConnection.connect(address)

            def serve(call: MethodCall) -> None:
                connection.reply(call, "s", ["done"])

            connection.set_handler(serve)
            if whole:
                await asyncio.wait_for(answered.wait(), 20)
            else:
                reason = await asyncio.wait_for(connection.disconnected(), 20)
                assert any(
                    word in reason for word in ("nonsense", "closed", "reading failed", "writing failed")
                )
            await connection.close()

    answered = asyncio.Event()
    asyncio.run(run())
    assert not faults


def is_whole_messages(data: bytes) -> bool:
    position = 0
    while len(data) - position >= FIXED_BYTES:
        try:
            position += read_prefix(data[position:]).total_bytes
        except HeaderError:
            return False
    return position == len(data)


@examples(40)
@given(
    damaged_bytes(
        [b"OK 00000000000000000000000000000001\r\n", b"REJECTED EXTERNAL\r\n", b"ERROR\r\n", b"DATA\r\n"],
        pieces=[b"\r\n", b"\0", b"A" * 5000, b"\xff"],
    )
)
def test_any_greeting_lets_us_in_or_is_a_bus_error(greeting: bytes) -> None:
    async def run() -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            theirs.sendall(greeting)
            theirs.shutdown(socket.SHUT_WR)
            refusal = ""
            try:
                await authenticate(ours)
            except BusError as error:
                refusal = str(error)
            assert refusal.isprintable()
            assert (refusal == "") == (b"BEGIN\r\n" in theirs.recv(1000))
            assert refusal or greeting.startswith(b"OK")
        finally:
            ours.close()
            theirs.close()

    asyncio.run(run())
