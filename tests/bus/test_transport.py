import asyncio
import logging
import socket

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
