"""Which backends there are, in the order in which they are asked. A new one is one file, and one line here.

Of two that read the same card the earlier one is the better; see merge.py.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gpuwhyd.backends.amdgpu_card import amdgpu_backend
from gpuwhyd.backends.amdsmi import AmdsmiBackend
from gpuwhyd.backends.amdsmi_library import AmdsmiLibrary
from gpuwhyd.backends.base import Backend
from gpuwhyd.backends.chassis import ChassisBackend
from gpuwhyd.backends.chassis_fans import FanRule
from gpuwhyd.backends.nvml import NvmlBackend


@dataclass(frozen=True, slots=True, kw_only=True)
class Roots:
    """Where /sys and /proc are; elsewhere in tests and in containers that have the host's mounted somewhere."""

    sysfs: Path = Path("/sys")
    procfs: Path = Path("/proc")
    fans: tuple[FanRule, ...] = ()
    """What the user says of the machine's own fans."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    name: str
    make: Callable[[Roots], Backend]
    instead_of: str | None = None
    """A fallback: asked only while the backend of this name is neither ready nor asleep."""


def _nvml(roots: Roots) -> Backend:
    return NvmlBackend(sysfs=roots.sysfs, procfs=roots.procfs, own_pid=os.getpid())


def _amdgpu(roots: Roots) -> Backend:
    return amdgpu_backend(roots.sysfs, procfs=roots.procfs)


def _amdsmi(roots: Roots) -> Backend:
    return AmdsmiBackend(sysfs=roots.sysfs, own_pid=os.getpid(), library=AmdsmiLibrary())


def _chassis(roots: Roots) -> Backend:
    return ChassisBackend(sysfs=roots.sysfs, rules=roots.fans)


BACKENDS: tuple[Entry, ...] = (
    Entry(name="nvml", make=_nvml),
    Entry(name="amdgpu", make=_amdgpu),
    Entry(name="amdsmi", make=_amdsmi),
    Entry(name="chassis", make=_chassis),
)

BACKEND_NAMES = tuple(entry.name for entry in BACKENDS)
FALLBACKS = {entry.name: entry.instead_of for entry in BACKENDS if entry.instead_of is not None}
"""Name of a fallback -> name of the backend that makes it needless."""


def enabled_backends(roots: Roots, disabled: tuple[str, ...]) -> tuple[Backend, ...]:
    return tuple(entry.make(roots) for entry in BACKENDS if entry.name not in disabled)
