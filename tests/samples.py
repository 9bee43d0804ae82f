"""A /sys for the backends, made from the trees of real cards in ../shared/samples (they are not the project's).

`installed` puts one card of a sample where the kernel has it: below bus/pci/devices/ADDRESS, with its DRM device in
drm/cardN and its driver's link. `SAMPLES` is where the samples are, None on a machine without them.
"""

import shutil
from pathlib import Path

import pytest

_SAMPLES = Path(__file__).parents[2] / "shared" / "samples"
SAMPLES = _SAMPLES if _SAMPLES.is_dir() else None


def sample_folders(kind: str) -> list[object]:
    """The folders below samples/KIND as parameters of a test; without the samples one that says so and passes over."""
    if SAMPLES is None:
        reason = f"the samples are not here: {_SAMPLES}"
        return [pytest.param(None, marks=pytest.mark.skip(reason=reason), id="no-samples")]
    return [pytest.param(path, id=path.name) for path in sorted((SAMPLES / kind).iterdir())]


def installed(sample: Path, sysfs: Path) -> str:
    """Copies one card of a sample into a sysfs root; gives its PCI address, as its uevent file tells it."""
    (card,) = sample.glob("card*")
    uevent = dict(
        line.split("=", 1) for line in (card / "device/uevent").read_text().splitlines() if "=" in line
    )
    address = uevent["PCI_SLOT_NAME"]
    device = sysfs / "bus/pci/devices" / address
    shutil.copytree(card / "device", device, dirs_exist_ok=True)
    drm = device / "drm" / card.name
    drm.mkdir(parents=True, exist_ok=True)
    for path in card.iterdir():
        if path.name == "device":
            continue
        if path.is_dir():
            shutil.copytree(path, drm / path.name, dirs_exist_ok=True)
        else:
            shutil.copy(path, drm / path.name)
    bind(sysfs, address, uevent["DRIVER"])
    vendor, product = uevent["PCI_ID"].lower().split(":")
    for name, value in (
        ("vendor", f"0x{vendor}"),
        ("device", f"0x{product}"),
        ("class", f"0x{int(uevent['PCI_CLASS'], 16):06x}"),
    ):
        path = device / name
        if not path.exists():
            path.write_text(value + "\n")
    return address


def bind(sysfs: Path, address: str, driver: str) -> None:
    """The links by which the kernel shows that a device has a driver."""
    folder = sysfs / "bus/pci/drivers" / driver
    folder.mkdir(parents=True, exist_ok=True)
    (folder / address).symlink_to(sysfs / "bus/pci/devices" / address)
    (sysfs / "bus/pci/devices" / address / "driver").symlink_to(folder)
