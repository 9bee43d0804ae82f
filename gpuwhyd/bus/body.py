"""Whether the bytes of a body are what its signature says, found out before a library reads them.

The bus checks what it forwards, but the bus is another process: dbus-fast 5.2.0 is compiled without bounds and ends our
process (SIGSEGV) at a length near 2**32, dbus-next takes bodies that end early or late. Rules: D-Bus specification,
section "Marshaling". What is in a text is left to the library.
"""

import struct

from gpuwhyd.bus.header import ALIGNMENT, LARGEST_ARRAY_BYTES
from gpuwhyd.bus.signature import WireType, parse

_DEEPEST_NESTING = 64  # specification: containers in each other, variants counted
_UINT32 = {True: struct.Struct("<I"), False: struct.Struct(">I")}
_FIXED_SIZE = {code: size for code, size in ALIGNMENT.items() if code in "ynqbiuhxtd"}


class BodyError(ValueError):
    """These bytes are not what their signature says."""


def check_body(signature: str, body: bytes, *, little_endian: bool) -> None:
    """Raises BodyError, or SignatureError when `signature` is none."""
    checker = _Checker(body, _UINT32[little_endian])
    position = 0
    try:
        for type_ in parse(signature):
            position = checker.end_of(type_, position, 0)
    except (IndexError, struct.error) as error:
        raise BodyError(f"the body ends before signature '{signature}' does") from error
    if position != len(body):
        raise BodyError(f"{len(body)} bytes of body, and signature '{signature}' takes {position}")


class _Checker:
    __slots__ = ("_body", "_uint32")

    def __init__(self, body: bytes, uint32: struct.Struct) -> None:
        self._body = body
        self._uint32 = uint32

    def end_of(self, type_: WireType, position: int, depth: int) -> int:
        """Where the value that begins at `position`, or at the next multiple of its alignment, ends."""
        code = type_.code
        size = _FIXED_SIZE.get(code)
        if size is not None:
            return position + (-position & (size - 1)) + size
        if code in "so":
            position += -position & 3
            return self._end_of_text(position + 4, self._uint32.unpack_from(self._body, position)[0])
        if code == "g":
            return self._end_of_text(position + 1, self._body[position])
        if depth == _DEEPEST_NESTING:
            raise BodyError(f"more than {_DEEPEST_NESTING} containers in each other")
        if code == "v":
            return self._end_of_variant(position, depth + 1)
        if code == "a":
            return self._end_of_array(type_.children[0], position, depth + 1)
        position += -position & 7
        for child in type_.children:
            position = self.end_of(child, position, depth + 1)
        return position

    def _end_of_text(self, begin: int, length: int) -> int:
        if self._body[begin + length] != 0:
            raise BodyError("a text does not end with NUL")
        return begin + length + 1

    def _end_of_variant(self, position: int, depth: int) -> int:
        begin = position + 1
        position = self._end_of_text(begin, self._body[position])
        types = parse(self._body[begin : position - 1].decode("ascii", "replace"))
        if len(types) != 1:
            raise BodyError(f"a variant of {len(types)} types")
        return self.end_of(types[0], position, depth)

    def _end_of_array(self, element: WireType, position: int, depth: int) -> int:
        position += -position & 3
        length = self._uint32.unpack_from(self._body, position)[0]
        if length > LARGEST_ARRAY_BYTES:
            raise BodyError(f"an array of {length} bytes")
        position += 4
        position += -position & (ALIGNMENT[element.code] - 1)
        end: int = position + length
        if end > len(self._body):
            raise BodyError(f"an array of {length} bytes that are not there")
        size = _FIXED_SIZE.get(element.code)
        if size is not None and length % size == 0:
            return end
        while position < end:
            position = self.end_of(element, position, depth)
        if position != end:
            raise BodyError("an array that does not end where its last element does")
        return end
