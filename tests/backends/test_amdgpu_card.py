"""What an AMD card says of itself beyond its fans; and cards that vanish, refuse, or say what cannot be."""

import errno
import shutil

import pytest

from gpuwhyd.backends.amdgpu_chip import highest_mhz
from gpuwhyd.errors import BackendError, NoCardError
from gpuwhyd.model import BackendState, FanMode, GpuState, Lack
from tests.backends.amdgpu_metrics_tables import table
from tests.backends.amdgpu_rig import SECOND, Card, Rig
from tests.backends.sysfs_watch import Refusals


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


@pytest.fixture
def refusals(monkeypatch):
    return Refusals(monkeypatch)


def test_a_card_is_read_whole(rig):
    reading = rig.reading()
    assert (reading.backend, reading.state) == ("amdgpu", GpuState.AWAKE)
    assert (reading.temperature_celsius, reading.hotspot_celsius) == (61.0, 78.0)
    assert reading.memory_temperature_celsius == 70.0
    assert (reading.power_watts, reading.power_average_watts, reading.power_limit_watts) == (
        203.0,
        203.0,
        250.0,
    )
    assert (reading.utilization_percent, reading.memory_utilization_percent) == (97.0, 40.0)
    assert (reading.memory_used_bytes, reading.memory_total_bytes) == (1_000_000_000, 16_000_000_000)
    assert (reading.core_clock_mhz, reading.core_clock_max_mhz) == (2100.0, 2500.0)
    assert (reading.memory_clock_mhz, reading.memory_clock_max_mhz) == (1000.0, 1000.0)
    assert reading.can_suspend is False
    assert reading.processes is None


def test_the_limit_is_that_of_the_temperature_shown(rig):
    assert rig.reading().temperature_limit_celsius == 100.0


def test_an_edge_sensor_that_fails_is_not_stood_in_for_by_the_junction(rig):
    assert rig.reading().temperature_celsius == 61.0
    rig.card.set_chip(temp1_input="255000")
    assert (rig.reading().temperature_celsius, rig.reading().hotspot_celsius) == (None, 78.0)


def test_without_an_edge_sensor_the_junction_is_the_cards_temperature(tmp_path):
    rig = Rig(tmp_path)  # as MI300
    rig.card.set_chip(temp1_label=None, temp1_input=None, temp1_crit=None)
    reading = rig.reading()
    assert (reading.temperature_celsius, reading.hotspot_celsius) == (78.0, 78.0)
    assert reading.temperature_limit_celsius == 110.0


def test_channels_are_told_by_their_labels(rig):
    rig.card.set_chip(temp1_label="mem", temp3_label="edge", freq1_label="mclk", freq2_label="sclk")
    reading = rig.reading()
    assert (reading.temperature_celsius, reading.memory_temperature_celsius) == (70.0, 61.0)
    assert reading.temperature_limit_celsius == 105.0
    assert (reading.core_clock_mhz, reading.memory_clock_mhz) == (1000.0, 2100.0)


def test_before_there_were_labels_the_first_temperature_was_the_edge(rig):
    rig.card.set_chip(
        temp1_label=None, temp2_label=None, temp3_label=None, freq1_label=None, freq2_label=None
    )
    reading = rig.reading()
    assert (reading.temperature_celsius, reading.hotspot_celsius) == (61.0, None)
    assert (reading.core_clock_mhz, reading.memory_clock_mhz) == (2100.0, 1000.0)


def test_the_more_instant_power_is_the_power(rig):
    rig.card.set_chip(power1_input="231000000")
    reading = rig.reading()
    assert (reading.power_watts, reading.power_average_watts) == (231.0, 203.0)
    assert rig.sources()["power_watts"].source == "hwmon/hwmon3/power1_input"
    rig.card.set_chip(power1_average=None)
    assert rig.reading().power_average_watts is None


@pytest.mark.parametrize(
    ("file", "value", "quantity"),
    [
        ("temp1_input", "255000", "temperature_celsius"),
        ("temp3_input", "0", "memory_temperature_celsius"),
        ("power1_average", "0", "power_watts"),
        ("power1_average", "4294967295000000", "power_watts"),
        ("power1_cap", "", "power_limit_watts"),
        ("temp1_crit", "0", "temperature_limit_celsius"),
        ("freq1_input", "x", "core_clock_mhz"),
    ],
)
def test_what_cannot_be_is_left_out(rig, file, value, quantity):
    rig.card.set_chip(**{file: value})
    assert getattr(rig.reading(), quantity) is None


@pytest.mark.parametrize("value", ["101", "65535", "-1", "busy", "9" * 4000])
def test_a_load_over_100_percent_is_none(rig, value):
    rig.card.set(gpu_busy_percent=value)
    assert rig.reading().utilization_percent is None
    assert rig.sources()["utilization_percent"].lack is Lack.UNREADABLE


def test_more_memory_used_than_there_is_is_no_memory(rig):
    rig.card.set(mem_info_vram_used="17000000000")
    assert (rig.reading().memory_used_bytes, rig.reading().memory_total_bytes) == (None, None)


def test_memory_borrowed_from_the_machine_is_not_the_cards(rig):
    rig.card.set(mem_info_gtt_used="9000000000", mem_info_gtt_total="9900000000")
    assert rig.reading().memory_used_bytes == 1_000_000_000


@pytest.mark.parametrize(
    ("levels", "highest"),
    [
        ("0: 500Mhz \n1: 2605Mhz *\n2: 2700Mhz ", 2700.0),
        ("0: 500Mhz\n1: 2900Mhz *\n2: 2700Mhz", 2700.0),  # the current clock, boosted, between the ends
        ("S: 500Mhz\n1: 789Mhz *\n2: 2070Mhz", 2070.0),
        ("0: 300MHz\n1: 1366mhz *", 1366.0),
        ("0: 1600Mhz *\n1: 1067Mhz\n2: 400Mhz", 1600.0),  # APUs: memory from the top
        ("2: 687Mhz *\n3: 687Mhz *", 687.0),
        ("0: 0Mhz *", None),
        ("", None),
        ("no levels", None),
        ("0: 2.5GT/s, x1 81Mhz *", None),
    ],
)
def test_the_highest_clock_is_told_by_the_levels(levels, highest):
    assert highest_mhz(levels) == highest


def test_a_card_without_levels_has_no_such_sensor(rig):
    rig.card.set(pp_dpm_sclk="")
    assert rig.reading().core_clock_max_mhz is None
    assert rig.sources()["core_clock_max_mhz"].lack is Lack.NO_SENSOR


# -- who it is ----------------------------------------------------------------------------------------------------


def test_the_identity_of_an_awake_card(rig):
    rig.card.set(unique_id="0123456789ABCDEF")
    gpu = rig.reading().gpu
    assert (gpu.id, gpu.pci_address, gpu.vendor) == ("pci_0000_03_00_0", "0000:03:00.0", "amd")
    assert (gpu.pci_id, gpu.vbios_version, gpu.uuid) == ("1002:73bf", "113-TEST-01", "GPU-0123456789abcdef")


@pytest.mark.parametrize("unique", ["0000000000000000", "", "\x01\x02"])
def test_no_unique_id_is_no_uuid(rig, unique):
    rig.card.set(unique_id=unique)
    assert rig.reading().gpu.uuid is None


@pytest.mark.parametrize(
    ("product", "name"),
    [
        ("AMD INSTINCT MI250 (MCM) OAM AC MBA", "AMD INSTINCT MI250 (MCM) OAM AC MBA"),
        ("Radeon PRO W6800", "AMD Radeon PRO W6800"),
        ("", "AMD Radeon RX 6900 XT"),
        ("0000000000000000", "AMD Radeon RX 6900 XT"),
        ("\x1b[2J", "AMD Radeon RX 6900 XT"),
    ],
)
def test_a_name_on_the_board_is_better_than_the_lists(rig, product, name):
    names = rig.tmp_path / "share/libdrm/amdgpu.ids"
    names.parent.mkdir(parents=True)
    names.write_text("1.0.0\n73BF,\tC1,\tAMD Radeon RX 6900 XT\n")
    rig.card.set(product_name=product)
    assert rig.reading().gpu.name == name


def test_the_driver_is_told_with_the_version_of_its_kernel_or_its_own(rig):
    (rig.tmp_path / "proc/sys/kernel").mkdir(parents=True)
    (rig.tmp_path / "proc/sys/kernel/osrelease").write_text("6.12.9-amd64\n")
    assert rig.reading().gpu.driver == "amdgpu 6.12.9-amd64"
    (rig.sysfs / "module/amdgpu").mkdir(parents=True)
    (rig.sysfs / "module/amdgpu/version").write_text("6.10.5\n")
    rig.backend = rig.new_backend()
    assert rig.reading().gpu.driver == "amdgpu 6.10.5"


# -- gpu_metrics --------------------------------------------------------------------------------------------------


def test_throttling_is_told_where_the_cards_temperature_and_power_agree(rig):
    rig.card.set(gpu_metrics=table(1, 3, indep_throttle_status=1 << 36 | 1))
    rig.card.set_chip(temp2_input="105000", power1_average="249000000")
    assert rig.reading().throttle_reasons == ("power-cap", "sw-thermal")
    rig.card.set_chip(temp2_input="80000")
    assert rig.reading().throttle_reasons == ("power-cap",)
    rig.card.set_chip(power1_average="90000000")
    assert rig.reading().throttle_reasons == ()


def test_each_temperature_is_measured_by_its_own_limit(rig):
    rig.card.set(gpu_metrics=table(1, 3, indep_throttle_status=1 << 34))
    rig.card.set_chip(temp1_input="99000", temp2_input="109000", temp3_input="70000")
    assert rig.reading().throttle_reasons == ()
    rig.card.set_chip(temp3_input="100000")
    assert rig.reading().throttle_reasons == ("sw-thermal",)


def test_no_metrics_no_word_of_throttling(rig):
    assert rig.reading().throttle_reasons is None
    assert rig.sources()["throttle_reasons"].lack is Lack.NO_SENSOR


def test_metrics_without_energy_are_metrics_all_the_same(rig):
    rig.card.set(gpu_metrics=table(1, 3, indep_throttle_status=0))
    reading = rig.reading()
    assert (reading.throttle_reasons, reading.energy_joules) == ((), None)
    assert rig.sources()["throttle_reasons"].lack is None
    assert rig.sources()["energy_joules"].lack is Lack.NO_SENSOR


def test_cards_that_count_are_read_twice_before_anything_is_said(rig):
    rig.card.set(gpu_metrics=table(1, 7, energy_accumulator=1 << 16, ppt_residency_acc=5))
    assert rig.reading().throttle_reasons is None
    assert rig.reading().throttle_reasons == ()
    rig.card.set(gpu_metrics=table(1, 7, energy_accumulator=3 << 16, ppt_residency_acc=9))
    reading = rig.reading()
    assert (reading.throttle_reasons, reading.energy_joules) == (("power-cap",), 3.0)
    rig.card.set(gpu_metrics=table(1, 7, energy_accumulator=3 << 16, ppt_residency_acc=12))
    assert rig.reading(seconds=60).throttle_reasons is None


def test_a_table_of_an_unknown_kind_is_looked_at_once_a_minute(rig, refusals):
    rig.card.set(gpu_metrics=table(1, 3)[:50])
    assert rig.reading().throttle_reasons is None
    assert rig.sources()["throttle_reasons"].lack is Lack.UNREADABLE
    refusals.by_suffix["gpu_metrics"] = errno.EIO
    rig.reading()
    assert refusals.calls == 0
    rig.reading(seconds=61)
    assert refusals.calls == 1


def test_what_the_chip_does_not_measure_is_taken_from_the_metrics(rig):
    rig.card.set(gpu_metrics=table(1, 3, temperature_edge=44, temperature_hotspot=52, temperature_mem=60))
    rig.card.set_chip(**{f"temp{n}_{what}": None for n in (1, 2, 3) for what in ("label", "input", "crit")})
    reading = rig.reading()
    assert (reading.temperature_celsius, reading.hotspot_celsius) == (44.0, 52.0)
    assert reading.memory_temperature_celsius == 60.0


# -- cards that do not answer -------------------------------------------------------------------------------------


def test_a_card_that_is_being_reset_says_nothing_and_comes_back(rig, refusals):
    assert rig.reading().temperature_celsius == 61.0
    refusals.all_sensors(errno.EPERM)
    with pytest.raises(BackendError, match="reset"):
        rig.tick()
    refusals.by_suffix.clear()
    reading = rig.reading()
    assert (reading.state, reading.temperature_celsius) == (GpuState.AWAKE, 61.0)
    assert (reading.power_limit_watts, reading.core_clock_max_mhz) == (250.0, 2500.0)


def test_a_card_that_fell_asleep_before_it_was_read_is_asleep(rig, refusals):
    rig.reading()
    refusals.all_sensors(errno.EPERM)
    refusals.when_called = lambda: rig.card.set_status("suspended")  # the kernel did, before the first read
    reading = rig.reading()
    assert reading.state is GpuState.ASLEEP
    assert reading.temperature_celsius is None
    assert rig.tick().state is BackendState.ASLEEP


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EIO, errno.EBUSY])
def test_a_card_of_which_nothing_can_be_read_is_a_failure(rig, refusals, code):
    refusals.all_sensors(code)
    with pytest.raises(BackendError, match="dmesg"):
        rig.tick()


def test_one_sensor_that_fails_leaves_the_others(rig, refusals):
    refusals.by_suffix["power1_average"] = errno.EINVAL
    reading = rig.reading()
    assert (reading.power_watts, reading.temperature_celsius) == (None, 61.0)
    assert rig.sources()["power_watts"].lack is Lack.UNREADABLE
    assert "dmesg" in rig.sources()["power_watts"].advice


def test_what_gpuwhyd_may_not_read_is_told_and_asked_again_each_minute(rig, refusals):
    refusals.by_suffix["power1_average"] = errno.EACCES
    assert rig.reading().power_watts is None
    assert rig.sources()["power_watts"].lack is Lack.NO_PERMISSION
    assert "root" in rig.sources()["power_watts"].advice
    refusals.by_suffix.clear()
    assert rig.reading().power_watts is None
    assert rig.reading(seconds=61).power_watts == 203.0
    assert rig.sources()["power_watts"].lack is None


def test_a_driver_loaded_anew_gives_the_chip_another_number_within_one_tick(rig):
    rig.reading()
    rig.card.rename_chip("hwmon7")
    rig.card.set_chip(temp1_input="42000")
    assert rig.reading().temperature_celsius == 42.0
    assert rig.sources()["temperature_celsius"].source == "hwmon/hwmon7/temp1_input"


def test_a_card_whose_driver_is_just_going_is_a_failure_and_not_a_fault(rig):
    rig.reading()
    shutil.rmtree(rig.card.device / "hwmon")
    with pytest.raises(BackendError):
        rig.tick()
    rig.card.unbind()
    with pytest.raises(NoCardError, match="no card is left"):
        rig.tick()
    rig.card.set_chip(name="amdgpu", temp1_input="50000")
    rig.card.bind()
    assert rig.reading().temperature_celsius == 50.0


def test_a_virtual_function_without_sensors_is_a_card_all_the_same(tmp_path):
    rig = Rig(tmp_path)
    shutil.rmtree(rig.card.device / "hwmon")
    reading = rig.reading()
    assert (reading.state, reading.fan_mode) == (GpuState.AWAKE, FanMode.UNKNOWN)
    assert reading.memory_used_bytes == 1_000_000_000
    assert rig.sources()["temperature_celsius"].lack is Lack.NO_SENSOR


def test_a_chip_without_one_sensor_is_no_failure(rig):
    shutil.rmtree(rig.card.chip)
    rig.card.set_chip(name="amdgpu")
    reading = rig.reading()
    assert (reading.state, reading.fan_mode) == (GpuState.AWAKE, FanMode.NONE)
    assert (reading.temperature_celsius, reading.utilization_percent) == (None, 97.0)


def test_limits_that_could_not_be_read_are_read_as_soon_as_the_card_answers(rig, refusals):
    rig.reading()
    refusals.all_sensors(errno.EPERM)
    with pytest.raises(BackendError):
        rig.tick(seconds=61)
    refusals.by_suffix.clear()
    reading = rig.reading()
    assert (reading.power_limit_watts, reading.core_clock_max_mhz) == (250.0, 2500.0)


def test_a_file_that_comes_later_is_found_within_a_minute(rig):
    rig.card.set(mem_busy_percent=None)
    assert rig.reading().memory_utilization_percent is None
    rig.card.set(mem_busy_percent="12")
    assert rig.reading(seconds=61).memory_utilization_percent == 12.0


def test_another_drivers_chip_is_not_the_cards(rig):
    other = rig.card.device / "hwmon/hwmon1"
    other.mkdir()
    (other / "name").write_text("nvme\n")
    (other / "temp1_input").write_text("12000\n")
    assert rig.reading().temperature_celsius == 61.0


def test_one_card_that_refuses_does_not_hide_the_other(rig, refusals):
    Card(rig.sysfs, SECOND)
    for name in ("temp1_input", "temp2_input", "temp3_input", "fan1_input", "pwm1", "power1_average",
                 "freq1_input", "freq2_input", "power1_cap"):  # fmt: skip
        refusals.by_suffix[f"{SECOND}/hwmon/hwmon3/{name}"] = errno.EPERM
    answer = rig.tick()
    assert [reading.state for reading in answer.readings] == [GpuState.AWAKE, GpuState.UNKNOWN]
    assert "reset" in answer.message
