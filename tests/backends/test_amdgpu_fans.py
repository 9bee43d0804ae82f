"""What an AMD card's fan does, who is in charge of it, and whether it is there: the oddities of real cards."""

import pytest

from gpuwhyd.model import FanMode, Lack
from tests.backends.amdgpu_rig import Rig


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


def fan(rig):
    (fan,) = rig.reading().fans
    return fan


def in_laptop(rig, chassis_type="10"):
    path = rig.sysfs / "class/dmi/id/chassis_type"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(chassis_type + "\n")


def test_a_turning_fan_is_told_in_percent_and_by_its_tachometer(rig):
    told = fan(rig)
    assert (told.index, told.percent, told.rpm, told.rpm_max) == (0, 40.0, 1500.0, 3000.0)
    assert told.rpm_is_measured
    assert told.target_percent is None
    assert rig.reading().fan_mode is FanMode.AUTO


@pytest.mark.parametrize("rpm", ["0", "5", "29", "99"])
def test_a_tachometer_that_chatters_is_a_fan_that_stands(rig, rpm):
    rig.card.set_chip(fan1_input=rpm, pwm1="66")
    assert (fan(rig).rpm, fan(rig).percent) == (0.0, 0.0)


def test_a_slow_fan_turns(rig):
    rig.card.set_chip(fan1_input="350", pwm1="30")
    assert (fan(rig).rpm, fan(rig).percent) == (350.0, 11.8)


def test_a_fan_that_is_told_to_turn_and_stands_shows_what_it_was_told(rig):
    rig.card.set_chip(fan1_input="0", pwm1="128")
    assert (fan(rig).rpm, fan(rig).percent, fan(rig).rpm_is_measured) == (0.0, 50.2, True)


def test_a_fan_that_turns_at_duty_0_has_no_percent(rig):
    rig.card.set_chip(fan1_input="1395", pwm1="0")
    assert (fan(rig).rpm, fan(rig).percent) == (1395.0, None)


@pytest.mark.parametrize(
    ("enable", "mode"),
    [
        ("0", FanMode.MANUAL),
        ("1", FanMode.MANUAL),
        ("2", FanMode.AUTO),
        ("3", FanMode.UNKNOWN),
        ("x", FanMode.UNKNOWN),
    ],
)
def test_the_mode_is_what_pwm1_enable_says(rig, enable, mode):
    rig.card.set_chip(pwm1_enable=enable)
    assert (rig.reading().fan_mode, fan(rig).mode) == (mode, mode)


def test_only_a_duty_set_by_hand_is_a_target(rig):
    rig.card.set_chip(fan1_target="1500", pwm1_enable="1")
    assert fan(rig).target_percent == 40.0
    rig.card.set_chip(pwm1_enable="2")
    assert fan(rig).target_percent is None


@pytest.mark.parametrize(("enable", "mode"), [("0", FanMode.AUTO), ("1", FanMode.MANUAL)])
def test_without_pwm1_enable_fan1_enable_tells_the_mode_the_other_way_round(rig, enable, mode):
    rig.card.set_chip(pwm1_enable=None, fan1_enable=enable)
    assert rig.reading().fan_mode is mode


def curve(*points):
    lines = [f"{number}: {celsius}C {percent}%" for number, (celsius, percent) in enumerate(points)]
    return "\n".join(["OD_FAN_CURVE:", *lines, "OD_RANGE:", "FAN_CURVE(hotspot temp): 25C 100C"])


def test_rdna4_has_no_mode_file_and_its_firmware_is_in_charge(rig):
    rig.card.set_chip(pwm1_enable=None)
    assert rig.reading().fan_mode is FanMode.AUTO


def test_a_users_curve_in_the_firmware_is_automatic_and_shown(rig):
    rig.card.set_chip(pwm1_enable=None)
    rig.card.set(**{"gpu_od/fan_ctrl/fan_curve": curve((40, 25), (80, 100))})
    reading = rig.reading()
    assert reading.fan_mode is FanMode.AUTO
    assert [point.fan_percent for point in reading.fan_control.curve] == [25.0, 100.0]


@pytest.mark.parametrize("enable", [None, "2"])
def test_a_flat_curve_is_a_fixed_speed_so_manual(rig, enable):
    rig.card.set_chip(pwm1_enable=enable)
    rig.card.set(**{"gpu_od/fan_ctrl/fan_curve": curve((40, 60), (60, 60), (80, 60))})
    assert rig.reading().fan_mode is FanMode.MANUAL


def test_southern_islands_have_a_duty_and_no_tachometer(rig):
    rig.card.set_chip(fan1_input=None, fan1_max=None, pwm1="139")
    told = fan(rig)
    assert (told.percent, told.rpm, told.rpm_max, told.rpm_is_measured) == (54.5, None, None, False)


def test_several_fans_are_all_told(rig):
    rig.card.set_chip(fan2_input="2200", fan2_max="4000", pwm2="255", pwm2_enable="2")
    reading = rig.reading()
    assert [(fan.index, fan.rpm) for fan in reading.fans] == [(0, 1500.0), (1, 2200.0)]
    assert (reading.fan_rpm, reading.fan_percent) == (2200.0, 100.0)


def without_fan(rig):
    rig.card.set_chip(fan1_input=None, fan1_max=None, pwm1=None, pwm1_max=None, pwm1_enable=None)


def test_a_processors_graphics_or_a_passive_board_has_no_fan(rig):
    without_fan(rig)
    assert (rig.reading().fan_mode, rig.reading().fans) == (FanMode.NONE, ())
    assert rig.sources()["fan_rpm"].lack is Lack.NO_SENSOR
    assert rig.sources()["fan_control"].advice == ""


@pytest.mark.parametrize("chassis_type", ["8", "9", "10", "11", "14", "30", "31", "32"])
def test_the_fan_that_a_laptops_card_claims_is_not_there(rig, chassis_type):
    in_laptop(rig, chassis_type)
    rig.card.set_chip(fan1_input="0", pwm1="76")
    assert (rig.reading().fan_mode, rig.reading().fans) == (FanMode.NONE, ())
    assert rig.sources()["fan_percent"].lack is Lack.NO_SENSOR
    assert "laptop" in rig.sources()["fan_rpm"].advice


def test_a_laptops_fan_that_turns_once_is_there_for_good(rig):
    in_laptop(rig)
    rig.card.set_chip(fan1_input="0", pwm1="76")
    assert rig.reading().fan_mode is FanMode.NONE
    rig.card.set_chip(fan1_input="2100")
    assert (rig.reading().fan_mode, fan(rig).rpm) == (FanMode.AUTO, 2100.0)
    rig.card.set_chip(fan1_input="0", pwm1="0")
    assert (rig.reading().fan_mode, fan(rig).rpm) == (FanMode.AUTO, 0.0)
    assert rig.sources()["fan_rpm"].lack is None


def test_a_card_in_an_external_case_has_its_own_fan_beside_a_laptop_too(rig):
    in_laptop(rig)
    rig.card.set(removable="removable")
    rig.card.set_chip(fan1_input="0", pwm1="0")
    assert (rig.reading().fan_mode, fan(rig).rpm) == (FanMode.AUTO, 0.0)


@pytest.mark.parametrize("chassis_type", ["3", "23", ""])
def test_a_standing_fan_of_a_desktop_or_server_is_one(rig, chassis_type):
    in_laptop(rig, chassis_type)
    rig.card.set_chip(fan1_input="0", pwm1="0")
    assert (rig.reading().fan_mode, fan(rig).rpm) == (FanMode.AUTO, 0.0)


@pytest.mark.parametrize("rpm", ["65535", "-1", "4294967295", "", "n/a"])
def test_an_impossible_speed_is_no_speed(rig, rpm):
    rig.card.set_chip(fan1_input=rpm)
    assert (fan(rig).rpm, fan(rig).percent, fan(rig).rpm_is_measured) == (None, 40.0, False)
    assert rig.sources()["fan_rpm"].lack is Lack.UNREADABLE


def test_a_fan_of_which_nothing_can_be_read_is_not_made_up(rig):
    rig.card.set_chip(fan1_input="65535", pwm1="x")
    assert (rig.reading().fan_mode, rig.reading().fans) == (FanMode.UNKNOWN, ())


def test_percent_is_of_the_full_duty_that_the_driver_tells(rig):
    rig.card.set_chip(pwm1="50", pwm1_max="100")
    assert fan(rig).percent == 50.0
