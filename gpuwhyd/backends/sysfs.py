"""Attribute files below /sys, read with bounds, and how each read ended.

One attribute is one value in one small file (Documentation/filesystems/sysfs.rst), at most a page of 4 KiB.
"""

import errno

from gpuwhyd.kernel_files import read_once
from gpuwhyd.model import Lack

_ATTRIBUTE_LIMIT_BYTES = 4096

_LACKS = {
    errno.ENOENT: Lack.NO_SENSOR,
    errno.ENOTDIR: Lack.NO_SENSOR,
    errno.ENODEV: Lack.NO_SENSOR,
    errno.EOPNOTSUPP: Lack.NO_SENSOR,
    errno.EACCES: Lack.NO_PERMISSION,
    # amdgpu since Linux 6.15 answers EPERM, instead of waking the card, while it is suspended or being reset.
    errno.EPERM: Lack.ASLEEP,
}
_LASTING = frozenset({Lack.NO_SENSOR, Lack.NO_PERMISSION})
_MOST_DIGITS = 25
"""A 64-bit number has 20; more are no number of the kernel's, and int() would take its time over them."""


class Attributes:
    """The attributes below one directory. `lacks` tells of each one asked for why it has no value, `None` if it has."""

    def __init__(self, directory: str, *, remembers_lacks: bool = False) -> None:
        """`remembers_lacks`: what is not there, or not allowed, is not asked for again until `ask_anew`."""
        self.directory = directory
        self.lacks: dict[str, Lack | None] = {}
        self.revision = 0
        """Goes up whenever `lacks` changes."""
        self._remembers_lacks = remembers_lacks
        self._not_asked: set[str] = set()

    def ask_anew(self) -> None:
        self._not_asked.clear()

    def raw(self, name: str) -> bytes | None:
        """All of a file, also a binary one."""
        content = self._content(name)
        if content is not None:
            self.note(name, None)
        return content

    def text(self, name: str) -> str | None:
        """Several lines are kept; NUL padding, which some kernels leave, is not."""
        content = self.raw(name)
        return None if content is None else _clean(content)

    def number(self, name: str, low: float, high: float, *, scale: float = 1.0) -> float | None:
        """An integer times `scale`; `None` when it is absent, not a number, or after scaling not in [low, high]."""
        content = self._content(name)
        if content is None:
            return None
        text = _clean(content)
        try:
            # Rounded, since 0.000001 is none of the binary fractions: 41.045 W are not to be 41.044999999999995.
            value = round(int(text, 10) * scale, 6) if len(text) <= _MOST_DIGITS else low - 1
        except ValueError:  # a word
            value = low - 1
        good = low <= value <= high
        self.note(name, None if good else Lack.UNREADABLE)
        return value if good else None

    def note(self, name: str, lack: Lack | None) -> None:
        """How reading an attribute ended; also for whoever makes nothing of what `raw` and `text` gave."""
        if self.lacks.get(name, self) is not lack:
            self.lacks[name] = lack
            self.revision += 1

    def _content(self, name: str) -> bytes | None:
        """Takes note of why there is none; that there is one is for the caller to say, who knows what it is worth."""
        if name in self._not_asked:
            return None
        try:
            content = read_once(f"{self.directory}/{name}", _ATTRIBUTE_LIMIT_BYTES)
        except OSError as error:
            lack = _LACKS.get(error.errno or 0, Lack.UNREADABLE)
            self.note(name, lack)
            if self._remembers_lacks and lack in _LASTING:
                self._not_asked.add(name)
            return None
        if not content:
            self.note(name, Lack.UNREADABLE)
        return content or None


def _clean(content: bytes) -> str:
    return content.decode("utf-8", "replace").replace("\0", "").strip()
