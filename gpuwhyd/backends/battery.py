"""Whether the machine runs on its battery: then what costs most is done more seldom."""

from pathlib import Path

from gpuwhyd.backends.pci import names_in
from gpuwhyd.errors import BackendError
from gpuwhyd.kernel_files import read_text


def is_on_battery(sysfs: Path) -> bool:
    """A battery of the machine's own discharges (Documentation/ABI/testing/sysfs-class-power).

    Those of mice and headsets have the scope `Device`.
    """
    folder = sysfs / "class/power_supply"
    try:
        names = names_in(str(folder))
    except BackendError:  # a sandbox hides it: then nobody knows, and nothing is done more seldom
        return False
    return any(
        read_text(f"{folder}/{name}/type") == "Battery"
        and read_text(f"{folder}/{name}/scope") != "Device"
        and read_text(f"{folder}/{name}/status") == "Discharging"
        for name in names
    )
