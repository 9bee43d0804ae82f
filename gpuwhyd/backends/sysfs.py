"""Attribute files below /sys, read with bounds, and how each read ended.

One attribute is one value in one small file (Documentation/filesystems/sysfs.rst), at most a page of 4 KiB.
"""

import errno
import os

from gpuwhyd.model import Lack

_ATTRIBUTE_LIMIT_BYTES = 4096

_LACKS = {
    errno.ENOENT: Lack.NO_SENSOR,
    errno.ENODEV: Lack.NO_SENSOR,
    errno.EOPNOTSUPP: Lack.NO_SENSOR,
    errno.EACCES: Lack.NO_PERMISSION,
    # amdgpu since Linux 6.15 answers EPERM, instead of waking the card, while it is suspended or being reset.
    errno.EPERM: Lack.ASLEEP,
}


def read_text(path: str) -> str:
    """A short attribute without its newline; empty when it is absent or its device is just going away."""
    try:
        return read_bytes(path, 64).decode("ascii", "replace").strip()
    except OSError:  # whoever wants to know why uses Attributes
        return ""


def read_bytes(path: str, limit: int = _ATTRIBUTE_LIMIT_BYTES) -> bytes:
    """At most `limit` bytes of a file. Raises OSError."""
    # Read every tick: without a file object this is half the system calls.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, limit)
    finally:
        os.close(descriptor)


class Attributes:
    """The attributes below one directory. `lacks` tells of each one asked for why it has no value, `None` if it has."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.lacks: dict[str, Lack | None] = {}

    def raw(self, name: str) -> bytes | None:
        """All of a file, also a binary one."""
        try:
            content = read_bytes(f"{self.directory}/{name}")
        except OSError as error:
            self.lacks[name] = _LACKS.get(error.errno or 0, Lack.UNREADABLE)
            return None
        self.lacks[name] = None if content else Lack.UNREADABLE
        return content or None

    def text(self, name: str) -> str | None:
        """Several lines are kept; NUL padding, which some kernels leave, is not."""
        content = self.raw(name)
        return None if content is None else content.decode("utf-8", "replace").replace("\0", "").strip()

    def number(self, name: str, low: float, high: float, *, scale: float = 1.0) -> float | None:
        """An integer times `scale`; `None` when it is absent, not a number, or after scaling not in [low, high]."""
        text = self.text(name)
        if text is None:
            return None
        try:
            value = int(text, 10) * scale
        except (ValueError, OverflowError):  # a word, or more digits than a number takes
            value = low - 1
        if low <= value <= high:
            return value
        self.lacks[name] = Lack.UNREADABLE
        return None
