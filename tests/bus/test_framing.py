import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwhyd.bus import library
from gpuwhyd.bus.framing import Discarded, Frame, Framer
from gpuwhyd.bus.header import HeaderError, MessageKind
from tests.bus.raw import with_body, with_field

LIMIT = 64 * 1024


def call(serial: int = 1, **fields: object) -> bytes:
    fields = {"path": "/org/gpuwhyd1", "interface": "org.gpuwhyd1.Manager", "member": "GetSummary"} | fields
    return library.marshal(MessageKind.METHOD_CALL, serial, **fields)


def framed(data: bytes, *, chunk: int = 1 << 20, limit: int = LIMIT):
    framer = Framer(lambda header: limit, LIMIT)
    messages = []
    for start in range(0, len(data), chunk):
        framer.feed(data[start : start + chunk])
        while (message := framer.take()) is not None:
            messages.append(message)
    return messages


def big_endian_call() -> bytes:
    """As s390x would send it: Echo("é") without an interface."""
    fields = struct.pack(">B3sI3s5x", 1, b"\x01o\0", 2, b"/x\0")
    fields += struct.pack(">B3sI5s3x", 3, b"\x01s\0", 4, b"Echo\0")
    fields += struct.pack(">B3sB2s1x", 8, b"\x01g\0", 1, b"s\0")
    fields = fields.rstrip(b"\0") + b"\0"
    body = struct.pack(">I", 2) + "é".encode() + b"\0"
    return (
        struct.pack(">BBBBIII", ord("B"), 1, 0, 1, len(body), 9, len(fields))
        + fields
        + bytes(-len(fields) & 7)
        + body
    )


@given(st.integers(1, 200), st.lists(st.text("abc", max_size=40), min_size=1, max_size=5))
def test_messages_come_out_whole_however_the_stream_is_cut(chunk, texts):
    data = b"".join(call(serial, signature="s", body=[text]) for serial, text in enumerate(texts, 1))

    messages = framed(data, chunk=chunk)

    assert [message.header.serial for message in messages] == list(range(1, len(texts) + 1))
    assert [library.unmarshal_body(message.header, message.body) for message in messages] == [
        [text] for text in texts
    ]


def test_both_byte_orders_are_read():
    (message,) = framed(big_endian_call())

    assert (message.header.member, message.header.path, message.header.interface) == ("Echo", "/x", None)
    assert library.unmarshal_body(message.header, message.body) == ["é"]


def test_a_message_too_large_is_passed_over_and_the_next_one_read():
    large = call(1, signature="ay", body=[bytes(1 << 20)])
    framer = Framer(lambda header: LIMIT, LIMIT)
    messages = []
    data = large + call(2)
    for start in range(0, len(data), 5000):
        framer.feed(data[start : start + 5000])
        while (message := framer.take()) is not None:
            messages.append(message)
        assert len(framer._buffer) <= 5000 + 512

    discarded, frame = messages
    assert isinstance(discarded, Discarded)
    assert discarded.total_bytes == len(large)
    assert discarded.header is not None
    assert discarded.header.serial == 1
    assert isinstance(frame, Frame)
    assert frame.header.serial == 2


def test_a_header_too_large_is_not_looked_at():
    fields = struct.pack("<B3sI", 1, b"\x01o\0", 100_000) + b"/" * 100_000 + b"\0"
    message = struct.pack("<BBBBIII", ord("l"), 1, 0, 1, 0, 1, len(fields)) + fields + bytes(-len(fields) & 7)

    discarded, frame = framed(message + call(2), chunk=999)

    assert discarded == Discarded(reason="too large", total_bytes=len(message))
    assert frame.header.serial == 2


@pytest.mark.parametrize(
    ("signature", "value"),
    [
        (b"s", struct.pack("<I", 2) + b"hi\0"),
        (b"t", bytes(8)),
        (b"g", b"\1s\0"),
        (b"as", struct.pack("<I", 7) + struct.pack("<I", 2) + b"hi\0"),
        (b"a(yx)", struct.pack("<II", 16, 0) + bytes(16)),
        (b"(ya{sv})", b"\1\0\0\0" + struct.pack("<I", 0)),
        (b"v", b"\1v\0\1v\0\1y\0\7"),
    ],
)
def test_unknown_header_fields_of_any_type_are_ignored(signature, value):
    (message,) = framed(with_field(call(5, signature="s", body=["x"]), 42, signature, value))

    assert isinstance(message, Frame)
    assert message.header.serial == 5
    assert library.unmarshal_body(message.header, message.body) == ["x"]


def test_unknown_types_and_flags_pass_through():
    data = bytearray(call(3))
    data[1], data[2] = 77, 0xF8

    (message,) = framed(bytes(data))

    assert (message.header.kind, message.header.flags) == (77, 0xF8)


@pytest.mark.parametrize(
    "broken",
    [
        call(1).replace(b"\1\1o\0", b"\1\1s\0", 1),
        call(1).replace(b"GetSummary", b"Get\xff\xfe\xfdmary", 1),
        call(1).replace(b"GetSummary\0", b"GetSummaryx", 1),
        with_field(call(1), 0, b"y", b"\1"),
        with_field(call(1), 42, b"(", b""),
        with_field(call(1), 42, b"yy", b"\1\1"),
        with_field(call(1), 42, b"as", struct.pack("<I", 1 << 25)),
        with_field(call(1), 42, b"v", b"\1v\0" * 200 + b"\1y\0\7"),
        with_body(call(1), b"no signature for this"),
        call(1)[:8] + bytes(4) + call(1)[12:],
        library.marshal(MessageKind.METHOD_RETURN, 1, reply_serial=1).replace(b"\5\1u\0", b"\x2a\1u\0", 1),
    ],
)
def test_a_malformed_message_is_lost_alone(broken):
    messages = framed(broken + call(2))

    assert isinstance(messages[0], Discarded)
    assert messages[1].header.serial == 2


@pytest.mark.parametrize(
    "nonsense",
    [
        b"x" * 16,
        b"l\1\0\2" + bytes(12),
        b"l\1\0\1" + struct.pack("<III", 1 << 27, 1, 8),
        b"l\1\0\1" + struct.pack("<III", 0, 1, 1 << 31),
    ],
)
def test_a_stream_out_of_step_is_given_up(nonsense):
    with pytest.raises(HeaderError):
        framed(nonsense)


@given(st.binary(max_size=300))
def test_whatever_comes_is_a_message_or_a_header_error(noise):
    data = bytearray(call(1, signature="s", body=["x"]) + call(2))
    for position, byte in enumerate(noise):
        data[(position * 7) % len(data)] ^= byte
    try:
        for message in framed(bytes(data)):
            if isinstance(message, Frame):
                library.unmarshal_body(message.header, message.body)
    except (HeaderError, library.MarshalError):
        pass
