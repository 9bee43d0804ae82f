"""When a spike opens, merges and ends: the rules for a fan against its rest level."""

import pytest

from gpuwhyd.engine.phases import TRANSITIONS, Change, Phase
from gpuwhyd.model import BackendHealth, BackendState, Cause, EventKind, FanMode, FanReading, GpuState
from tests.engine.rig import Rig, unit

GAME = unit("game.service", 4242)
LOAD = {GAME: 95.0}


def loaded(rig: Rig, *, fan: float, seconds: float = 60) -> Rig:
    return rig.run(seconds, LOAD, fan=fan, watts=200, celsius=70)


@pytest.mark.parametrize("rest", [0, 27, 41])
def test_a_spike_opens_within_two_samples_of_eight_points_above_rest(rest: int) -> None:
    rig = Rig().run(60, fan=rest)
    rig.tick(LOAD, fan=rest + 7, watts=200)
    assert rig.kinds == []
    rig.tick(LOAD, fan=rest + 8, watts=200)
    rig.tick(LOAD, fan=rest + 8, watts=200)
    assert rig.kinds == ["started"]
    assert rig.spikes[0].spike.rest_percent == rest


def test_one_sample_above_rest_is_jitter() -> None:
    rig = Rig().run(60, fan=30)
    rig.tick(LOAD, fan=45, watts=200)
    rig.run(60, fan=30)
    assert rig.kinds == []


def test_percent_and_rpm_rising_together_open_a_spike_at_once() -> None:
    rig = Rig().run(60, fan=0, rpm=0)
    rig.tick(LOAD, fan=29, rpm=1240, watts=50)
    assert rig.kinds == ["started"]


def test_a_fan_that_wavers_is_told_from_the_lowest_that_it_shows() -> None:
    rig = Rig().run(20, fan=34)
    for level in (33, 32, 33, 33, 32, 33) * 4:
        rig.tick(fan=level)
    rig.run(20, LOAD, fan=39, watts=200)
    assert rig.kinds == []
    rig.run(4, LOAD, fan=40, watts=200)
    assert rig.kinds == ["started"]


@pytest.mark.parametrize("wrong", [0, 20, 26])
def test_a_false_sample_far_below_rest_lowers_nothing(wrong: int) -> None:
    rig = Rig().run(60, fan=30)
    rig.tick(fan=wrong)
    rig.run(60, fan=30)
    rig.run(20, LOAD, fan=37, watts=200)
    assert rig.kinds == []


def test_a_fan_that_wavers_by_three_points_and_creeps_by_three_opens_nothing() -> None:
    rig = Rig().run(20, fan=31)
    for creep in (0, 1, 2, 3):
        for waver in (0, 2, -1, 1, 0, -1, 2) * 8:
            rig.tick(LOAD, fan=31 + creep + waver, watts=60)
    assert rig.kinds == []


def test_a_tachometer_that_wavers_opens_nothing_and_hides_no_rise() -> None:
    rig = Rig()
    for rpm in (1350, 1410, 1380, 1340, 1400) * 12:
        rig.tick(fan=None, rpm=rpm)
    rig.run(20, LOAD, fan=None, rpm=1630, watts=200)
    assert rig.kinds == []
    rig.run(4, LOAD, fan=None, rpm=1650, watts=200)
    assert rig.kinds == ["started"]


def test_a_fan_that_creeps_by_a_few_points_opens_nothing_and_becomes_the_rest() -> None:
    rig = Rig().run(60, fan=22)
    for level in (23, 24, 25, 26):
        rig.run(120, fan=level)
    rig.run(30, fan=32)
    assert rig.kinds == []
    assert rig.engine.saved()["cards"][rig.gpu.id]["level"]["rest_percent"] >= 26  # type: ignore[index]


def test_a_resting_level_is_not_raised_while_the_card_works() -> None:
    rig = Rig().run(60, fan=30)
    rig.run(600, LOAD, fan=36, watts=200)
    assert rig.kinds == []
    rig.run(4, LOAD, fan=38, watts=200)
    assert rig.kinds == ["started"]


def test_tachometer_chatter_opens_nothing() -> None:
    rig = Rig().run(60, fan=2, rpm=0)
    for rpm in (0, 345, 0, 120, 345, 330, 0) * 10:
        rig.tick(fan=3, rpm=rpm)
    assert rig.kinds == []


def test_percent_that_lies_at_standstill_is_not_believed() -> None:
    """A Vega shows 20 to 28 % while its tachometer says 0."""
    rig = Rig().run(60, fan=28, rpm=0)
    rig.run(40, LOAD, fan=22, rpm=0, watts=200)
    assert rig.kinds == []
    rig.run(60, LOAD, fan=24, rpm=859, watts=200)
    assert rig.kinds == ["started"]
    rig.run(120, fan=24, rpm=0)
    assert rig.kinds == ["started", "ended"]
    assert "stands still" in rig.answer.sentence


def test_a_tachometer_that_always_says_zero_is_not_believed() -> None:
    rig = Rig().run(60, fan=20, rpm=0)
    rig.run(60, LOAD, fan=60, rpm=0, watts=200)
    assert rig.kinds == ["started"]
    rig.run(120, fan=20, rpm=0)
    assert rig.kinds == ["started", "ended"]


def test_rpm_alone_opens_at_three_hundred_above_rest() -> None:
    rig = Rig().run(60, fan=None, rpm=1100)
    rig.run(20, LOAD, fan=None, rpm=1390, watts=200)
    assert rig.kinds == []
    rig.run(4, LOAD, fan=None, rpm=1410, watts=200)
    assert rig.kinds == ["started"]


def test_eight_percent_of_the_known_maximum_rpm_opens() -> None:
    def fans(rpm: float) -> tuple[FanReading, ...]:
        return (FanReading(index=0, rpm=rpm, rpm_max=5000, rpm_is_measured=True),)

    rig = Rig().run(60, fans=fans(1100))
    rig.run(20, LOAD, fans=fans(1450), watts=200)
    assert rig.kinds == []
    rig.run(4, LOAD, fans=fans(1510), watts=200)
    assert rig.kinds == ["started"]


def test_the_end_is_told_once_and_back_dated_to_when_rest_was_reached() -> None:
    rig = Rig().run(60, fan=0)
    loaded(rig, fan=50)
    rig.run(30, fan=40, celsius=60)
    reached = rig.now + rig.step
    rig.run(200, fan=0)
    assert rig.kinds.count("ended") == 1
    ended = rig.spikes[-1].spike
    assert ended.ended_by == "rest"
    assert ended.ended_boottime_seconds == reached
    assert ended.ended_usec == round((1_700_000_000 + reached) * 1e6)
    assert ended.peak_fan_percent == 50


def test_the_after_run_is_part_of_the_spike() -> None:
    rig = Rig().run(60, fan=27)
    loaded(rig, fan=55, seconds=600)
    for level in range(55, 27, -1):
        rig.run(20, fan=level, celsius=50)
        assert rig.kinds.count("started") == 1
    rig.run(120, fan=27)
    assert [kind for kind in rig.kinds if kind != "updated"] == ["started", "ended"]


def test_a_short_rest_between_two_rises_is_one_spike_with_cycles() -> None:
    rig = Rig().run(60, fan=0)
    for _ in range(10):
        loaded(rig, fan=33, seconds=30)
        rig.run(58, fan=0)
    rig.run(120, fan=0)
    assert [kind for kind in rig.kinds if kind != "updated"] == ["started", "ended"]
    assert rig.spikes[-1].spike.cycles == 10


def test_a_rest_of_a_minute_ends_a_spike() -> None:
    rig = Rig().run(60, fan=0)
    for _ in range(3):
        loaded(rig, fan=33, seconds=30)
        rig.run(62, fan=0)
    assert [kind for kind in rig.kinds if kind != "updated"] == ["started", "ended"] * 3


def test_an_idle_card_that_stays_at_a_new_level_has_found_its_rest() -> None:
    rig = Rig().run(60, fan=0)
    loaded(rig, fan=50)
    flat_since = rig.now + rig.step
    rig.run(940, fan=30)
    assert rig.kinds[-1] == "ended"
    ended = rig.spikes[-1].spike
    assert ended.ended_by == "new-rest"
    assert ended.ended_boottime_seconds == pytest.approx(
        flat_since, abs=15
    )  # power is smoothed over some seconds
    rig.run(300, fan=31)
    assert rig.kinds.count("started") == 1


@pytest.mark.parametrize("rest", [0, 27, 41])
def test_started_in_mid_load_the_spike_is_marked_and_ends(rest: int) -> None:
    rig = Rig()
    rig.tick(LOAD, fan=60, watts=200, celsius=75)
    assert rig.kinds == ["started"]
    assert rig.spikes[0].spike.began_before_start
    assert "since before gpuwhyd started" in rig.answer.sentence
    rig.run(120, LOAD, fan=60, watts=200, celsius=75)
    assert rig.answer.cause is Cause.WORKLOAD
    rig.run(60, fan=45, celsius=55)
    assert rig.answer.cause is Cause.RESIDUAL_HEAT
    rig.run(1000, fan=rest)
    assert rig.kinds[-1] == "ended"
    assert rig.spikes[-1].spike.ended_by == ("rest" if rest == 0 else "new-rest")
    assert rig.answer.cause is Cause.QUIET


def test_a_first_sample_at_idle_opens_nothing_however_loud_its_rest() -> None:
    rig = Rig().run(60, fan=41, watts=54, busy=0)
    assert rig.kinds == []


def test_the_loudest_of_several_fans_counts() -> None:
    def fans(first: float, second: float) -> tuple[FanReading, ...]:
        return FanReading(index=0, percent=first), FanReading(index=1, percent=second)

    rig = Rig().run(60, fans=fans(0, 0))
    rig.run(4, LOAD, fans=fans(0, 35), watts=200)
    assert rig.kinds == ["started"]
    assert rig.answer.fan_percent == 35


def test_a_card_without_a_fan_has_explanations_but_no_spikes() -> None:
    rig = Rig().run(60, mode=FanMode.NONE)
    assert rig.answer.cause is Cause.QUIET
    rig.run(120, LOAD, mode=FanMode.NONE, watts=200, celsius=80)
    assert rig.kinds == []
    assert rig.answer.cause is Cause.WORKLOAD
    assert "no fan of its own; 200 W, 100 % of its heat by game.service" in rig.answer.sentence


def test_a_gap_of_half_a_minute_and_a_suspend_are_no_spikes() -> None:
    rig = Rig().run(60, fan=30)
    rig.tick(fan=33, step=31)
    rig.tick(fan=38, step=3600, resumed=True)
    rig.run(60, fan=30)
    assert rig.kinds == []


def test_a_suspend_in_mid_spike_keeps_the_spike_and_books_no_heat_for_the_sleep() -> None:
    rig = Rig().run(60, fan=0)
    loaded(rig, fan=50)
    rig.tick(LOAD, step=3600, resumed=True, fan=50, watts=200)
    assert rig.kinds == ["started"]
    rig.run(120, fan=0)
    assert rig.kinds.count("ended") == 1


def test_a_card_that_falls_asleep_in_a_spike_ends_it() -> None:
    rig = Rig().run(60, fan=0)
    loaded(rig, fan=50)
    rig.run(100, state=GpuState.ASLEEP)
    assert rig.kinds.count("ended") == 1
    assert rig.answer.cause is Cause.QUIET
    assert "asleep" in rig.answer.sentence


def test_readings_that_fail_for_a_while_conclude_nothing() -> None:
    rig = Rig().run(60, fan=0)
    loaded(rig, fan=50)
    failing = (BackendHealth(name="test", state=BackendState.FAILING, message="driver reloaded"),)
    for _ in range(100):
        rig.now += 2
        rig.feed(backends=failing)
    assert rig.kinds == ["started"]
    assert "no reading at present" in rig.answer.sentence
    assert rig.report is not None
    assert [reading.state for reading in rig.report.snapshot.readings] == [GpuState.UNKNOWN]
    loaded(rig, fan=50)
    rig.run(120, fan=0)
    assert rig.kinds.count("started") == rig.kinds.count("ended") == 1
    assert len(rig.of(EventKind.BACKEND_FAILING)) == len(rig.of(EventKind.BACKEND_RECOVERED)) == 1


def test_a_card_that_is_pulled_out_ends_its_spike_and_is_told_as_removed() -> None:
    rig = Rig().run(60, fan=0)
    loaded(rig, fan=50)
    for _ in range(30):
        rig.now += 2
        rig.feed()
    assert rig.kinds[-1] == "ended"
    assert rig.spikes[-1].spike.ended_by == "removed"
    assert len(rig.of(EventKind.GPU_REMOVED)) == 1
    assert rig.report is not None
    assert rig.report.explanations == {}


def test_a_lost_card_is_told_once() -> None:
    rig = Rig().run(60, fan=0)
    rig.run(60, state=GpuState.LOST)
    assert len(rig.of(EventKind.GPU_LOST)) == 1
    assert "no reading" in rig.answer.sentence


def test_a_card_that_cannot_be_read_names_nobody() -> None:
    """Neither lost nor missing: what its programs do now is not known."""
    rig = loaded(Rig().run(60, fan=0), fan=50)
    assert rig.answer.suspects
    rig.now += 2
    rig.feed()
    assert (rig.answer.cause, rig.answer.suspects) == (Cause.UNKNOWN, ())
    loaded(rig, fan=50).tick(state=GpuState.LOST)
    assert (rig.answer.cause, rig.answer.suspects) == (Cause.UNKNOWN, ())


def test_nothing_leaves_a_phase_but_by_the_table() -> None:
    assert {phase for phase, _ in TRANSITIONS} == set(Phase)
    assert {change for _, change in TRANSITIONS} == set(Change)


def test_a_card_that_is_let_go_is_neither_failing_nor_a_spike() -> None:
    rig = Rig().run(60, fan=30).run(60, state=GpuState.UNKNOWN)
    assert rig.answer.cause is Cause.QUIET
    assert "let alone for a while so that it can fall asleep" in rig.answer.sentence
    assert rig.kinds == []


def test_a_card_that_is_let_go_in_its_after_run_is_not_called_quiet() -> None:
    rig = loaded(Rig().run(60, fan=30), fan=57, seconds=120).run(60, fan=45, celsius=55)
    events = len(rig.events)
    rig.run(60, state=GpuState.UNKNOWN)
    assert rig.answer.cause is Cause.RESIDUAL_HEAT
    assert "game.service" in rig.answer.sentence
    rig.run(1200, state=GpuState.UNKNOWN)
    assert rig.answer.cause is Cause.RESIDUAL_HEAT
    assert len(rig.events) == events


def test_a_spike_ends_though_the_card_is_looked_at_once_in_two_minutes() -> None:
    rig = loaded(Rig().run(60, fan=30), fan=57, seconds=120).run(60, fan=40, celsius=55)
    rig.run(60, state=GpuState.UNKNOWN).tick(fan=30)
    reached = rig.now
    for _ in range(2):
        rig.run(120, state=GpuState.UNKNOWN).tick(fan=30)
    assert rig.kinds[-1] == "ended"
    assert rig.spikes[-1].spike.ended_boottime_seconds == reached


def test_a_spike_that_is_over_after_a_suspend_ended_when_the_machine_fell_asleep() -> None:
    rig = loaded(Rig().run(60, fan=0), fan=50)
    asleep_at = rig.now
    rig.tick(LOAD, step=8 * 3600, resumed=True, fan=0)
    rig.tick(resumed=True, fan=0)
    rig.run(100, fan=0)
    assert rig.kinds[-1] == "ended"
    assert rig.spikes[-1].spike.ended_boottime_seconds == asleep_at


def test_a_spike_is_active_exactly_while_the_answer_is_not_quiet() -> None:
    rig = loaded(Rig().run(60, fan=30), fan=57, seconds=60)
    for fan in (40, 33, 34, 33, 34, 33, 34, 33, 33, 33, 33, 33, 33, 33, 33):
        rig.tick(fan=fan)
        assert (rig.answer.for_seconds is None) == (rig.answer.cause is Cause.QUIET)
    assert rig.answer.cause is Cause.QUIET


def test_a_fan_that_hunts_around_the_edge_of_rest_does_not_change_the_answer_each_time() -> None:
    rig = loaded(Rig().run(60, fan=30), fan=57, seconds=60)
    causes = [rig.tick(fan=fan).explanations[rig.gpu.id].cause for fan in (33, 34) * 20]
    assert Cause.QUIET not in causes


def test_a_row_of_short_jobs_is_not_told_anew_for_each() -> None:
    rig = Rig().run(60, fan=0)
    for number in range(150):
        rig.run(4, {unit(f"job{number % 7}.service", 100 + number % 7): 90.0}, fan=50, watts=200)
    assert rig.kinds.count("updated") <= 2


def test_the_end_of_a_spike_gives_no_pid_that_has_ended_since() -> None:
    """Another process may have it by then, and journald would store that one's command line."""
    rig = loaded(Rig().run(60, fan=0), fan=50)
    rig.tick(ended=(GAME,), fan=50, celsius=70)
    rig.run(100, fan=0)
    suspect = rig.spikes[-1].explanation.suspects[0]
    assert (rig.kinds[-1], suspect.program.name) == ("ended", "game.service")
    assert (suspect.pids, suspect.alive) == ((), False)
    assert "pid" not in rig.spikes[-1].explanation.sentence


def test_the_end_of_a_spike_is_never_told_as_quiet() -> None:
    """Its load goes on, so that the cooler is hottest when the fan is at rest again."""
    rig = Rig().run(60, fan=0)
    for _ in range(4):
        rig.run(30, LOAD, fan=30, watts=60, celsius=55).run(90, LOAD, fan=0, watts=60, celsius=50)
    ended = [event for event in rig.spikes if event.kind is EventKind.SPIKE_ENDED]
    assert len(ended) == 4
    assert {event.explanation.cause for event in ended} == {Cause.WORKLOAD}


def test_a_fan_that_creeps_on_and_on_is_told_though_its_card_idles() -> None:
    """Warmed by another card, or by the case."""
    rig = Rig().run(60, fan=22)
    for level in range(22, 50):
        rig.run(20, fan=level)
    assert rig.kinds[:1] == ["started"]


def test_a_card_that_is_lost_while_it_is_let_go_is_told() -> None:
    rig = Rig().run(60, fan=0).run(60, state=GpuState.UNKNOWN).run(10, state=GpuState.LOST)
    assert len(rig.of(EventKind.GPU_LOST)) == 1
    rig.restart().run(10, state=GpuState.LOST)
    assert len(rig.of(EventKind.GPU_LOST)) == 1


@pytest.mark.parametrize("pause_seconds", [40, 60])
def test_a_load_that_pauses_again_and_again_is_told_ever_more_rarely(pause_seconds: int) -> None:
    rig = Rig().run(60, fan=30)
    for _ in range(3600 // (30 + pause_seconds)):
        rig.run(30, LOAD, fan=45, watts=250, celsius=65).run(pause_seconds, {GAME: 0.0}, fan=44, celsius=60)
    assert {"residual-heat", "workload"} == {event.explanation.cause.value for event in rig.spikes}
    assert 4 <= rig.kinds.count("updated") <= 16
