"""The genuine rocm-smi (Debian's package) over the same made-up files that amdgpu is read from: a witness of its own.

It needs root, because /sys can be another one only in a mount namespace.
"""

import shlex
from pathlib import Path

import pytest

from gpuwhyd.backends.base import Probe
from gpuwhyd.backends.programs import found
from gpuwhyd.backends.rocm_smi import rocm_smi_backend
from gpuwhyd.model import GpuReading
from tests.backends.amd_ways import AMD_TRUTHS, read_tree
from tests.backends.amdgpu_rig import ADDRESS, Rig
from tests.backends.fake_programs import FakeProgram

pytestmark = pytest.mark.root

KFD_GPU = 4711
QUANTITIES = (
    *("fan_percent", "fan_rpm", "temperature_celsius", "hotspot_celsius", "memory_temperature_celsius"),
    *("power_watts", "power_average_watts", "power_limit_watts", "utilization_percent"),
    *(
        "memory_utilization_percent",
        "memory_used_bytes",
        "memory_total_bytes",
        "core_clock_mhz",
        "memory_clock_mhz",
    ),
)


def complete(sysfs: Path, device: Path) -> None:
    """What its library looks for besides, or it finds no card (rocm_smi_main.cc, rocm_smi_kfd.cc)."""

    def put(path: Path, text: object) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")

    put(sysfs / "module/amdgpu/initstate", "live")
    put(sysfs / "module/amdgpu/version", "6.3.6")
    put(device / "subsystem_vendor", "0x1002")
    put(device / "subsystem_device", "0x0e3a")
    put(device / "hwmon/hwmon3/in0_label", "vddgfx")
    (sysfs / "class/drm").mkdir(parents=True)
    for node in ("card0", "renderD128"):
        (device / "drm" / node).mkdir(parents=True)
        (device / "drm" / node / "device").symlink_to("../..")
        (sysfs / "class/drm" / node).symlink_to(f"../../bus/pci/devices/{ADDRESS}/drm/{node}")
    topology = sysfs / "class/kfd/kfd/topology"
    put(topology / "system_properties", "num_devices 2")
    for number, gpu_id in enumerate((0, KFD_GPU)):
        node = topology / "nodes" / str(number)
        put(node / "gpu_id", gpu_id)
        put(node / "name", "sienna_cichlid" if gpu_id else "")
        said = {
            "simd_count": 144 if gpu_id else 0,
            "array_count": 8,
            "simd_arrays_per_engine": 2,
            "hive_id": 0,
        }
        said |= {"cu_per_simd_array": 10, "simd_per_cu": 2, "location_id": 0x300, "domain": 0, "unique_id": 0}
        put(node / "properties", "\n".join(f"{key} {value}" for key, value in said.items()))
        (node / "io_links").mkdir()
    (sysfs / "class/kfd/kfd/proc").mkdir()


def read_by_genuine_rocm_smi(sysfs: Path, folder: Path) -> GpuReading:
    program = found("rocm-smi")
    assert program is not None, "apt install rocm-smi"
    elsewhere = f'mount --bind {shlex.quote(str(sysfs))} /sys && exec {program} "$@"'
    wrapper = FakeProgram(
        folder, "rocm-smi", f'exec /usr/bin/unshare --mount /bin/sh -c {shlex.quote(elsewhere)} sh "$@"'
    )
    backend = rocm_smi_backend(sysfs=sysfs, path=wrapper.path, run_seconds=60.0)
    assert backend.probe().answer is Probe.READY
    (reading,) = backend.read().readings
    return reading


@pytest.mark.parametrize("name", ["Radeon at work", "Radeon whose fan stands still"])
def test_it_tells_what_we_read(name: str, tmp_path: Path) -> None:
    truth, rig = AMD_TRUTHS[name], Rig(tmp_path)
    ours = read_tree(truth, rig)
    complete(rig.sysfs, rig.card.device)
    its = read_by_genuine_rocm_smi(rig.sysfs, tmp_path / "bin")
    assert (its.gpu.id, its.gpu.vbios_version, its.gpu.driver) == (
        "pci_0000_03_00_0",
        truth.vbios_version,
        "amdgpu 6.3.6",
    )
    for quantity in QUANTITIES:
        if quantity in truth.left_out.get("rocm-smi", ()):
            assert getattr(its, quantity) is None, quantity
        else:
            assert getattr(its, quantity) == pytest.approx(getattr(ours, quantity), abs=0.05), quantity
