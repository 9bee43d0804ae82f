"""The kernel's hardware monitoring: which chip a device has and which channels are on it.

Names and units: Documentation/hwmon/sysfs-interface.rst (millidegrees, microwatts, microjoules, RPM). Looking at names
and labels wakes no card; reading an `_input` does.
"""

import re

from gpuwhyd.backends.pci import names_in
from gpuwhyd.errors import BackendError
from gpuwhyd.kernel_files import read_text

MILLI = 1e-3
MICRO = 1e-6


def chip_directory(device: str, *names: str) -> str | None:
    """The directory of a device's hwmon chip with one of these names; its number changes with each driver load."""
    for entry in sorted(_names(f"{device}/hwmon")):
        directory = f"{device}/hwmon/{entry}"
        if read_text(f"{directory}/name") in names:
            return directory
    return None


def channels(directory: str, kind: str) -> tuple[int, ...]:
    """The numbers of a chip's channels of one kind (`fan`, `temp`, `power`, `energy`), by any of their files."""
    pattern = re.compile(rf"{kind}([0-9]{{1,3}})_[a-z_]+")
    found = {int(match[1]) for name in _names(directory) if (match := pattern.fullmatch(name))}
    return tuple(sorted(found))


def labels(directory: str, kind: str) -> dict[str, int]:
    """Label -> channel number, of the channels that have a label."""
    return {
        label: number
        for number in channels(directory, kind)
        if (label := read_text(f"{directory}/{kind}{number}_label"))
    }


def _names(directory: str) -> list[str]:
    try:
        return names_in(directory)
    except BackendError:  # a sandbox that hides one card's sensors: it has none, then
        return []
