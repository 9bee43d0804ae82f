"""What one sample sends over a connection, seen from the other end of its socket."""

import asyncio
import socket

from gpuwhyd.bus.connection import BusConnection
from gpuwhyd.bus.framing import Frame, Framer
from gpuwhyd.outputs.dbus_announce import Announcer
from tests.outputs.dbus_reports import alert_event, report, spike_event


def test_all_signals_of_a_sample_are_written_in_one_call():
    """A socket that keeps the writes apart tells how many there were."""

    async def run() -> bytes:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        connection = BusConnection(ours, 1 << 20)
        Announcer(connection).announce(
            report(events=(spike_event(), alert_event())), sample_interval_seconds=2.0, now_seconds=0.0
        )
        first = theirs.recv(1 << 18)
        await connection.close()
        assert theirs.recv(1 << 18) == b"", "there was a second write"
        theirs.close()
        return first

    framer = Framer(lambda _header: 1 << 20, 1 << 16)
    framer.feed(asyncio.run(run()))
    signals = []
    while (frame := framer.take()) is not None:
        assert isinstance(frame, Frame)
        signals.append(frame.header.member)
    assert signals == ["InterfacesAdded", "PropertiesChanged", "SpikeStarted", "AlertRaised"]
