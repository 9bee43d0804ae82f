"""`gpuwhy watch --format waybar`: a line for the bar whenever what it shows has changed."""

import asyncio

from gpuwhyd.client import json_form
from gpuwhyd.client.answer import Options
from gpuwhyd.client.ask import AskError, BusLostError, Daemon, Plain
from gpuwhyd.client.following import follow
from gpuwhyd.client.gpus import gpus_of, is_gpu
from gpuwhyd.client.waybar import unavailable_form, waybar_form

PAUSE_SECONDS = 1.0
"""The daemon tells changes of one GPU at most once a second; those of several GPUs make one line."""


async def watch_waybar(options: Options) -> None:
    """Writes until nobody reads any more or it is cancelled. Waits for the daemon and for the bus, at first too: a bar
    is started once, perhaps before them.
    """
    bar = _Bar(options.gpu)
    await follow(options.bus, bar.session, bar.bus_lost)


class _Bar:
    def __init__(self, wanted_gpu: str | None) -> None:
        self._wanted_gpu = wanted_gpu
        self._last_line = ""

    async def session(self, daemon: Daemon) -> None:
        changed = asyncio.Event()
        changed.set()
        await daemon.listen_for_owner(lambda _is_there: changed.set())
        for interface, member in (
            ("org.freedesktop.DBus.Properties", "PropertiesChanged"),
            ("org.freedesktop.DBus.ObjectManager", "InterfacesAdded"),
            ("org.freedesktop.DBus.ObjectManager", "InterfacesRemoved"),
        ):
            await daemon.listen(interface, member, lambda _path, _body: changed.set())
        while True:
            await changed.wait()
            changed.clear()
            self._write(await self._now(daemon))
            await asyncio.sleep(PAUSE_SECONDS)

    def bus_lost(self, error: BusLostError) -> None:
        self._write(unavailable_form(str(error)))

    async def _now(self, daemon: Daemon) -> Plain:
        try:
            summary = await daemon.summary()
        except BusLostError:
            raise
        except AskError as error:
            return unavailable_form(str(error))
        if self._wanted_gpu is not None:
            gpus = [gpu for gpu in gpus_of(summary) if is_gpu(gpu, self._wanted_gpu)]
            return waybar_form({**summary, "gpus": gpus})
        return waybar_form(summary)

    def _write(self, form: Plain) -> None:
        line = json_form.one_line(form)
        if line != self._last_line:
            self._last_line = line
            print(line, flush=True)
