"""Which backends there are, in the order in which they are asked. A new one is one file, and one line here.

Of two that read the same card the earlier one is the better; see merge.py.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gpuwhyd.backends.base import Backend
from gpuwhyd.backends.intel_card import IntelCard
from gpuwhyd.backends.nvidia_smi import NvidiaSmiBackend
from gpuwhyd.backends.nvml import NvmlBackend
from gpuwhyd.backends.rocm_smi import RocmSmiBackend
from gpuwhyd.backends.sysfs_backend import SysfsBackend


@dataclass(frozen=True, slots=True, kw_only=True)
class Roots:
    """Where /sys and /proc are; elsewhere in tests and in containers that have the host's mounted somewhere."""

    sysfs: Path = Path("/sys")
    procfs: Path = Path("/proc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    name: str
    make: Callable[[Roots], Backend]
    instead_of: str | None = None
    """A fallback: asked only while the backend of this name is neither ready nor asleep."""


def _nvml(roots: Roots) -> Backend:
    return NvmlBackend(sysfs=roots.sysfs, procfs=roots.procfs, own_pid=os.getpid())


def _intel(driver: str, roots: Roots) -> Backend:
    return SysfsBackend(driver, sysfs=roots.sysfs, make_card=partial(IntelCard, driver, procfs=roots.procfs))


def _nvidia_smi(roots: Roots) -> Backend:
    return NvidiaSmiBackend(sysfs=roots.sysfs, procfs=roots.procfs)


def _rocm_smi(roots: Roots) -> Backend:
    return RocmSmiBackend(sysfs=roots.sysfs)


BACKENDS: tuple[Entry, ...] = (
    Entry(name="nvml", make=_nvml),
    Entry(name="i915", make=partial(_intel, "i915")),
    Entry(name="xe", make=partial(_intel, "xe")),
    Entry(name="nvidia-smi", make=_nvidia_smi, instead_of="nvml"),
    Entry(name="rocm-smi", make=_rocm_smi, instead_of="amdgpu"),
)

BACKEND_NAMES = tuple(entry.name for entry in BACKENDS)
FALLBACKS = {entry.name: entry.instead_of for entry in BACKENDS if entry.instead_of is not None}
"""Name of a fallback -> name of the backend that makes it needless."""


def enabled_backends(roots: Roots, disabled: tuple[str, ...]) -> tuple[Backend, ...]:
    return tuple(entry.make(roots) for entry in BACKENDS if entry.name not in disabled)
