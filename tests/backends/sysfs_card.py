"""A small card of a driver of its own, for tests of SysfsBackend: one fan and one temperature in its hwmon directory."""

import itertools
from pathlib import Path

from gpuwhyd.backends.hwmon import MILLI, chip_directory
from gpuwhyd.backends.pci import gpu_id
from gpuwhyd.backends.pci_names import pci_id
from gpuwhyd.backends.plausible import CELSIUS, RPM
from gpuwhyd.backends.sysfs import Attributes
from gpuwhyd.errors import BackendError
from gpuwhyd.model import FanMode, FanReading, FieldSource, GpuIdentity, GpuReading
from tests.fake_nvml.sysfs import AMD, FakeSysfs

DRIVER = "testgpu"
ADDRESS = "0000:0b:00.0"


class PlainCard:
    """What a SysfsCard is; it finds its hwmon directory once, as real ones do."""

    def __init__(self, sysfs: Path, address: str) -> None:
        device = f"{sysfs}/bus/pci/devices/{address}"
        self.identity = GpuIdentity(
            id=gpu_id(address), name="Test GPU", vendor="test", pci_address=address, pci_id=pci_id(device)
        )
        directory = chip_directory(device, DRIVER)
        self._attributes = Attributes(directory) if directory is not None else None

    def read(self, now: float) -> GpuReading:
        if self._attributes is None:
            return GpuReading(gpu=self.identity, backend=DRIVER)
        rpm = self._attributes.number("fan1_input", *RPM)
        celsius = self._attributes.number("temp1_input", *CELSIUS, scale=MILLI)
        if rpm is None and celsius is None:
            raise BackendError(f"{self.identity.id}: nothing can be read")
        fan = FanReading(index=0, rpm=rpm, mode=FanMode.AUTO, rpm_is_measured=True)
        return GpuReading(
            gpu=self.identity,
            backend=DRIVER,
            fan_mode=FanMode.AUTO,
            fans=(fan,),
            temperature_celsius=celsius,
        )

    def is_idle(self, reading: GpuReading) -> bool:
        return False

    def stirs(self) -> bool:
        return True

    def sources(self) -> tuple[FieldSource, ...]:
        return ()


class CardSlot:
    """A place on the bus: a card is plugged in and pulled out, and its driver makes and unmakes its devices.

    Numbers of hwmon directories are not used again, as the kernel does while another one has them.
    """

    _numbers = itertools.count(1)

    def __init__(self, root: Path, address: str = ADDRESS) -> None:
        self.sysfs = FakeSysfs(root)
        self.address = address
        self.device = root / "bus/pci/devices" / address

    def plug(self, *, product: str = "0x73ff", celsius: float = 40.0, rpm: int = 0) -> None:
        self.sysfs.add(self.address, vendor=AMD, driver=None)
        (self.device / "device").write_text(product + "\n")
        self.bind()
        self.probe(celsius=celsius, rpm=rpm)

    def bind(self, driver: str = DRIVER) -> None:
        """As the kernel shows it before the driver has begun with the card."""
        self.sysfs.bind(self.address, driver)

    def probe(self, *, celsius: float = 40.0, rpm: int = 0) -> None:
        """The driver is done: its devices are there."""
        number = next(self._numbers)
        hwmon = self.device / "hwmon" / f"hwmon{number}"
        hwmon.mkdir(parents=True)
        (hwmon / "name").write_text(DRIVER + "\n")
        (hwmon / "temp1_input").write_text(f"{round(celsius * 1000)}\n")
        (hwmon / "fan1_input").write_text(f"{rpm}\n")
        (self.device / "drm" / f"card{number}").mkdir(parents=True)

    def unbind(self) -> None:
        """The driver lets go, or is unloaded."""
        self.sysfs.unbind(self.address)
        for kind in ("hwmon", "drm"):
            for path in sorted((self.device / kind).rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()

    def pull(self) -> None:
        self.unbind()
        self.sysfs.remove(self.address)
