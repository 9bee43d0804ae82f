"""NVIDIA cards as the kernel's PCI bus shows them: read from sysfs, which never wakes a card."""

import os
from dataclasses import dataclass
from pathlib import Path

_VENDOR_NVIDIA = "0x10de"
_DISPLAY_CLASSES = ("0x0300", "0x0302")
"""PCI base class 03, display controller: VGA (00) and 3D (02). The card's audio and USB functions are not it."""


def nvidia_addresses(sysfs: Path) -> tuple[str, ...]:
    """PCI addresses of the cards that NVIDIA's own driver has, or that no driver has yet, in bus order.

    A card given to another driver (vfio-pci, nouveau) is not NVML's.
    """
    devices = sysfs / "bus/pci/devices"
    return tuple(address for address in sorted(bus_names(str(devices))) if _is_ours(devices / address))


def bus_names(devices: str) -> list[str]:
    """The names of all PCI functions: when this list changes, something was plugged or unplugged."""
    try:
        return os.listdir(devices)  # noqa: PTH208 - names are all that is wanted, every tick
    except FileNotFoundError:
        return []


def _is_ours(device: Path) -> bool:
    if _text(device / "vendor") != _VENDOR_NVIDIA or not _text(device / "class").startswith(_DISPLAY_CLASSES):
        return False
    try:
        return (device / "driver").readlink().name == "nvidia"
    except OSError:  # no driver is bound
        return True


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
    """The card is suspended or on its way into or out of it: touching it would wake it.

    From Documentation/ABI/testing/sysfs-devices-power: `suspended`, `suspending`, `resuming`, `active`,
    `error`, `unsupported`. A kernel without runtime power management has no such file.
    """
    return _text(paths.status) in {"suspended", "suspending", "resuming"}


def may_suspend(paths: PowerPaths) -> bool:
    """Runtime power management is allowed for the card (`auto`) and no display that it drives keeps it awake."""
    return _text(paths.control) == "auto" and not any(
        _text(enabled) == "enabled" for enabled in paths.connectors.glob("card*/card*-*/enabled")
    )


def has_ever_slept(paths: PowerPaths) -> bool:
    """The card was suspended at least once since boot: the kernel counts the milliseconds."""
    return _text(paths.suspended_time) not in {"", "0"}


def driver_can_suspend(procfs: Path, address: str) -> bool:
    """False when the driver itself says that it will not suspend this card.

    "Runtime D3 status: Enabled (fine-grained)" in /proc/driver/nvidia/gpus/ADDRESS/power. The file's format has
    changed between drivers, so anything else than a clear no counts as yes.
    """
    try:
        text = (procfs / "driver/nvidia/gpus" / address / "power").read_text("utf-8", "replace")
    except OSError:
        return True
    status = next(
        (
            line.partition(":")[2].strip()
            for line in text.lower().splitlines()
            if line.startswith("runtime d3 status")
        ),
        "",
    )
    return not status.startswith(("disabled", "not supported"))


def module_version(sysfs: Path) -> str | None:
    """The version of the loaded kernel module; None when it is not loaded."""
    return _text(sysfs / "module/nvidia/version") or None


def _text(path: Path | str) -> str:
    """A sysfs file without its newline; empty when it is absent or its device is just going away."""
    # Read every tick: without the file object this is half the system calls.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(descriptor, 64).decode("ascii", "replace").strip()
    except OSError:
        return ""
    finally:
        os.close(descriptor)
