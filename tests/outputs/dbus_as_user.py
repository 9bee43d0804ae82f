"""A D-Bus client of another user: `python dbus_as_user.py UID ADDRESS call|listen|send ...`, one JSON line an answer.

It imports as the user who starts it and then becomes UID, so that UID need not be able to read the checkout.
"""

import asyncio
import json
import os
import sys

from gpuwhyd.bus.connection import BusConnection, SignalMatch
from gpuwhyd.errors import BusError
from gpuwhyd.outputs.dbus_contract import BUS_NAME, MANAGER, PROPERTIES, ROOT_PATH

SIGNALS = (
    (MANAGER, "SpikeStarted"),
    (MANAGER, "SpikeEnded"),
    (MANAGER, "AlertRaised"),
    (PROPERTIES, "PropertiesChanged"),
)


def tell(answer: object) -> None:
    print(json.dumps(answer), flush=True)


async def call(bus: BusConnection, interface: str, member: str, signature: str, body: str) -> None:
    try:
        tell({"answer": await bus.call(BUS_NAME, ROOT_PATH, interface, member, signature, json.loads(body))})
    except BusError as error:
        tell({"error": error.name, "message": str(error)})


async def listen(bus: BusConnection) -> None:
    for interface, member in SIGNALS:
        match = SignalMatch(sender=BUS_NAME, path=None, interface=interface, member=member)

        def heard(path: str, body: tuple[object, ...], member: str = member) -> None:
            tell({"signal": member, "path": path, "body": body})

        await bus.subscribe(match, heard)
    tell("listening")
    await bus.disconnected()


async def send(
    bus: BusConnection, path: str, interface: str, member: str, destination: str, signature: str, body: str
) -> None:
    bus.emit(path, interface, member, signature, json.loads(body), destination=destination or None)
    await bus.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "GetId")
    tell("sent")


async def main() -> None:
    bus = await BusConnection.connect(sys.argv[2])
    try:
        await {"call": call, "listen": listen, "send": send}[sys.argv[3]](bus, *sys.argv[4:])
    finally:
        await bus.close()


if __name__ == "__main__":
    uid = int(sys.argv[1])
    if uid != os.getuid():
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    asyncio.run(main())
