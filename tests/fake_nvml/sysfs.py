"""A fake sysfs with the PCI devices a test needs. Standard library only, as control.py."""

import os
from pathlib import Path

NVIDIA, AMD, INTEL = "0x10de", "0x1002", "0x8086"
VGA, CONTROLLER_3D, AUDIO = "0x030000", "0x030200", "0x040300"


class FakeSysfs:
    """`root` is what `--path.sysfs` gets."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "bus/pci/devices").mkdir(parents=True, exist_ok=True)

    def _device(self, address: str) -> Path:
        return self.root / "bus/pci/devices" / address

    def add(
        self,
        address: str,
        *,
        vendor: str = NVIDIA,
        device_class: str = VGA,
        status: str | None = "active",
        control: str = "on",
        driver: str | None = "nvidia",
    ) -> None:
        """One PCI function; `status` None: a kernel without runtime power management."""
        device = self._device(address)
        (device / "power").mkdir(parents=True, exist_ok=True)
        (device / "vendor").write_text(vendor + "\n")
        (device / "class").write_text(device_class + "\n")
        (device / "power/control").write_text(control + "\n")
        if status is not None:
            (device / "power/runtime_status").write_text(status + "\n")
        if driver is not None:
            self.bind(address, driver)

    def bind(self, address: str, driver: str) -> None:
        """Another driver, such as `vfio-pci`, or the same one anew."""
        self.unbind(address)
        device, target = self._device(address), self.root / "bus/pci/drivers" / driver
        target.mkdir(parents=True, exist_ok=True)
        (device / "driver").symlink_to(target)
        (target / address).symlink_to(device)

    def unbind(self, address: str) -> None:
        """No driver has the device, as between unbind and bind."""
        (self._device(address) / "driver").unlink(missing_ok=True)
        unbound = self.root / "unbound"
        unbound.mkdir(exist_ok=True)
        for link in list(self.root.glob(f"bus/pci/drivers/*/{address}")):
            # Kept, because sysfs gives no inode number twice, and a file system does.
            link.rename(unbound / str(len(os.listdir(unbound))))

    def remove(self, address: str) -> None:
        """Pulled out, or removed through its file `remove`."""
        self.unbind(address)
        device = self._device(address)
        for path in sorted(device.rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink()
        device.rmdir()

    def set_status(self, address: str, status: str) -> None:
        """`active`, `suspended`, `suspending`, `resuming`, as the kernel writes them."""
        (self._device(address) / "power/runtime_status").write_text(status + "\n")

    def set_control(self, address: str, control: str) -> None:
        """`auto`: may suspend while unused; `on`: never."""
        (self._device(address) / "power/control").write_text(control + "\n")

    def add_connector(self, address: str, name: str = "card0-DP-1", *, enabled: bool = True) -> None:
        """A display connector of the card, as nvidia-drm with modeset makes it."""
        connector = self._device(address) / "drm" / name.split("-", 1)[0] / name
        connector.mkdir(parents=True, exist_ok=True)
        (connector / "enabled").write_text(("enabled" if enabled else "disabled") + "\n")

    def set_module_version(self, version: str) -> None:
        """The version of the loaded nvidia kernel module."""
        module = self.root / "module/nvidia"
        module.mkdir(parents=True, exist_ok=True)
        (module / "version").write_text(version + "\n")

    def set_suspended_time(self, address: str, milliseconds: int) -> None:
        """How long the kernel has had the card suspended since boot."""
        (self._device(address) / "power/runtime_suspended_time").write_text(f"{milliseconds}\n")
