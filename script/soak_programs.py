"""Real processes that come and go on the cards of the fake NVIDIA driver, and the heat they make."""

import math
import random
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from tests.fake_nvml.control import FakeCard, FakeDriver, FakeProcess
from tests.fake_nvml.sysfs import FakeSysfs

STEP_SECONDS = 1.0
_SPAWN_SECONDS = 2.0
"""One more short-lived process so often, on one card or another."""
_BURN_PERIOD_SECONDS, _BURN_SECONDS = 300.0, 60.0
"""On each card; long enough apart for the fan to come to rest, and the spike to be closed, in between."""
_IDLE_WATTS, _LIMIT_WATTS = 20.0, 220.0
_KELVIN_PER_WATT, _HEAT_SECONDS = 0.25, 30.0
_AMBIENT_CELSIUS = 25.0
_FAN_STARTS_CELSIUS, _FAN_STOPS_CELSIUS = 55.0, 47.0
_RPM_PER_PERCENT = 33.0


@dataclass(slots=True)
class _Running:
    process: subprocess.Popen[bytes]
    card: int
    percent: int
    ends_at: float
    """When it is killed, should it live until then."""


@dataclass(slots=True)
class _Heat:
    card: FakeCard
    rest_percent: float
    next_burn: float
    celsius: float = _AMBIENT_CELSIUS + _IDLE_WATTS * _KELVIN_PER_WATT
    turns: bool = False


class Programs:
    """Call `step` about every STEP_SECONDS; `close` ends all processes."""

    def __init__(self, driver: FakeDriver, sysfs: FakeSysfs, seed: int = 1) -> None:
        self.started = 0
        self._rng = random.Random(seed)
        self._running: list[_Running] = []
        self._heats: list[_Heat] = []
        self._next_spawn = began = time.monotonic()
        for index, rest_percent in enumerate((0.0, 30.0, 41.0)):
            address = f"0000:0{index + 1}:00.0"
            sysfs.add(address)
            card = driver.add_card(address, name=f"Fake {index}")
            self._heats.append(_Heat(card=card, rest_percent=rest_percent, next_burn=began + 60 + 90 * index))
        self.step()

    def step(self) -> None:
        now = time.monotonic()
        self._end_some(now)
        if now >= self._next_spawn:
            self._next_spawn = now + _SPAWN_SECONDS
            life_seconds = self._rng.uniform(1, 25)
            self._spawn(self._rng.randrange(len(self._heats)), self._rng.randint(0, 4), life_seconds)
        for index, heat in enumerate(self._heats):
            if now >= heat.next_burn:
                heat.next_burn += _BURN_PERIOD_SECONDS
                self._spawn(index, 95, _BURN_SECONDS)
            self._show(index, heat)

    def close(self) -> None:
        for running in self._running:
            running.process.kill()
            running.process.wait()
        self._running.clear()

    def _spawn(self, card: int, percent: int, life_seconds: float) -> None:
        # Half of them end by themselves, the others are killed.
        sleeps_seconds = life_seconds if self._rng.random() < 0.5 else 3600.0
        process = subprocess.Popen(["sleep", f"{sleeps_seconds:.2f}"])
        self.started += 1
        ends_at = time.monotonic() + life_seconds
        self._running.append(_Running(process=process, card=card, percent=percent, ends_at=ends_at))

    def _end_some(self, now: float) -> None:
        for running in self._running:
            if running.ends_at + STEP_SECONDS < now:
                running.process.kill()
                running.process.wait()
        self._running = [running for running in self._running if running.process.poll() is None]

    def _show(self, index: int, heat: _Heat) -> None:
        mine = [running for running in self._running if running.card == index]
        percent = min(100, sum(running.percent for running in mine))
        watts = _IDLE_WATTS + percent / 100 * (_LIMIT_WATTS - _IDLE_WATTS)
        balance_celsius = _AMBIENT_CELSIUS + watts * _KELVIN_PER_WATT
        heat.celsius = balance_celsius + (heat.celsius - balance_celsius) * math.exp(
            -STEP_SECONDS / _HEAT_SECONDS
        )
        heat.turns = heat.celsius >= (_FAN_STOPS_CELSIUS if heat.turns else _FAN_STARTS_CELSIUS)
        fan_percent = heat.rest_percent
        if heat.turns:
            fan_percent = max(fan_percent, round(30 + 2.5 * (heat.celsius - 50)))
        heat.card.set(
            temperature=round(heat.celsius),
            power_usage_mw=round(watts * 1000),
            power_instant_mw=round(watts * 1000 * self._rng.uniform(0.99, 1.01)),
            power_average_mw=round(watts * 1000),
            utilization=percent,
        )
        heat.card.set_fan(
            0, percent=fan_percent, target=fan_percent, rpm=round(fan_percent * _RPM_PER_PERCENT)
        )
        heat.card.set_processes(*(FakeProcess(pid=r.process.pid, sm=r.percent) for r in mine))


def programs(folder: Path) -> Programs:
    """The library is built in `folder` (for LD_LIBRARY_PATH); its sysfs is `folder/sys`."""
    driver = FakeDriver(FakeDriver.build(folder))
    driver.reset()
    return Programs(driver, FakeSysfs(folder / "sys"))
