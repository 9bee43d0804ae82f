"""What people call a card: from the lists of PCI ids that other packages keep on the machine.

libdrm's amdgpu.ids knows the product by device and revision; udev keeps what systemd's hwdb says of each device; pci.ids
(hwdata, pci.ids) says the same as a file. None of them needs to be there.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from gpuwhyd.kernel_files import read_text

_BRACKETS = re.compile(r".*\[(.+)\]\s*")
_PCI_IDS = ("misc/pci.ids", "hwdata/pci.ids")
_ID = re.compile(r"0x([0-9a-f]{4})", re.IGNORECASE)
_LONGEST_NAME = 160
"""The longest of pci.ids have about 120 characters; what is longer is no name."""
_VENDORS = {"0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel"}


def pci_id(device: str) -> str | None:
    """`1002:73ff`, of the sysfs directory of a PCI device."""
    vendor = _ID.fullmatch(read_text(f"{device}/vendor"))
    product = _ID.fullmatch(read_text(f"{device}/device"))
    return f"{vendor[1]}:{product[1]}".lower() if vendor and product else None


def device_name(device: str, *, run: Path = Path("/run"), share: Path = Path("/usr/share")) -> str:
    """`AMD Radeon RX 6600`, as good as it is known; in the end `AMD GPU 1002:73ff`. Read once in a card's life."""
    maker = _VENDORS.get(read_text(f"{device}/vendor"), "")
    known = pci_id(device)
    product = (
        _of_libdrm(device, share) or _of_udev(device, run) or (_of_pci_ids(known, share) if known else None)
    )
    if product is None:
        return f"{maker} GPU {known or ''}".strip()
    return product if not maker or product.startswith(maker) else f"{maker} {product}"


def _of_libdrm(device: str, share: Path) -> str | None:
    r"""`73FF,\tC7,\tAMD Radeon RX 6600`: device, revision, product; all of them AMD's."""
    product, revision = read_text(f"{device}/device")[2:], read_text(f"{device}/revision")[2:]
    if read_text(f"{device}/vendor") != "0x1002" or not product or not revision:
        return None
    wanted = (product.lower(), revision.lower())
    for line in _lines(share / "libdrm/amdgpu.ids"):
        parts = [part.strip() for part in line.split(",", 2)]
        if len(parts) == 3 and (parts[0].lower(), parts[1].lower()) == wanted:
            return _clean(parts[2])
    return None


def _of_udev(device: str, run: Path) -> str | None:
    key = "E:ID_MODEL_FROM_DATABASE="
    for line in _lines(run / "udev/data" / f"+pci:{Path(device).name}"):
        if line.startswith(key):
            return _product(line.removeprefix(key))
    return None


def _of_pci_ids(known: str, share: Path) -> str | None:
    r"""Vendors stand at the margin, their devices after one tab: `\t73ff  Navi 23 [Radeon RX 6600/6600 XT/6600M]`."""
    vendor, product = known.split(":")
    for name in _PCI_IDS:
        in_vendor = False
        for line in _lines(share / name):
            if in_vendor and line.startswith(f"\t{product}  "):
                return _product(line[len(product) + 1 :])
            if line and line[0] not in "\t#":
                if in_vendor:
                    break
                in_vendor = line.startswith(f"{vendor}  ")
    return None


def _product(text: str) -> str | None:
    """The marketing name, which stands in brackets after the chip's, where there is one."""
    name = _clean(text)
    brackets = _BRACKETS.fullmatch(name or "")
    return brackets[1].strip() or None if brackets else name


def _clean(text: str) -> str | None:
    """These files are the distribution's, and are shown to people: one printable line, or nothing."""
    name = " ".join(text.split())
    return name if 0 < len(name) <= _LONGEST_NAME and name.isprintable() else None


def _lines(path: Path) -> Iterator[str]:
    """Line by line: pci.ids has 1.3 MB, which is not to stay in the daemon's peak."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                yield line.rstrip("\n")
    except OSError:  # not installed
        return
