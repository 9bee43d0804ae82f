"""What an unprivileged peer can do to a service, on both buses and with both libraries. The service is a process."""

import contextlib
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gpuwhyd.bus import library
from gpuwhyd.bus.codec import plain
from gpuwhyd.bus.header import MessageKind
from tests.bus.buses import PrivateBus, private_broker, private_bus
from tests.bus.raw import RawClient, parts, raw_client, to_server, with_body, with_field
from tests.bus.server import NAME

_BUSES = {"dbus-daemon": private_bus, "dbus-broker": private_broker}


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


@pytest.fixture(
    scope="module",
    params=[(bus, name) for bus in _BUSES for name in ("dbus-next", "dbus-fast")],
    ids="-".join,
)
def service(request):
    bus_name, library_name = request.param
    with _BUSES[bus_name]() as bus, serving(bus, library_name) as running:
        yield running


def test_a_burst_of_2000_pipelined_calls_is_served_in_part_and_costs_nobody_else(service):
    with raw_client(service.address) as client:
        client.sock.sendall(
            b"".join(client.marshal(MessageKind.METHOD_CALL, **to_server("Stats")) for _ in range(2000))
        )
        service.stats()
        errors = [client.receive().header.error_name for _ in range(200)]

    assert errors.count(None) >= 195
    assert set(errors) <= {None, "org.gpuwhyd1.Error.TooManyRequests"}


def test_who_calls_too_often_is_told_so(service):
    with raw_client(service.address) as client:
        client.sock.sendall(
            b"".join(client.marshal(MessageKind.METHOD_CALL, **to_server("Echo")) for _ in range(400))
        )
        while client.receive().header.error_name != "org.gpuwhyd1.Error.TooManyRequests":
            pass


def test_a_flood_of_signatures_does_not_stay_in_memory(service):
    before = service.stats()
    for start in range(0, 3000, 150):
        with raw_client(service.address) as client:
            for number in range(start, start + 150):
                signature = "".join("sgub"[number >> shift & 3] for shift in range(0, 12, 2))
                body = [{"s": "", "g": "", "u": 0, "b": False}[code] for code in signature]
                client.call("Echo", signature + "s" * 50, [*body, *[""] * 50])
            assert client.ask("Stats").header.kind == MessageKind.METHOD_RETURN
    after = service.stats()

    assert after["cached_signatures"] <= 300
    assert after["peak_memory_kib"] - before["peak_memory_kib"] < 20_000


def test_a_signature_longer_than_any_of_ours_is_refused_unread(service):
    with raw_client(service.address) as client:
        answer = client.ask("Echo", "i" * 65, [1] * 65)

    assert answer.header.error_name == "org.freedesktop.DBus.Error.InvalidArgs"


def test_a_message_of_30_mib_is_passed_over_unread_and_its_sender_told(service):
    before = service.stats()
    with raw_client(service.address) as client:
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
    print(f"longest stall {after['longest_stall_seconds']:.3f} s")

    assert answer.header.error_name == "org.freedesktop.DBus.Error.LimitsExceeded"
    assert "too large" in text
    assert after["served"] == before["served"] + 1  # the second question for the figures, not the message
    assert after["peak_memory_kib"] - before["peak_memory_kib"] < 10_000


def test_an_unknown_header_field_is_ignored(service):
    with raw_client(service.address) as client:
        message = client.marshal(MessageKind.METHOD_CALL, **to_server("Echo"), signature="s", body=["hello"])
        client.sock.sendall(with_field(message, 42, b"a(ss)", struct.pack("<I", 0) + bytes(4)))
        answer = client.answer_to(2)

    assert library.unmarshal_body(*parts(answer)) == ["hello"]


def test_a_call_without_interface_reaches_the_handler(service):
    with raw_client(service.address) as client:
        serial = client.send(
            MessageKind.METHOD_CALL, **{**to_server("Echo"), "interface": None}, signature="u", body=[7]
        )

        assert library.unmarshal_body(*parts(client.answer_to(serial))) == [7]


def test_a_fault_of_the_handler_tells_nothing_to_the_caller(service):
    with raw_client(service.address) as client:
        answer = client.ask("Fault")

    assert answer.header.error_name == "org.gpuwhyd1.Error.Failed"
    assert b"secret" not in answer.body
    assert service.stats()["library"].startswith(service.library)


def test_a_client_that_never_reads_costs_nobody_else(service):
    with contextlib.ExitStack() as stack:
        greedy = [stack.enter_context(raw_client(service.address)) for _ in range(4)]
        for client in greedy:
            for _ in range(60):
                client.call("Large", "u", [1_000_000])
        for _ in range(5):
            assert service.stats()["served"] > 0


def test_clients_that_vanish_before_their_answer_leave_nothing_behind(service):
    before = service.stats()
    for _ in range(30):
        client = RawClient(service.address)
        client.call("Large", "u", [100_000])
        client.close()
    after = service.stats()

    assert after["descriptors"] == before["descriptors"]


def test_a_flood_of_calls_without_reply_is_survived(service):
    with raw_client(service.address) as client:
        message = client.marshal(MessageKind.METHOD_CALL, **to_server("Echo"), flags=1)
        client.sock.sendall(message * 20_000)

        assert service.stats()["served"] > 0


def test_unicast_signals_nobody_asked_for_are_ignored(service):
    with raw_client(service.address) as client:
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


OPEN_POLICY = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <policy context="default"><allow own="org.gpuwhyd1"/><allow send_destination="org.gpuwhyd1"/></policy>
</busconfig>
"""


@pytest.fixture
def stock_bus(tmp_path):
    policy = tmp_path / "open.conf"
    policy.write_text(OPEN_POLICY)
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
