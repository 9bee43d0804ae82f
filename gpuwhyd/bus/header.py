"""The header of a D-Bus message, read without the library.

It says how long a message is, who sent it and what it wants, before anything of it is unmarshalled; and it is where
both the unknown (which the specification says to ignore) and the malformed show up. Layout: D-Bus specification,
section "Message Format".
"""

import functools
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from gpuwhyd.bus.signature import WireType, parse

FIXED_BYTES = 16  # endianness, type, flags, version, body length, serial, length of the field array
NO_REPLY_EXPECTED = 0x1
NO_AUTO_START = 0x2
ALLOW_INTERACTIVE_AUTHORIZATION = 0x4
LARGEST_MESSAGE_BYTES = 1 << 27  # specification: "The maximum length of a message ... is 2 to the 27th power"
LARGEST_ARRAY_BYTES = (
    1 << 26
)  # specification: "Arrays have a maximum length defined to be 2 to the 26th power"
_DEEPEST_VARIANTS = (
    64  # the depth that the specification gives a signature; variants in variants have none there
)
_REMEMBERED_BYTES = 512


class MessageKind(IntEnum):
    METHOD_CALL = 1
    METHOD_RETURN = 2
    ERROR = 3
    SIGNAL = 4


class HeaderError(ValueError):
    """This header cannot be read; the message is malformed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    """What the first 16 bytes say; enough to know where the message ends."""

    little_endian: bool
    kind: int
    flags: int
    body_bytes: int
    serial: int
    fields_bytes: int

    @property
    def header_bytes(self) -> int:
        return FIXED_BYTES + self.fields_bytes + (-self.fields_bytes & 7)

    @property
    def total_bytes(self) -> int:
        return self.header_bytes + self.body_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A readable header. `kind` may be a number that no MessageKind has: such a message is to be ignored."""

    little_endian: bool
    kind: int
    flags: int
    serial: int
    path: str | None = None
    interface: str | None = None
    member: str | None = None
    error_name: str | None = None
    reply_serial: int | None = None
    destination: str | None = None
    sender: str | None = None
    signature: str = ""

    @property
    def wants_reply(self) -> bool:
        return self.kind == MessageKind.METHOD_CALL and not self.flags & NO_REPLY_EXPECTED


# Specification, section "Valid Names": unique names, then well-known ones.
_BUS_NAME = re.compile(
    r":[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)+|[A-Za-z_-][A-Za-z0-9_-]*(?:\.[A-Za-z_-][A-Za-z0-9_-]*)+"
)

# Field code -> attribute and the type its value must have. 9, the number of descriptors, is of no use here.
_FIELDS = {
    1: ("path", "o"),
    2: ("interface", "s"),
    3: ("member", "s"),
    4: ("error_name", "s"),
    5: ("reply_serial", "u"),
    6: ("destination", "s"),
    7: ("sender", "s"),
    8: ("signature", "g"),
}
_REQUIRED = {
    MessageKind.METHOD_CALL: ("path", "member"),
    MessageKind.METHOD_RETURN: ("reply_serial",),
    MessageKind.ERROR: ("error_name", "reply_serial"),
    MessageKind.SIGNAL: ("path", "interface", "member"),
}
# For numbers this is their size, too.
ALIGNMENT = {
    "y": 1,
    "g": 1,
    "v": 1,
    "n": 2,
    "q": 2,
    "b": 4,
    "i": 4,
    "u": 4,
    "h": 4,
    "s": 4,
    "o": 4,
    "a": 4,
    "x": 8,
    "t": 8,
    "d": 8,
    "(": 8,
    "{": 8,
}


def read_prefix(data: bytes | bytearray) -> Prefix:
    """From at least 16 bytes. HeaderError when they cannot begin a message: then the stream itself is lost."""
    if data[0] not in b"lB":
        raise HeaderError(f"a message begins with byte {data[0]:#x}")
    order = "<" if data[0] == ord("l") else ">"
    kind, flags, version, body_bytes, serial, fields_bytes = struct.unpack_from(order + "BBBIII", data, 1)
    prefix = Prefix(
        little_endian=order == "<",
        kind=kind,
        flags=flags,
        body_bytes=body_bytes,
        serial=serial,
        fields_bytes=fields_bytes,
    )
    if version != 1:
        raise HeaderError(f"a message has protocol version {version}")
    if fields_bytes > LARGEST_ARRAY_BYTES or prefix.total_bytes > LARGEST_MESSAGE_BYTES:
        raise HeaderError(f"a message claims {prefix.total_bytes} bytes")
    return prefix


def read_header(prefix: Prefix, data: bytes | bytearray) -> Header:
    """The header from `data`, which begins with the message. HeaderError when this message is malformed."""
    try:
        header = _read_fields(prefix, data)
    except (IndexError, struct.error, ValueError) as error:
        raise HeaderError(f"malformed header: {error}") from error
    if header.serial == 0:
        raise HeaderError("serial 0")
    if header.kind in _REQUIRED:
        missing = [name for name in _REQUIRED[MessageKind(header.kind)] if not getattr(header, name)]
        if missing:
            raise HeaderError(f"header without {', '.join(missing)}")
    if header.sender is not None and not (len(header.sender) <= 255 and _BUS_NAME.fullmatch(header.sender)):
        raise HeaderError("the sender is no name that could be answered")
    if bool(prefix.body_bytes) != bool(header.signature):
        raise HeaderError(f"{prefix.body_bytes} bytes of body with signature '{header.signature}'")
    return header


def _read_fields(prefix: Prefix, data: bytes | bytearray) -> Header:
    fields = bytes(data[FIXED_BYTES : FIXED_BYTES + prefix.fields_bytes])
    read = _remembered_fields if len(fields) <= _REMEMBERED_BYTES else _known_fields
    return Header(
        little_endian=prefix.little_endian,
        kind=prefix.kind,
        flags=prefix.flags,
        serial=prefix.serial,
        **read(prefix.little_endian, fields),  # type: ignore[arg-type]  # each value has the type that _FIELDS gives it
    )


def _known_fields(little_endian: bool, fields: bytes) -> Mapping[str, str | int]:
    """Attributes of Header by name, from the array of fields (which begins at a multiple of 8)."""
    known: dict[str, str | int] = {}
    cursor = _Cursor(fields, "<" if little_endian else ">")
    while cursor.position < len(fields):
        cursor.align(8)
        code = cursor.byte()
        signature = cursor.signature()
        if code == 0:
            raise HeaderError("field code 0")
        if code not in _FIELDS:
            (type_,) = parse(signature)
            cursor.skip(type_)
            continue
        name, wanted = _FIELDS[code]
        if signature != wanted:
            raise HeaderError(f"{name} has type '{signature}'")
        known[name] = (
            cursor.uint32() if wanted == "u" else cursor.signature() if wanted == "g" else cursor.string()
        )
    if cursor.position != len(fields):
        raise HeaderError("the fields do not end where the header does")
    return known


# Who calls the same method again sends the same fields again; reading them costs ten times as much as remembering.
_remembered_fields = functools.lru_cache(maxsize=256)(_known_fields)


class _Cursor:
    """Reads marshalled values one after the other."""

    def __init__(self, data: bytes | bytearray, order: str) -> None:
        self.data = data
        self.order = order
        self.position = 0

    def align(self, boundary: int) -> None:
        self.position += -self.position & (boundary - 1)

    def byte(self) -> int:
        self.position += 1
        return self.data[self.position - 1]

    def uint32(self) -> int:
        self.align(4)
        value: int = struct.unpack_from(self.order + "I", self.data, self.position)[0]
        self.position += 4
        return value

    def text(self, length: int) -> str:
        end = self.position + length
        if self.data[end] != 0:
            raise HeaderError("a text does not end with NUL")
        value = self.data[self.position : end].decode()
        self.position = end + 1
        return value

    def string(self) -> str:
        return self.text(self.uint32())

    def signature(self) -> str:
        return self.text(self.byte())

    def skip(self, type_: WireType, depth: int = 0) -> None:
        """Passes over one value."""
        if depth > _DEEPEST_VARIANTS:
            raise HeaderError("a field is nested too deeply")
        match type_.code:
            case "s" | "o":
                self.string()
            case "g":
                self.signature()
            case "v":
                (inner,) = parse(self.signature())
                self.skip(inner, depth + 1)
            case "a":
                length = self.uint32()
                self.align(ALIGNMENT[type_.children[0].code])
                self.position += length
            case "(" | "{":
                self.align(8)
                for child in type_.children:
                    self.skip(child, depth + 1)
            case code:
                self.align(ALIGNMENT[code])
                self.position += ALIGNMENT[code]
