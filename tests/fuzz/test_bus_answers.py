"""What the bus and polkit may answer to our own questions: only a clear answer counts."""

import asyncio
import contextlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwhyd.bus import library
from gpuwhyd.bus.callers import Callers
from gpuwhyd.bus.codec import body_of
from gpuwhyd.bus.connection import BusConnection
from gpuwhyd.bus.header import MessageKind
from gpuwhyd.bus.messages import ERROR_PREFIX, MethodCall
from gpuwhyd.bus.readers import Readers
from gpuwhyd.bus.unread import ASK_AFTER_BYTES, HELD_BYTES, held_bytes, unread_bytes
from gpuwhyd.errors import BusError
from gpuwhyd.outputs.dbus_authorization import require_reload_permission
from gpuwhyd.outputs.dbus_contract import CallError
from tests.bus.scripted_bus import Peer, scripted_bus, with_sender
from tests.fuzz.mutation import HOSTILE_TEXTS, examples, hostile_values

ERRORS = st.builds(
    BusError,
    st.sampled_from(HOSTILE_TEXTS),
    st.sampled_from(["", "NameHasNoOwner", "ServiceUnknown", "NoReply"]).map(
        lambda name: ERROR_PREFIX + name
    ),
)
NUMBERS = st.integers(0, 2**32 - 1) | st.sampled_from([True, False, -1, 2**32, 2**63, 1.0, "0", b"\0", None])
BODIES = st.lists(hostile_values() | st.dictionaries(st.just("UnixUserID"), NUMBERS), max_size=2).map(tuple)


def answers(*keys: str) -> st.SearchStrategy[tuple[object, ...] | BusError]:
    told = st.dictionaries(st.sampled_from(keys), NUMBERS | hostile_values())
    return ERRORS | BODIES | st.tuples(told) | st.tuples(told, hostile_values())


def is_number(value: object) -> bool:
    return type(value) is int and value >= 0


@examples(200)
@given(answers("UnixUserID", "ProcessID", "LinuxSecurityLabel"))
def test_a_caller_is_known_by_a_user_id_or_not_at_all(answer: tuple[object, ...] | BusError) -> None:
    callers = Callers()
    assert not callers.is_known(":1.1")
    assert callers.next_question() == ":1.1"
    callers.told(":1.1", answer)
    assert callers.is_known(":1.1")
    assert callers.next_question() is None
    peer = callers.credentials(":1.1")
    told = answer[0] if isinstance(answer, tuple) and answer and isinstance(answer[0], dict) else {}
    assert (peer is not None) == is_number(told.get("UnixUserID"))
    if peer is not None:
        assert type(peer.uid) is int
        assert peer.uid == told["UnixUserID"]
        assert peer.pid == (told["ProcessID"] if is_number(told.get("ProcessID")) else None)


@examples(200)
@given(answers("OutgoingBytes", "IncomingBytes"))
def test_statistics_of_the_bus_are_bytes_or_it_has_none(answer: tuple[object, ...] | BusError) -> None:
    for read, name in ((unread_bytes, "OutgoingBytes"), (held_bytes, "IncomingBytes")):
        told = answer[0] if isinstance(answer, tuple) and answer and isinstance(answer[0], dict) else {}
        figure: object = "none"
        with contextlib.suppress(BusError):
            figure = read(answer)
        if is_number(told.get(name)):
            assert figure == told[name]
        else:
            assert figure in (None, "none")
            assert figure == "none" or read is unread_bytes


@examples(120)
@given(st.lists(st.tuples(answers("OutgoingBytes", "IncomingBytes"), st.booleans()), min_size=1, max_size=6))
def test_no_statistics_make_a_peer_that_got_nothing_owe_anything(
    steps: list[tuple[tuple[object, ...] | BusError, bool]],
) -> None:
    waiting, too_much = [], []
    readers = Readers(
        ask=lambda peer, on_answer: waiting.append(on_answer),
        too_much=lambda: too_much.append(1),
        clock=lambda: 0.0,
    )
    held = False
    for answer, is_broadcast in steps:
        readers.sent("" if is_broadcast else ":1.1", ASK_AFTER_BYTES + 1)
        told = answer[0] if isinstance(answer, tuple) and answer and isinstance(answer[0], dict) else {}
        held |= is_number(told.get("IncomingBytes")) and told["IncomingBytes"] > HELD_BYTES
        while waiting:
            waiting.pop()(answer)
        assert not readers.owes(":1.2")
        assert readers.has_room_for(0)
    assert held or not too_much


SOMEBODY = 4242 if os.geteuid() != 4242 else 4243
CALL = MethodCall(
    sender=":1.9", path="/", interface=None, member="Reload", signature="", body=(), serial=1, wants_reply=True
)  # fmt: skip
POLKIT = st.one_of(
    st.tuples(st.just("(bba{ss})"), st.tuples(st.booleans(), st.booleans(), st.just({})).map(lambda it: (it,))),
    st.tuples(st.just("(bb)"), st.just(((True, False),))),
    st.tuples(st.just("bba{ss}"), st.just((True, False, {}))),
    st.tuples(st.just("(uba{ss})"), st.just(((1, True, {}),))),
    st.tuples(st.just("(sba{ss})"), st.just((("true", False, {}),))),
    st.tuples(st.just("((b)ba{ss})"), st.just((((True,), True, {}),))),
    st.tuples(st.just("(bba{ss})b"), st.just(((True, False, {}), True))),
    st.tuples(st.just("b"), st.just((True,))),
    st.tuples(st.just("a{sv}"), st.just(({"is_authorized": True},))),
    st.tuples(st.just("s"), st.sampled_from(["", "yes", "x" * 4000]).map(lambda text: (text,))),
    st.just(("", ())),
    st.sampled_from(["ServiceUnknown", "NameHasNoOwner", "AccessDenied", "NoReply"]),
)  # fmt: skip


def answer_or_refuse(peer: Peer, frame: object, answer: str | tuple[str, tuple[object, ...]]) -> None:
    if not isinstance(answer, str):
        signature, body = answer
        peer.answer(frame, signature, body_of(signature, body))
        return
    refusal = library.marshal(
        MessageKind.ERROR, 1, reply_serial=frame.header.serial, error_name=ERROR_PREFIX + answer, signature="s", body=["no"]
    )  # fmt: skip
    peer.writer.write(with_sender(refusal, "org.freedesktop.DBus"))


@pytest.mark.hypothesis  # which sees no @given at the test itself
def test_only_a_clear_yes_of_polkits_lets_somebody_reload() -> None:
    """One connection for all, as the daemon has one."""
    polkits: list[str | tuple[str, tuple[object, ...]]] = []
    starts: list[bool] = []

    async def script(peer: Peer) -> None:
        await peer.greet()
        while True:
            frame = await peer.message()
            match frame.header.member:
                case "GetConnectionCredentials":
                    peer.answer(frame, "a{sv}", body_of("a{sv}", ({"UnixUserID": SOMEBODY},)))
                case "StartServiceByName":
                    answer_or_refuse(peer, frame, ("u", (1,)) if starts[0] else "ServiceUnknown")
                case _:
                    answer_or_refuse(peer, frame, polkits.pop(0))

    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()

        async def connect() -> BusConnection:
            connection = await BusConnection.connect(await stack.enter_async_context(scripted_bus(script)))
            stack.push_async_callback(connection.close)
            return connection

        connection = runner.run(connect())

        async def ask() -> str:
            try:
                await require_reload_permission(connection, CALL)
            except CallError as error:
                return error.name
            return ""

        @examples(60)
        @given(POLKIT, POLKIT, st.booleans())
        def decides(
            first: str | tuple[str, tuple[object, ...]],
            second: str | tuple[str, tuple[object, ...]],
            is_installed: bool,
        ) -> None:
            polkits[:], starts[:] = [first, second], [is_installed]
            name = runner.run(ask())
            is_absent = first in ("ServiceUnknown", "NameHasNoOwner")
            decisive = second if is_absent and is_installed else first
            says_yes = decisive[0] == "(bba{ss})" and decisive[1][0][0] is True
            assert name == ("" if says_yes else "org.gpuwhyd1.Error.NotAuthorized")

        try:
            decides()
        finally:
            runner.run(stack.aclose())
