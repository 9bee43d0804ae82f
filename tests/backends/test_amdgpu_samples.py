"""Every real card of the samples is read as a person would who had its files before him: tests/backends/golden/amd."""

import tomllib
from pathlib import Path

import pytest

from gpuwhyd.backends.amdgpu_card import amdgpu_backend
from gpuwhyd.backends.base import Probe
from gpuwhyd.model import Lack, as_plain
from tests.samples import SAMPLES, installed, sample_folders

GOLDEN = Path(__file__).parent / "golden/amd"


def backend_on(sample, tmp_path, chassis_type):
    sysfs = tmp_path / "sys"
    installed(sample, sysfs)
    dmi = sysfs / "class/dmi/id"
    dmi.mkdir(parents=True)
    (dmi / "chassis_type").write_text(f"{chassis_type}\n")
    nowhere = tmp_path / "nowhere"
    return amdgpu_backend(sysfs, procfs=nowhere, run=nowhere, share=nowhere, monotonic=lambda: 0.0)


@pytest.mark.parametrize("sample", sample_folders("sysfs/amd"))
def test_a_real_card_is_read_as_a_person_would(sample, tmp_path):
    golden = tomllib.loads((GOLDEN / f"{sample.name}.toml").read_text())
    backend = backend_on(sample, tmp_path, golden["chassis_type"])
    assert backend.probe().answer is Probe.READY
    (reading,) = backend.read().readings
    assert as_plain(reading) == golden["reading"]


@pytest.mark.parametrize("sample", sample_folders("sysfs/amd"))
def test_doctor_is_told_the_file_of_all_that_was_read_and_a_lack_for_the_rest(sample, tmp_path):
    backend = backend_on(sample, tmp_path, 3)
    (reading,) = backend.read().readings
    for source in backend.sources():
        value = getattr(reading, source.quantity)
        if source.lack is None:
            assert (tmp_path / "sys/bus/pci/devices" / reading.gpu.pci_address / source.source).is_file()
        elif source.quantity != "fan_mode":  # RDNA 4: told without its file
            assert value is None, source
        if value is not None and source.quantity != "fan_mode":
            assert source.lack is None, source
        assert source.lack is not Lack.ASLEEP


def test_every_sample_has_a_golden_file_and_the_other_way_round():
    if SAMPLES is None:
        pytest.skip("the samples are not here")
    assert {path.stem for path in GOLDEN.glob("*.toml")} == {
        path.name for path in (SAMPLES / "sysfs/amd").iterdir()
    }
