"""A made-up machine: DMI, hwmon chips and PCI devices as files, and a ChassisBackend over them."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from gpuwhyd.backends.base import BackendReadings, Probe
from gpuwhyd.backends.chassis import ChassisBackend
from gpuwhyd.backends.chassis_fans import FanRule
from gpuwhyd.model import GpuReading
from tests.fake_nvml.sysfs import FakeSysfs

LAPTOP, DESKTOP = "10", "3"
NVIDIA_GPU, NVIDIA_ID = "0000:01:00.0", "pci_0000_01_00_0"


class ChassisRig:
    """Time stands still unless a test moves it."""

    def __init__(self, folder: Path, rules: Sequence[FanRule] = ()) -> None:
        self.root = folder
        self.pci = FakeSysfs(folder)
        self.hwmon = folder / "class/hwmon"
        self.hwmon.mkdir(parents=True)
        self.now = 1000.0
        self.backend = ChassisBackend(sysfs=folder, rules=rules, monotonic=lambda: self.now)
        self.dmi()

    def dmi(
        self,
        *,
        chassis_type: str = LAPTOP,
        product_name: str = "ROG Strix G513QY",
        product_version: str = "1.0",
        vendor: str = "ASUSTeK COMPUTER INC.",
    ) -> None:
        folder = self.root / "class/dmi/id"
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in (
            ("chassis_type", chassis_type),
            ("product_name", product_name),
            ("product_version", product_version),
            ("sys_vendor", vendor),
        ):
            (folder / name).write_text(text + "\n")

    def chip(self, name: str, *, number: int | None = None, **files: object) -> Path:
        """One more hwmon chip: `fan1_input=2600`, `fan1_label="cpu_fan"`."""
        chip = self.hwmon / f"hwmon{len(list(self.hwmon.iterdir())) if number is None else number}"
        chip.mkdir()
        self.write(chip, name=name, **files)
        return chip

    def write(self, chip: Path, **files: object) -> None:
        for file, content in files.items():
            (chip / file).write_text(f"{content}\n")

    def remove(self, chip: Path) -> None:
        shutil.rmtree(chip)

    def probe(self) -> Probe:
        return self.backend.probe().answer

    def read(self, seconds: float = 2.0) -> BackendReadings:
        """The next tick."""
        self.now += seconds
        return self.backend.read()

    def readings(self, seconds: float = 2.0) -> tuple[GpuReading, ...]:
        return self.read(seconds).readings

    def only(self, seconds: float = 2.0) -> GpuReading:
        (reading,) = self.readings(seconds)
        return reading


def speeds(reading: GpuReading) -> dict[str | None, float | None]:
    return {fan.label: fan.rpm for fan in reading.fans}
