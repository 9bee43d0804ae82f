"""A fan that does not do what it is told: named where a tachometer that works says so, never for a fan that is none."""

from collections.abc import Mapping

import pytest

from gpuwhyd.engine.engine import Engine
from gpuwhyd.engine.settings import EngineSettings
from gpuwhyd.model import AlertEvent, Cause, FanControl, FanMode, FanReading, GpuState, ProcessIdentity
from tests.engine.rig import Rig, unit

GAME = unit("game.service", 4242)
LOAD: Mapping[ProcessIdentity, float | None] = {GAME: 95.0}
HOT = {"watts": 200, "celsius": 70}


def fan(percent: float | None, rpm: float | None, *, index: int = 0, label: str | None = None) -> FanReading:
    return FanReading(index=index, percent=percent, rpm=rpm, rpm_is_measured=True, label=label)


def seen_turning(*, percent: float = 40, rpm: float = 1500) -> Rig:
    """A card whose fan always turns, and was seen to."""
    rig = Rig(engine=Engine(EngineSettings(), boot_id="boot"))
    return rig.run(60, fans=(fan(percent, rpm),), watts=15)


def alerts(rig: Rig) -> list[str]:
    return [
        event.kind.value
        for event in rig.events
        if isinstance(event, AlertEvent) and event.rule == "fan-stalled"
    ]


def test_a_fan_that_turned_before_and_stands_under_load_is_a_fault_after_twenty_seconds() -> None:
    rig = seen_turning()
    rig.run(20, LOAD, fans=(fan(60, 0),), **HOT)
    assert rig.answer.cause is not Cause.FAN_FAULT, "18 s is one step before"
    rig.tick(LOAD, fans=(fan(60, 0),), **HOT)
    assert rig.answer.cause is Cause.FAN_FAULT
    assert rig.answer.confidence >= 0.9
    assert rig.evidence("fan_told_percent") == 60
    assert rig.evidence("fan_measured_rpm") == 0
    assert (
        "fan stands still for 20 s though it is told to turn at 60 %; the card is at 70 degC"
        in rig.answer.sentence
    )
    assert "Meanwhile game.service" in rig.answer.sentence
    assert alerts(rig) == ["alert-raised"]


def test_a_fan_that_turns_again_is_no_fault_any_more() -> None:
    rig = seen_turning().run(60, LOAD, fans=(fan(60, 0),), **HOT)
    assert rig.answer.cause is Cause.FAN_FAULT
    rig.run(10, LOAD, fans=(fan(60, 2000),), **HOT)
    assert rig.answer.cause is Cause.WORKLOAD
    assert alerts(rig) == ["alert-raised", "alert-cleared"]


def test_a_restart_keeps_what_the_tachometer_was_seen_to_do() -> None:
    rig = seen_turning().restart(settings=EngineSettings())
    rig.run(30, LOAD, fans=(fan(60, 0),), **HOT)
    assert rig.answer.cause is Cause.FAN_FAULT
    assert alerts(rig) == ["alert-raised"]


def test_a_reboot_keeps_it_too() -> None:
    rig = seen_turning().restart(boot_id="other", settings=EngineSettings())
    rig.now = 50.0
    rig.run(30, LOAD, fans=(fan(60, 0),), **HOT)
    assert rig.answer.cause is Cause.FAN_FAULT


def no_history() -> Rig:
    return Rig(engine=Engine(EngineSettings(), boot_id="boot"))


def zero_rpm_card(**others: object) -> Rig:
    """Its fan rests at standstill and was seen to turn under load."""
    rig = no_history().run(60, fans=(fan(20, 0),), watts=15, **others)
    rig.run(60, LOAD, fans=(fan(45, 1600),), **HOT, **others)
    return rig.run(120, fans=(fan(20, 0),), watts=15, celsius=45, **others)


@pytest.mark.parametrize(
    ("rig", "ticks", "why"),
    [
        (no_history(), {"fans": (fan(29.8, 0),), **HOT}, "a laptop's fan attribute without a fan (rx7600s)"),
        (no_history(), {"fans": (fan(60, 0),), **HOT}, "a fan that was never seen to turn may not exist"),
        (seen_turning(percent=0, rpm=1395), {"fans": (fan(0, 1395),), **HOT}, "rx6600 tells 0 % and turns"),
        (zero_rpm_card(), {"fans": (fan(28, 0),), "celsius": 55, "watts": 15}, "a Vega at rest tells 28 %"),
        (
            zero_rpm_card(),
            {"fans": (fan(35, 0),), "celsius": 55, "watts": 15},
            "a zero-RPM card below its start",
        ),
        (
            seen_turning(),
            {"fans": (fan(60, 0),), "watts": 15, "celsius": 35},
            "a cool and idle card needs no fan",
        ),
        (seen_turning(), {"fans": (fan(None, 0),), **HOT}, "what it is told is not known"),
        (seen_turning(), {"fans": (fan(60, None),), **HOT}, "what it does is not known"),
        (seen_turning(percent=85), {"fans": (fan(60, 0),), **HOT}, "a tachometer that counts from 80 % on"),
        (seen_turning(), {"fans": (), "mode": FanMode.NONE, **HOT}, "no fan of its own"),
        (seen_turning(), {"fans": (FanReading(index=0, percent=60, rpm=0),), **HOT}, "NVML measures nothing"),
    ],
)
def test_what_looks_like_a_stalled_fan_and_is_none(rig: Rig, ticks: dict[str, object], why: str) -> None:
    rig.run(120, LOAD if ticks.get("watts") == 200 else {}, **ticks)
    assert rig.answer.cause is not Cause.FAN_FAULT, why
    assert alerts(rig) == [], why


@pytest.mark.parametrize(
    ("control", "celsius", "is_fault"),
    [
        (FanControl(zero_rpm_enabled=True, zero_rpm_stop_celsius=50), 55, False),
        (FanControl(zero_rpm_enabled=True, zero_rpm_stop_celsius=50), 60, True),
        (FanControl(zero_rpm_enabled=True), 64, False),
        (FanControl(zero_rpm_enabled=True), 65, True),
        (FanControl(zero_rpm_enabled=False), 55, True),
        (None, 64, False),
        (None, 65, True),
    ],
)
def test_a_fan_that_may_stand_still_is_told_to_turn_only_when_the_card_is_hot(
    control: FanControl | None, celsius: float, is_fault: bool
) -> None:
    rig = zero_rpm_card(fan_control=control)
    rig.run(60, LOAD, fans=(fan(50, 0),), watts=200, celsius=celsius, fan_control=control)
    assert (rig.answer.cause is Cause.FAN_FAULT) is is_fault


def test_a_fan_far_slower_than_it_once_was_at_that_command_is_a_fault() -> None:
    rig = seen_turning(percent=60, rpm=2000)
    rig.run(60, LOAD, fans=(fan(61, 1100),), **HOT)
    assert rig.answer.cause is not Cause.FAN_FAULT, "more than half is dust, wear and measurement"
    rig.run(32, LOAD, fans=(fan(61, 900),), **HOT)
    assert rig.answer.cause is Cause.FAN_FAULT
    assert "turns at 900 RPM" in rig.answer.sentence
    assert "made at least 2000 RPM" in rig.answer.sentence
    assert alerts(rig) == [], "it does turn"


def test_a_fan_that_is_only_late_to_follow_its_command_is_no_fault() -> None:
    rig = seen_turning(percent=60, rpm=2000).run(60, fans=(fan(10, 400),), watts=15)
    for rpm in (400, 500, 700, 900, 1200, 1600):
        rig.run(4, LOAD, fans=(fan(60, rpm),), **HOT)
        assert rig.answer.cause is not Cause.FAN_FAULT


def test_one_stalled_fan_of_two_is_named() -> None:
    both = (fan(40, 1500), fan(40, 1480, index=1))
    rig = no_history().run(60, fans=both, watts=15)
    rig.run(30, LOAD, fans=(fan(60, 2000), fan(60, 0, index=1)), **HOT)
    assert rig.answer.cause is Cause.FAN_FAULT
    assert "fan 2 stands still" in rig.answer.sentence
    assert rig.evidence("fan_index") == 1


def test_a_fan_with_a_name_is_called_by_it() -> None:
    rig = no_history().run(60, fans=(fan(40, 1500, label="gpu_fan"),), watts=15)
    rig.run(30, LOAD, fans=(fan(60, 0, label="gpu_fan"),), **HOT)
    assert 'fan "gpu_fan" stands still' in rig.answer.sentence


def test_seconds_before_a_gap_do_not_count() -> None:
    rig = seen_turning().run(14, LOAD, fans=(fan(60, 0),), **HOT)
    rig.tick(LOAD, step=600, fans=(fan(60, 0),), **HOT)
    rig.run(10, LOAD, fans=(fan(60, 0),), **HOT)
    assert rig.answer.cause is not Cause.FAN_FAULT


def test_a_sleeping_card_has_no_faulty_fan() -> None:
    rig = seen_turning().run(60, LOAD, fans=(fan(60, 0),), **HOT)
    rig.tick(state=GpuState.ASLEEP)
    assert rig.answer.cause is Cause.QUIET


def test_a_stalled_fan_comes_before_manual_control() -> None:
    rig = seen_turning().run(40, LOAD, fans=(fan(60, 0),), mode=FanMode.MANUAL, **HOT)
    assert rig.answer.cause is Cause.FAN_FAULT


def test_the_percent_of_a_stalled_fan_is_believed_again_when_it_turns() -> None:
    rig = seen_turning().run(120, LOAD, fans=(fan(60, 0),), **HOT)
    rig.run(600, fans=(fan(30, 1200),), watts=15)
    rig.run(20, LOAD, fans=(fan(62, 2100),), **HOT)
    assert "fan at 62 %" in rig.answer.sentence


# -- without a tachometer -----------------------------------------------------------------------------------------


def told_high(*, seconds: float, watts: float = 200, celsius: float = 90, percent: float = 100) -> Rig:
    rig = Rig().run(60, fan=30)
    return rig.run(seconds, LOAD, fan=percent, watts=watts, celsius=celsius, temperature_limit_celsius=92.0)


def test_without_a_tachometer_a_card_at_its_limit_under_steady_power_is_suspected_and_no_more() -> None:
    rig = told_high(seconds=300)
    assert rig.answer.cause is Cause.FAN_FAULT
    assert rig.answer.confidence <= 0.5
    assert rig.evidence("fan_suspected") == 1
    assert "may not turn" in rig.answer.sentence
    assert rig.answer.suspects[0].program.name == "game.service"


@pytest.mark.parametrize(
    "rig",
    [
        told_high(seconds=170),
        told_high(seconds=300, celsius=80),
        told_high(seconds=300, percent=75),
    ],
    ids=["steady for too short", "far from its limit", "not told high"],
)
def test_otherwise_it_is_the_load(rig: Rig) -> None:
    assert rig.answer.cause is Cause.WORKLOAD


def test_a_card_that_heats_up_on_and_on_though_its_fan_is_told_high_is_suspected() -> None:
    rig = told_high(seconds=240, celsius=60)
    for step in range(30):
        rig.tick(LOAD, fan=100, watts=200, celsius=60 + 0.2 * step, temperature_limit_celsius=92.0)
    assert rig.answer.cause is Cause.FAN_FAULT


def test_a_load_that_changes_says_nothing_of_the_fan() -> None:
    rig = Rig().run(60, fan=30)
    for watts in (100, 200) * 10:
        rig.run(30, LOAD, fan=100, watts=watts, celsius=91, temperature_limit_celsius=92.0)
    assert rig.answer.cause is Cause.WORKLOAD
