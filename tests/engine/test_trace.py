"""The memory of the last three minutes answers as if it looked at every sample."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwhyd.engine.trace import SPACING_SECONDS, TRACE_SECONDS, Trace

steps = st.lists(
    st.tuples(
        st.floats(1, 40),
        st.none() | st.floats(0, 500),
        st.none() | st.integers(20, 90).map(float),
    ),
    max_size=60,
)


@given(steps, st.floats(-10, 250))
def test_averages_and_lows_are_those_of_all_samples_in_that_time(steps, back):
    trace, samples, now = Trace(), [], 1000.0
    for dt, watts, celsius in steps:
        now += dt
        trace.feed(now, dt, watts, celsius)
        samples = [s for s in [*samples, (now, dt, watts, celsius)] if now - s[0] <= TRACE_SECONDS]
    since = now - back
    lows = [celsius for at, _, _, celsius in samples if at >= since and celsius is not None]
    counted = [(watts, dt) for at, dt, watts, _ in samples if at > since and watts is not None]
    lowest, average = trace.lowest_celsius(since), trace.average_watts(since)
    assert (lowest and lowest[0]) == min(lows, default=None)
    assert lowest is None or lowest[1] == max(since, samples[0][0])
    if not counted:
        assert average is None
        return
    seconds = sum(dt for _, dt in counted)
    watts = sum(watts * dt for watts, dt in counted) / seconds
    began = min(at - dt for at, dt, _, _ in samples if at > since)
    assert average == (
        pytest.approx(watts, abs=1e-6),
        pytest.approx(seconds, abs=1e-6),
        pytest.approx(began, abs=1e-6),
    )


def test_after_a_break_nothing_of_before_counts():
    trace = Trace()
    trace.feed(1.0, 1.0, 300.0, 20.0)
    trace.clear()
    assert trace.average_watts(0.0) is None
    assert trace.lowest_celsius(0.0) is None
    trace.feed(10.0, 2.0, 50.0, 60.0)
    assert trace.average_watts(0.0) == (50.0, 2.0, 8.0)
    assert trace.lowest_celsius(0.0) == (60.0, 10.0)


def test_a_moment_below_a_second_is_not_lost_with_the_sample_it_is_joined_to():
    trace = Trace()
    for tick, celsius in enumerate((50.0, 50.0, 40.0, 60.0, None)):
        trace.feed(10 + 0.2 * tick, 0.2, 100.0, celsius)
    assert trace.lowest_celsius(0.0) == (40.0, 10.0)


def test_memory_is_bounded_at_any_interval():
    trace = Trace()
    for tick in range(100_000):
        trace.feed(tick / 100, 0.01, 100.0, tick / 100)
    most = TRACE_SECONDS / SPACING_SECONDS + 3
    assert len(trace._samples) <= most
    assert len(trace._lows) <= most
    assert trace.average_watts(900.0) == (
        pytest.approx(100.0),
        pytest.approx(100.0, abs=2),
        pytest.approx(900.0, abs=2),
    )
