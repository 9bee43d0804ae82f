"""What is learned of a card's cooler and fan, and the outlook from it, on a made-up card with a physics of its own."""

import json
from dataclasses import replace

import pytest

from gpuwhyd.engine.engine import Engine
from gpuwhyd.engine.settings import SHIPPED_RULES, EngineSettings
from gpuwhyd.engine.thermal.card import Thermal
from gpuwhyd.model import AlertEvent, Cause, EventKind, FanControl, FanMode
from tests.engine.cooler import GAME, Cooler, quiet_after, spike, work
from tests.engine.rig import QUIET_ENGINE, Rig

WITH_REST = {"rest": 30.0, "start_percent": 0.0, "onset_celsius": 48.0}
DAY_SECONDS = 86_400.0


def thermal(rig: Rig) -> Thermal:
    return rig.engine._cards[rig.gpu.id].known.thermal


def idle(rig: Rig, cooler: Cooler) -> Rig:
    return work(rig, cooler, 200, 25)


def saved_thermal(rig: Rig) -> dict[str, object]:
    """What a restart keeps of it, as it is written."""
    saved = json.loads(json.dumps(rig.engine.saved()))
    return saved["cards"][rig.gpu.id]["thermal"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", [{}, WITH_REST, {"creeps_up": True, "slew": 3.0}])
def test_quiet_is_foretold_within_two_fifths_at_the_very_first_spike(kind: dict[str, float]) -> None:
    rig, cooler = Rig(), Cooler(**kind)
    work(idle(rig, cooler), cooler, 400, 200)
    work(rig, cooler, 16, 25)
    for _ in range(4):
        assert rig.answer.outlook.quiet_in_seconds == pytest.approx(quiet_after(cooler), rel=0.4)
        work(rig, cooler, 14, 25)


@pytest.mark.parametrize("kind", [{}, WITH_REST])
def test_quiet_is_foretold_within_a_tenth_once_the_card_is_known(kind: dict[str, float]) -> None:
    rig, cooler = Rig(), Cooler(**kind)
    spike(idle(rig, cooler), cooler)
    work(rig, cooler, 300, 180)  # not the same load
    work(rig, cooler, 16, 25)
    for _ in range(4):
        assert rig.answer.outlook.quiet_in_seconds == pytest.approx(quiet_after(cooler), rel=0.1)
        work(rig, cooler, 14, 25)
    assert "quiet again in about" in rig.answer.sentence


def test_a_card_of_another_cooler_is_learned_too() -> None:
    rig, cooler = Rig(), Cooler(seconds=90.0, kelvin_per_watt=0.15, stop_celsius=46.0, slew=0.4)
    spike(idle(rig, cooler), cooler)
    work(rig, cooler, 400, 200)
    work(rig, cooler, 16, 25)
    assert rig.answer.outlook.quiet_in_seconds == pytest.approx(quiet_after(cooler), rel=0.15)


def test_a_fan_that_comes_down_by_another_line_than_it_went_up_is_learned() -> None:
    rig, cooler = Rig(), Cooler(rest=30.0, start_percent=0.0, onset_celsius=50.0, lower_down_kelvin=8.0)
    spike(idle(rig, cooler), cooler)
    work(rig, cooler, 300, 180)
    work(rig, cooler, 16, 25)
    for _ in range(4):
        assert rig.answer.outlook.quiet_in_seconds == pytest.approx(quiet_after(cooler), rel=0.15)
        work(rig, cooler, 14, 25)


def test_where_the_fan_leaves_rest_stops_how_steep_and_how_fast_it_is_are_learned() -> None:
    rig, cooler = Rig(), Cooler(slew=0.6)
    for _ in range(2):
        spike(idle(rig, cooler), cooler)
    fan = thermal(rig).fan
    assert fan.onset_celsius == pytest.approx(cooler.onset_celsius, abs=1.5)
    assert fan.stop_celsius == pytest.approx(cooler.stop_celsius, abs=1.5)
    assert fan.start_percent == pytest.approx(cooler.start_percent, abs=1)
    assert fan.percent_per_kelvin == pytest.approx(cooler.percent_per_kelvin, rel=0.15)
    assert fan.fall_per_second == pytest.approx(cooler.slew, rel=0.15)


def test_the_model_leads_where_the_card_goes_in_the_end() -> None:
    rig, cooler = Rig(), Cooler()
    for _ in range(2):
        spike(idle(rig, cooler), cooler)
    learned = thermal(rig).learned
    assert learned is not None
    hot = cooler.room_celsius + 200 * (cooler.die_kelvin_per_watt + cooler.kelvin_per_watt * (2 - 0.6))
    assert learned.steady(200, 0.6) == pytest.approx(hot, abs=4)


def test_a_rising_fan_of_a_known_card_is_told_where_it_will_settle() -> None:
    rig, cooler = Rig(), Cooler(slew=0.3, seconds=300.0)
    spike(idle(rig, cooler), cooler)
    work(rig, cooler, 400, 150)
    outlook, sentence = rig.answer.outlook, rig.answer.sentence
    work(rig, cooler, 2500, 150)
    assert outlook.peak_fan_percent == pytest.approx(cooler.fan, abs=4)
    assert rig.answer.temperature_celsius is not None
    assert outlook.peak_temperature_celsius == pytest.approx(rig.answer.temperature_celsius, abs=3)
    assert f"; it will settle at about {round(outlook.peak_fan_percent or 0)} %." in sentence
    assert rig.answer.outlook.peak_fan_percent is None, "it has settled"
    assert "settle" not in rig.answer.sentence


def test_a_fresh_card_that_just_rose_is_not_told_where_it_will_settle() -> None:
    rig, cooler = Rig(), Cooler()
    work(idle(rig, cooler), cooler, 60, 200)
    assert rig.answer.outlook.trend == "rising"
    assert rig.answer.outlook.peak_fan_percent is None


def test_how_wrong_predictions_were_is_kept_and_told() -> None:
    rig, cooler = Rig(), Cooler()
    spike(idle(rig, cooler), cooler)
    first = thermal(rig).errors
    assert len(first) == 1
    assert 0 <= first[0] < 0.35
    work(rig, cooler, 300, 200)
    assert rig.evidence("outlook_error_percent") == pytest.approx(100 * first[0])


def test_a_card_whose_predictions_are_always_wrong_gets_none() -> None:
    rig, cooler = Rig(), Cooler()
    spike(idle(rig, cooler), cooler)
    thermal(rig).errors = [2.0, 1.5, 1.8]
    work(rig, cooler, 300, 200)
    work(rig, cooler, 30, 25)
    assert rig.answer.cause is Cause.RESIDUAL_HEAT
    assert rig.answer.outlook.quiet_in_seconds is None
    assert "quiet again" not in rig.answer.sentence


def test_without_a_temperature_the_fans_own_fall_tells() -> None:
    rig = Rig()
    rig.run(100, {}, fan=30, celsius=None, watts=15)
    rig.run(200, {GAME: 95.0}, fan=80, celsius=None, watts=200)
    for second in range(0, 30, 2):
        rig.tick({}, fan=80 - second, celsius=None, watts=15)
    # from 52 % to 33 %, a point a second
    assert rig.answer.outlook.quiet_in_seconds == pytest.approx(19, abs=6)


def test_a_fan_that_is_held_up_for_a_while_after_the_load_is_not_taken_for_a_slow_one() -> None:
    """As firmware does after a reset."""
    rig = Rig()
    rig.run(100, {}, fan=30, celsius=None, watts=15)
    rig.run(200, {GAME: 95.0}, fan=80, celsius=None, watts=200)
    for jitter in (0, 1, 0, -1) * 5:
        rig.tick({}, fan=80 + jitter, celsius=None, watts=15)
    for second in range(0, 18, 2):
        rig.tick({}, fan=79 - second, celsius=None, watts=15)
    # from 63 % to 33 %, a point a second
    assert rig.answer.outlook.quiet_in_seconds == pytest.approx(30, rel=0.2)


def test_a_fan_that_still_slows_down_can_be_cooler_than_where_it_stops() -> None:
    """It is too slow for the temperature, and stops when it is down: it is not one that turns at any temperature."""
    rig, cooler = Rig(), Cooler(slew=0.2, stop_celsius=46.0, seconds=30.0)
    work(idle(rig, cooler), cooler, 400, 200)
    work(rig, cooler, 100, 25)
    assert cooler.room_celsius + cooler.kelvin < 35
    while cooler.fan > 40:
        assert rig.answer.outlook.quiet_in_seconds == pytest.approx(quiet_after(cooler), rel=0.1)
        work(rig, cooler, 20, 25)


def test_a_fan_that_turns_further_down_than_recorded_ones_is_expected_to_go_on() -> None:
    """It begins to turn at 50 degC and stops at 36, as on some cards of NVIDIA's own make."""
    rig, cooler = Rig(), Cooler(stop_celsius=36.0)
    work(idle(rig, cooler), cooler, 400, 200)
    while cooler.room_celsius + cooler.kelvin > 38:
        work(rig, cooler, 2, 25)
    assert rig.answer.outlook.quiet_in_seconds == pytest.approx(quiet_after(cooler), rel=0.6)


def test_where_a_fan_stops_is_known_from_its_driver_before_it_was_seen() -> None:
    """As amdgpu tells it; a setting that is switched off tells nothing."""
    cooler = Cooler(stop_celsius=36.0)
    told, off, untold = Rig(), Rig(), Rig()
    control = FanControl(zero_rpm_enabled=True, zero_rpm_stop_celsius=36.0)
    for rig, fan_control in (
        (told, control),
        (off, replace(control, zero_rpm_enabled=False)),
        (untold, None),
    ):
        mine = replace(cooler)
        for seconds, watts in ((200, 25), (400, 200), (16, 25)):
            work(rig, mine, seconds, watts, fan_control=fan_control)
        truth = quiet_after(mine)
    assert told.answer.outlook.quiet_in_seconds == pytest.approx(truth, rel=0.15)
    assert off.answer.outlook.quiet_in_seconds == untold.answer.outlook.quiet_in_seconds
    assert untold.answer.outlook.quiet_in_seconds != pytest.approx(truth, rel=0.3)
    assert thermal(told).fan.told_stop_celsius == 36
    work(told, mine, 4, 25, fan_control=replace(control, zero_rpm_enabled=False))
    assert thermal(told).fan.told_stop_celsius is None, "switched off since"


def test_quiet_is_not_told_as_now_for_long_while_the_fan_turns() -> None:
    rig, cooler = Rig(), Cooler(stop_celsius=36.0)
    work(idle(rig, cooler), cooler, 400, 200)
    work(rig, cooler, 40, 25)
    said = []
    while cooler.fan:
        work(rig, cooler, 2, 25)
        said.append(rig.answer.outlook.quiet_in_seconds)
    assert len(said) > 60
    now = [seconds is not None and seconds < 1 for seconds in said[:-3]]
    assert not any(all(now[i : i + 4]) for i in range(len(now)))


# -- never from bad data ------------------------------------------------------------------------------------------


def test_nothing_is_learned_from_a_spike_with_a_gap_but_its_end_is_foretold() -> None:
    rig, cooler = Rig(), Cooler()
    work(idle(rig, cooler), cooler, 200, 200)
    cooler.step(200, 40)
    rig.tick({GAME: 95.0}, step=42, fan=round(cooler.fan), celsius=round(cooler.step(200, 2)), watts=200)
    work(rig, cooler, 160, 200)
    work(rig, cooler, 16, 25)
    assert rig.answer.outlook.quiet_in_seconds == pytest.approx(quiet_after(cooler), rel=0.35)
    work(rig, cooler, 1500, 25)
    assert thermal(rig).learned is None
    assert thermal(rig).fan.onset_celsius is None


def test_nothing_is_learned_from_a_spike_in_which_the_machine_slept() -> None:
    rig, cooler = Rig(), Cooler()
    work(idle(rig, cooler), cooler, 200, 200)
    rig.tick({GAME: 95.0}, step=600, resumed=True, fan=60, celsius=60, watts=200)
    work(rig, cooler, 100, 200)
    work(rig, cooler, 1500, 25)
    assert thermal(rig).learned is None
    assert thermal(rig).fan.onset_celsius is None


def test_nothing_is_learned_from_a_fan_that_somebody_else_governs() -> None:
    rig, cooler = Rig(), Cooler()
    idle(rig, cooler)
    for _ in range(300):
        rig.tick({GAME: 95.0}, fan=70, mode=FanMode.MANUAL, celsius=round(cooler.step(200, 2)), watts=200)
    for _ in range(600):
        rig.tick({}, fan=0, mode=FanMode.MANUAL, celsius=round(cooler.step(25, 2)), watts=25)
    assert thermal(rig).learned is None
    assert thermal(rig).fan.onset_celsius is None


def test_nothing_is_learned_from_a_load_that_was_on_at_the_start() -> None:
    rig, cooler = Rig(), Cooler()
    for _ in range(300):
        cooler.step(200, 2)
    work(rig, cooler, 100, 200)
    work(rig, cooler, 1500, 25)
    assert thermal(rig).learned is None


def test_a_sensor_that_shows_nonsense_teaches_nothing() -> None:
    rig, cooler = Rig(), Cooler()
    idle(rig, cooler)
    for second in range(0, 400, 2):
        rig.tick(
            {GAME: 95.0},
            fan=round(cooler.fan),
            celsius=30 + 40 * (second // 20 % 2) + 0 * cooler.step(200, 2),
            watts=200,
        )
    work(rig, cooler, 1500, 25)
    assert thermal(rig).learned is None


def test_one_strange_spike_moves_what_was_learned_only_so_far() -> None:
    rig, cooler = Rig(), Cooler()
    for _ in range(2):
        spike(idle(rig, cooler), cooler)
    before = thermal(rig).learned
    cooler.kelvin_per_watt *= 4  # as if somebody held a hand over the fan
    spike(rig, cooler, watts=80)
    cooler.kelvin_per_watt /= 4
    after = thermal(rig).learned
    assert before is not None
    assert after is not None
    assert after.slow_kelvin_per_watt <= before.slow_kelvin_per_watt * 1.5**0.5 + 1e-9


# -- over a restart -----------------------------------------------------------------------------------------------


def test_what_was_learned_is_kept_over_a_restart_and_a_reboot() -> None:
    rig, cooler = Rig(), Cooler()
    spike(idle(rig, cooler), cooler)
    before = saved_thermal(rig)
    rig.restart()
    idle(rig, cooler)
    assert saved_thermal(rig)["learned"] == before["learned"]
    rig.restart(boot_id="another")
    idle(rig, cooler)
    assert saved_thermal(rig)["fan"] == before["fan"]
    work(rig, cooler, 400, 200)
    work(rig, cooler, 16, 25)
    assert rig.answer.outlook.quiet_in_seconds == pytest.approx(quiet_after(cooler), rel=0.15)


def test_a_state_of_before_there_was_a_thermal_side_is_taken_over() -> None:
    rig, cooler = Rig(), Cooler()
    spike(idle(rig, cooler), cooler)
    saved = json.loads(json.dumps(rig.engine.saved()))
    del saved["cards"][rig.gpu.id]["thermal"]
    rig.engine = Engine(QUIET_ENGINE, saved, boot_id="boot")
    idle(rig, cooler)
    assert thermal(rig).learned is None
    assert rig.answer.cause is Cause.QUIET


@pytest.mark.parametrize(
    "broken",
    [
        {"learned": {"ambient_celsius": "warm"}},
        {"learned": []},
        {
            "learned": {
                "ambient_celsius": 20.0,
                "die_kelvin_per_watt": -1.0,
                "fast_kelvin_per_watt": 0.1,
                "slow_kelvin_per_watt": 0.1,
                "fast_seconds": 20.0,
                "slow_seconds": 200.0,
            }
        },
        {"fan": {"onset_celsius": 4000.0}},
        {"fan": 3},
        {"idle": {"watts": None, "fan_part": 0.0, "celsius": 30.0}},
        {"errors": 3},
        {"errors": ["big"]},
        {"history": {"days": [[1, 2]]}},
        {"history": {"days": {}}},
        {"history": {"days": [[1, None, 3]]}},
    ],
)
def test_a_broken_state_is_refused(broken: dict[str, object]) -> None:
    with pytest.raises((TypeError, ValueError)):
        Thermal.restored(broken)


# -- a cooler that gets worse -------------------------------------------------------------------------------------


def days(rig: Rig, cooler: Cooler, count: int, *, watts: float = 200.0, room: tuple[float, ...] = ()) -> Rig:
    """So many days with two spikes each; `room`: how warm it is on each, else as it was."""
    for day in range(count):
        cooler.room_celsius = room[day % len(room)] if room else cooler.room_celsius
        began = rig.now
        cooler.step(25, 4000)
        rig.tick({}, fan=0, celsius=round(cooler.step(25, 2)), watts=25)
        for _ in range(2):
            spike(idle(rig, cooler), cooler, seconds=240, watts=watts, after=700)
        rig.now = began + DAY_SECONDS
    return rig


def rig_with_rule() -> Rig:
    rule = next(rule for rule in SHIPPED_RULES if rule.name == "cooler-got-worse")
    return Rig(engine=Engine(EngineSettings(rules=(rule,)), boot_id="boot"))


def alerts(rig: Rig) -> list[AlertEvent]:
    raised = rig.of(EventKind.ALERT_RAISED)
    return [event for event in raised if isinstance(event, AlertEvent)]


@pytest.fixture(scope="module")
def clogged() -> tuple[Rig, Cooler]:
    """Seven days as it should be, then three with a cooler full of dust."""
    rig, cooler = rig_with_rule(), Cooler()
    days(rig, cooler, 7, room=(21.0, 24.0, 22.0, 25.0))
    assert alerts(rig) == []
    cooler.kelvin_per_watt *= 1.6
    days(rig, cooler, 2)
    assert alerts(rig) == [], "not before the third day"
    days(rig, cooler, 2)
    return rig, cooler


def test_a_cooler_that_got_worse_is_told_once_a_day_at_most(clogged: tuple[Rig, Cooler]) -> None:
    rig, _ = clogged
    (alert,) = alerts(rig)
    assert (alert.rule, alert.metric) == ("cooler-got-worse", "cooling_loss_percent")
    assert alert.value > 20
    assert "Hotter surroundings or a worse cooler" in alert.sentence


def test_a_load_at_which_the_fan_used_to_rest_is_explained_by_the_cooler(
    clogged: tuple[Rig, Cooler],
) -> None:
    rig, cooler = clogged
    idle(rig, cooler)
    cooler.turns, cooler.fan = False, 0.0
    work(rig, cooler, 900, 46)
    assert cooler.fan > 20, "the made-up card must be up at this load"
    assert rig.answer.cause is Cause.AMBIENT
    assert "used to rest at this load" in rig.answer.sentence
    assert "game.service" in rig.answer.sentence
    loss = rig.evidence("cooling_loss_percent")
    assert isinstance(loss, float)
    assert loss > 20


def test_a_heavy_load_on_a_worse_cooler_is_still_the_loads_doing(clogged: tuple[Rig, Cooler]) -> None:
    rig, cooler = clogged
    work(rig, cooler, 200, 200)
    assert rig.answer.cause is Cause.WORKLOAD


def test_warm_days_and_other_loads_raise_nothing() -> None:
    rig, cooler = rig_with_rule(), Cooler()
    rooms = (21.0, 24.0, 22.0, 26.0, 23.0)
    for watts in (200.0, 120.0, 160.0):
        days(rig, cooler, 3, watts=watts, room=rooms)
    days(rig, cooler, 1, room=(34.0,))
    days(rig, cooler, 2, watts=140.0, room=rooms)
    assert alerts(rig) == []
    loss = thermal(rig).history.loss_part
    assert loss is not None
    assert abs(loss) < 0.15
