"""What is NVIDIA's own about its cards on the PCI bus: which are NVML's, and what the driver says of their power."""

from pathlib import Path

from gpuwhyd.backends.pci import PowerPaths, bound_to, may_suspend, names_in
from gpuwhyd.kernel_files import read_text

_VENDOR_NVIDIA = "0x10de"
_DISPLAY_CLASSES = ("0x0300", "0x0302")
"""PCI base class 03, display controller: VGA (00) and 3D (02). The card's audio and USB functions are not it."""


def nvidia_addresses(sysfs: Path) -> tuple[str, ...]:
    """PCI addresses of the cards that NVIDIA's own driver has, or that no driver has yet, in bus order.

    A card given to another driver (vfio-pci, nouveau) is not NVML's.
    """
    devices = sysfs / "bus/pci/devices"
    return tuple(address for address in sorted(names_in(str(devices))) if _is_ours(devices / address))


def _is_ours(device: Path) -> bool:
    if read_text(f"{device}/vendor") != _VENDOR_NVIDIA or not read_text(f"{device}/class").startswith(
        _DISPLAY_CLASSES
    ):
        return False
    try:
        return (device / "driver").readlink().name == "nvidia"
    except OSError:  # no driver is bound
        return True


def can_suspend(paths: PowerPaths, procfs: Path, address: str) -> bool:
    """The kernel and the driver both allow it, and no display keeps the card awake."""
    return may_suspend(paths) and _driver_can_suspend(procfs, address)


def _driver_can_suspend(procfs: Path, address: str) -> bool:
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


def missing_driver(sysfs: Path) -> str:
    """What to do where NVIDIA's driver has no card; empty where it has one.

    Where it has none, neither NVML nor nvidia-smi may be called: run as root, they run nvidia-modprobe, which loads a
    driver that may have been left out on purpose.
    """
    if bound_to(sysfs, "nvidia"):
        return ""
    if module_version(sysfs) is None:
        return "the NVIDIA kernel module is not loaded: modprobe nvidia, or see `dmesg | grep -i nvrm`"
    return "no kernel driver has the NVIDIA card: modprobe nvidia, unless it is on its way to another driver"


def module_version(sysfs: Path) -> str | None:
    """The version of the loaded kernel module; None when it is not loaded."""
    return read_text(f"{sysfs}/module/nvidia/version") or None
