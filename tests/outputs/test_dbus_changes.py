"""Which properties are announced, and when."""

from math import nan

from hypothesis import given, settings
from hypothesis import strategies as st

from gpuwhyd.outputs.dbus_changes import Announced, announced_in_full, changes

QUIET = {"FanPercent": 30.0, "PowerWatts": 20.0, "State": "awake", "Sentence": "quiet for 1 s"}


def told(properties=None, *, topic=("quiet",)):
    return announced_in_full(QUIET if properties is None else properties, topic, 0.0)


def moved(announced, now_seconds, *, topic=("quiet",), active=False, **properties):
    return changes(announced, QUIET | properties, topic=topic, active=active, now_seconds=now_seconds)


def test_what_was_never_told_is_told():
    assert changes(Announced(), QUIET, topic=(), active=False, now_seconds=0.0)[0] == QUIET


def test_less_than_a_point_is_not_told_and_a_point_is():
    assert moved(told(), 2.0, FanPercent=30.9, PowerWatts=20.99)[0] == {}
    assert moved(told(), 2.0, FanPercent=31.0, PowerWatts=19.0)[0] == {"FanPercent": 31.0, "PowerWatts": 19.0}


def test_slow_drift_is_told_once_it_adds_up():
    announced, signals = told(), []
    for tick in range(1, 11):
        out, announced = moved(announced, 2.0 * tick, FanPercent=30.0 + 0.3 * tick)
        signals.append(out)
    assert [bool(out) for out in signals] == [
        False,
        False,
        False,
        True,
        False,
        False,
        False,
        True,
        False,
        False,
    ]


def test_drift_adds_up_although_something_else_is_told_meanwhile():
    announced, told_power = told(), []
    for tick in range(1, 5):
        power, fan = 20.0 + 0.3 * tick, 30.0 + 2 * tick
        out, announced = moved(announced, 2.0 * tick, PowerWatts=power, FanPercent=fan)
        told_power.append("PowerWatts" in out)
    assert told_power == [False, False, False, True]


def test_nan_to_nan_is_no_change_but_a_reading_that_goes_or_comes_is():
    announced = told({"FanRpm": nan})
    assert changes(announced, {"FanRpm": nan}, topic=("quiet",), active=False, now_seconds=2.0)[0] == {}
    assert changes(announced, {"FanRpm": 0.0}, topic=("quiet",), active=False, now_seconds=2.0)[0] == {
        "FanRpm": 0.0
    }
    gone, _ = moved(told(), 2.0, FanPercent=nan)
    assert list(gone) == ["FanPercent"]


def test_strings_are_told_when_they_change():
    assert moved(told(), 2.0, State="asleep")[0] == {"State": "asleep"}


def test_memory_moves_by_a_hundredth_of_the_cards_memory():
    properties = {"MemoryUsedBytes": 1e9, "MemoryTotalBytes": 8e9}
    announced = told(properties)
    for used, expected in ((1.07e9, {}), (1.08e9, {"MemoryUsedBytes": 1.08e9})):
        now = {"MemoryUsedBytes": used, "MemoryTotalBytes": 8e9}
        assert changes(announced, now, topic=("quiet",), active=False, now_seconds=2.0)[0] == expected


def test_a_change_within_a_second_waits_and_is_not_lost():
    early, announced = moved(told(), 0.5, FanPercent=60.0)
    assert early == {}
    later, _ = moved(announced, 1.0, FanPercent=60.0)
    assert later == {"FanPercent": 60.0}


def test_ticks_of_a_second_with_jitter_are_all_announced():
    announced = told()
    for tick, jitter in enumerate((0.004, -0.006, 0.009, -0.009, 0.0), start=1):
        out, announced = moved(announced, tick + jitter, FanPercent=30.0 + 5 * tick)
        assert out, f"tick {tick} was held back"


def test_a_sentence_that_only_counts_seconds_is_told_every_ten_seconds_in_a_spike_and_every_minute_else():
    for active, gap in ((True, 10), (False, 60)):
        announced, at = told(), []
        for tick in range(1, 131):
            out, announced = moved(announced, float(tick), active=active, Sentence=f"for {tick} s")
            at += [tick] if out else []
        assert at == list(range(gap, 131, gap))


def test_a_sentence_about_something_else_is_told_at_once():
    out, _ = moved(told(), 2.0, topic=("workload", "ollama"), Sentence="because of ollama")
    assert out == {"Sentence": "because of ollama"}


@settings(deadline=None)  # a busy machine is not a fault
@given(st.lists(st.tuples(st.floats(0.01, 3.0), st.floats(0.0, 100.0)), max_size=60))
def test_never_more_than_one_a_second_and_what_is_told_is_never_a_point_off_for_longer(steps):
    announced, now, times = announced_in_full({"FanPercent": 0.0}, (), 0.0), 0.0, []
    for gap, percent in steps:
        now += gap
        out, announced = changes(announced, {"FanPercent": percent}, topic=(), active=True, now_seconds=now)
        times += [now] if out else []
        held_back = now < announced.not_before_seconds - 0.05
        assert held_back or abs(announced.properties["FanPercent"] - percent) < 1.0
    for first in range(len(times)):
        for last in range(first, len(times)):
            assert times[last] - times[first] >= (last - first) - 0.051
