"""The gate and the lines before it, without a bus: time is a number here, and so is work."""

import struct
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwhyd.bus import library
from gpuwhyd.bus.callers import MOST_ASKED, MOST_KNOWN, Callers
from gpuwhyd.bus.framing import Frame, Framer
from gpuwhyd.bus.gate import WAIT_SECONDS, CallGate
from gpuwhyd.bus.header import Header, MessageKind
from gpuwhyd.bus.lines import CROWD_CALLS, CROWDED_PEER_CALLS, PEER_CALLS, USER_CALLS, Lines
from gpuwhyd.bus.messages import PeerCredentials
from gpuwhyd.errors import BusError
from tests.bus.raw import with_field
from tests.bus.scripted_bus import with_sender

GONE = BusError("gone", "org.freedesktop.DBus.Error.NameHasNoOwner")


def call(sender: str, serial: int = 1, body: bytes = b"") -> Frame:
    header = Header(
        little_endian=True,
        kind=MessageKind.METHOD_CALL,
        flags=0,
        serial=serial,
        path="/x",
        member="Ask",
        sender=sender,
    )
    return Frame(header=header, body=body)


class Scene:
    """A gate, and a service whose every answer takes `cost` seconds of work."""

    def __init__(self, cost: float = 0.001) -> None:
        self.now = 0.0
        self.worked = 0.0
        self.cost = cost
        self.served: list[tuple[float, str]] = []
        self.refused: list[str] = []
        self.muted: set[str] = set()
        self.asked: list[str] = []
        self.due: list[tuple[float, object]] = []
        self.gate = CallGate(
            serve=self._serve,
            refuse=lambda refusal: self.refused.append(refusal.sender),
            mute=self.muted.add,
            owes=lambda sender: False,
            ask=self.asked.append,
            later=lambda seconds, then: self.due.append((self.now + seconds, then)),
            clock=lambda: self.now,
            work_clock=lambda: self.worked,
        )

    def _serve(self, call) -> None:
        self.worked += self.cost
        self.now += self.cost
        self.served.append((self.now, call.sender))

    def know(self, uid: int, *senders: str) -> None:
        for sender in senders:
            self.gate.callers.learn(sender, ({"UnixUserID": uid, "ProcessID": 7},))

    def until(self, time: float) -> None:
        while self.due and self.due[0][0] <= time:
            at, then = self.due.pop(0)
            self.now = max(self.now, at)
            then()
        self.now = max(self.now, time)

    def waited(self, sender: str, since: float) -> float:
        return next(at for at, name in self.served if name == sender) - since


def test_a_strangers_call_is_served_when_the_bus_has_told_who_it_is():
    scene = Scene()
    scene.gate.on_call(call(":1.1"))
    scene.gate.on_call(call(":1.1", 2))
    assert (scene.asked, scene.served) == ([":1.1"], [])

    scene.gate.told(":1.1", ({"UnixUserID": 1000, "ProcessID": 7},))
    assert len(scene.served) == 2
    scene.gate.on_call(call(":1.1", 3))
    assert (len(scene.served), len(scene.asked)) == (3, 1)


def test_what_a_peer_asked_that_has_gone_is_not_answered():
    scene = Scene()
    scene.gate.on_call(call(":1.1"))
    scene.gate.told(":1.1", GONE)

    assert scene.served == []


def test_a_peer_of_whom_the_bus_cannot_tell_is_served_all_the_same():
    scene = Scene()
    scene.gate.on_call(call(":1.1"))
    scene.gate.told(":1.1", BusError("no", "org.freedesktop.DBus.Error.Failed"))

    assert len(scene.served) == 1


def test_few_questions_are_under_way_at_a_time():
    scene = Scene()
    for number in range(100):
        scene.gate.on_call(call(f":1.{number}"))
    assert len(scene.asked) == MOST_ASKED

    scene.gate.told(":1.0", GONE)
    assert len(scene.asked) == MOST_ASKED + 1


def test_a_burst_that_is_a_little_too_much_is_served_a_little_later_and_not_refused():
    scene = Scene(cost=0.007)
    scene.know(1000, ":1.1")
    for serial in range(1, 15):
        scene.gate.on_call(call(":1.1", serial))
    assert len(scene.served) < 14
    scene.until(1.0)

    assert len(scene.served) == 14
    assert scene.refused == []


def test_however_many_connections_a_user_floods_from_another_user_is_served_at_once():
    scene = Scene(cost=0.005)
    hostile = [f":1.{number}" for number in range(200)]
    scene.know(1000, *hostile)
    scene.know(1001, ":2.1")
    for sender in hostile:
        for serial in range(1, 50):
            scene.gate.on_call(call(sender, serial))
    before = scene.now
    scene.gate.on_call(call(":2.1"))

    assert before < 0.2
    assert scene.waited(":2.1", before) <= scene.cost + 1e-9
    assert set(hostile) <= scene.muted
    assert len(scene.refused) <= 20


def test_users_and_the_peers_of_one_user_take_turns():
    scene = Scene(cost=0.05)
    scene.know(1000, ":1.1", ":1.2")
    for serial in range(1, 11):
        scene.gate.on_call(call(":1.1", serial))
    scene.gate.on_call(call(":1.2"))
    scene.until(3.0)

    assert [sender for _, sender in scene.served[:4]] == [":1.1", ":1.1", ":1.2", ":1.1"]


def test_an_answer_that_takes_work_later_is_charged_to_who_asked():
    scene = Scene(cost=0.0)
    scene.know(1000, ":1.1")

    def marshal() -> None:
        scene.worked += 0.5

    scene.gate.charge(":1.1", marshal)
    scene.gate.on_call(call(":1.1"))
    assert scene.served == []
    scene.until(3.0)
    assert len(scene.served) == 1


def test_the_loop_is_not_held_by_those_who_wait():
    scene = Scene(cost=0.004)
    for number in range(300):
        scene.know(number, f":1.{number}")
        scene.gate.charge(f":1.{number}", lambda: setattr(scene, "worked", scene.worked + 0.05))
        scene.gate.on_call(call(f":1.{number}"))
    scene.now += 10.0
    before = scene.now
    scene.until(before)  # one look

    assert scene.now - before < 0.03
    assert scene.due[0][0] - scene.now <= WAIT_SECONDS
    scene.until(scene.now + 10)
    assert len(scene.served) == 300


@given(
    st.lists(
        st.tuples(
            st.integers(0, 5),
            st.sampled_from([":1.1", ":1.2", ":1.3"]),
            st.integers(0, 1),
            st.integers(0, 9000),
        ),
        max_size=400,
    )
)
def test_lines_lose_nothing_that_they_took_and_stay_bounded(steps):
    lines = Lines()
    inside: Counter[str] = Counter()
    for action, sender, user, size in steps:
        if action < 4:
            inside[sender] += lines.add(sender, user, call(sender, body=bytes(size)))
        elif (frame := lines.take(lambda _user: True)) is not None:
            inside[str(frame.header.sender)] -= 1
        assert all(count <= 2 * PEER_CALLS for count in inside.values())
    while (frame := lines.take(lambda _user: True)) is not None:
        inside[str(frame.header.sender)] -= 1

    assert not any(inside.values())
    assert not lines


def test_a_user_has_so_many_calls_waiting_and_no_more():
    lines = Lines()
    taken = sum(lines.add(f":1.{number}", 1000, call(f":1.{number}")) for number in range(2 * USER_CALLS))

    assert taken == USER_CALLS
    assert lines.add(":2.1", 1001, call(":2.1"))


@pytest.mark.parametrize("uid", [False, True, -1, 0.0, "0", None])
def test_a_user_id_is_a_number_and_false_is_not_roots(uid):
    callers = Callers()
    with pytest.raises(BusError, match="does not know the user"):
        callers.learn(":1.1", ({"UnixUserID": uid, "ProcessID": 7},))
    assert callers.learn(":1.1", ({"UnixUserID": 0, "ProcessID": True},)) == PeerCredentials(uid=0, pid=None)


def test_strangers_without_number_leave_no_more_than_a_bus_has_connections():
    callers = Callers()
    for number in range(3 * MOST_KNOWN):
        callers.is_known(f":1.{number}")
        while (sender := callers.next_question()) is not None:
            callers.told(sender, ({"UnixUserID": 1000},))
    assert len(callers._known) == MOST_KNOWN

    for number in range(3 * MOST_KNOWN):
        callers.is_known(f":2.{number}")
        callers.next_question()
    assert len(callers._to_ask) <= MOST_KNOWN


def marshalled(sender: str, serial: int, *, disguise: bytes = b"") -> bytes:

    message = library.marshal(
        MessageKind.METHOD_CALL,
        serial,
        path="/x",
        interface="a.b",
        member="Ask",
        signature="s",
        body=["x" * serial],
    )
    if disguise:
        field = b"\x07\x01s\0" + struct.pack("<I", len(disguise)) + disguise + b"\0"
        message = with_field(message, 42, b"ay", struct.pack("<I", len(field)) + field)
    return with_sender(message, sender)


def test_a_muted_senders_calls_are_passed_over_and_nobody_elses_lost():
    stream = b"".join(
        marshalled(sender, serial)
        for serial, sender in enumerate([":1.1", ":1.2", ":1.1", ":1.1", ":1.22", ":1.1", ":1.2"], start=1)
    )
    for chunk in (1, 7, 100, len(stream)):
        framer = Framer(lambda header: 1 << 16, 1 << 16)
        framer.muted.add(b":1.1")
        senders = []
        for start in range(0, len(stream), chunk):
            framer.feed(stream[start : start + chunk])
            while (message := framer.take()) is not None:
                assert isinstance(message, Frame)
                senders.append(message.header.sender)
        assert [sender for sender in senders if sender != ":1.1"] == [":1.2", ":1.22", ":1.2"]
        assert len(framer._buffer) == 0
        if chunk == len(stream):
            assert ":1.1" not in senders


def test_who_pretends_to_be_somebody_else_in_a_field_of_their_own_gains_nothing_and_harms_nobody():
    framer = Framer(lambda header: 1 << 16, 1 << 16)
    framer.muted.add(b":1.1")
    framer.feed(marshalled(":1.1", 1, disguise=b":1.2") + marshalled(":1.2", 2, disguise=b":1.1"))
    message = framer.take()

    assert isinstance(message, Frame)
    assert message.header.sender == ":1.2"
    assert framer.take() is None


def test_signals_and_answers_of_a_muted_sender_are_read():

    framer = Framer(lambda header: 1 << 16, 1 << 16)
    framer.muted.add(b":1.1")
    answer = library.marshal(MessageKind.METHOD_RETURN, 5, reply_serial=4)
    framer.feed(with_sender(answer, ":1.1"))

    assert isinstance(framer.take(), Frame)


def test_in_a_crowd_of_strangers_each_has_a_short_line_and_everybody_has_one():
    lines = Lines()
    for number in range(CROWD_CALLS // PEER_CALLS):
        assert all(lines.add_strangers(f":1.{number}", call(f":1.{number}")) for _ in range(PEER_CALLS))

    late = [lines.add_strangers(":2.1", call(":2.1")) for _ in range(PEER_CALLS)]
    assert sum(late) == CROWDED_PEER_CALLS


def test_a_crowd_that_has_been_identified_or_has_gone_is_none_any_more():
    lines = Lines()
    for number in range(CROWD_CALLS // PEER_CALLS):
        for _ in range(PEER_CALLS):
            lines.add_strangers(f":1.{number}", call(f":1.{number}"))
    lines.identify(":1.0", 1000)
    assert all(lines.add_strangers(":2.1", call(":2.1")) for _ in range(PEER_CALLS))
    lines.drop(":1.1")
    assert all(lines.add_strangers(":2.2", call(":2.2")) for _ in range(PEER_CALLS))
    lines.drop(":1.1")

    assert not all(lines.add_strangers(":2.3", call(":2.3")) for _ in range(PEER_CALLS))
