"""What the machine is: carried or not, what people call it, which GPUs are built into it. Nothing here wakes a card.

DMI: class/dmi/id, chassis types of the SMBIOS specification, table 17. Machines without it (ARM) have a device tree.
"""

from pathlib import Path

from gpuwhyd.backends.pci import gpu_id, names_in
from gpuwhyd.kernel_files import read_text
from gpuwhyd.model import PCI_ADDRESS

_PORTABLE_TYPES = frozenset({"8", "9", "10", "11", "14", "30", "31", "32"})
"""Portable, laptop, notebook, hand held, sub notebook, tablet, convertible, detachable."""
_PORTABLE_WORDS = frozenset({"laptop", "convertible", "tablet", "handset", "embedded-handheld"})
"""`chassis-type` of the device tree."""
_FILLERS = frozenset(
    {"", "none", "not available", "not applicable", "to be filled by o.e.m.", "default string", "system product name",
     "system version", "invalid", "undefined", "o.e.m.", "oem", "unknown", "1.0"}
)  # fmt: skip
_DISPLAY = "0x03"
_PROCESSOR_SECURITY = "0x1080"
"""The class of the PSP, which is a function of the same device as the GPU in an AMD processor, and of no card."""
_GPU_VENDORS = frozenset({"0x10de", "0x1002", "0x8086"})


def is_portable(sysfs: Path) -> bool:
    """Whether a person carries it: then its fans are few and cool everything."""
    if chassis_type := read_text(f"{sysfs}/class/dmi/id/chassis_type"):
        return chassis_type in _PORTABLE_TYPES
    return read_text(f"{sysfs}/firmware/devicetree/base/chassis-type").strip("\0") in _PORTABLE_WORDS


def machine_name(sysfs: Path) -> str | None:
    """`ThinkPad P53`, `ROG Strix G513`; `None` where the maker has left it out."""
    dmi = f"{sysfs}/class/dmi/id"
    # Lenovo keeps the type number, `20QNS00X00`, where others have the name.
    order = (
        ("product_version", "product_name")
        if read_text(f"{dmi}/sys_vendor") == "LENOVO"
        else ("product_name",)
    )
    words = (*(f"{dmi}/{name}" for name in order), f"{sysfs}/firmware/devicetree/base/model")
    for path in words:
        name = "".join(letter for letter in read_text(path) if letter.isprintable()).strip()
        if name.lower() not in _FILLERS:
            return name
    return None


def gpus_of(sysfs: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The ids of all GPUs, and of those that are built in and no part of the CPU; in bus order."""
    devices = f"{sysfs}/bus/pci/devices"
    addresses = sorted(name for name in names_in(devices) if PCI_ADDRESS.fullmatch(name))
    gpus = [
        address
        for address in addresses
        if read_text(f"{devices}/{address}/class").startswith(_DISPLAY)
        and read_text(f"{devices}/{address}/vendor") in _GPU_VENDORS
    ]
    discrete = [address for address in gpus if _is_discrete(devices, address, addresses)]
    return tuple(map(gpu_id, gpus)), tuple(map(gpu_id, discrete))


def _is_discrete(devices: str, address: str, addresses: list[str]) -> bool:
    """No part of the CPU: not on the root bus, no PSP beside it; nor outside of the machine (Thunderbolt)."""
    slot = address.rpartition(".")[0]
    if slot.split(":")[1] == "00" or read_text(f"{devices}/{address}/removable") == "removable":
        return False
    return not any(
        read_text(f"{devices}/{other}/class").startswith(_PROCESSOR_SECURITY)
        for other in addresses
        if other.rpartition(".")[0] == slot
    )
