"""What an unprivileged peer can do to a service: on both buses with the stock policy and limits of the system bus, with both
libraries, as another user where these tests run as root. The service is a process.
"""

import asyncio
import contextlib
import os
import select
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gpuwhyd.bus import library
from gpuwhyd.bus.codec import plain
from gpuwhyd.bus.connection import BusConnection
from gpuwhyd.bus.header import MessageKind
from gpuwhyd.errors import BusError
from tests.bus.buses import PrivateBus, private_broker, private_bus
from tests.bus.raw import BUS, RawClient, parts, raw_client, to_server, with_body, with_field
from tests.bus.server import NAME

_BUSES = {"dbus-daemon": private_bus, "dbus-broker": private_broker}
BUS_OBJECT = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
STRANGER = 65534 if os.geteuid() == 0 else None
OPEN_POLICY = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <policy context="default"><allow own="org.gpuwhyd1"/><allow send_destination="org.gpuwhyd1"/></policy>
</busconfig>
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    address: str
    library: str

    def stats(self) -> dict[str, object]:
        """Asked by a client of its own each time: proof that the service serves others."""
        with raw_client(self.address) as client:
            (answer,) = library.unmarshal_body(*parts(client.ask("Stats")))
        stats = plain(answer)
        assert isinstance(stats, dict)
        return stats


def sent_and_read(client: RawClient, data: bytes, *, until_errors: int) -> list[str | None]:
    """The error names (None: no error) of the answers until so many errors of the service have come, sending all the while."""
    client.sock.setblocking(False)
    rest, names, errors = memoryview(data), [], 0
    while errors < until_errors or rest:
        readable, writable, _ = select.select([client.sock], [client.sock] if rest else [], [], 20)
        assert readable or writable, "nothing comes any more"
        if writable:
            rest = rest[client.sock.send(rest) :]
        while readable and (frame := client.receive_now()) is not None:
            names.append(frame.header.error_name)
            errors += str(frame.header.error_name).startswith("org.gpuwhyd1.Error")
    return names


@contextlib.contextmanager
def serving(bus: PrivateBus, library_name: str = "dbus-next") -> Iterator[Service]:
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "tests.bus.server", bus.address],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"GPUWHYD_DBUS_LIBRARY": library_name},
        cwd=Path(__file__).parents[2],
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(library_name)
            yield Service(address=bus.address, library=library_name)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    file = tmp_path_factory.mktemp("policy") / "open.conf"
    file.write_text(OPEN_POLICY)
    return file


@pytest.fixture(
    scope="module",
    params=[(bus, name) for bus in _BUSES for name in ("dbus-next", "dbus-fast")],
    ids="-".join,
)
def service(request, policy):
    bus_name, library_name = request.param
    with _BUSES[bus_name]("system", policy_files=[policy]) as bus, serving(bus, library_name) as running:
        yield running


@pytest.fixture(autouse=True)
def memory_stays(request):
    """Whatever is done to it: what the service takes at most grows by less than 20 MiB."""
    if "service" not in request.fixturenames:
        yield
        return
    running = request.getfixturevalue("service")
    before = running.stats()["peak_memory_kib"]
    yield
    assert running.stats()["peak_memory_kib"] - before < 20_000


def stranger(service: Service) -> contextlib.AbstractContextManager[RawClient]:
    return raw_client(service.address, STRANGER)


def test_a_burst_of_10000_pipelined_calls_is_served_in_part_and_costs_nobody_else(service):
    before = service.stats()
    with stranger(service) as client:
        calls = b"".join(client.marshal(MessageKind.METHOD_CALL, **to_server("Stats")) for _ in range(10_000))
        assert sent_and_read(client, calls, until_errors=1)
    after = service.stats()

    assert after["served"] - before["served"] <= 300


def test_who_calls_too_often_is_told_so(service):
    with stranger(service) as client:
        calls = b"".join(client.marshal(MessageKind.METHOD_CALL, **to_server("Echo")) for _ in range(1000))
        names = sent_and_read(client, calls, until_errors=1)

    assert "org.gpuwhyd1.Error.TooManyRequests" in names


def test_a_flood_of_signatures_does_not_stay_in_memory(service):
    for start in range(0, 3000, 150):
        with stranger(service) as client:
            for number in range(start, start + 150):
                signature = "".join("sgub"[number >> shift & 3] for shift in range(0, 12, 2))
                body = [{"s": "", "g": "", "u": 0, "b": False}[code] for code in signature]
                client.send(
                    MessageKind.METHOD_CALL,
                    **to_server("Echo"),
                    flags=1,
                    signature=signature + "s" * 50,
                    body=[*body, *[""] * 50],
                )

    assert service.stats()["cached_signatures"] <= 300


def test_a_signature_longer_than_any_of_ours_is_refused_unread(service):
    with stranger(service) as client:
        answer = client.ask("Echo", "i" * 65, [1] * 65)

    assert answer.header.error_name == "org.freedesktop.DBus.Error.InvalidArgs"


def test_a_message_of_30_mib_is_passed_over_unread_and_its_sender_told(service):
    before = service.stats()
    with stranger(service) as client:
        numbers = struct.pack("<I", 30 << 20) + bytes(30 << 20)
        client.sock.sendall(
            with_body(
                client.marshal(MessageKind.METHOD_CALL, **to_server("Echo"), signature="au", body=[[1]]),
                numbers,
            )
        )
        answer = client.receive()
        while answer.header.kind == MessageKind.SIGNAL:
            answer = client.receive()
        (text,) = library.unmarshal_body(*parts(answer))
    after = service.stats()

    assert answer.header.error_name == "org.freedesktop.DBus.Error.LimitsExceeded"
    assert "too large" in text
    assert after["peak_memory_kib"] - before["peak_memory_kib"] < 10_000


@pytest.mark.parametrize(
    ("code", "signature", "value"),
    [(10, b"o", struct.pack("<I", 2) + b"/x\0"), (42, b"a(ss)", struct.pack("<I", 0) + bytes(4))],
)
def test_an_unknown_header_field_is_ignored(service, code, signature, value):
    with stranger(service) as client:
        message = client.marshal(MessageKind.METHOD_CALL, **to_server("Echo"), signature="s", body=["hello"])
        client.sock.sendall(with_field(message, code, signature, value))
        answer = client.answer_to(2)

    assert library.unmarshal_body(*parts(answer)) == ["hello"]


def test_a_call_without_interface_reaches_the_handler(service):
    with stranger(service) as client:
        serial = client.send(
            MessageKind.METHOD_CALL, **{**to_server("Echo"), "interface": None}, signature="u", body=[7]
        )

        assert library.unmarshal_body(*parts(client.answer_to(serial))) == [7]


def test_names_with_nul_undecodable_bytes_and_escape_sequences_arrive_harmless(service):
    with stranger(service) as client:
        (answer,) = library.unmarshal_body(*parts(client.ask("Names")))

    assert plain(answer) == {
        "nul": "py thon",
        "undecodable": "caf\ufffd",
        "escape": "a [2Jb",
        "long": "x" * 4095 + "…",
    }
    assert service.stats()["library"].startswith(service.library)


def test_a_fault_of_the_handler_tells_nothing_to_the_caller(service):
    with stranger(service) as client:
        answer = client.ask("Fault")

    assert answer.header.error_name == "org.gpuwhyd1.Error.Failed"
    assert b"secret" not in answer.body
    assert service.stats()["library"].startswith(service.library)


def test_a_client_that_never_reads_costs_nobody_else(service):
    with contextlib.ExitStack() as stack:
        greedy = [stack.enter_context(stranger(service)) for _ in range(4)]
        for client in greedy:
            for _ in range(60):
                client.call("Large", "u", [1_000_000])
        for _ in range(5):
            assert service.stats()["served"] > 0


def test_clients_that_vanish_before_their_answer_leave_nothing_behind(service):
    before = service.stats()
    for _ in range(30):
        client = RawClient(service.address, STRANGER)
        client.call("Large", "u", [100_000])
        client.close()
    after = service.stats()

    assert after["descriptors"] == before["descriptors"]


def test_a_flood_of_calls_without_reply_is_survived(service):
    with stranger(service) as client:
        message = client.marshal(MessageKind.METHOD_CALL, **to_server("Echo"), flags=1)
        client.sock.sendall(message * 20_000)

        assert service.stats()["served"] > 0


def test_unicast_signals_nobody_asked_for_are_ignored(service):
    with stranger(service) as client:
        signal = client.marshal(
            MessageKind.SIGNAL,
            destination=NAME,
            path="/x",
            interface="a.b",
            member="C",
            signature="s",
            body=["x" * 60_000],
        )
        client.sock.sendall(signal * 200)

        assert service.stats()["served"] > 0


@pytest.fixture
def stock_bus(policy):
    with private_bus("system", policy_files=[policy]) as bus:
        yield bus


@pytest.mark.root
def test_clients_that_never_read_do_not_silence_the_service_on_a_bus_with_the_stock_limits(stock_bus):
    """dbus-daemon reads nothing more from a service with 127 MiB unread; here six clients ask for 360 MiB."""
    with contextlib.ExitStack() as stack:
        service = stack.enter_context(serving(stock_bus))
        greedy = [stack.enter_context(raw_client(stock_bus.address)) for _ in range(6)]
        for _ in range(60):
            for client in greedy:
                client.call("Large", "u", [1_000_000])
            assert service.stats()["served"] > 0


@pytest.mark.root
def test_subscribers_that_never_read_do_not_silence_the_service_for_ever(stock_bus):
    """dbus-daemon keeps broadcasts for them at the service's cost and at 127 MiB reads nothing more from it."""

    async def scenario():
        connection = await BusConnection.connect(stock_bus.address)
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                client = stack.enter_context(raw_client(stock_bus.address, STRANGER))
                rule = "type='signal',interface='org.gpuwhyd1.Test'"
                serial = client.send(
                    MessageKind.METHOD_CALL, **BUS, member="AddMatch", signature="s", body=[rule]
                )
                client.answer_to(serial)
            lost = asyncio.ensure_future(connection.disconnected())
            sent = 0
            while not lost.done():
                assert sent < 140 << 20, "the bus reads nothing more, and nobody noticed"
                for _ in range(16):
                    connection.emit("/x", "org.gpuwhyd1.Test", "Changed", "s", ("x" * 60_000,))
                sent += 16 * 60_000
                with contextlib.suppress(BusError):
                    await connection.call(*BUS_OBJECT, "GetId", timeout_seconds=5)
            again = await BusConnection.connect(stock_bus.address)
            for _ in range(100):
                again.emit("/x", "org.gpuwhyd1.Test", "Changed", "s", ("x" * 60_000,))
            await again.call(*BUS_OBJECT, "GetId", timeout_seconds=5)
            await again.close()
            return lost.result()

    assert "do not read" in asyncio.run(scenario())


@pytest.mark.root
def test_a_client_that_reads_is_served_as_much_as_it_reads(stock_bus):
    with serving(stock_bus), raw_client(stock_bus.address) as client:
        errors = [client.ask("Large", "u", [1_000_000]).header.error_name for _ in range(60)]

    assert errors == [None] * 60


@pytest.mark.root
def test_the_private_system_bus_has_the_stock_policy_for_other_users(stock_bus):
    with serving(stock_bus), raw_client(stock_bus.address, uid=65534) as stranger:
        stranger.own("org.gpuwhyd1.Other", allowed=False)
        answer = stranger.ask("Echo", "s", ["hello"])
        denied = stranger.send(
            MessageKind.METHOD_CALL, **{**to_server("Ping"), "destination": stranger.unique_name}
        )

        assert library.unmarshal_body(*parts(answer)) == ["hello"]
        assert stranger.answer_to(denied).header.error_name == "org.freedesktop.DBus.Error.AccessDenied"
