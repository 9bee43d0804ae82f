"""The kernel's PCI bus: which display devices there are, and whether they sleep. Nothing here wakes a card.

What a card's `power` directory and its configuration (`vendor`, `class`, ...) say, the kernel has in memory
(Documentation/ABI/testing/sysfs-devices-power, sysfs-bus-pci).
"""

import os
from dataclasses import dataclass
from pathlib import Path

from gpuwhyd.errors import BackendError
from gpuwhyd.kernel_files import device_sleeps, read_text
from gpuwhyd.model import PCI_ADDRESS


def gpu_id(pci_address: str) -> str:
    """The id of the GPU at a PCI address, which is the last element of its D-Bus path."""
    return "pci_" + pci_address.lower().replace(":", "_").replace(".", "_")


def names_in(directory: str) -> list[str]:
    """What a directory lists; nothing when it is not there. When this changes, something was plugged
    or unplugged.

    Raises BackendError where it is there and hidden from us.
    """
    try:
        return os.listdir(directory)  # noqa: PTH208 - names are all that is wanted, every tick
    except PermissionError as error:
        raise _hidden(directory, error) from error
    except OSError:  # also of a device that is just going away
        return []


def instances_in(directory: str) -> dict[str, int]:
    """What a directory of sysfs lists, each with its inode; nothing when it is not there. No more costly than the names.

    Raises BackendError where it is there and hidden from us.

    The kernel gives every entry a new inode number, and does not use one again: another number under the same name
    means that it went and came back (fs/kernfs).
    """
    try:
        with os.scandir(directory) as entries:
            return {entry.name: entry.inode() for entry in entries}
    except PermissionError as error:
        raise _hidden(directory, error) from error
    except OSError:  # also of a device that is just going away
        return {}


def _hidden(directory: str, error: OSError) -> BackendError:
    return BackendError(
        f"{directory} cannot be listed ({error.strerror}): look for what hides it from gpuwhyd"
    )


def bindings(sysfs: Path, driver: str) -> dict[str, int]:
    """The PCI addresses of the devices that a driver has, in bus order; another number means that one was bound anew.

    A card's audio function has another driver. Raises BackendError where the kernel's list is hidden from us.
    """
    entries = instances_in(f"{sysfs}/bus/pci/drivers/{driver}")
    return {name: entries[name] for name in sorted(entries) if PCI_ADDRESS.fullmatch(name)}


def bound_to(sysfs: Path, driver: str) -> list[str]:
    """The addresses alone."""
    return list(bindings(sysfs, driver))


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerPaths:
    """The files of one card that are read every tick, their names made once."""

    status: str
    control: str
    suspended_time: str
    connectors: Path

    @classmethod
    def of(cls, sysfs: Path, address: str) -> "PowerPaths":
        device = sysfs / "bus/pci/devices" / address
        return cls(
            status=f"{device}/power/runtime_status",
            control=f"{device}/power/control",
            suspended_time=f"{device}/power/runtime_suspended_time",
            connectors=device / "drm",
        )


def sleeps(paths: PowerPaths) -> bool:
    """The card is suspended or on its way into or out of it: touching it would wake it."""
    return device_sleeps(paths.status)


def may_suspend(paths: PowerPaths) -> bool:
    """Runtime power management is allowed for the card (`auto`) and no display that it drives keeps it awake."""
    return read_text(paths.control) == "auto" and not any(
        read_text(str(enabled)) == "enabled" for enabled in paths.connectors.glob("card*/card*-*/enabled")
    )


def has_ever_slept(paths: PowerPaths) -> bool:
    """The card was suspended at least once since boot: the kernel counts the milliseconds."""
    return read_text(paths.suspended_time) not in {"", "0"}
