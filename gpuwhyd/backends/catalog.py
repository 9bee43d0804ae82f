"""Which backends there are, in the order in which they are asked. A new one is one file, and one line here.

Of two that read the same card the earlier one is the better; see merge.py. Each is imported only where it has something
to read: all of them together take 5 MiB, and most machines need one.
"""

# ruff: noqa: PLC0415 - see above

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gpuwhyd.backends.base import Backend
from gpuwhyd.backends.chassis import ChassisBackend
from gpuwhyd.backends.chassis_fans import FanRule
from gpuwhyd.backends.deferred import Deferred
from gpuwhyd.backends.nvml_pci import nvidia_addresses
from gpuwhyd.backends.pci import bound_to


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
    driver: str | None = None
    """The kernel driver of the cards that it reads; `None`: it is made on every machine."""
    instead_of: str | None = None
    """A fallback: asked only while the backend of this name is neither ready nor asleep."""

    def backend(self, roots: Roots) -> Backend:
        if self.driver is None:
            return self.make(roots)
        cards = _nvidia_cards if self.driver == "nvidia" else partial(_cards_of, self.driver)
        return Deferred(self.name, no_card=partial(cards, roots.sysfs), make=partial(self.make, roots))


def _nvidia_cards(sysfs: Path) -> str:
    """Also those that no driver has yet."""
    return "" if nvidia_addresses(sysfs) else "no NVIDIA card on the PCI bus"


def _cards_of(driver: str, sysfs: Path) -> str:
    return "" if bound_to(sysfs, driver) else f"no card has the kernel driver {driver}"


def _nvml(roots: Roots) -> Backend:
    from gpuwhyd.backends.nvml import NvmlBackend

    return NvmlBackend(sysfs=roots.sysfs, procfs=roots.procfs, own_pid=os.getpid())


def _amdgpu(roots: Roots) -> Backend:
    from gpuwhyd.backends.amdgpu_card import amdgpu_backend

    return amdgpu_backend(roots.sysfs, procfs=roots.procfs)


def _amdsmi(roots: Roots) -> Backend:
    from gpuwhyd.backends.amdsmi import AmdsmiBackend
    from gpuwhyd.backends.amdsmi_library import AmdsmiLibrary

    return AmdsmiBackend(sysfs=roots.sysfs, own_pid=os.getpid(), library=AmdsmiLibrary())


def _intel(driver: str, roots: Roots) -> Backend:
    from gpuwhyd.backends.intel_card import IntelCard
    from gpuwhyd.backends.sysfs_backend import SysfsBackend

    make_card = partial(IntelCard, driver, procfs=roots.procfs)
    return SysfsBackend(driver, sysfs=roots.sysfs, make_card=make_card)


def _nvidia_smi(roots: Roots) -> Backend:
    from gpuwhyd.backends.nvidia_smi import nvidia_smi_backend

    return nvidia_smi_backend(roots.sysfs, procfs=roots.procfs)


def _rocm_smi(roots: Roots) -> Backend:
    from gpuwhyd.backends.rocm_smi import rocm_smi_backend

    return rocm_smi_backend(roots.sysfs)


def _chassis(roots: Roots) -> Backend:
    return ChassisBackend(sysfs=roots.sysfs, rules=roots.fans)


BACKENDS: tuple[Entry, ...] = (
    Entry(name="nvml", driver="nvidia", make=_nvml),
    Entry(name="amdgpu", driver="amdgpu", make=_amdgpu),
    Entry(name="amdsmi", driver="amdgpu", make=_amdsmi),
    Entry(name="i915", driver="i915", make=partial(_intel, "i915")),
    Entry(name="xe", driver="xe", make=partial(_intel, "xe")),
    Entry(name="nvidia-smi", driver="nvidia", make=_nvidia_smi, instead_of="nvml"),
    Entry(name="rocm-smi", driver="amdgpu", make=_rocm_smi, instead_of="amdgpu"),
    Entry(name="chassis", make=_chassis),
)

BACKEND_NAMES = tuple(entry.name for entry in BACKENDS)
FALLBACKS = {entry.name: entry.instead_of for entry in BACKENDS if entry.instead_of is not None}
"""Name of a fallback -> name of the backend that makes it needless."""


def enabled_backends(roots: Roots, disabled: tuple[str, ...]) -> tuple[Backend, ...]:
    return tuple(entry.backend(roots) for entry in BACKENDS if entry.name not in disabled)
