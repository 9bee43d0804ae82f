import asyncio
import contextlib
import logging
import socket

import pytest

from gpuwhyd.bus.outgoing import TOGETHER_BYTES, Rank
from gpuwhyd.bus.transport import Transport
from tests.bus.test_framing import call


def test_a_fault_with_one_message_does_not_stop_the_reading(caplog):
    """More than are handled in one turn: the next turn must come in spite of it."""
    handled = []

    async def run() -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        done = asyncio.get_running_loop().create_future()

        def on_message(message) -> None:
            handled.append(message.header.serial)
            if message.header.serial == 100:
                done.set_result(None)
            raise RuntimeError("a mistake of ours")

        transport = Transport(ours, limit_for=lambda _header: 1 << 16, on_message=on_message, on_lost=print)
        theirs.sendall(b"".join(call(serial) for serial in range(1, 101)))
        await asyncio.wait_for(done, 10)
        transport.lose("over")
        theirs.close()

    with caplog.at_level(logging.ERROR):
        asyncio.run(run())
    assert handled == list(range(1, 101))
    assert "a mistake of ours" in caplog.text


@contextlib.contextmanager
def connected(kind: socket.SocketKind = socket.SOCK_STREAM):
    """A transport, inside a running loop, and the socket at its other end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    ours.setblocking(False)
    theirs.setblocking(False)
    transport = Transport(ours, limit_for=lambda _header: 1 << 16, on_message=print, on_lost=print)
    with theirs:
        yield transport, theirs
        transport.lose("over")


def test_what_is_sent_together_is_written_in_one_call():
    """A socket that keeps the writes apart tells how many there were."""

    async def run() -> list[bytes]:
        with connected(socket.SOCK_SEQPACKET) as (transport, theirs):
            with transport.together():
                transport.send(Rank.SIGNAL, "", b"first")
                with transport.together():
                    transport.send(Rank.SIGNAL, "", b"second")
            transport.send(Rank.SIGNAL, "", b"third")
            return [theirs.recv(100), theirs.recv(100)]

    assert asyncio.run(run()) == [b"firstsecond", b"third"]


def test_what_is_sent_together_goes_out_also_when_the_work_fails():
    async def run() -> bytes:
        with connected() as (transport, theirs):

            def fails() -> None:
                with transport.together():
                    transport.send(Rank.REPLY, ":1.1", b"said")
                    raise RuntimeError("after it")

            with pytest.raises(RuntimeError):
                fails()
            return theirs.recv(100)

    assert asyncio.run(run()) == b"said"


def test_so_much_together_does_not_wait_for_the_end():
    """Else answers of one turn would count against what a peer may have waiting."""

    async def run() -> int:
        with connected() as (transport, theirs), transport.together():
            transport.send(Rank.REPLY, ":1.1", bytes(TOGETHER_BYTES))
            return len(theirs.recv(2 * TOGETHER_BYTES))

    assert asyncio.run(run()) == TOGETHER_BYTES
