from hypothesis import given
from hypothesis import strategies as st

from gpuwhyd.bus.limits import CALLS_AT_ONCE, CALLS_PER_SECOND, MOST_SENDERS, CallLimits, Verdict


def verdicts(limits, sender, now, count):
    return [limits.judge(sender, now) for _ in range(count)]


def test_a_burst_is_served_then_refused_a_few_times_then_ignored():
    answers = verdicts(CallLimits(), ":1.1", 0.0, 1000)

    assert answers.count(Verdict.SERVE) == CALLS_AT_ONCE
    assert 1 <= answers.count(Verdict.REFUSE) <= 10
    assert answers[-1] is Verdict.IGNORE


def test_one_sender_does_not_use_up_anothers_calls():
    limits = CallLimits()
    verdicts(limits, ":1.1", 0.0, 1000)

    assert limits.judge(":1.2", 0.0) is Verdict.SERVE


def test_calls_come_back_with_time():
    limits = CallLimits()
    verdicts(limits, ":1.1", 0.0, 1000)

    assert verdicts(limits, ":1.1", 2.0, 1000).count(Verdict.SERVE) == 2 * CALLS_PER_SECOND


def test_senders_that_went_quiet_are_forgotten():
    limits = CallLimits()
    for number in range(500):
        limits.judge(f":1.{number}", 0.0)
    for _ in range(500):
        limits.judge(":1.9999", 60.0)

    assert len(limits) < 10


def test_a_sender_in_debt_is_not_forgotten():
    limits = CallLimits()
    verdicts(limits, ":1.1", 0.0, 1000)
    for number in range(50):
        limits.judge(f":1.{number + 2}", 0.1)

    assert limits.judge(":1.1", 0.1) is not Verdict.REFUSE
    assert verdicts(limits, ":1.1", 0.1, 100).count(Verdict.SERVE) < 10


@given(st.lists(st.integers(0, 5000), max_size=3000))
def test_memory_for_senders_is_bounded(senders):
    limits = CallLimits()
    for number in range(MOST_SENDERS + 10):
        limits.judge(f":2.{number}", 0.0)
    for sender in senders:
        limits.judge(f":1.{sender}", 0.0)

    assert len(limits) <= MOST_SENDERS + 1
