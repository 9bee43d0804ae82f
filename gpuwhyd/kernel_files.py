"""Small files of the kernel's below /sys and /proc: each has one value or one line, and is told in one read."""

import os

_TEXT_LIMIT_BYTES = 64
_ASLEEP = frozenset({"suspended", "suspending", "resuming"})
_MOST_DIGITS = 20
"""A 64-bit number has no more."""


def read_once(path: str, limit: int) -> bytes:
    """What one read gives, at most `limit` bytes. Raises OSError.

    Done every tick: without a file object, and without a second read for the end, this is half the system calls.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, limit)
    finally:
        os.close(descriptor)


def read_text(path: str) -> str:
    """A short text without its newline; empty when it is absent, not for us, or its device is just going away."""
    try:
        return read_once(path, _TEXT_LIMIT_BYTES).decode("ascii", "replace").strip()
    except OSError:  # whoever wants to know why uses backends.sysfs.Attributes
        return ""


def read_whole_number(path: str) -> int | None:
    """`None` when there is none to be read."""
    text = read_text(path)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else None


def device_sleeps(runtime_status: str) -> bool:
    """A device is suspended or on its way into or out of it: touching it would wake it. Looking here does not.

    `runtime_status` is the path. From Documentation/ABI/testing/sysfs-devices-power: `suspended`, `suspending`,
    `resuming`, `active`, `error`, `unsupported`. A kernel without runtime power management has no such file.
    """
    return read_text(runtime_status) in _ASLEEP
