"""Our connection on real buses, and on one that misbehaves."""

import asyncio
import contextlib
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpuwhyd.bus import library
from gpuwhyd.bus.connection import BusConnection, MethodCall, SignalMatch
from gpuwhyd.bus.header import MessageKind
from gpuwhyd.errors import BusError
from tests.bus.buses import private_broker, private_bus
from tests.bus.raw import raw_client, with_body
from tests.bus.scripted_bus import Peer, scripted_bus

NAME = "org.gpuwhyd1"
PATH = "/org/gpuwhyd1"
INTERFACE = "org.gpuwhyd1.Manager"
BUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")


@pytest.fixture(scope="module", params=[private_bus, private_broker], ids=["dbus-daemon", "dbus-broker"])
def bus(request):
    with request.param() as running:
        yield running.address


@contextlib.asynccontextmanager
async def connected(address, count=1, **options):
    connections = [await BusConnection.connect(address, **options) for _ in range(count)]
    try:
        yield connections[0] if count == 1 else connections
    finally:
        for connection in connections:
            await connection.close()


async def until(condition, what):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.005)


async def flushed(connection):
    """Whatever the bus had for this connection before now has been handled when this returns."""
    await connection.call(*BUS, "GetId")


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_call_is_answered_in_plain_python(bus):
    async def scenario():
        async with connected(bus, 2) as (service, client):
            await service.request_name(NAME)
            calls = []

            def handle(call: MethodCall) -> None:
                calls.append(call)
                service.reply(
                    call, "a{sv}", ({"fan_percent": 57.0, "gone": None, "suspects": [{"pids": [1]}]},)
                )

            service.set_handler(handle)
            answer = await client.call(NAME, PATH, INTERFACE, "Explain", "oa{sv}", ("/gpu", {"n": 1}))
            return client.unique_name, calls, answer

    unique_name, (call,), answer = asyncio.run(scenario())

    assert answer == ({"fan_percent": 57.0, "suspects": [{"pids": [1]}]},)
    assert (call.sender, call.path, call.interface, call.member) == (unique_name, PATH, INTERFACE, "Explain")
    assert (call.signature, call.body, call.wants_reply) == ("oa{sv}", ("/gpu", {"n": 1}), True)


def test_an_error_answer_carries_its_name_and_text(bus):
    async def scenario():
        async with connected(bus, 2) as (service, client):
            service.set_handler(
                lambda call: service.error(call, "org.gpuwhyd1.Error.UnknownGpu", "no such GPU\0")
            )
            await client.call(service.unique_name, PATH, INTERFACE, "Explain")

    with pytest.raises(BusError, match="no such GPU") as caught:
        asyncio.run(scenario())
    assert caught.value.name == "org.gpuwhyd1.Error.UnknownGpu"


def test_calling_a_service_that_is_not_there_fails_at_once_and_starts_nothing(bus):
    async def scenario():
        async with connected(bus) as client:
            await client.call("org.gpuwhyd1.Absent", PATH, INTERFACE, "GetSummary")

    with pytest.raises(BusError) as caught:
        asyncio.run(scenario())
    assert caught.value.name in {
        "org.freedesktop.DBus.Error.ServiceUnknown",
        "org.freedesktop.DBus.Error.NameHasNoOwner",
    }


def test_a_call_that_is_never_answered_ends_with_its_timeout(bus):
    async def scenario():
        async with connected(bus, 2) as (service, client):
            service.set_handler(lambda call: None)
            await client.call(service.unique_name, PATH, INTERFACE, "GetSummary", timeout_seconds=0.05)

    with pytest.raises(BusError, match=r"no answer from :1\.\d+ to GetSummary within 0.05 s") as caught:
        asyncio.run(scenario())
    assert caught.value.name == "org.freedesktop.DBus.Error.NoReply"


def test_a_name_that_another_owns_is_refused_with_a_reason(bus):
    async def scenario():
        async with connected(bus, 2) as (first, second):
            await first.request_name(NAME)
            await first.request_name(NAME)
            await second.request_name(NAME)

    with pytest.raises(BusError, match="owned by another process"):
        asyncio.run(scenario())


def test_credentials_are_those_of_the_peer_and_kept(bus):
    async def scenario():
        async with connected(bus, 2) as (service, client):
            before = await service.credentials(client.unique_name)
            await client.close()
            return before, await service.credentials(client.unique_name)

    before, after = asyncio.run(scenario())

    assert (before.uid, before.pid) == (os.geteuid(), os.getpid())
    assert after == before


def test_credentials_of_a_peer_that_has_gone_are_an_error(bus):
    async def scenario():
        async with connected(bus) as service:
            await service.credentials(":1.99999")

    with pytest.raises(BusError):
        asyncio.run(scenario())


def test_an_answer_larger_than_what_is_accepted_unasked_arrives(bus):
    async def scenario(**options):
        async with connected(bus, 2, **options) as (service, client):
            service.set_handler(lambda call: service.reply(call, "as", (["x" * 1000] * 1000,)))
            (texts,) = await client.call(service.unique_name, PATH, INTERFACE, "GetEvents")
            return len(texts)

    assert asyncio.run(scenario()) == 1000
    with pytest.raises(BusError, match="too large"):
        asyncio.run(scenario(reply_limit_bytes=64 * 1024))


def test_an_answer_too_large_to_send_becomes_an_error(bus):
    async def scenario():
        async with connected(bus, 2) as (service, client):
            service.set_handler(lambda call: service.reply(call, "as", (["x" * 4000] * 2000,)))
            await client.call(service.unique_name, PATH, INTERFACE, "GetEvents")

    with pytest.raises(BusError, match="ask for less"):
        asyncio.run(scenario())


def test_a_fault_of_the_handler_is_logged_and_answered_without_its_text(bus, caplog):
    async def scenario():
        async with connected(bus, 2) as (service, client):

            def handle(call: MethodCall) -> None:
                raise ValueError("a secret")

            service.set_handler(handle)
            await client.call(service.unique_name, PATH, INTERFACE, "GetSummary")

    with pytest.raises(BusError) as caught:
        asyncio.run(scenario())
    assert caught.value.name == "org.gpuwhyd1.Error.Failed"
    assert "secret" not in str(caught.value)
    assert "a secret" in caplog.text


def test_a_value_that_cannot_be_sent_is_a_type_error_in_the_caller_and_harms_nothing(bus):
    async def scenario():
        async with connected(bus) as connection:
            with pytest.raises(TypeError):
                connection.emit(PATH, INTERFACE, "Changed", "a{sv}", ({"a": object()},))
            with pytest.raises(TypeError):
                await connection.call(*BUS, "GetNameOwner", "s", (7,))
            await flushed(connection)

    asyncio.run(scenario())


class Listener:
    def __init__(self):
        self.heard = []

    def __call__(self, path, body):
        self.heard.append((path, body))


def test_signals_are_heard_from_the_owner_of_the_name_only(bus):
    async def scenario():
        async with connected(bus, 3) as (owner, client, forger):
            await owner.request_name(NAME)
            listener = Listener()
            await client.subscribe(
                SignalMatch(interface=INTERFACE, member="Slept", path=PATH, sender=NAME), listener
            )
            forger.emit(PATH, INTERFACE, "Slept", "s", ("forged",))
            forger.emit(PATH, INTERFACE, "Slept", "s", ("forged",), destination=client.unique_name)
            await flushed(forger)
            owner.emit("/elsewhere", INTERFACE, "Slept", "s", ("other path",))
            owner.emit(PATH, INTERFACE, "Slept", "s", ("genuine",))
            owner.emit(PATH, INTERFACE, "Slept", "s", ("to you",), destination=client.unique_name)
            await flushed(owner)
            await until(lambda: len(listener.heard) >= 2, "the owner's signals")
            await flushed(client)
            return listener.heard

    assert asyncio.run(scenario()) == [(PATH, ("genuine",)), (PATH, ("to you",))]


def test_a_name_that_changes_hands_takes_its_signals_along(bus):
    async def scenario():
        async with connected(bus, 3) as (first, second, client):
            listener = Listener()
            await client.subscribe(
                SignalMatch(interface=INTERFACE, member="Slept", path=None, sender=NAME), listener
            )
            for number, owner in enumerate((first, second), 1):
                await owner.request_name(NAME)
                owner.emit(PATH, INTERFACE, "Slept", "u", (number,))
                await flushed(owner)
                await until(lambda count=number: len(listener.heard) == count, "the owner's signal")
                first.emit(
                    PATH, INTERFACE, "Slept", "u", (99,), destination=client.unique_name
                ) if number == 2 else None
                await first.close() if number == 1 else None
            await flushed(client)
            return listener.heard

    assert asyncio.run(scenario()) == [(PATH, (1,)), (PATH, (2,))]


def test_a_forged_change_of_owner_is_ignored(bus):
    async def scenario():
        async with connected(bus, 2) as (owner, client):
            await owner.request_name(NAME)
            listener = Listener()
            await client.subscribe(
                SignalMatch(interface=INTERFACE, member="Slept", path=None, sender=NAME), listener
            )
            with raw_client(bus) as forger:
                forger.send(
                    MessageKind.SIGNAL,
                    destination=client.unique_name,
                    path="/org/freedesktop/DBus",
                    interface="org.freedesktop.DBus",
                    member="NameOwnerChanged",
                    signature="sss",
                    body=[NAME, owner.unique_name, forger.unique_name],
                )
                forger.send(
                    MessageKind.SIGNAL,
                    destination=client.unique_name,
                    path=PATH,
                    interface=INTERFACE,
                    member="Slept",
                )
                forger.own("org.gpuwhyd1.Forger")
            await flushed(client)
            owner.emit(PATH, INTERFACE, "Slept", "s", ("genuine",))
            await until(lambda: listener.heard, "the owner's signal")
            return listener.heard

    assert asyncio.run(scenario()) == [(PATH, ("genuine",))]


def test_a_fault_in_a_signal_callback_is_logged_and_the_others_are_called(bus, caplog):
    async def scenario():
        async with connected(bus, 2) as (owner, client):
            listener = Listener()
            match = SignalMatch(interface=INTERFACE, member="Slept", path=None, sender=owner.unique_name)

            def fault(path, body):
                raise ValueError("a fault of ours")

            await client.subscribe(match, fault)
            await client.subscribe(match, listener)
            owner.emit(PATH, INTERFACE, "Slept")
            await until(lambda: listener.heard, "the signal")

    asyncio.run(scenario())
    assert "a fault of ours" in caplog.text


def test_the_second_address_is_tried_when_the_first_is_dead(bus):
    async def scenario():
        async with connected(f"unix:path=/nonexistent;{bus}") as connection:
            return connection.unique_name

    assert asyncio.run(scenario()).startswith(":")


def test_no_bus_at_all_is_one_clear_line():
    with pytest.raises(BusError, match=r"cannot reach the D-Bus \(/nonexistent: No such file or directory\)"):
        asyncio.run(BusConnection.connect("unix:path=/nonexistent"))


def test_calls_that_wait_when_the_bus_dies_end_at_once():
    async def scenario(running):
        service, client = [await BusConnection.connect(running.address) for _ in range(2)]
        service.set_handler(lambda call: None)
        calls = [
            asyncio.create_task(client.call(service.unique_name, PATH, INTERFACE, "M")) for _ in range(20)
        ]
        await flushed(client)
        running.kill()
        results = await asyncio.gather(*calls, return_exceptions=True)
        reason = await client.disconnected()
        client.emit(PATH, INTERFACE, "Changed")
        with pytest.raises(BusError, match="connection was lost"):
            await client.call(*BUS, "GetId")
        await service.disconnected()
        return results, reason

    with private_bus() as running:
        results, reason = asyncio.run(scenario(running))

    assert [type(result) for result in results] == [BusError] * 20
    assert results[0].name == "org.freedesktop.DBus.Error.Disconnected"
    assert reason in str(results[0])


@pytest.mark.parametrize("maker", [private_bus, private_broker], ids=["dbus-daemon", "dbus-broker"])
def test_a_bus_that_stands_still_while_much_is_sent_goes_on_where_it_was(maker):
    """The libraries' own writers give the connection up at the first full socket."""

    async def scenario():
        with maker() as running:
            async with connected(running.address) as connection:
                running.process.send_signal(signal.SIGSTOP)
                try:
                    for _ in range(1000):
                        connection.emit(PATH, INTERFACE, "Changed", "s", ("x" * 12_000,))
                    asked = asyncio.create_task(connection.call(*BUS, "GetId", timeout_seconds=10))
                    await asyncio.sleep(0)
                    dropped = connection.dropped
                finally:
                    running.process.send_signal(signal.SIGCONT)
                return dropped, await asked

    dropped, (bus_id,) = asyncio.run(scenario())

    assert dropped > 500
    assert len(bus_id) == 32


def test_a_bus_that_dies_again_and_again_leaves_no_descriptors(tmp_path):
    async def scenario():
        counts = []
        for _ in range(6):
            with private_bus(socket_path=tmp_path / "bus") as running:
                connection = await BusConnection.connect(running.address)
                await connection.request_name(NAME)
                waiting = asyncio.create_task(connection.disconnected())
                running.kill()
                assert await waiting
            with pytest.raises(BusError):
                await BusConnection.connect(f"unix:path={tmp_path / 'bus'}")
            counts.append(descriptors())
        return counts

    counts = asyncio.run(scenario())

    assert counts == [counts[0]] * 6


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        (b"", "closed the connection during authentication"),
        (b"OK 12", "closed the connection"),
        (b"REJECTED EXTERNAL\r\n", "refused uid"),
        (b"x" * 20_000, "no end of line"),
    ],
)
def test_a_bus_that_hangs_up_or_refuses_during_authentication_is_an_error(said, complaint):
    async def script(peer: Peer) -> None:
        await peer.line()
        peer.writer.write(said)
        await peer.writer.drain()

    async def scenario():
        before = descriptors()
        async with scripted_bus(script) as address:
            with pytest.raises(BusError, match=complaint):
                await BusConnection.connect(address)
        assert descriptors() == before

    asyncio.run(scenario())


@pytest.mark.parametrize("silent_after", ["connect", "authentication"])
def test_a_bus_that_says_nothing_is_given_up_after_the_timeout(silent_after):
    async def script(peer: Peer) -> None:
        if silent_after == "authentication":
            await peer.authenticate()
        await peer.reader.read()

    async def scenario():
        before = descriptors()
        async with scripted_bus(script) as address:
            with pytest.raises(BusError, match=r"within 0\.1 s|did not answer"):
                await BusConnection.connect(address, timeout_seconds=0.1)
        assert descriptors() <= before + 1  # the loop may still hold the far end

    asyncio.run(scenario())


def on_misbehaving_bus(said: bytes):
    """What a connection answers to a question after these bytes: the answer, or why there is none."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        peer.writer.write(said)
        while True:
            peer.answer(await peer.message(), "s", ["pong"])

    async def scenario():
        async with scripted_bus(script) as address:
            connection = await BusConnection.connect(address)
            try:
                pong = await connection.call(*BUS, "GetId", timeout_seconds=5)
            except BusError as error:
                pong = str(error)
            await connection.close()
            return pong

    return asyncio.run(scenario())


def test_malformed_and_unknown_messages_do_not_end_the_connection():
    signal = library.marshal(
        MessageKind.SIGNAL, 9, path="/x", interface="a.b", member="C", signature="s", body=["x"]
    )
    unknown_type = signal[:1] + b"\x63" + signal[2:]
    bad_header = signal.replace(b"\1\1o\0", b"\1\1g\0")
    bad_body = with_body(signal, struct.pack("<I", 1 << 30) + b"x\0")
    unasked_answer = library.marshal(
        MessageKind.METHOD_RETURN, 9, reply_serial=4242, signature="s", body=["x"]
    )
    huge = with_body(signal, bytes(5 << 20))

    pong = on_misbehaving_bus(unknown_type + bad_header + bad_body + unasked_answer + huge + signal)

    assert pong == ("pong",)


def test_an_answer_from_someone_who_was_not_asked_is_ignored():
    async def script(peer: Peer) -> None:
        await peer.greet()
        while True:
            frame = await peer.message()
            peer.answer(frame, "s", ["forged"], sender=":1.666")
            peer.answer(frame, "s", ["genuine"])

    async def scenario():
        async with scripted_bus(script) as address, connected(address) as connection:
            return await connection.call(*BUS, "GetId")

    assert asyncio.run(scenario()) == ("genuine",)


def test_a_stream_that_makes_no_sense_ends_the_connection():
    pong = on_misbehaving_bus(b"HTTP/1.1 400 Bad Request\r\n")

    assert "nonsense" in pong


def test_a_bus_that_stops_reading_costs_a_bounded_queue_and_no_answer_of_others(caplog):
    async def scenario():
        reading = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.greet()
            await reading.wait()
            while True:
                frame = await peer.message()
                if frame.header.kind == MessageKind.METHOD_CALL:
                    peer.answer(frame, "s", ["pong"])

        async with scripted_bus(script) as address:
            connection = await BusConnection.connect(address)
            for number in range(5000):
                connection.emit(PATH, INTERFACE, "Changed", "s", (f"{number}" + "x" * 4000,))
            asked = asyncio.create_task(connection.call(*BUS, "GetId", timeout_seconds=10))
            await asyncio.sleep(0)
            dropped = connection.dropped
            reading.set()
            pong = await asked
            await connection.close()
            return dropped, pong

    dropped, pong = asyncio.run(scenario())

    assert 3000 < dropped < 5000
    assert pong == ("pong",)
    assert caplog.text.count("does not take what is sent") == 1
    assert caplog.text.count("takes messages again") == 1


def test_importing_the_connection_costs_little():
    code = (
        "import asyncio, logging, resource, socket; a = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "import gpuwhyd.bus.connection; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - a)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"GPUWHYD_DBUS_LIBRARY": "dbus-next"},
    )

    assert int(run.stdout) < 8 * 1024
