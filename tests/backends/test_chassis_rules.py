"""What the user says of single fans in the configuration holds over what they say of themselves."""

from pathlib import Path

import pytest

from gpuwhyd.backends.base import Probe
from gpuwhyd.backends.chassis import ChassisBackend
from gpuwhyd.backends.chassis_fans import IGNORE, SHARED, FanRule
from tests.backends.chassis_rig import DESKTOP, NVIDIA_GPU, NVIDIA_ID, ChassisRig, speeds
from tests.backends.sysfs_watch import touched


def desktop(folder: Path, *rules: FanRule) -> ChassisRig:
    rig = ChassisRig(folder / "sys", rules)
    rig.dmi(chassis_type=DESKTOP, product_name="X570")
    rig.pci.add(NVIDIA_GPU)
    rig.chip("nct6798", fan1_input=800, fan2_input=1100, fan3_input=0, pwm1_enable=5, pwm2_enable=1)
    return rig


def test_a_case_fan_is_given_to_a_gpu(tmp_path: Path) -> None:
    rig = desktop(tmp_path, FanRule(chip="nct6798", fan=2, gpu=NVIDIA_ID, name="front fan"))
    reading = rig.only()
    assert (reading.gpu.id, speeds(reading), reading.fan_mode.value) == (
        NVIDIA_ID,
        {"front fan": 1100},
        "manual",
    )


def test_fans_that_are_shared_are_one_object_with_the_users_name(tmp_path: Path) -> None:
    rig = desktop(
        tmp_path,
        FanRule(chip="nct6798", fan=1, gpu=SHARED),
        FanRule(chip="nct6798", fan=2, gpu=SHARED, name="loop"),
    )
    reading = rig.only()
    assert (reading.gpu.id, reading.gpu.name) == ("chassis_nct6798", "loop")
    assert speeds(reading) == {"fan1": 800, "loop": 1100}


def test_a_fan_is_named_by_its_label_too_and_its_number_says_more(tmp_path: Path) -> None:
    rig = ChassisRig(
        tmp_path / "sys",
        (
            FanRule(chip="asus", fan="CPU_fan", gpu=NVIDIA_ID),
            FanRule(chip="asus", fan="cpu_fan2", gpu=IGNORE),
            FanRule(chip="asus", fan=2, gpu=SHARED),
        ),
    )
    rig.pci.add(NVIDIA_GPU)
    rig.chip("asus", fan1_input=2400, fan1_label="cpu_fan", fan2_input=2500, fan2_label="cpu_fan2")
    by_id = {reading.gpu.id: speeds(reading) for reading in rig.readings()}
    assert by_id == {NVIDIA_ID: {"cpu_fan": 2400}, "chassis_asus": {"cpu_fan2": 2500}}


def test_an_ignored_fan_is_not_even_read(tmp_path: Path) -> None:
    rig = ChassisRig(tmp_path / "sys", (FanRule(chip="thinkpad", fan=2, gpu=IGNORE),))
    rig.chip("thinkpad", fan1_input=2600, fan2_input=2700)
    rig.chip("acpi_fan", fan1_input=2600)
    with touched() as opened:
        assert speeds(rig.only()) == {"fan1": 2600}
    assert not [path for path in opened if path.endswith("fan2_input")]


def test_with_all_its_fans_ignored_a_laptop_has_none(tmp_path: Path) -> None:
    """Not those of the next chip, which are the same fans."""
    rig = ChassisRig(tmp_path / "sys", (FanRule(chip="dell_smm", fan=1, gpu=IGNORE),))
    rig.chip("dell_smm", fan1_input=2600, fan1_label="Processor Fan")
    rig.chip("dell_ddv", fan1_input=2600, fan1_label="CPU Fan")
    assert rig.probe() is Probe.LATER


def test_the_users_hub_on_usb_is_read(tmp_path: Path) -> None:
    rig = desktop(tmp_path, FanRule(chip="corsaircpro", fan=3, gpu=NVIDIA_ID))
    device = rig.root / "devices/usb1/1-2/hwmon/hwmon9"
    device.mkdir(parents=True)
    rig.write(device, name="corsaircpro", fan3_input=900)
    (rig.hwmon / "hwmon9").symlink_to(device)
    assert speeds(rig.only()) == {"fan3": 900}


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        (FanRule(chip="nct6799", fan=2, gpu=SHARED), "there is no fan 2 on a chip nct6799"),
        (FanRule(chip="nct6798", fan=7, gpu=SHARED), "there is no fan 7 on a chip nct6798"),
        (FanRule(chip="nct6798", fan="front", gpu=SHARED), "there is no fan front on a chip nct6798"),
        (
            FanRule(chip="nct6798", fan=2, gpu="pci_0000_09_00_0"),
            "fan 2 of nct6798 is pci_0000_09_00_0's, which is not there",
        ),
    ],
)
def test_a_rule_that_fits_nothing_is_said(tmp_path: Path, rule: FanRule, complaint: str) -> None:
    rig = desktop(tmp_path, rule)
    answer = rig.backend.probe()
    assert (answer.answer, answer.message) == (Probe.LATER, complaint)
    rig = desktop(tmp_path / "other", rule, FanRule(chip="nct6798", fan=1, gpu=SHARED))
    assert rig.read().message == complaint


def test_a_gpu_that_is_plugged_in_later_gets_its_fan(tmp_path: Path) -> None:
    rig = desktop(tmp_path, FanRule(chip="nct6798", fan=2, gpu="pci_0000_09_00_0"))
    assert rig.probe() is Probe.LATER
    rig.pci.add("0000:09:00.0")
    assert rig.probe() is Probe.READY
    assert rig.only().gpu.id == "pci_0000_09_00_0"
    rig.pci.remove("0000:09:00.0")
    rig.chip("thinkpad", fan1_input=2000)
    assert [reading.gpu.id for reading in rig.readings(10)] == ["chassis_thinkpad"]


def test_a_fan_of_the_configuration_is_missed_also_where_the_kernel_has_no_hwmon(tmp_path: Path) -> None:
    rules = (FanRule(chip="nct6798", fan=2, gpu="shared"), FanRule(chip="it87", fan="gpu", gpu="shared"))
    told = ChassisBackend(sysfs=tmp_path, rules=rules).probe()
    assert told.answer is Probe.NEVER
    assert "none of those in [[fan]]: fan 2 of nct6798, fan gpu of it87" in told.message
    assert "[[fan]]" not in ChassisBackend(sysfs=tmp_path).probe().message
