"""Which backends there are, in the order in which they are asked. A new one is one file, and one line here."""

import os
from collections.abc import Callable
from pathlib import Path

from gpuwhyd.backends.base import Backend
from gpuwhyd.backends.nvml import NvmlBackend

BACKENDS: tuple[tuple[str, Callable[[Path], Backend]], ...] = (
    ("nvml", lambda sysfs: NvmlBackend(sysfs=sysfs, own_pid=os.getpid())),
)
"""Name, and how it is made for a sysfs root."""

BACKEND_NAMES = tuple(name for name, _ in BACKENDS)


def enabled_backends(sysfs: Path, disabled: tuple[str, ...]) -> tuple[Backend, ...]:
    return tuple(make(sysfs) for name, make in BACKENDS if name not in disabled)
