"""What answering costs: calls from one client over the bus, and the signals that all clients get."""

import asyncio
import time
from dataclasses import dataclass

from gpuwhyd.bus.connection import BusConnection
from gpuwhyd.bus.messages import SignalMatch
from script.bench_clocks import cpu_seconds

_NAME, _PATH, _MANAGER = "org.gpuwhyd1", "/org/gpuwhyd1", "org.gpuwhyd1.Manager"
_GPU = "/org/gpuwhyd1/gpus/pci_0000_01_00_0"
CALLS: tuple[tuple[str, str, tuple[object, ...]], ...] = (
    ("GetSummary", "", ()),
    ("Explain", "o", (_GPU,)),
    ("GetMetrics", "", ()),
    ("GetProcesses", "o", (_GPU,)),
    ("GetHealth", "", ()),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """One method, asked again and again, each time when the last answer is there."""

    method: str
    calls_a_second: float
    cpu_milliseconds: float
    """Of the daemon, a call."""


async def serving(address: str, pid: int, *, calls: int) -> list[Serving]:
    """To be measured on a daemon that samples so seldom that its own work does not count.

    Each method by a client of its own, because one client may not ask for ever as fast as it can: at most
    CALLS_AT_ONCE calls.
    """
    found = []
    for method, signature, body in CALLS:
        connection = await BusConnection.connect(address)
        try:
            began, used = time.monotonic(), cpu_seconds(pid)
            for _ in range(calls):
                await connection.call(_NAME, _PATH, _MANAGER, method, signature, body)
            seconds = time.monotonic() - began
            cpu = 1000 * (cpu_seconds(pid) - used) / calls
            found.append(Serving(method=method, calls_a_second=calls / seconds, cpu_milliseconds=cpu))
        finally:
            await connection.close()
    return found


async def signals_heard(address: str, seconds: float) -> int:
    """PropertiesChanged from the daemon in that time."""
    connection = await BusConnection.connect(address)
    heard = 0

    def count(_path: str, _body: tuple[object, ...]) -> None:
        nonlocal heard
        heard += 1

    try:
        match = SignalMatch(
            sender=_NAME, path=None, interface="org.freedesktop.DBus.Properties", member="PropertiesChanged"
        )
        await connection.subscribe(match, count)
        await asyncio.sleep(seconds)
    finally:
        await connection.close()
    return heard
