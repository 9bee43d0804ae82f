"""From the bus to the outputs: a made-up place for a card, and the real backend, sampler, engine and outputs behind it.

Time moves as the test says, and changes are looked for as a uevent would have it.
"""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from gpuwhyd.backends.base import Backend
from gpuwhyd.backends.sysfs_backend import SysfsBackend
from gpuwhyd.engine.engine import REMOVED_SECONDS, Engine
from gpuwhyd.engine.settings import EngineSettings, Rule
from gpuwhyd.model import Event, ProcessExit, ProcessIdentity, Report
from gpuwhyd.outputs.base import Output
from gpuwhyd.sampler import Sampler, SamplingSettings
from tests.backends.sysfs_card import DRIVER, PlainCard

HOT = Rule(name="hot", metric="temperature_celsius", above=80.0)


class NoProcesses:
    def identify_all(self, pids: Iterable[int]) -> dict[int, ProcessIdentity]:
        return {}

    def exits(self, boottime_seconds: float) -> tuple[ProcessExit, ...]:
        return ()

    def forget_idle(self, in_use: Collection[int]) -> None:
        pass

    def close(self) -> None:
        pass


def sysfs_backend(root: Path) -> SysfsBackend:
    return SysfsBackend(DRIVER, sysfs=root, make_card=PlainCard)


class Chain:
    """A clock for the sampler, too. `tick` is one round of the daemon's loop."""

    def __init__(self, backend: Backend, outputs: Sequence[Output] = ()) -> None:
        self.now = 1000.0
        self.engine = Engine(EngineSettings(rules=(HOT,)), boot_id="boot")
        self.outputs = list(outputs)
        self.sampler = Sampler(
            backends=(backend,),
            processes=NoProcesses(),
            clock=self,
            settings=SamplingSettings(deadline_seconds=30),
            monotonic_seconds=self.boottime_seconds,
        )
        self._snapshots = self.sampler.snapshots()

    def boottime_seconds(self) -> float:
        return self.now

    def wall_usec(self) -> int:
        return 1_700_000_000_000_000 + round(self.now * 1e6)

    def real_duration(self, seconds: float) -> float:
        return 0.0

    async def tick(self, seconds: float = 2.0) -> Report:
        self.now += seconds
        report = self.engine.feed(await anext(self._snapshots))
        for output in self.outputs:
            await output.publish(report)
        return report

    async def changed(self) -> list[Event]:
        """The events of the ticks that follow a uevent, until the card that went is removed."""
        self.now += REMOVED_SECONDS  # nothing that happened before holds back any backend
        self.sampler.look_anew()
        reports = [await self.tick(), await self.tick(), await self.tick(REMOVED_SECONDS)]
        return [event for report in reports for event in report.events]

    async def close(self) -> None:
        await self._snapshots.aclose()  # type: ignore[attr-defined]
        await self.sampler.close()
        for output in self.outputs:
            await output.close()
