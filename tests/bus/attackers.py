"""What a hostile client of the bus can do to the service org.gpuwhyd1, each as a program of its own:

    python -m tests.bus.attackers ADDRESS ATTACK UID

Attacks once, prints "done", holds what it has opened until its standard input ends.
"""

import contextlib
import os
import select
import struct
import sys
import time
from collections.abc import Callable, Iterable

from gpuwhyd.bus.header import MessageKind
from tests.bus.raw import RawClient, with_body, with_field

NAME = "org.gpuwhyd1"
ROOT = "/org/gpuwhyd1"
MANAGER = "org.gpuwhyd1.Manager"
OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"
NO_REPLY = 1
FLOOD_SECONDS = 3.0
BUS = {
    "destination": "org.freedesktop.DBus",
    "path": "/org/freedesktop/DBus",
    "interface": "org.freedesktop.DBus",
}

Attack = Callable[[str], list[RawClient]]
"""Gives the clients that are to stay connected."""


def call(client: RawClient, interface: str, member: str, signature="", body=(), **fields) -> bytes:
    fields = {"destination": NAME, "path": ROOT, "interface": interface, "member": member, **fields}
    return client.marshal(MessageKind.METHOD_CALL, signature=signature, body=body, **fields)


def pump(clients: Iterable[RawClient], pieces: Callable[[RawClient], bytes], seconds: float) -> None:
    """Each client sends what `pieces` gives, as fast as the bus takes it, and reads all that comes."""
    waiting = {client.sock: (client, memoryview(pieces(client))) for client in clients}
    deadline = time.monotonic() + seconds
    for sock in waiting:
        sock.setblocking(False)
    while waiting and (left := deadline - time.monotonic()) > 0:
        sending = [sock for sock, (_, data) in waiting.items() if data]
        readable, writable, _ = select.select(list(waiting), sending, [], left)
        for sock in readable:
            with contextlib.suppress(BlockingIOError):
                try:
                    gone = not sock.recv(1 << 18)
                except ConnectionError:
                    gone = True
                if gone:
                    del waiting[sock]
        for sock in writable:
            if sock not in waiting:
                continue
            client, data = waiting[sock]
            try:
                data = data[sock.send(data) :]
            except BlockingIOError:
                continue
            except OSError:
                del waiting[sock]
                continue
            waiting[sock] = (client, data)


def pipelined_calls(address: str) -> list[RawClient]:
    """10,000 calls for the largest answer there is, in one go."""
    client = RawClient(address)
    pump([client], lambda c: b"".join(call(c, OBJECT_MANAGER, "GetManagedObjects") for _ in range(10_000)), 6)
    return [client]


def calls_without_reply(address: str) -> list[RawClient]:
    """As many as go in 3 s; the bus's limit of unanswered calls does not hold for them."""
    client = RawClient(address)
    many = call(client, MANAGER, "GetMetrics", flags=NO_REPLY) * 1000
    client.sock.settimeout(FLOOD_SECONDS)
    deadline = time.monotonic() + FLOOD_SECONDS
    with contextlib.suppress(OSError):
        while time.monotonic() < deadline:
            client.sock.sendall(many)
    return [client]


def message_of_30_mib(address: str) -> list[RawClient]:
    """An array of numbers, which costs most to unmarshal; three times."""
    client = RawClient(address)
    client.sock.settimeout(60)
    for _ in range(3):
        message = call(client, MANAGER, "Explain", "au", [[1]])
        client.sock.sendall(with_body(message, struct.pack("<I", 30 << 20) + bytes(30 << 20)))
        while client.receive().header.kind is MessageKind.SIGNAL:
            pass
    return [client]


def signatures(address: str) -> list[RawClient]:
    """3,000 calls, each with a signature of its own: half as short as ours are, half 250 characters."""

    def one(client: RawClient, number: int) -> bytes:
        codes = "".join("sgub"[number >> shift & 3] for shift in range(0, 12, 2))
        values = [{"s": "", "g": "", "u": 0, "b": False}[code] for code in codes]
        filling = 40 if number % 2 else 240
        return call(client, MANAGER, "Explain", codes + "y" * filling, [*values, *[0] * filling])

    clients = [RawClient(address) for _ in range(30)]
    numbers = iter(range(3000))
    pump(clients, lambda c: b"".join(one(c, next(numbers)) for _ in range(100)), 6)
    return clients


def never_reads(address: str) -> list[RawClient]:
    """Twenty clients that ask for all there is, and for every signal, and read nothing."""
    clients = [RawClient(address) for _ in range(20)]
    for client in clients:
        client.send(MessageKind.METHOD_CALL, **BUS, member="AddMatch", signature="s", body=["type='signal'"])
        client.sock.settimeout(0.5)
    deadline = time.monotonic() + 2 * FLOOD_SECONDS
    while time.monotonic() < deadline:
        for client in clients:
            with contextlib.suppress(OSError):
                client.sock.sendall(call(client, OBJECT_MANAGER, "GetManagedObjects") * 5)
        time.sleep(0.05)
    return clients


def forged_signals(address: str) -> list[RawClient]:
    """What the bus and logind tell us, told by somebody else: to our name, to our unique name, to all."""
    client = RawClient(address)
    client.send(MessageKind.METHOD_CALL, **BUS, member="GetNameOwner", signature="s", body=[NAME])
    owner = bytes(client.answer_to(2).body[4:-1]).decode()
    sleep = {"path": "/org/freedesktop/login1", "interface": "org.freedesktop.login1.Manager"}
    change = {"path": "/org/freedesktop/DBus", "interface": "org.freedesktop.DBus"}
    many = b""
    for destination in (NAME, owner, None):
        for fields, member, signature, body in (
            (sleep, "PrepareForSleep", "b", [True]),
            (change, "NameOwnerChanged", "sss", ["org.freedesktop.login1", "", client.unique_name]),
            (change, "NameLost", "s", [NAME]),
            (change, "NameLost", "s", ["x" * 50_000]),
        ):
            many += client.marshal(
                MessageKind.SIGNAL,
                **fields,
                destination=destination,
                member=member,
                signature=signature,
                body=body,
            )
    pump([client], lambda _: many * 500, FLOOD_SECONDS)
    return [client]


def introspection(address: str) -> list[RawClient]:
    """Every path that there is and many that are not, for 3 s."""
    clients = [RawClient(address) for _ in range(4)]
    interface = "org.freedesktop.DBus.Introspectable"

    def calls(client: RawClient) -> bytes:
        paths = ["/", "/org", ROOT, f"{ROOT}/gpus", *(f"{ROOT}/gpus/x{number}" for number in range(50))]
        return b"".join(call(client, interface, "Introspect", path=path) for path in paths) * 20

    pump(clients, calls, FLOOD_SECONDS)
    return clients


def match_rules(address: str) -> list[RawClient]:
    """As many match rules as one connection may have (512 on the system bus), on twenty connections."""
    clients = [RawClient(address) for _ in range(20)]

    def rules(client: RawClient) -> bytes:
        return b"".join(
            client.marshal(
                MessageKind.METHOD_CALL,
                **BUS,
                member="AddMatch",
                signature="s",
                body=[f"type='signal',sender='{NAME}',arg{number % 64}='{number}'"],
            )
            for number in range(600)
        )

    pump(clients, rules, FLOOD_SECONDS)
    return clients


def many_connections(address: str) -> list[RawClient]:
    """200 connections of one user, each of which asks as much as it may."""
    clients = []
    with contextlib.suppress(AssertionError, OSError, EOFError):
        for _ in range(200):
            clients.append(RawClient(address))  # noqa: PERF401 - those that were made stay when one is refused
    pump(clients, lambda c: b"".join(call(c, MANAGER, "GetMetrics") for _ in range(300)), 2 * FLOOD_SECONDS)
    return clients


def connections_that_come_and_go(address: str) -> list[RawClient]:
    """Connect, ask, vanish before the answer; for 3 s."""
    deadline = time.monotonic() + FLOOD_SECONDS
    while time.monotonic() < deadline:
        client = RawClient(address)
        client.sock.sendall(call(client, OBJECT_MANAGER, "GetManagedObjects") * 20)
        client.close()
    return []


def malformed_messages(address: str) -> list[RawClient]:
    """Unknown header fields and types, bodies that do not fit: what a bus hangs up on is tried with a new connection."""

    def broken(client: RawClient) -> list[bytes]:
        good = call(client, MANAGER, "Explain", "o", ["/x"])
        deep = struct.pack("<I", 0) + b"\x01v\0" * 30
        return [
            with_field(good, 42, b"a(ss)", struct.pack("<I", 0) + bytes(4)),
            with_field(good, 10, b"s", struct.pack("<I", 3) + b"abc\0"),
            with_field(good, 9, b"u", struct.pack("<I", 3)),
            good[:1] + b"\x63" + good[2:],
            good[:2] + b"\xff" + good[3:],
            with_body(good, struct.pack("<I", 1 << 30) + b"x\0"),
            with_body(good, deep),
            good.replace(b"Explain", b"Exp\0ain"),
            good.replace(b"Explain", b"Exp\xff\xfein"),
            good.replace(b"/x\0", b"//\0"),
            good[:-3],
        ]

    deadline = time.monotonic() + FLOOD_SECONDS
    kinds = len(broken(RawClient(address)))
    number = 0
    while time.monotonic() < deadline:
        client = RawClient(address)
        with contextlib.suppress(OSError):
            client.sock.sendall(broken(client)[number % kinds] * 20)
            client.sock.settimeout(0.05)
            client.sock.recv(1 << 16)
        client.close()
        number += 1
    return []


def history(address: str) -> list[RawClient]:
    """All events that there are, by twenty clients at once, for 3 s."""
    clients = [RawClient(address) for _ in range(20)]
    pump(
        clients,
        lambda c: b"".join(call(c, MANAGER, "GetEvents", "tua{sv}", [0, 1000, {}]) for _ in range(100)),
        FLOOD_SECONDS,
    )
    return clients


def refresh_and_reload(address: str) -> list[RawClient]:
    """The two methods that make the daemon do something, by ten clients, for 3 s."""
    clients = [RawClient(address) for _ in range(10)]
    pump(
        clients,
        lambda c: b"".join(call(c, MANAGER, member) for member in ("Refresh", "Reload") * 500),
        FLOOD_SECONDS,
    )
    return clients


ATTACKS: dict[str, Attack] = {
    "10,000 pipelined calls": pipelined_calls,
    "calls without reply": calls_without_reply,
    "30 MiB message": message_of_30_mib,
    "3,000 signatures": signatures,
    "never reads": never_reads,
    "forged signals": forged_signals,
    "introspection": introspection,
    "match rules": match_rules,
    "200 connections": many_connections,
    "connect and vanish": connections_that_come_and_go,
    "malformed messages": malformed_messages,
    "GetEvents": history,
    "Refresh and Reload": refresh_and_reload,
}


def main(address: str, attack: str, uid: int) -> None:
    if uid != os.geteuid():
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    held = ATTACKS[attack](address)
    print("done", flush=True)
    sys.stdin.read()
    for client in held:
        client.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
