import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwhyd.bus.unread import (
    ALL_BYTES,
    HELD_BYTES,
    PEER_BYTES,
    SMALL_BYTES,
    Backlog,
    Unread,
    held_bytes,
    unread_bytes,
)
from gpuwhyd.errors import BusError

MIB = 1 << 20


def test_a_peer_that_reads_is_served_for_ever():
    unread = Unread()
    for second in range(1000):
        unread.sent(":1.1", MIB)
        if unread.question(":1.1", float(second)) is not None:
            unread.answered(0)
        assert not unread.owes(":1.1")


def test_a_peer_that_does_not_read_is_not_served_until_it_has_read():
    unread = Unread()
    sent = 0
    while not unread.owes(":1.1"):
        unread.sent(":1.1", MIB)
        sent += MIB
        if unread.question(":1.1", 0.0) is not None:
            unread.answered(sent)
    assert sent <= PEER_BYTES + MIB
    assert not unread.owes(":1.2")

    assert unread.question(":1.1", 0.5) is None  # it was asked just now
    assert unread.question(":1.1", 2.0) == ":1.1"
    unread.answered(0)
    assert not unread.owes(":1.1")


def test_what_was_sent_after_the_question_is_not_in_its_answer():
    unread = Unread()
    unread.sent(":1.1", MIB)
    assert unread.question(":1.1", 0.0) == ":1.1"
    unread.sent(":1.1", 5)
    unread.answered(0)

    assert unread.total == 5


def test_many_peers_that_do_not_read_get_small_answers_only():
    unread = Unread()
    for number in range(ALL_BYTES // MIB + 1):
        unread.sent(f":1.{number}", MIB)

    assert unread.owes(":1.3")
    assert not unread.owes(":2.1")
    assert not unread.has_room_for(MIB)
    assert unread.has_room_for(SMALL_BYTES)


def test_when_much_is_unread_the_bus_is_asked_about_the_greediest_first():
    unread = Unread()
    for number in range(40):
        unread.sent(f":1.{number}", MIB + number)
    assert unread.question(":1.1", 0.0) == ":1.39"
    assert unread.question(":1.1", 0.0) is None  # one question at a time
    unread.answered(None)

    assert unread.question(":1.1", 0.0) == ":1.38"


def test_peers_that_have_gone_are_forgotten():
    unread = Unread()
    most = 0
    for number in range(20_000):
        unread.sent(f":1.{number}", 200)
        if unread.question(f":1.{number}", float(number)) is not None:
            unread.answered(None)
        most = max(most, len(unread))

    assert most <= 1100


def test_a_bus_that_does_not_tell_makes_no_difference():
    unread = Unread()
    unread.sent(":1.1", 20 * MIB)
    unread.question(":1.1", 0.0)
    unread.give_up()
    unread.sent(":1.1", 200 * MIB)

    assert not unread.owes(":1.1")
    assert unread.has_room_for(MIB)
    assert unread.question(":1.1", 9.0) is None


@given(
    st.lists(
        st.tuples(
            st.sampled_from([":1.1", ":1.2", ":1.3"]),
            st.integers(1, 40 * MIB),
            st.sampled_from([None, 0, 5, MIB]),
        )
    )
)
def test_the_total_is_that_of_the_peers(steps):
    unread = Unread()
    for second, (peer, length, answer) in enumerate(steps):
        unread.sent(peer, length)
        if unread.question(peer, float(second)) is not None:
            unread.answered(answer)
    for peer in (":1.1", ":1.2", ":1.3"):
        while unread.question(peer, 1e9) is not None:
            unread.answered(None)

    assert unread.total == sum(account.total for account in unread._accounts.values()) >= 0


def test_statistics_are_read_with_care():
    assert unread_bytes(({"OutgoingBytes": 7},)) == 7
    assert unread_bytes(BusError("gone", "org.freedesktop.DBus.Error.NameHasNoOwner")) is None
    for answer in (BusError("no", "org.freedesktop.DBus.Error.AccessDenied"), ({},), ("x",), ()):
        with pytest.raises(BusError):
            unread_bytes(answer)


@pytest.mark.parametrize("figure", [True, False, -1])
def test_what_is_no_count_of_bytes_is_no_statistic(figure):
    for read, name in ((unread_bytes, "OutgoingBytes"), (held_bytes, "IncomingBytes")):
        with pytest.raises(BusError, match=f"no {name}"):
            read(({name: figure},))


def test_the_bus_is_asked_what_it_holds_of_ours_now_and_then_and_not_twice_at_a_time():
    backlog = Backlog()
    asked = 0
    for _ in range(100):
        if backlog.sent(MIB // 4):
            asked += 1
            assert not backlog.sent(100 * MIB)
            assert not backlog.answered(HELD_BYTES)
    assert 10 <= asked <= 60
    assert backlog.answered(HELD_BYTES + 1)

    backlog.give_up()
    assert not backlog.sent(1000 * MIB)


def test_what_the_bus_holds_is_read_with_care():
    assert held_bytes(({"IncomingBytes": 7},)) == 7
    for answer in (BusError("no", "org.freedesktop.DBus.Error.AccessDenied"), ({"IncomingBytes": "x"},), ()):
        with pytest.raises(BusError):
            held_bytes(answer)
