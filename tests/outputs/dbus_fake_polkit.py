"""A polkit that allows everything, for a bus to start: `python dbus_fake_polkit.py`."""

import asyncio
import os

from gpuwhyd.bus.connection import BusConnection


async def main() -> None:
    bus = await BusConnection.connect(os.environ["DBUS_STARTER_ADDRESS"])
    bus.set_handler(lambda call: bus.reply(call, "(bba{ss})", ((True, False, {}),)))
    await bus.request_name("org.freedesktop.PolicyKit1")
    await bus.disconnected()


if __name__ == "__main__":
    asyncio.run(main())
