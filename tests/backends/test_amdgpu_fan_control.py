"""How a card was told to run its fan: gpu_od/fan_ctrl in the forms that kernels and firmwares write."""

import pytest

from gpuwhyd.backends.amdgpu_fan_control import curve_of, value_of
from gpuwhyd.model import FanControl, FanCurvePoint, Lack
from tests.backends.amdgpu_rig import Rig

FOLDER = "gpu_od/fan_ctrl"


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


def set_control(rig, **values):
    headings = {
        "fan_zero_rpm_enable": "FAN_ZERO_RPM_ENABLE",
        "fan_zero_rpm_stop_temperature": "FAN_ZERO_RPM_STOP",
    }
    rig.card.set(
        **{
            f"{FOLDER}/{name}": f"{headings.get(name, 'OD_' + name.upper())}:\n{value}\nOD_RANGE:\nX: 1 2"
            for name, value in values.items()
        }
    )


def test_all_of_it_is_read(rig):
    set_control(
        rig,
        fan_curve="0: 40C 25%\n1: 60C 50%\n2: 80C 100%",
        fan_target_temperature=83,
        fan_minimum_pwm=15,
        acoustic_target_rpm_threshold=1450,
        acoustic_limit_rpm_threshold=3200,
        fan_zero_rpm_enable=1,
        fan_zero_rpm_stop_temperature=50,
    )
    assert rig.reading().fan_control == FanControl(
        zero_rpm_enabled=True,
        zero_rpm_stop_celsius=50.0,
        curve=(
            FanCurvePoint(temperature_celsius=40.0, fan_percent=25.0),
            FanCurvePoint(temperature_celsius=60.0, fan_percent=50.0),
            FanCurvePoint(temperature_celsius=80.0, fan_percent=100.0),
        ),
        target_temperature_celsius=83.0,
        minimum_percent=15.0,
        acoustic_target_rpm=1450.0,
        acoustic_limit_rpm=3200.0,
    )


def test_zero_rpm_switched_off_is_false_and_not_unknown(rig):
    set_control(rig, fan_zero_rpm_enable=0)
    assert rig.reading().fan_control == FanControl(zero_rpm_enabled=False)


def test_without_the_folder_nothing_is_known_and_doctor_says_how_to_have_it(rig):
    assert rig.reading().fan_control is None
    source = rig.sources()["fan_control"]
    assert (source.lack, "ppfeaturemask" in source.advice) == (Lack.NO_SENSOR, True)


def test_a_change_by_the_user_is_seen_within_a_minute(rig):
    set_control(rig, fan_target_temperature=83)
    assert rig.reading().fan_control.target_temperature_celsius == 83.0
    set_control(rig, fan_target_temperature=70)
    assert rig.reading(seconds=30).fan_control.target_temperature_celsius == 83.0
    assert rig.reading(seconds=31).fan_control.target_temperature_celsius == 70.0


def test_the_firmwares_own_curve_is_no_curve():
    assert curve_of("OD_FAN_CURVE:\n0: 0C 0%\n1: 0C 0%\nOD_RANGE:\nFAN_CURVE(fan speed): 15% 100%") == ()


def test_a_curve_is_told_by_rising_temperature_and_zero_percent_is_a_point():
    points = curve_of("OD_FAN_CURVE:\n0: 70C 60%\n1: 40C 0%\nOD_RANGE:\n2: 90C 90%")
    assert [(point.temperature_celsius, point.fan_percent) for point in points] == [(40.0, 0.0), (70.0, 60.0)]


@pytest.mark.parametrize("line", ["0: 400C 20%", "0: 40C 120%", "0: -40C 20%", "zero: 40C 20%", "0: 40 20"])
def test_a_curve_that_cannot_be_is_none(line):
    assert curve_of(f"OD_FAN_CURVE:\n{line}\nOD_RANGE:") == ()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("H:\n83\nOD_RANGE:\nX: 25 105", 83),
        ("H:\n83", 83),
        ("83\n", 83),
        ("H:\n\n 83 \n", 83),
        ("H:\n151\nOD_RANGE:", None),
        ("H:\n-5\nOD_RANGE:", None),
        ("H:\nOD_RANGE:\n83", None),
        ("", None),
        ("H:\n" + "9" * 5000, None),
        ("H:\n\u0668\u0663", None),
    ],
)
def test_a_value_stands_below_its_heading_and_before_its_range(text, value):
    assert value_of(text, 0, 150) == value


def test_a_file_without_a_value_is_unreadable_and_the_others_count(rig):
    set_control(rig, fan_target_temperature="soon", fan_minimum_pwm=20)
    assert rig.reading().fan_control == FanControl(minimum_percent=20.0)
