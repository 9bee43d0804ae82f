"""What the chips of machines get wrong, chips that come and go, and what is never touched."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpuwhyd.backends.base import Probe
from gpuwhyd.backends.chassis import LOOK_SECONDS, SILENT_SECONDS
from gpuwhyd.backends.chassis_fans import KINDS, Cools, cools, kind_of_chip
from gpuwhyd.errors import BackendError, NoCardError
from gpuwhyd.model import FanMode, GpuReading, Lack, as_plain
from tests.backends.chassis_rig import LAPTOP, NVIDIA_GPU, ChassisRig, speeds
from tests.backends.sysfs_watch import touched


@pytest.fixture
def rig(tmp_path: Path) -> ChassisRig:
    return ChassisRig(tmp_path / "sys")


@pytest.mark.parametrize(
    "garbage", ["-1", "65535", "6553500", "-100", "", "nan", "0x7d0", "9" * 5000, "2600 rpm"]
)
def test_what_no_fan_can_do_is_not_known(rig: ChassisRig, garbage: str) -> None:
    chip = rig.chip("asus", fan1_input=2400, fan1_label="cpu_fan")
    assert rig.only().fan_rpm == 2400
    rig.write(chip, fan1_input=garbage)
    reading = rig.only()
    assert reading.fan_rpm is None
    assert len(reading.fans) == 1
    rig.write(chip, fan1_input=2500)
    assert rig.only().fan_rpm == 2500


def test_a_thinkpad_at_full_speed_is_not_believed_for_two_minutes(rig: ChassisRig) -> None:
    chip = rig.chip("thinkpad", fan1_input=2600, pwm1_enable=2)
    assert rig.only().fan_rpm == 2600
    rig.write(chip, pwm1_enable=0)
    for seconds in (2, 60, 57):
        reading = rig.only(seconds)
        assert (reading.fan_rpm, reading.fan_mode) == (None, FanMode.MANUAL)
    rig.write(chip, fan1_input=6100)
    assert rig.only(1).fan_rpm is None
    assert rig.only(2).fan_rpm == 6100
    rig.write(chip, pwm1_enable=2, fan1_input=3000)
    assert (rig.only().fan_rpm, rig.only().fan_mode) == (3000, FanMode.AUTO)


def test_dells_bios_is_not_called_more_often_than_every_five_seconds(rig: ChassisRig) -> None:
    chip = rig.chip("dell_smm", fan1_input=2500, fan1_label="Processor Fan")
    assert rig.only().fan_rpm == 2500
    with touched() as opened:
        rig.write(chip, fan1_input=2600)
        opened.clear()
        assert rig.only(2).fan_rpm == 2500
        assert rig.only(2).fan_rpm == 2500
        assert not [path for path in opened if "fan1_input" in path]
        assert rig.only(2).fan_rpm == 2600
        assert [path for path in opened if "fan1_input" in path]


@pytest.mark.parametrize(
    ("name", "value", "mode"),
    [
        ("hp", 0, FanMode.MANUAL),
        ("hp", 1, FanMode.MANUAL),
        ("hp", 2, FanMode.AUTO),
        ("nct6775", 5, FanMode.AUTO),
        ("oxp_ec", 0, FanMode.MANUAL),
        ("oxpec", 0, FanMode.AUTO),
        ("hp", "", FanMode.UNKNOWN),
        ("hp", -1, FanMode.UNKNOWN),
    ],
)
def test_who_regulates_is_told_by_pwm_enable(
    rig: ChassisRig, name: str, value: object, mode: FanMode
) -> None:
    rig.chip(name, fan1_input=2600, fan2_input=2600, pwm1_enable=value)
    reading = rig.only()
    assert [fan.mode for fan in reading.fans] == [mode, mode]
    assert reading.fan_mode is mode


def test_who_regulates_is_asked_every_ten_seconds(rig: ChassisRig) -> None:
    chip = rig.chip("hp", fan1_input=2600, pwm1_enable=2)
    assert rig.only().fan_mode is FanMode.AUTO
    rig.write(chip, pwm1_enable=0)
    assert rig.only(2).fan_mode is FanMode.AUTO
    assert rig.only(8).fan_mode is FanMode.MANUAL


def test_a_file_without_a_fan_is_no_fan_once_another_turns(rig: ChassisRig) -> None:
    chip = rig.chip("thinkpad", fan1_input=0, fan2_input=0)
    assert speeds(rig.only()) == {"fan1": 0, "fan2": 0}
    rig.write(chip, fan1_input=2600)
    assert speeds(rig.only()) == {"fan1": 2600}
    rig.write(chip, fan1_input=0)
    assert speeds(rig.only()) == {"fan1": 0}
    rig.write(chip, fan2_input=2500)
    assert speeds(rig.only()) == {"fan1": 0, "fan2": 2500}


def test_a_channel_without_a_speed_is_no_fan(rig: ChassisRig) -> None:
    rig.chip("thinkpad", fan1_input=2600, fan2_label="ghost", fan3_max=4000)
    assert speeds(rig.only()) == {"fan1": 2600}


def test_one_failed_read_says_nothing_and_many_are_an_error(rig: ChassisRig) -> None:
    """A directory in the file's place fails as a driver does: opened, and then an error."""
    chip = rig.chip("hp", fan1_input=2600)
    assert rig.only().fan_rpm == 2600
    (chip / "fan1_input").unlink()
    (chip / "fan1_input").mkdir()
    assert rig.only().fan_rpm is None
    with pytest.raises(BackendError, match="no fan of hp can be read"):
        rig.read(SILENT_SECONDS)
    (chip / "fan1_input").rmdir()
    rig.write(chip, fan1_input=2700)
    rig.backend.close()
    assert rig.probe() is Probe.READY
    assert rig.only().fan_rpm == 2700


def test_one_of_two_fans_that_fails_leaves_the_other(rig: ChassisRig) -> None:
    chip = rig.chip("hp", fan1_input=2600, fan2_input=2700)
    rig.only()
    (chip / "fan2_input").unlink()
    reading = rig.only()
    assert [fan.rpm for fan in reading.fans] == [2600, None]
    assert rig.only(SILENT_SECONDS).fan_rpm == 2600


def test_a_chip_that_vanishes_is_told_as_gone_until_it_is_back(rig: ChassisRig) -> None:
    chip = rig.chip("thinkpad", fan1_input=2600)
    assert rig.only().fan_rpm == 2600
    rig.remove(chip)
    with pytest.raises(NoCardError, match="are gone, with their driver"):
        rig.read()
    rig.backend.close()
    rig.backend.close()
    assert rig.probe() is Probe.LATER
    rig.chip("thinkpad", number=7, fan1_input=2800)
    assert rig.probe() is Probe.READY
    assert rig.only().fan_rpm == 2800


def test_a_chip_that_gets_another_number_is_followed_at_once(rig: ChassisRig) -> None:
    chip = rig.chip("thinkpad", fan1_input=2600)
    assert rig.only().fan_rpm == 2600
    chip.rename(rig.hwmon / "hwmon5")
    rig.chip("drivetemp", number=0, fan1_input=1)
    reading = rig.only()
    assert (reading.gpu.id, reading.fan_rpm) == ("chassis_thinkpad", 2600)


def test_a_better_chip_that_appears_later_is_taken(rig: ChassisRig) -> None:
    rig.chip("acpi_fan", fan1_input=2600)
    assert rig.only().gpu.id == "chassis_acpi_fan"
    rig.chip("thinkpad", fan1_input=2650)
    assert rig.only(2).gpu.id == "chassis_acpi_fan"
    assert rig.only(LOOK_SECONDS).gpu.id == "chassis_thinkpad"


def test_what_was_found_is_not_looked_for_again(rig: ChassisRig) -> None:
    """A tick of a usual laptop: the chip's name, its fan, the CPU's sensor and its name, and nothing else."""
    rig.chip("hp", fan1_input=2600, pwm1_enable=2)
    rig.chip("coretemp", temp1_label="Package id 0", temp1_input=60000)
    rig.pci.add(NVIDIA_GPU)
    rig.only()
    with touched() as opened:
        rig.only()
    assert sorted(Path(path).name for path in opened) == ["fan1_input", "name", "name", "temp1_input"]


@pytest.mark.parametrize("driver", ["amdgpu", "radeon", "nouveau", "nvidia", "i915", "i915_gt0", "xe"])
def test_a_gpus_own_chip_is_never_looked_into(rig: ChassisRig, driver: str) -> None:
    """Reading a sensor there would wake the card; its name does not."""
    rig.pci.add(NVIDIA_GPU, driver=driver, status="suspended", control="auto")
    own = rig.chip(
        driver, fan1_input=1500, fan1_label="gpu fan", fan1_max=3000, pwm1_enable=2, temp1_input=40000,
        temp1_label="Package id 0",
    )  # fmt: skip
    rig.chip("hp", fan1_input=2600)
    with touched() as opened:
        assert rig.probe() is Probe.READY
        assert rig.only().gpu.id == "chassis_hp"
        rig.only(100)
        rig.backend.sources()
    looked_at = {path.removeprefix(f"{own}/") for path in opened if path.startswith(f"{own}")}
    assert looked_at == {"name"}
    device = f"{rig.root}/bus/pci/devices/{NVIDIA_GPU}"
    assert {path.removeprefix(f"{device}/") for path in opened if path.startswith(device)} <= {
        "class",
        "vendor",
        "removable",
    }


def test_only_the_configuration_of_a_sleeping_gpu_is_read_to_name_it(rig: ChassisRig) -> None:
    rig.pci.add(NVIDIA_GPU, status="suspended", control="auto")
    rig.chip("asus", fan1_input=2600, fan1_label="gpu_fan")
    with touched() as opened:
        rig.only()
        rig.only()
    device = f"{rig.root}/bus/pci/devices/{NVIDIA_GPU}"
    assert {Path(path).name for path in opened if path.startswith(device)} <= {
        "class", "vendor", "device", "revision", "removable"
    }  # fmt: skip


def test_doctor_is_told_where_each_quantity_comes_from(rig: ChassisRig) -> None:
    chip = rig.chip("hp", fan1_input=2600, fan2_input=2700, pwm1_enable=2)
    rig.only()
    told = {source.quantity: (source.gpu_id, source.source, source.lack) for source in rig.backend.sources()}
    assert told == {
        "fan_rpm": ("chassis_hp", "class/hwmon/hwmon0/fan1_input, fan2_input (hp)", None),
        "fan_mode": ("chassis_hp", "class/hwmon/hwmon0/pwm1_enable (hp)", None),
        "temperature_celsius": ("chassis_hp", "class/hwmon", Lack.NO_SENSOR),
    }
    rig.write(chip, fan1_input=-1, fan2_input=65535)
    rig.only(LOOK_SECONDS)
    told = {source.quantity: source.lack for source in rig.backend.sources()}
    assert told["fan_rpm"] is Lack.UNREADABLE


@pytest.mark.parametrize(
    ("label", "what"),
    [
        ("gpu_fan", Cools.GPU),
        ("GPU1 Fan", Cools.GPU),
        ("Video Fan", Cools.GPU),
        ("dGPU", Cools.GPU),
        ("cpu_fan", Cools.CPU),
        ("Processor Fan", Cools.CPU),
        ("CPU & GPU fan", Cools.BOTH),
        ("mid_fan", Cools.BOTH),
        ("System Fan", Cools.BOTH),
        ("Left side", Cools.BOTH),
        (None, Cools.BOTH),
        ("Docking Video Fan", Cools.ELSE),
        ("Chipset Fan", Cools.ELSE),
        ("Pump", Cools.ELSE),
        ("PSU fan", Cools.ELSE),
    ],
)
def test_a_label_says_what_a_fan_is_for(label: str | None, what: Cools) -> None:
    assert cools(label) is what


def test_every_chip_name_has_exactly_one_kind() -> None:
    assert kind_of_chip("thinkpad").stale_seconds == 120
    assert kind_of_chip("dell_smm").least_seconds == 5
    assert kind_of_chip("acpi_fan") is KINDS[-1]
    for name in ("", "\n", "nct6798", "x" * 1000, "acpi_fan2"):
        assert kind_of_chip(name) is KINDS[-2]


CONTENT = st.binary(max_size=40) | st.sampled_from(
    [
        b"2600\n",
        b"-1\n",
        b"65535\n",
        b"gpu_fan\n",
        b"cpu_fan\n",
        b"Video Fan\n",
        b"thinkpad\n",
        b"1\n",
        b"2\n",
        b"0\n",
    ]
)
FILES = st.dictionaries(
    st.sampled_from(
        ["name", "fan1_input", "fan1_label", "fan1_max", "fan2_input", "fan2_label", "pwm1_enable", "fan2_manual",
         "pwm2_enable", "temp1_input", "temp1_label", "fan999_input", "fan0_input", "fan_input", "fan1_input_"]
    ),
    CONTENT,
)  # fmt: skip
NAMES = st.sampled_from(
    ["thinkpad", "asus", "dell_smm", "applesmc", "coretemp", "nct6798", "amdgpu", "oxp_ec"]
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(NAMES, FILES), max_size=4),
    st.dictionaries(
        st.sampled_from(["chassis_type", "product_name", "sys_vendor", "product_version"]), CONTENT
    ),
    st.lists(FILES, max_size=3),
)
def test_any_files_give_readings_or_an_error(
    tmp_path_factory: pytest.TempPathFactory,
    chips: list[tuple[str, dict[str, bytes]]],
    dmi: dict[str, bytes],
    later: list[dict[str, bytes]],
) -> None:
    rig = ChassisRig(tmp_path_factory.mktemp("sys"))
    rig.dmi(chassis_type=LAPTOP)
    rig.pci.add(NVIDIA_GPU)
    for name, content in dmi.items():
        (rig.root / "class/dmi/id" / name).write_bytes(content)
    made = [(rig.chip(name), files) for name, files in chips]
    for chip, files in made:
        for name, content in files.items():
            (chip / name).write_bytes(content)
    rig.probe()
    for changes in ({}, *later):
        for chip, _ in made[:1]:
            for name, content in changes.items():
                (chip / name).write_bytes(content)
        try:
            readings = rig.readings(LOOK_SECONDS)
        except (BackendError, NoCardError):
            rig.backend.close()
            rig.probe()
            continue
        for reading in readings:
            assert_is_sound(reading)


def assert_is_sound(reading: GpuReading) -> None:
    as_plain(reading)
    assert reading.fans
    assert reading.gpu.name.isprintable()
    assert len(reading.gpu.id) <= 72
    for fan in reading.fans:
        assert fan.label
        assert fan.label.isprintable()
        assert fan.rpm is None or 0 <= fan.rpm <= 30_000
        assert fan.rpm_max is None or 1000 <= fan.rpm_max <= 30_000
    assert reading.temperature_celsius is None or 1 <= reading.temperature_celsius <= 125
