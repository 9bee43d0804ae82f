"""A service on our own connection, as a process of its own: `python -m tests.bus.server ADDRESS`.

The library is chosen by GPUWHYD_DBUS_LIBRARY. Prints its library when it owns NAME.
"""

import asyncio
import os
import resource
import sys
import time
from pathlib import Path

from gpuwhyd.bus import library
from gpuwhyd.bus.connection import BusConnection, MethodCall

NAME = "org.gpuwhyd1"
PATH = "/org/gpuwhyd1"
INTERFACE = "org.gpuwhyd1.Test"

# As processes name themselves: argv read with surrogateescape.
NAMES = {"nul": "py\0thon", "undecodable": "caf\udce9", "escape": "a\x1b[2Jb", "long": "x" * 5000}


class Server:
    def __init__(self, connection: BusConnection) -> None:
        self.connection = connection
        self.served = 0
        self.longest_stall_seconds = 0.0
        connection.set_handler(self.handle)

    def handle(self, call: MethodCall) -> None:
        self.served += 1
        match call.member:
            case "Echo":
                self.connection.reply(call, call.signature, call.body)
            case "Large":
                self.connection.reply(call, "s", ("x" * int(str(call.body[0])),))
            case "Names":
                self.connection.reply(call, "a{sv}", (NAMES,))
            case "Signal":
                self.connection.emit(PATH, INTERFACE, "Happened", "sa{sv}", ("it", {"sender": call.sender}))
                self.connection.reply(call)
            case "Fault":
                raise RuntimeError("secret of the server")
            case "Stats":
                self.connection.reply(call, "a{sv}", (self.stats(),))
            case _:
                self.connection.error(call, "org.freedesktop.DBus.Error.UnknownMethod", f"no {call.member}")

    def stats(self) -> dict[str, object]:
        return {
            "served": self.served,
            "library": self.connection.library,
            "descriptors": len(list(Path("/proc/self/fd").iterdir())),
            "cached_signatures": library.cached_signatures(),
            "peak_memory_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
            "longest_stall_seconds": self.longest_stall_seconds,
            "pid": os.getpid(),
        }

    async def beat(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            self.longest_stall_seconds = max(self.longest_stall_seconds, time.monotonic() - before - 0.01)


async def main(address: str) -> None:
    connection = await BusConnection.connect(address)
    server = Server(connection)
    heart = asyncio.create_task(server.beat())
    await connection.request_name(NAME)
    print(connection.library, flush=True)
    print(await connection.disconnected(), flush=True)
    heart.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
