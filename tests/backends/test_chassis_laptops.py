"""Laptops, whose "GPU fan" is a fan of the board: which fan is whose, chip by chip."""

import errno
from pathlib import Path

import pytest

from gpuwhyd.backends.base import Probe
from gpuwhyd.backends.catalog import BACKENDS, Roots
from gpuwhyd.backends.cpu_temperature import CpuTemperature
from gpuwhyd.backends.merge import merged
from gpuwhyd.model import FanMode, GpuIdentity, GpuReading, GpuState
from tests.backends.chassis_rig import DESKTOP, NVIDIA_GPU, NVIDIA_ID, ChassisRig, speeds
from tests.fake_nvml.sysfs import AMD, AUDIO, CONTROLLER_3D, INTEL


@pytest.fixture
def rig(tmp_path: Path) -> ChassisRig:
    return ChassisRig(tmp_path)


def asus(rig: ChassisRig) -> Path:
    return rig.chip(
        "asus", fan1_input=2400, fan1_label="cpu_fan", fan2_input=2600, fan2_label="gpu_fan",
        pwm1_enable=2, pwm2_enable=2,
    )  # fmt: skip


def test_the_shared_fans_of_a_thinkpad_are_one_reading_of_the_machine(rig: ChassisRig) -> None:
    rig.dmi(product_name="20QNS00X00", product_version="ThinkPad P53", vendor="LENOVO")
    rig.pci.add(NVIDIA_GPU, device_class=CONTROLLER_3D)
    rig.chip("thinkpad", fan1_input=2600, fan2_input=2500, pwm1=128, pwm1_enable=2, temp1_input=47000)
    rig.chip(
        "coretemp", temp1_label="Package id 0", temp1_input=71000, temp2_label="Core 0", temp2_input=99000
    )
    assert rig.probe() is Probe.READY
    reading = rig.only()
    assert (reading.gpu.id, reading.gpu.name, reading.gpu.vendor, reading.backend) == (
        "chassis_thinkpad",
        "ThinkPad P53 fan",
        "chassis",
        "chassis",
    )
    assert speeds(reading) == {"fan1": 2600, "fan2": 2500}
    assert all(fan.rpm_is_measured and fan.percent is None for fan in reading.fans)
    assert (reading.state, reading.fan_mode) == (GpuState.AWAKE, FanMode.AUTO)
    assert reading.temperature_celsius == 71
    assert reading.power_watts is None
    assert reading.utilization_percent is None
    assert reading.processes is None


def test_the_fan_that_asus_labels_for_the_gpu_belongs_to_the_one_discrete_gpu(rig: ChassisRig) -> None:
    rig.pci.add("0000:00:02.0", vendor=INTEL, driver="i915")
    rig.pci.add(NVIDIA_GPU)
    rig.pci.add("0000:01:00.1", device_class=AUDIO, driver="snd_hda_intel")
    asus(rig)
    reading = rig.only()
    assert (reading.gpu.id, reading.gpu.pci_address, reading.gpu.vendor) == (NVIDIA_ID, NVIDIA_GPU, "nvidia")
    assert speeds(reading) == {"gpu_fan": 2600}
    assert reading.fan_mode is FanMode.AUTO
    assert (reading.state, reading.temperature_celsius, reading.processes) == (GpuState.UNKNOWN, None, None)


def test_a_gpu_that_nvml_calls_fanless_gets_the_fan_of_the_machine(rig: ChassisRig) -> None:
    rig.pci.add(NVIDIA_GPU)
    rig.write(asus(rig), pwm2_enable=1)
    gpu = GpuIdentity(id=NVIDIA_ID, name="NVIDIA GeForce RTX 3050 Laptop GPU", vendor="nvidia")
    nvml = GpuReading(gpu=gpu, backend="nvml", fan_mode=FanMode.NONE, temperature_celsius=61, power_watts=40)
    (reading,) = merged([nvml, *rig.readings()])
    assert (speeds(reading), reading.fan_mode) == ({"gpu_fan": 2600}, FanMode.MANUAL)
    assert (reading.backend, reading.state, reading.gpu.name) == ("nvml", GpuState.AWAKE, gpu.name)
    assert (reading.temperature_celsius, reading.power_watts) == (61, 40)


def test_without_a_discrete_gpu_the_gpu_fan_is_an_object_of_its_own(rig: ChassisRig) -> None:
    rig.pci.add("0000:00:02.0", vendor=INTEL)
    asus(rig)
    reading = rig.only()
    assert (reading.gpu.id, reading.gpu.name) == ("chassis_asus", "ROG Strix G513QY GPU fan")
    assert speeds(reading) == {"gpu_fan": 2600}


def test_two_discrete_gpus_leave_the_gpu_fan_to_itself(rig: ChassisRig) -> None:
    rig.pci.add(NVIDIA_GPU)
    rig.pci.add("0000:02:00.0", vendor=AMD)
    asus(rig)
    assert rig.only().gpu.id == "chassis_asus"


def test_an_external_gpu_is_not_the_one_under_the_fan(rig: ChassisRig) -> None:
    rig.pci.add("0000:3c:00.0", vendor=AMD)
    rig.write(rig.root / "bus/pci/devices/0000:3c:00.0", removable="removable")
    asus(rig)
    assert rig.only().gpu.id == "chassis_asus"
    rig.pci.add(NVIDIA_GPU)
    assert rig.only(10).gpu.id == NVIDIA_ID


def test_the_graphics_of_an_amd_processor_are_no_discrete_gpu(rig: ChassisRig) -> None:
    """They are not on the root bus, but share their device with the processor's security function."""
    rig.pci.add("0000:06:00.0", vendor=AMD, driver="amdgpu")
    rig.pci.add("0000:06:00.2", vendor=AMD, device_class="0x108000", driver="ccp")
    rig.pci.add("0000:03:00.0", vendor=AMD, driver="amdgpu")
    rig.pci.add("0000:03:00.1", vendor=AMD, device_class=AUDIO)
    asus(rig)
    assert rig.only().gpu.id == "pci_0000_03_00_0"


def test_a_server_management_chip_is_no_gpu(rig: ChassisRig) -> None:
    rig.pci.add("0000:04:00.0", vendor="0x1a03", driver="ast")
    rig.pci.add(NVIDIA_GPU)
    asus(rig)
    assert rig.only().gpu.id == NVIDIA_ID


def test_a_third_fan_is_shared_and_the_cpus_own_is_not(rig: ChassisRig) -> None:
    rig.pci.add(NVIDIA_GPU)
    rig.write(asus(rig), fan3_input=3100, fan3_label="mid_fan")
    by_id = {reading.gpu.id: speeds(reading) for reading in rig.readings()}
    assert by_id == {NVIDIA_ID: {"gpu_fan": 2600}, "chassis_asus": {"mid_fan": 3100}}


def test_a_cpu_fan_that_is_the_only_one_cools_all(rig: ChassisRig) -> None:
    rig.chip("asus", fan1_input=2400, fan1_label="cpu_fan")
    assert speeds(rig.only()) == {"cpu_fan": 2400}


def test_dells_fans_go_by_their_labels(rig: ChassisRig) -> None:
    rig.pci.add(NVIDIA_GPU)
    chip = rig.chip(
        "dell_smm", fan1_input=2500, fan1_label="Processor Fan", fan1_max=4900,
        fan2_input=2700, fan2_label="Video Fan", fan2_max=5100, fan3_input=900, fan3_label="Docking Motherboard Fan",
    )  # fmt: skip
    reading = rig.only()
    assert (reading.gpu.id, speeds(reading)) == (NVIDIA_ID, {"Video Fan": 2700})
    assert reading.fan_rpm_max == 5100
    assert reading.fan_mode is FanMode.UNKNOWN
    rig.remove(chip)
    rig.chip(
        "dell_smm",
        number=1,
        fan1_input=2500,
        fan1_label="Processor Fan",
        fan2_input=0,
        fan2_label="Other Fan",
    )
    reading = rig.only(10)
    assert (reading.gpu.id, reading.gpu.name) == ("chassis_dell_smm", "ROG Strix G513QY fan")
    assert speeds(reading) == {"Processor Fan": 2500}


def test_a_file_that_can_only_be_written_is_not_read(rig: ChassisRig) -> None:
    chip = rig.chip("dell_smm", fan1_input=2500, fan1_label="Processor Fan", pwm1_enable=1)
    (chip / "pwm1_enable").chmod(0o200)
    assert rig.only().fan_mode is FanMode.UNKNOWN


def test_apples_fans_have_a_switch_of_their_own(rig: ChassisRig) -> None:
    chip = rig.chip(
        "applesmc", fan1_input=2160, fan1_label="Left side  ", fan1_max=6156, fan1_manual=0,
        fan2_input=2000, fan2_label="Right side ", fan2_max=5700, fan2_manual=0,
    )  # fmt: skip
    reading = rig.only()
    assert speeds(reading) == {"Left side": 2160, "Right side": 2000}
    assert (reading.fan_mode, reading.fan_rpm_max) == (FanMode.AUTO, 6156)
    rig.write(chip, fan2_manual=1)
    assert rig.only(10).fan_mode is FanMode.MANUAL


@pytest.mark.parametrize(
    "name",
    [
        "hp",
        "acer",
        "cros_ec",
        "msi_wmi_platform",
        "surface_fan",
        "oxp_ec",
        "steamdeck_hwmon",
        "nct6775",
        "it8987",
        "novel",
    ],
)
def test_unlabelled_fans_of_a_laptop_are_shared(rig: ChassisRig, name: str) -> None:
    rig.chip(name, fan1_input=3000)
    reading = rig.only()
    assert (reading.gpu.id, speeds(reading)) == (f"chassis_{name}", {"fan1": 3000})


@pytest.mark.parametrize("name", ["nct6798", "it8689", "nzxtsmart2", "hp", "asus", "cros_ec"])
def test_fans_of_a_desktop_that_say_nothing_are_case_fans(rig: ChassisRig, name: str) -> None:
    rig.dmi(chassis_type=DESKTOP)
    rig.pci.add(NVIDIA_GPU)
    rig.chip(name, fan1_input=1200, fan2_input=900, fan2_label="cpu_fan")
    assert rig.probe() is Probe.LATER


def test_a_desktops_labelled_fan_is_not_taken_for_the_cards_own(rig: ChassisRig) -> None:
    rig.dmi(chassis_type=DESKTOP, product_name="Precision Tower 5810")
    rig.pci.add(NVIDIA_GPU)
    rig.chip("dell_smm", fan1_input=900, fan1_label="Processor Fan", fan2_input=1100, fan2_label="Video Fan")
    reading = rig.only()
    assert (reading.gpu.id, reading.gpu.name) == ("chassis_dell_smm", "Precision Tower 5810 GPU fan")
    assert speeds(reading) == {"Video Fan": 1100}


@pytest.mark.parametrize("name", ["thinkpad", "oxpec", "gpdfan", "surface_fan"])
def test_a_chip_that_only_laptops_have_knows_better_than_the_dmi(rig: ChassisRig, name: str) -> None:
    rig.dmi(chassis_type=DESKTOP, product_name="Default string")
    rig.chip(name, fan1_input=3000)
    assert rig.only().gpu.name == f"{name} fan"


def test_a_machine_with_a_device_tree_says_there_what_it_is(rig: ChassisRig) -> None:
    for path in (rig.root / "class/dmi/id").iterdir():
        path.unlink()
    rig.chip("macsmc_hwmon", fan1_input=2000)
    assert rig.probe() is Probe.LATER
    tree = rig.root / "firmware/devicetree/base"
    tree.mkdir(parents=True)
    (tree / "chassis-type").write_bytes(b"laptop\0")
    (tree / "model").write_bytes(b"Apple MacBook Pro (14-inch, M1 Pro, 2021)\0")
    rig.chip("tas2764", temp1_input=30000)
    assert rig.only(10).gpu.name == "Apple MacBook Pro (14-inch, M1 Pro, 2021) fan"


def test_of_chips_that_show_the_same_fans_only_the_best_is_read(rig: ChassisRig) -> None:
    rig.chip("acpi_fan", fan1_input=2500)
    rig.chip("unheard_of", fan1_input=2501)
    rig.chip("hp_wmi_sensors", fan1_input=2502, fan1_label="CPU Fan Speed")
    assert rig.only().gpu.id == "chassis_hp_wmi_sensors"
    rig.chip("hp", fan1_input=2503)
    assert rig.only(10).gpu.id == "chassis_hp"


def test_a_fan_hub_on_usb_is_not_the_machines(rig: ChassisRig) -> None:
    device = rig.root / "devices/pci0000:00/0000:00:14.0/usb1/1-2/hwmon/hwmon9"
    device.mkdir(parents=True)
    rig.write(device, name="corsaircpro", fan1_input=900)
    (rig.hwmon / "hwmon9").symlink_to(device)
    assert rig.probe() is Probe.LATER


def test_a_kernel_without_hwmon_is_never_asked_again(tmp_path: Path) -> None:
    entry = next(entry for entry in BACKENDS if entry.name == "chassis")
    assert entry.make(Roots(sysfs=tmp_path)).probe().answer is Probe.NEVER


def test_a_machine_without_fans_waits_for_a_driver(rig: ChassisRig) -> None:
    rig.chip("nvme", temp1_input=40000)
    assert rig.probe() is Probe.LATER
    rig.chip("thinkpad", fan1_input=0)
    assert rig.probe() is Probe.READY
    assert rig.only().fan_rpm == 0


@pytest.mark.parametrize(
    ("chips", "celsius"),
    [
        ([("coretemp", {"temp1_label": "Package id 0", "temp1_input": 60000}),
          ("coretemp", {"temp1_label": "Package id 1", "temp1_input": 66000})], 66),
        ([("coretemp", {"temp2_label": "Core 0", "temp2_input": 50000, "temp3_label": "Core 1", "temp3_input": 52000})], 52),
        ([("k10temp", {"temp1_label": "Tctl", "temp1_input": 80000, "temp2_label": "Tdie", "temp2_input": 53000})], 53),
        ([("k10temp", {"temp1_label": "Tctl", "temp1_input": 58000, "temp3_label": "Tccd1", "temp3_input": 90000})], 58),
        ([("zenpower", {"temp1_label": "Tdie", "temp1_input": 57000})], 57),
        ([("cpu_thermal", {"temp1_input": 48000})], 48),
        ([("acpitz", {"temp1_input": 27800}), ("k10temp", {"temp1_label": "Tctl", "temp1_input": 61000})], 61),
        ([("acpitz", {"temp1_input": 55000}), ("coretemp", {"temp1_label": "Package id 0", "temp1_input": 0})], 55),
        ([("nvme", {"temp1_input": 44000}), ("amdgpu", {"temp1_input": 43000})], None),
    ],
)  # fmt: skip
def test_the_temperature_is_the_hottest_cpus(
    rig: ChassisRig, chips: list[tuple[str, dict[str, object]]], celsius: float | None
) -> None:
    rig.chip("thinkpad", fan1_input=2600)
    for name, files in chips:
        rig.chip(name, **files)
    assert rig.only().temperature_celsius == celsius


def test_a_temperature_is_not_taken_from_the_chip_that_got_the_number(rig: ChassisRig) -> None:
    rig.chip("thinkpad", fan1_input=2600)
    chip = rig.chip("coretemp", temp1_label="Package id 0", temp1_input=60000)
    assert rig.only().temperature_celsius == 60
    rig.write(chip, name="nvme")
    rig.chip("coretemp", temp1_label="Package id 0", temp1_input=70000)
    assert rig.only().temperature_celsius is None
    assert rig.only(60).temperature_celsius == 70


def test_sensors_that_may_not_be_listed_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(path: str) -> list[str]:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr("os.listdir", forbidden)
    assert CpuTemperature(tmp_path).read(0.0) is None
