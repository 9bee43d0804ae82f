from hypothesis import given
from hypothesis import strategies as st

from gpuwhyd.bus.limits import (
    CALLS_AT_ONCE,
    CALLS_PER_SECOND,
    MOST_ACCOUNTS,
    REFUSALS_AT_ONCE,
    USERS_REFUSALS_AT_ONCE,
    USERS_SECONDS_AT_ONCE,
    USERS_SECONDS_PER_SECOND,
    CallLimits,
)

USER = 1000


def served(limits, sender, now, count):
    return sum(limits.may_call(sender, now) for _ in range(count))


def told(limits, sender, user, count):
    return sum(limits.may_be_told(sender, user, 0.0) for _ in range(count))


def test_a_burst_is_served_up_to_its_end():
    assert served(CallLimits(), ":1.1", 0.0, 1000) == CALLS_AT_ONCE


def test_one_sender_does_not_use_up_anothers_calls():
    limits = CallLimits()
    served(limits, ":1.1", 0.0, 1000)

    assert limits.may_call(":1.2", 0.0)


def test_calls_come_back_with_time():
    limits = CallLimits()
    served(limits, ":1.1", 0.0, 1000)

    assert served(limits, ":1.1", 2.0, 1000) == 2 * CALLS_PER_SECOND


def test_a_few_are_told_that_they_ask_too_often_and_no_flood_of_connections_makes_that_many():
    limits = CallLimits()

    assert told(limits, ":1.1", USER, 1000) == REFUSALS_AT_ONCE
    assert sum(told(limits, f":2.{number}", USER, 100) for number in range(200)) < USERS_REFUSALS_AT_ONCE
    assert told(limits, ":3.1", USER + 1, 1000) == REFUSALS_AT_ONCE


def test_the_time_for_one_user_is_bounded_and_nobody_elses():
    limits = CallLimits()
    seconds = 0.0
    while limits.has_time_for(USER, 0.0):
        limits.worked(USER, 0.007, 0.0)
        seconds += 0.007

    assert USERS_SECONDS_AT_ONCE <= seconds <= USERS_SECONDS_AT_ONCE + 0.007
    assert limits.has_time_for(USER + 1, 0.0)


def test_one_long_call_is_made_up_for_by_a_rest():
    limits = CallLimits()
    limits.worked(USER, USERS_SECONDS_AT_ONCE + 1.0, 0.0)

    assert not limits.has_time_for(USER, 0.9 / USERS_SECONDS_PER_SECOND)
    assert limits.has_time_for(USER, 1.1 / USERS_SECONDS_PER_SECOND)


def test_who_went_quiet_is_forgotten():
    limits = CallLimits()
    for number in range(500):
        limits.may_call(f":1.{number}", 0.0)
        limits.worked(number, 0.01, 0.0)
    for _ in range(500):
        limits.may_call(":1.9999", 60.0)
        limits.has_time_for(9999, 60.0)

    assert len(limits) < 10


def test_a_sender_in_debt_is_not_forgotten():
    limits = CallLimits()
    served(limits, ":1.1", 0.0, 1000)
    for number in range(50):
        limits.may_call(f":1.{number + 2}", 0.1)

    assert served(limits, ":1.1", 0.1, 100) < 10


@given(st.lists(st.integers(0, 5000), max_size=3000))
def test_memory_is_bounded(senders):
    limits = CallLimits()
    for number in range(MOST_ACCOUNTS + 10):
        limits.may_call(f":2.{number}", 0.0)
    for sender in senders:
        limits.may_call(f":1.{sender}", 0.0)
        limits.worked(sender, 1.0, 0.0)

    assert len(limits) <= 2 * (MOST_ACCOUNTS + 1)
