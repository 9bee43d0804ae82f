"""Real cards, however they are read, in the units that the names say: no watt is a milliwatt, no byte a kibibyte."""

from pathlib import Path

import pytest

from gpuwhyd.backends import rocm_smi_json
from gpuwhyd.backends.amdgpu_card import amdgpu_backend
from gpuwhyd.backends.intel_card import IntelCard
from gpuwhyd.backends.nvidia_smi_xml import cards as nvidia_cards
from gpuwhyd.model import GpuReading
from tests.samples import installed, sample_folders

RANGES = {
    "fan_percent": (0, 100),
    "fan_rpm": (0, 6000),
    "temperature_celsius": (15, 100),
    "hotspot_celsius": (15, 115),
    "memory_temperature_celsius": (15, 110),
    "temperature_limit_celsius": (60, 120),
    "power_watts": (0.5, 1000),
    "power_average_watts": (0.5, 1000),
    "power_limit_watts": (10, 1400),
    "energy_joules": (1, 1e10),
    "utilization_percent": (0, 100),
    "memory_utilization_percent": (0, 100),
    "memory_used_bytes": (0, 256 << 30),
    "memory_total_bytes": (64 << 20, 256 << 30),
    "core_clock_mhz": (0, 3500),
    "core_clock_max_mhz": (300, 3500),
    "memory_clock_mhz": (0, 12_000),
    "memory_clock_max_mhz": (300, 12_000),
}


def assert_plausible(reading: GpuReading) -> None:
    for quantity, (least, most) in RANGES.items():
        value = getattr(reading, quantity)
        assert value is None or least <= value <= most, f"{quantity}: {value}"
    assert reading.temperature_celsius is not None or reading.core_clock_mhz is not None


@pytest.mark.parametrize("sample", sample_folders("sysfs/amd"))
def test_amds_by_their_files(sample: Path, tmp_path: Path) -> None:
    installed(sample, tmp_path)
    nowhere = tmp_path / "nowhere"
    backend = amdgpu_backend(tmp_path, procfs=nowhere, run=nowhere, share=nowhere)
    (reading,) = backend.read().readings
    assert_plausible(reading)


@pytest.mark.parametrize("sample", sample_folders("sysfs/intel"))
def test_intels_by_their_files(sample: Path, tmp_path: Path) -> None:
    address = installed(sample, tmp_path)
    driver = (tmp_path / "bus/pci/devices" / address / "driver").resolve().name
    card = IntelCard(driver, tmp_path, address, procfs=tmp_path / "nowhere", sleep=lambda _seconds: None)
    assert_plausible(card.read(1000.0))


@pytest.mark.parametrize("sample", sample_folders("rocm-smi-json"))
def test_amds_by_rocm_smi(sample: Path) -> None:
    for reading in (told.reading for told in rocm_smi_json.cards(sample.read_bytes())):
        assert_plausible(reading)


@pytest.mark.parametrize("sample", sample_folders("nvidia-smi-xml"))
def test_nvidias_by_nvidia_smi(sample: Path) -> None:
    for reading in (told.reading for told in nvidia_cards(sample.read_bytes())):
        assert_plausible(reading)
