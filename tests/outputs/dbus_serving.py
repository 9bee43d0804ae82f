"""The real BusService on a private bus, and clients of it: our own connection, busctl, gdbus, other users."""

import asyncio
import contextlib
import json
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from gpuwhyd.bus.connection import BusConnection, SignalMatch
from gpuwhyd.errors import HistoryError
from gpuwhyd.model import FieldSource, Report
from gpuwhyd.outputs.dbus_contract import BUS_NAME, GPU, MANAGER, OBJECT_MANAGER, PROPERTIES, ROOT_PATH
from gpuwhyd.outputs.dbus_service import BusService
from gpuwhyd.outputs.history import RecentHistory

REPOSITORY = Path(__file__).parents[2]
WITHIN_SECONDS = 10.0


async def until(condition: Callable[[], object], what: str = "the condition") -> None:
    """Polls: processes and a bus of their own cannot be told to call back."""
    try:
        async with asyncio.timeout(WITHIN_SECONDS):
            while not condition():
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"{what} did not come true within {WITHIN_SECONDS:g} s") from None


@dataclass
class Daemon:
    """What the service asks of the daemon."""

    reloads: int = 0
    refreshes: int = 0
    reload_error: Exception | None = None
    sleeps: list[bool] = field(default_factory=list)
    refresh_gate: asyncio.Event = field(default_factory=asyncio.Event)
    history: RecentHistory = field(default_factory=RecentHistory)
    now_seconds: float = 0.0
    sources: tuple[FieldSource, ...] = ()
    service: BusService | None = None

    async def publish(self, report: Report) -> None:
        """At the time that the report itself tells."""
        assert self.service is not None
        self.now_seconds = report.snapshot.boottime_seconds
        await self.service.publish(report)

    async def reload(self) -> None:
        self.reloads += 1
        if self.reload_error is not None:
            raise self.reload_error

    async def refresh(self) -> None:
        self.refreshes += 1
        await self.refresh_gate.wait()

    def health(self) -> dict[str, object]:
        return {
            "version": "0.1.0",
            "sample_interval_seconds": 2.0,
            "backends": [{"name": "nvml", "state": "ready"}],
            "notes": [],
        }


class BrokenHistory:
    def read(self, **_query: object) -> list[dict[str, object]]:
        raise HistoryError("the journal cannot be read: no permission")


class StuckHistory:
    """A journal on a disk that does not answer, until it is let go."""

    def __init__(self) -> None:
        self.reads = 0
        self.let_go = threading.Event()

    def read(self, **_query: object) -> list[dict[str, object]]:
        self.reads += 1
        self.let_go.wait(WITHIN_SECONDS)
        return []


@contextlib.asynccontextmanager
async def serving(
    address: str,
    daemon: Daemon,
    *,
    history: object = None,
    follow_logind: bool = False,
    within_seconds: float = WITHIN_SECONDS,
) -> AsyncIterator[BusService]:
    service = BusService(
        address=address,
        history=history or daemon.history,
        reload=daemon.reload,
        refresh=daemon.refresh,
        health=daemon.health,
        sources=lambda: daemon.sources,
        sample_interval_seconds=lambda: 2.0,
        on_sleep=daemon.sleeps.append,
        follow_logind=follow_logind,
        clock=lambda: daemon.now_seconds,
    )
    daemon.service = service
    running = asyncio.create_task(service.run())
    try:
        await asyncio.wait_for(service.serving.wait(), within_seconds)
        yield service
    finally:
        await service.close()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@contextlib.asynccontextmanager
async def connected(address: str) -> AsyncIterator[BusConnection]:
    connection = await BusConnection.connect(address)
    try:
        yield connection
    finally:
        await connection.close()


async def manager(
    connection: BusConnection, member: str, signature: str = "", body: tuple[object, ...] = ()
) -> object:
    answer = await connection.call(BUS_NAME, ROOT_PATH, MANAGER, member, signature, body)
    return answer[0] if answer else None


@dataclass
class Heard:
    """Signals in the order in which they came: (member, path, body)."""

    signals: list[tuple[str, str, tuple[object, ...]]] = field(default_factory=list)

    def of(self, member: str) -> list[tuple[str, tuple[object, ...]]]:
        return [(path, body) for name, path, body in self.signals if name == member]


async def hear(connection: BusConnection) -> Heard:
    heard = Heard()
    members = [
        *((MANAGER, f"Spike{what}") for what in ("Started", "Updated", "Ended")),
        *((MANAGER, f"Alert{what}") for what in ("Raised", "Cleared")),
        *((OBJECT_MANAGER, f"Interfaces{what}") for what in ("Added", "Removed")),
        (PROPERTIES, "PropertiesChanged"),
    ]
    for interface, member in members:

        def callback(path: str, body: tuple[object, ...], member: str = member) -> None:
            heard.signals.append((member, path, body))

        await connection.subscribe(
            SignalMatch(sender=BUS_NAME, path=None, interface=interface, member=member), callback
        )
    return heard


async def run(*command: str) -> tuple[int, str, str]:
    """Exit status, output and errors of a foreign client."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment
    )
    out, err = await asyncio.wait_for(process.communicate(), WITHIN_SECONDS)
    return process.returncode or 0, out.decode(), err.decode()


async def busctl(address: str, *arguments: str) -> object:
    status, out, err = await run("busctl", f"--address={address}", "--json=short", *arguments)
    assert status == 0, err
    return json.loads(out) if out.strip() else None


def _as_user(uid: int, address: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, str(REPOSITORY / "tests/outputs/dbus_as_user.py"), str(uid), address, *arguments)


async def call_as(
    uid: int, address: str, member: str, signature: str = "", *body: object, interface: str = MANAGER
) -> dict:
    """{"answer": [...]} or {"error": name, "message": ...}."""
    status, out, err = await run(
        *_as_user(uid, address, "call", interface, member, signature, json.dumps(body))
    )
    assert status == 0, err
    return json.loads(out)


async def send_as(
    uid: int,
    address: str,
    path: str,
    interface: str,
    member: str,
    destination: str,
    signature: str,
    *body: object,
) -> None:
    """A signal from this user, who heard the bus answer after it."""
    arguments = ("send", path, interface, member, destination, signature, json.dumps(body))
    status, _, err = await run(*_as_user(uid, address, *arguments))
    assert status == 0, err


@contextlib.asynccontextmanager
async def listening_as(uid: int, address: str) -> AsyncIterator[Callable[[], "asyncio.Future[object]"]]:
    """Gives a function that waits for the next signal which this user hears."""
    process = await asyncio.create_subprocess_exec(
        *_as_user(uid, address, "listen"), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None

    async def following() -> object:
        assert process.stdout is not None
        return json.loads(await asyncio.wait_for(process.stdout.readline(), WITHIN_SECONDS))

    try:
        assert await following() == "listening"
        yield following
    finally:
        process.terminate()
        await process.communicate()


GPU_INTERFACE = GPU
