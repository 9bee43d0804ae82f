"""A small card of the kernel driver amdgpu below a fake /sys, made of what each test says."""

import shutil
from pathlib import Path

from gpuwhyd.backends.amdgpu_card import amdgpu_backend
from tests.samples import bind

ADDRESS = "0000:03:00.0"
SECOND = "0000:43:00.0"

DEVICE = {
    "vendor": "0x1002",
    "device": "0x73bf",
    "revision": "0xc1",
    "power/runtime_status": "active",
    "power/control": "on",
    "power/runtime_suspended_time": "0",
    "vbios_version": "113-TEST-01",
    "gpu_busy_percent": "97",
    "mem_busy_percent": "40",
    "mem_info_vram_used": "1000000000",
    "mem_info_vram_total": "16000000000",
    "pp_dpm_sclk": "0: 500Mhz\n1: 2100Mhz *\n2: 2500Mhz",
    "pp_dpm_mclk": "0: 96Mhz\n1: 1000Mhz *",
}
CHIP = {
    "name": "amdgpu",
    "temp1_label": "edge",
    "temp1_input": "61000",
    "temp1_crit": "100000",
    "temp2_label": "junction",
    "temp2_input": "78000",
    "temp2_crit": "110000",
    "temp3_label": "mem",
    "temp3_input": "70000",
    "temp3_crit": "105000",
    "fan1_input": "1500",
    "fan1_max": "3000",
    "pwm1": "102",
    "pwm1_max": "255",
    "pwm1_enable": "2",
    "power1_average": "203000000",
    "power1_cap": "250000000",
    "freq1_label": "sclk",
    "freq1_input": "2100000000",
    "freq2_label": "mclk",
    "freq2_input": "1000000000",
}


class Card:
    """`None` as a file's value: it is not there."""

    def __init__(self, sysfs: Path, address: str = ADDRESS) -> None:
        self.sysfs = sysfs
        self.address = address
        self.device = sysfs / "bus/pci/devices" / address
        self.chip = self.device / "hwmon/hwmon3"
        self.set(**DEVICE)
        self.set_chip(**CHIP)
        bind(sysfs, address, "amdgpu")

    def set(self, **files: str | bytes | None) -> None:
        _write(self.device, files)

    def set_chip(self, **files: str | bytes | None) -> None:
        _write(self.chip, files)

    def set_status(self, status: str) -> None:
        self.set(**{"power/runtime_status": status})

    def rename_chip(self, name: str) -> None:
        """As a driver loaded anew does: another directory, other files."""
        new = self.chip.with_name(name)
        shutil.copytree(self.chip, new)
        shutil.rmtree(self.chip)
        self.chip = new

    def unbind(self) -> None:
        (self.sysfs / "bus/pci/drivers/amdgpu" / self.address).unlink()

    def bind(self) -> None:
        (self.sysfs / "bus/pci/drivers/amdgpu" / self.address).symlink_to(self.device)


class Rig:
    """The backend on one card, or more; time is what `tick` makes it."""

    def __init__(self, tmp_path: Path) -> None:
        self.tmp_path = tmp_path
        self.sysfs = tmp_path / "sys"
        self.card = Card(self.sysfs)
        self.now = 1000.0
        self.backend = self.new_backend()

    def new_backend(self):
        return amdgpu_backend(
            self.sysfs,
            procfs=self.tmp_path / "proc",
            run=self.tmp_path / "run",
            share=self.tmp_path / "share",
            monotonic=lambda: self.now,
        )

    def tick(self, seconds: float = 2.0):
        self.now += seconds
        return self.backend.read()

    def reading(self, seconds: float = 2.0):
        (reading,) = self.tick(seconds).readings
        return reading

    def sources(self):
        return {source.quantity: source for source in self.backend.sources()}


def _write(folder: Path, files: dict[str, str | bytes | None]) -> None:
    for name, value in files.items():
        path = folder / name
        if value is None:
            path.unlink()
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value if isinstance(value, bytes) else value.encode() + b"\n")
