"""The daemon's real D-Bus service in a thread, with reports that a test hands it; and the command `gpuwhy` beside it."""

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from gpuwhyd.model import FieldSource, Report
from gpuwhyd.outputs.dbus_service import BusService
from gpuwhyd.outputs.history import RecentHistory
from tests.client.reports import health

DEADLINE_SECONDS = 20.0
GPUWHY = [sys.executable, "-c", "import sys; from gpuwhyd.client.cli import main; sys.exit(main())"]


@dataclass
class Daemon:
    """Serves until the with block ends. What was published before it was on the bus is its history."""

    address: str
    history: RecentHistory = field(default_factory=RecentHistory)
    health: dict[str, object] = field(default_factory=health)
    sources: tuple[FieldSource, ...] = ()

    def publish(self, report: Report) -> None:
        asyncio.run_coroutine_threadsafe(self._publish(report), self._loop).result(DEADLINE_SECONDS)

    def stop(self) -> None:
        """Leaves the bus, as when the daemon ends."""
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(DEADLINE_SECONDS)

    def wait_until_serving(self) -> None:
        async def serving() -> None:
            await asyncio.wait_for(self._service.serving.wait(), DEADLINE_SECONDS)

        asyncio.run_coroutine_threadsafe(serving(), self._loop).result(DEADLINE_SECONDS)

    async def _publish(self, report: Report) -> None:
        await self.history.publish(report)
        await self._service.publish(report)

    async def _serve(self, ready: threading.Event, report: Report | None) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        self._service = BusService(
            address=self.address,
            history=self.history,
            reload=_nothing,
            refresh=_nothing,
            health=lambda: self.health,
            sources=lambda: self.sources,
            sample_interval_seconds=lambda: 2.0,
        )
        if report is not None:
            await self._publish(report)
        running = asyncio.create_task(self._service.run())
        await asyncio.wait_for(self._service.serving.wait(), DEADLINE_SECONDS)
        ready.set()
        await self._stopped.wait()
        await self._service.close()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def _nothing() -> None:
    """Reload and Refresh are not what these tests are about."""


@contextlib.contextmanager
def serving(address: str, report: Report | None, **settings) -> Iterator[Daemon]:
    daemon = Daemon(address, **settings)
    ready = threading.Event()
    daemon._thread = threading.Thread(target=lambda: asyncio.run(daemon._serve(ready, report)))
    daemon._thread.start()
    try:
        assert ready.wait(DEADLINE_SECONDS), "the service did not get its name"
        yield daemon
    finally:
        if daemon._thread.is_alive():
            daemon.stop()


def gpuwhy(address: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the command in a process of its own, its output piped."""
    return subprocess.run(
        [*GPUWHY, *arguments],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "GPUWHYD_BUS": address, **environment},
        timeout=DEADLINE_SECONDS,
        check=False,
    )


@contextlib.contextmanager
def gpuwhy_running(address: str, *arguments: str) -> Iterator["Output"]:
    """The command while it runs, and what it has written so far."""
    with subprocess.Popen(
        [*GPUWHY, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, "GPUWHYD_BUS": address},
    ) as process:
        output = Output(process)
        try:
            yield output
        finally:
            process.kill()
            output.ended()  # before its pipe is closed under the reader


class Output:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._arrived = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def line_with(
        self, text: str, *, after: str | None = None, meanwhile: Callable[[], None] = lambda: None
    ) -> str:
        """The first line with `text` (below the first line with `after`), waited for; `meanwhile` is done each second."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            with self._arrived:
                begin = 0 if after is None else self._place(after, 0) or 0
                place = self._place(text, begin)
                if place is not None:
                    return self.lines[place]
                self._arrived.wait(1)
            assert time.monotonic() < deadline, f"no line with {text!r} in {self.lines}"
            meanwhile()

    def ended(self) -> None:
        """Returns when all that the process wrote has been read."""
        self._reader.join()

    def _place(self, text: str, begin: int) -> int | None:
        return next((i for i, line in enumerate(self.lines) if i >= begin and text in line), None)

    def _read(self) -> None:
        for line in self.process.stdout:
            with self._arrived:
                self.lines.append(line.rstrip("\n"))
                self._arrived.notify_all()
