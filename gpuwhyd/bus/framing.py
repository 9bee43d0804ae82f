"""From a stream of bytes to messages, without ever holding more of one than is wanted.

The library is given only whole messages of a size that was agreed to. What is larger is passed over as it streams by, so
that one huge message costs its sender time and us nothing; what is malformed is lost alone, because where it ends is
known from its first 16 bytes.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from gpuwhyd.bus.header import (
    FIXED_BYTES,
    Header,
    HeaderError,
    MessageKind,
    Prefix,
    read_header,
    read_prefix,
)

_LENGTHS = {ord("l"): struct.Struct("<III"), ord("B"): struct.Struct(">III")}  # of body, serial, of fields
_SENDER = b"\x07\x01s\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A whole message; `body` is still marshalled, in the header's byte order."""

    header: Header
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Discarded:
    """A message that was not taken: too large, or its header malformed. `header` where it could be read."""

    reason: str
    total_bytes: int
    header: Header | None = None


class Framer:
    """Feed what the socket gave, take messages until there is none.

    `limit_for` says how many bytes a message with this header may have in total; it is asked once a message. A header
    of more than `header_limit` bytes is not looked at. After HeaderError from `take` the stream is lost for good.
    """

    def __init__(self, limit_for: Callable[[Header], int], header_limit: int) -> None:
        self._limit_for = limit_for
        self._header_limit = header_limit
        self.muted: set[bytes] = set()
        """Names of senders whose method calls are passed over unread."""
        self._buffer = bytearray()
        self._skip_bytes = 0
        self._prefix: Prefix | None = None
        self._header: Header | None = None

    def feed(self, data: bytes) -> None:
        if self._skip_bytes:
            skipped = min(self._skip_bytes, len(data))
            self._skip_bytes -= skipped
            data = data[skipped:]
        self._buffer += data

    def take(self) -> Frame | Discarded | None:
        """The next message, or None until more has been fed."""
        if self._prefix is None:
            if self.muted:
                self._pass_over_muted()
            if len(self._buffer) < FIXED_BYTES:
                return None
            self._prefix = read_prefix(self._buffer)
        prefix = self._prefix
        if self._header is None:
            if prefix.header_bytes > self._header_limit:
                return self._discard(prefix, "too large", None)
            if len(self._buffer) < prefix.header_bytes:
                return None
            try:
                self._header = read_header(prefix, self._buffer)
            except HeaderError as error:
                return self._discard(prefix, str(error), None)
            if prefix.total_bytes > self._limit_for(self._header):
                return self._discard(prefix, "too large", self._header)
        if len(self._buffer) < prefix.total_bytes:
            return None
        frame = Frame(header=self._header, body=bytes(self._buffer[prefix.header_bytes : prefix.total_bytes]))
        self._forget(prefix.total_bytes)
        return frame

    def _pass_over_muted(self) -> None:
        """Ten times as fast as looking at each message, so that those behind a flood wait a tenth of the time.

        The sender's field is the last that has these bytes, because the bus puts it there. Who puts the same bytes into
        another field can pretend, here, to be somebody else: that loses only this message, or gains it a closer look.
        """
        buffer, start = self._buffer, 0
        while len(buffer) - start >= FIXED_BYTES:
            lengths = _LENGTHS.get(buffer[start])
            if lengths is None or buffer[start + 1] != MessageKind.METHOD_CALL:
                break
            body_bytes, _, fields_bytes = lengths.unpack_from(buffer, start + 4)
            body_start = start + FIXED_BYTES + (fields_bytes + 7 & ~7)
            if body_start + body_bytes > len(buffer):
                break
            field = buffer.rfind(_SENDER, start, body_start)
            name_start = field + len(_SENDER) + 4
            name_end = buffer.find(0, name_start, body_start)
            if field < 0 or name_end < 0 or bytes(buffer[name_start:name_end]) not in self.muted:
                break
            start = body_start + body_bytes
        del buffer[:start]

    def _discard(self, prefix: Prefix, reason: str, header: Header | None) -> Discarded:
        self._skip_bytes = max(0, prefix.total_bytes - len(self._buffer))
        self._forget(prefix.total_bytes)
        return Discarded(reason=reason, total_bytes=prefix.total_bytes, header=header)

    def _forget(self, length: int) -> None:
        del self._buffer[:length]
        self._prefix = None
        self._header = None
