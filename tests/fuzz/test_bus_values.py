"""Values over the bus: what one library writes the other reads, and plain Python comes out as it went in."""

import asyncio
import math
import struct
from collections.abc import Callable

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gpuwhyd.bus.codec import ObjectPath, clean_text
from gpuwhyd.bus.connection import BusConnection
from gpuwhyd.bus.framing import Frame, Framer
from gpuwhyd.bus.header import Header, MessageKind
from gpuwhyd.bus.signature import LONGEST_BYTES, SignatureError, WireType, parse
from tests.bus.buses import private_broker, private_bus
from tests.fuzz.libraries import Library, both
from tests.fuzz.mutation import HOSTILE_TEXTS, damaged_bytes, damaged_text, examples, hostile_values, nested

LIMIT = 64 * 1024
WAYS = [(writer, reader) for writer in both() for reader in both()]
way = pytest.mark.parametrize(("writer", "reader"), WAYS, ids=[f"{w.name} to {r.name}" for w, r in WAYS])

ANY_TEXT = st.one_of(st.text(st.characters(categories=None), max_size=30), st.sampled_from(HOSTILE_TEXTS))
_INTEGERS = {"y": (0, 8), "n": (1, 16), "q": (0, 16), "i": (1, 32), "u": (0, 32), "x": (1, 64), "t": (0, 64)}
_BASIC = "ybnqiuxtdso"
BASIC_TYPES = st.sampled_from(_BASIC)
TYPES = st.recursive(
    st.sampled_from(_BASIC + "v"),
    lambda inner: st.one_of(
        inner.map("a{}".format),
        st.lists(inner, min_size=1, max_size=3).map(lambda types: f"({''.join(types)})"),
        st.tuples(BASIC_TYPES, inner).map(lambda pair: f"a{{{pair[0]}{pair[1]}}}"),
    ),
    max_leaves=5,
)
SIGNATURES = st.lists(TYPES, min_size=1, max_size=4).map("".join)


def values(type_: WireType) -> st.SearchStrategy[object]:
    """Plain Python for one slot of this type."""
    match type_.code:
        case "b":
            return st.booleans()
        case "d":
            return st.floats(allow_nan=False)
        case "s":
            return ANY_TEXT
        case "o":
            return st.from_regex(r"(/[a-z0-9_]{1,5}){1,4}", fullmatch=True)
        case "v":
            return PLAIN.filter(lambda value: value is not None)
        case "(":
            return st.tuples(*map(values, type_.children))
        case "a" if type_.children[0].code == "{":
            key, value = type_.children[0].children
            return st.dictionaries(values(key), values(value), max_size=3)
        case "a" if type_.children[0].code == "y":
            return st.binary(max_size=20)
        case "a":
            return st.lists(values(type_.children[0]), max_size=3)
        case code:
            signed, bits = _INTEGERS[code]
            return st.integers(-(2 ** (bits - 1)) * signed, 2 ** (bits - signed) - 1)


_SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), ANY_TEXT)
PLAIN = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=8,
)
"""What JSON and the model's as_plain give."""


def arrived(value: object) -> object:
    """What the codec promises of a plain value: documented at dict_body."""
    match value:
        case bool():
            return value
        case int():
            return value if -(2**63) <= value < 2**64 else _as_double(value)
        case str():
            return clean_text(value)
        case dict():
            return {clean_text(key): arrived(item) for key, item in value.items() if item is not None}
        case list() | tuple():
            return [arrived(item) for item in value if item is not None]
        case _:
            return value


def _as_double(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def sent(type_: WireType, value: object) -> object:
    """The same for a slot of a known type."""
    if type_.code == "v":
        return arrived(value)
    if type_.code == "s":
        return clean_text(value)  # type: ignore[arg-type]
    if type_.code == "(":
        return [sent(child, item) for child, item in zip(type_.children, value, strict=True)]  # type: ignore[call-overload]
    if isinstance(value, dict):
        key_type, value_type = type_.children[0].children
        return {sent(key_type, key): sent(value_type, item) for key, item in value.items()}
    if isinstance(value, list):
        return [sent(type_.children[0], item) for item in value]
    return value


def over_the_wire(writer: Library, reader: Library, signature: str, body: list[object]) -> list[object]:
    data = writer.library.marshal(
        MessageKind.METHOD_RETURN,
        1,
        reply_serial=1,
        signature=signature,
        body=writer.codec.body_of(signature, body),
    )
    framer = Framer(lambda _header: 1 << 24, LIMIT)
    framer.feed(data)
    frame = framer.take()
    assert isinstance(frame, Frame)
    return [reader.codec.plain(value) for value in reader.library.unmarshal_body(frame.header, frame.body)]


@way
@examples(90)
@given(data=st.data())
def test_each_library_reads_what_the_other_wrote(
    writer: Library, reader: Library, data: st.DataObject
) -> None:
    signature = data.draw(SIGNATURES)
    types = parse(signature)
    body = [data.draw(values(type_)) for type_ in types]

    expected = [
        # at the top a text is an argument of its own, which may be long and have lines: test_codec
        arriving if type_.code != "s" or clean_text(value) == value else None
        for type_, value in zip(types, body, strict=True)
        for arriving in (sent(type_, value),)
    ]
    found = over_the_wire(writer, reader, signature, body)
    assert [
        value if wanted is not None else None for value, wanted in zip(found, expected, strict=True)
    ] == expected


@way
@examples(90)
@given(plain=st.dictionaries(ANY_TEXT, PLAIN, max_size=5))
def test_plain_values_come_out_as_they_went_in(
    writer: Library, reader: Library, plain: dict[str, object]
) -> None:
    (found,) = over_the_wire(writer, reader, "a{sv}", [plain])
    assert found == arrived(plain)
    assert over_the_wire(writer, reader, "a{sv}", [found]) == [found]


@examples(180)
@given(st.dictionaries(ANY_TEXT, hostile_values(), max_size=3))
def test_what_json_can_hold_is_sent_or_a_type_error(plain: dict[str, object]) -> None:
    for library in both():
        try:
            library.codec.dict_body(plain)
        except TypeError:
            continue


@pytest.mark.parametrize("library", both(), ids=lambda library: library.name)
def test_what_is_nested_without_end_is_not_sent(library: Library) -> None:
    for depth in (40, 300, 900):
        with pytest.raises(TypeError, match="nested"):
            library.codec.dict_body({"x": nested(depth)})


@pytest.mark.parametrize("bus", [private_bus, private_broker], ids=lambda bus: bus.__name__)
def test_the_deepest_value_that_is_sent_does_not_make_the_bus_hang_up(bus: Callable[[], object]) -> None:
    async def send() -> None:
        connection = await BusConnection.connect(running.address)
        sent = []
        for wrapped in (lambda value: {"a": value}, lambda value: [value], lambda value: [{"a": value}]):
            value: object = 1
            with pytest.raises(TypeError, match="nested"):  # noqa: PT012 - until it is too deep
                while True:
                    body = {"/a": {"b.c": {"D": value}}}
                    connection.emit("/x", "a.b", "C", "a{oa{sa{sv}}}", (body,))
                    sent.append(value)
                    value = wrapped(value)
        await connection.call(
            "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "GetId"
        )
        assert len(sent) > 30
        await connection.close()

    with bus() as running:
        asyncio.run(send())


@examples(300)
@given(st.one_of(ANY_TEXT, st.text(st.characters(categories=None), max_size=300)), st.integers(1, 200))
def test_a_cleaned_text_is_short_one_line_without_controls_and_stays_as_it_is(text: str, limit: int) -> None:
    cleaned = clean_text(text, limit)

    assert len(cleaned) <= limit
    cleaned.encode()
    assert not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in cleaned)
    assert not set(cleaned) & set("\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    assert clean_text(cleaned, limit) == cleaned
    if text.isprintable() and len(text) <= limit:
        assert cleaned == text


@examples(300)
@given(
    damaged_text(
        ["a{sv}", "tua{sv}", "(iiay)", "aa{sv}", "a{oa{sa{sv}}}", "v" * 255, "a" * 40 + "y"],
        pieces="()a{}vsh\0é",
    )
)
def test_a_signature_is_whole_types_or_an_error(signature: str) -> None:
    try:
        types = parse(signature)
    except SignatureError:
        return
    assert "".join(type_.text for type_ in types) == signature
    assert len(signature) <= LONGEST_BYTES
    for library in both():
        tree = library.library.SignatureTree(signature)
        assert [type_.signature for type_ in tree.types] == [type_.text for type_ in types]


BODIES = [
    ("a{sv}", {"gpu": ObjectPath("/org/gpuwhyd1/gpus/a"), "n": 1, "list": [{"a": 1.0}], "t": ["x", "yy"]}),
    ("tua{sv}", 5, 1000, {"event": "spike-started"}),
    ("(iiay)", (1, 2, b"bytes")),
    ("aa{sv}", [{"pid": 1, "name": "x"}, {}]),
    ("a{oa{sa{sv}}}", {"/a": {"b.c": {"D": 1.5, "E": True}}}),
    ("sssv", "a", "b", "c", [1, "x", 2.5]),
    ("asaas", ["x"], [["y"], []]),
]


def encoded_body(signature: str, *body: object) -> bytes:
    library = both()[0]
    data = library.library.marshal(
        MessageKind.METHOD_RETURN,
        1,
        reply_serial=1,
        signature=signature,
        body=library.codec.body_of(signature, body),
    )
    framer = Framer(lambda _header: LIMIT, LIMIT)
    framer.feed(data)
    frame = framer.take()
    assert isinstance(frame, Frame)
    return frame.body


_ENCODED = [encoded_body(*body) for body in BODIES]
_WORDS = [struct.pack("<I", number) for number in (0, 1, 7, 0xFFFF, 1 << 26, (1 << 26) + 1, 0xFFFFFFFF)]


@examples(420)
@given(
    st.sampled_from([body[0] for body in BODIES])
    | SIGNATURES
    | st.sampled_from(["a{vs}", "a{ays}", "a{(s)v}", "{sv}", "h"]),
    damaged_bytes(_ENCODED, pieces=[*_WORDS, b"\1v\0" * 70, b"\5a{sv}\0", b"\xed\xa0\x80"]),
    st.booleans(),
)
def test_a_damaged_body_is_read_alike_or_refused(signature: str, body: bytes, little_endian: bool) -> None:
    assume(body)
    header = Header(
        little_endian=little_endian,
        kind=MessageKind.METHOD_CALL,
        flags=0,
        serial=1,
        path="/x",
        member="M",
        sender=":1.1",
        signature=signature,
    )
    read = []
    for library in both():
        try:
            values = library.library.unmarshal_body(header, body)
        except library.library.MarshalError:
            continue
        read.append(repr([library.codec.plain(value) for value in values]))
    assert len(set(read)) <= 1
