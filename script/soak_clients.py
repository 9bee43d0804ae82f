"""What the desktop does to the daemon all day: widgets that listen, scripts that ask, connections that come and go."""

import asyncio
from collections import Counter

from gpuwhyd.client.ask import AskError, Daemon
from gpuwhyd.errors import BusError

POLL_SECONDS = 1.0
EVENT_SIGNALS = ("SpikeStarted", "SpikeUpdated", "SpikeEnded", "AlertRaised", "AlertCleared")


class Clients:
    """`health` is the last answer to GetHealth; `heard` counts signals by name; `answers` calls; `failures` says why."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.heard: Counter[str] = Counter()
        self.answers = 0
        self.failures: Counter[str] = Counter()

    async def listen(self) -> None:
        """One connection for the whole time that hears everything."""
        async with await Daemon.reach(self._address) as daemon:
            await daemon.listen(
                "org.freedesktop.DBus.Properties", "PropertiesChanged", self._count("PropertiesChanged")
            )
            for name in EVENT_SIGNALS:
                await daemon.listen("org.gpuwhyd1.Manager", name, self._count(name))
            await asyncio.Event().wait()

    async def poll(self) -> None:
        """A fresh connection each time, as of a script: each is a new peer to the daemon. It asks everything."""
        while True:
            try:
                async with asyncio.timeout(30), await Daemon.reach(self._address) as daemon:
                    await self._ask_everything(daemon)
            except (AskError, BusError, TimeoutError) as error:
                self.failures[f"{type(error).__name__}: {error}"] += 1
            await asyncio.sleep(POLL_SECONDS)

    async def health(self) -> dict[str, object]:
        async with await Daemon.reach(self._address) as daemon:
            return await daemon.health()

    async def _ask_everything(self, daemon: Daemon) -> None:
        summary = await daemon.summary()
        await daemon.metrics()
        self.answers += 2
        for gpu in summary["gpus"]:
            await daemon.explain(gpu["gpu"])
            await daemon.processes(gpu["gpu"])
            self.answers += 2
        await daemon.events(since_usec=0, maximum=20)
        self.answers += 1

    def _count(self, name: str):
        def heard(_path: str, _body: tuple[object, ...]) -> None:
            self.heard[name] += 1

        return heard
