"""What the daemon tells of itself, from within: for what a process of its own cannot be shown."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gpuwhyd.bus.connection import BusConnection
from gpuwhyd.config import Settings
from gpuwhyd.daemon import Daemon, Options
from gpuwhyd.engine.settings import EngineSettings, Rule
from gpuwhyd.errors import BusError
from gpuwhyd.sampler import SamplingSettings
from tests.bus.buses import private_bus

HOURS_NS = 2 * 3600 * 10**9


@contextlib.asynccontextmanager
async def running(options: Options, settings: Settings | None = None) -> AsyncIterator[BusConnection]:
    """A daemon in this loop, and a client of it when it answers."""
    task = asyncio.create_task(Daemon(options, settings or Settings()).run())
    connection = await BusConnection.connect(options.bus)
    try:
        yield connection
    finally:
        await connection.close()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def health(connection: BusConnection, *, samples: int = 1) -> dict:
    """Of a daemon that has sampled so often."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(BusError):  # not on the bus yet, or asked too often
                manager = ("org.gpuwhyd1", "/org/gpuwhyd1", "org.gpuwhyd1.Manager")
                [answer] = await connection.call(*manager, "GetHealth")
                if answer["samples"] >= samples:
                    return answer
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("step_ns", [-HOURS_NS, HOURS_NS])
def test_a_wall_clock_that_is_set_changes_neither_uptime_nor_the_age_of_a_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step_ns: int
) -> None:
    """As NTP does after the start on a machine whose clock ran in local time."""
    time_ns = time.time_ns

    async def body(address: str) -> None:
        options = Options(bus=address, sysfs=tmp_path, state_dir=tmp_path / "state", journal=False)
        async with running(options) as connection:
            started_usec = (await health(connection))["started_usec"]
            monkeypatch.setattr(time, "time_ns", lambda: time_ns() + step_ns)
            monkeypatch.setattr(time, "time", lambda: time.time_ns() / 1e9)
            found = await health(connection)
        assert 0 <= found["uptime_seconds"] < 60
        assert 0 <= found["last_sample_seconds_ago"] < 30
        assert found["started_usec"] == started_usec

    with private_bus() as bus:
        asyncio.run(body(bus.address))


def test_a_fault_in_the_engine_is_told_and_all_else_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """A rule that no configuration lets through."""
    rule = Rule(name="x", metric="no_such_metric", above=1.0)

    async def body(address: str) -> None:
        options = Options(bus=address, simulate="two-cards")
        settings = Settings(
            engine=EngineSettings(rules=(rule,)), sampling=SamplingSettings(interval_seconds=0.1)
        )
        async with running(options, settings) as connection:
            [note] = (await health(connection, samples=3))["notes"]
            [metrics] = await connection.call(
                "org.gpuwhyd1", "/org/gpuwhyd1", "org.gpuwhyd1.Manager", "GetMetrics"
            )
        assert "fault in gpuwhyd, please report it: AttributeError in metric_value" in note
        assert len(metrics) == 2

    with private_bus() as bus:
        asyncio.run(body(bus.address))
    assert caplog.text.count("Traceback") == 1
