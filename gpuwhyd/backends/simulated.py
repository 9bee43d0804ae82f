"""Simulated GPUs: a scenario read like hardware, so that the whole daemon runs on a machine without a GPU."""

import random
from collections.abc import Callable, Collection, Iterable

from gpuwhyd.backends.base import BackendReadings, Probe, ProbeResult
from gpuwhyd.backends.simulated_model import UPTIME_SECONDS, Card, FanModel, Scenario, SimulatedProgram
from gpuwhyd.backends.simulated_physics import CardState, Run, World, engine_percents, running
from gpuwhyd.model import (
    FanMode,
    FanReading,
    FieldSource,
    GpuIdentity,
    GpuProcess,
    GpuReading,
    ProcessExit,
    ProcessIdentity,
    Program,
    ProgramKind,
)

_TICKS_PER_SECOND = 100
"""USER_HZ, the unit of start times in /proc."""
_IDLE_MEMORY_BYTES = 300 << 20


class SimulatedBackend:
    """The cards of a scenario. `clock` gives the simulated machine's CLOCK_BOOTTIME in seconds.

    Readings depend on the scenario and the clock alone; their noise comes from the scenario's seed.
    """

    name = "simulated"

    def __init__(self, scenario: Scenario, clock: Callable[[], float]) -> None:
        self._scenario = scenario
        self._clock = clock
        self._world = World(scenario)

    def probe(self) -> ProbeResult:
        return ProbeResult(answer=Probe.READY)

    def read(self) -> BackendReadings:
        seconds = self._scenario.seconds(self._clock())
        self._world.advance(seconds)
        runs = running(self._scenario, seconds)
        return BackendReadings(
            readings=tuple(
                self._reading(index, state, tuple(run for run in runs if run.program.card == index), seconds)
                for index, state in enumerate(self._world.cards)
            )
        )

    def close(self) -> None:
        """Nothing is held."""

    def sources(self) -> tuple[FieldSource, ...]:
        return ()

    def _reading(self, index: int, state: CardState, runs: tuple[Run, ...], seconds: float) -> GpuReading:
        card = state.card
        noise = random.Random(f"{self._scenario.seed}:{index}:{self._world.steps}")  # noqa: S311  # noise, no secret
        used_bytes = _IDLE_MEMORY_BYTES + sum(run.program.memory_bytes for run in runs)
        busy = state.utilization_percent > 0
        percents = engine_percents(runs, seconds)
        return GpuReading(
            gpu=_identity(card, index),
            backend=self.name,
            fan_mode=card.fan.mode if card.fan else FanMode.NONE,
            fans=_fans(card.fan, state) if card.fan else (),
            temperature_celsius=float(round(state.temperature_celsius + noise.gauss(0, 0.2))),
            hotspot_celsius=float(round(state.temperature_celsius + state.die_kelvin * 0.7 + 2)),
            temperature_limit_celsius=card.temperature_limit_celsius,
            power_watts=round(state.power_watts * (1 + noise.gauss(0, 0.01)), 2),
            energy_joules=round(state.energy_joules, 3),
            power_limit_watts=card.limit_watts,
            utilization_percent=_shaken(state.utilization_percent, noise),
            memory_utilization_percent=_shaken(state.utilization_percent * 0.6, noise),
            encoder_percent=0.0,
            decoder_percent=0.0,
            memory_used_bytes=min(used_bytes, card.memory_total_bytes),
            memory_total_bytes=card.memory_total_bytes,
            core_clock_mhz=1800.0 if busy else 210.0,
            memory_clock_mhz=7000.0 if busy else 405.0,
            performance_state=2 if busy else 8,
            throttle_reasons=state.throttle_reasons,
            processes=tuple(
                GpuProcess(
                    pid=run.pid,
                    kind="compute",
                    memory_used_bytes=run.program.memory_bytes,
                    engine_percent=float(round(percents[run.pid])),
                )
                for run in runs
            ),
        )


class SimulatedProcesses:
    """Who the processes of a scenario are. They have no /proc entry, so this stands in for the process table."""

    def __init__(self, scenario: Scenario, clock: Callable[[], float]) -> None:
        self._scenario = scenario
        self._clock = clock
        self._seen: dict[int, tuple[Run, ProcessIdentity]] = {}

    def identify(self, pid: int) -> ProcessIdentity | None:
        """`None` when no such process lives now."""
        runs = running(self._scenario, self._scenario.seconds(self._clock()))
        run = next((run for run in runs if run.pid == pid), None)
        if run is None:
            return None
        if pid not in self._seen:
            self._seen[pid] = (run, _process(run))
        return self._seen[pid][1]

    def identify_all(self, pids: Iterable[int]) -> dict[int, ProcessIdentity]:
        return {pid: process for pid in pids if (process := self.identify(pid)) is not None}

    def exits(self, boottime_seconds: float) -> tuple[ProcessExit, ...]:
        """Those that were identified and have ended since the last call."""
        now = self._scenario.seconds(boottime_seconds)
        ended = [
            (run.exit_seconds, process)
            for run, process in self._seen.values()
            if run.exit_seconds is not None and run.exit_seconds <= now
        ]
        for _, process in ended:
            del self._seen[process.pid]
        return tuple(
            ProcessExit(process=process, boottime_seconds=seconds + UPTIME_SECONDS)
            for seconds, process in ended
        )

    def forget_idle(self, in_use: Collection[int]) -> None:
        """Nothing to do: a scenario has few processes, and each is forgotten when it ends."""

    def close(self) -> None:
        self._seen.clear()


def _identity(card: Card, index: int) -> GpuIdentity:
    return GpuIdentity(
        id="pci_" + card.pci_address.replace(":", "_").replace(".", "_"),
        name=card.name,
        vendor="simulated",
        pci_address=card.pci_address,
        uuid=f"SIM-{index}",
        driver="simulated",
    )


def _fans(fan: FanModel, state: CardState) -> tuple[FanReading, ...]:
    return tuple(
        FanReading(
            index=index,
            percent=float(round(state.fan_percent)),
            # Fans of one card differ a little, as real ones do.
            rpm=float(round(state.rotor_percent / 100 * fan.rpm_max * (1 - 0.01 * index))),
            target_percent=float(round(state.fan_target_percent)),
            mode=fan.mode,
            rpm_max=fan.rpm_max,
        )
        for index in range(fan.count)
    )


def _shaken(percent: float, noise: random.Random) -> float:
    """As a real card reports it: whole, a little off; 0 is 0."""
    return float(min(100, max(0, round(percent + noise.gauss(0, 1.5))))) if percent else 0.0


def _process(run: Run) -> ProcessIdentity:
    program = run.program
    start_ticks = int((UPTIME_SECONDS + run.start_seconds) * _TICKS_PER_SECOND)
    return ProcessIdentity(
        pid=run.pid,
        start_ticks=start_ticks,
        name=program.name[:15],  # as the kernel's comm
        uid=program.uid,
        user=program.user,
        command_line=program.command or (program.name,),
        program=_program(program, f"process:{run.pid}:{start_ticks}"),
    )


def _program(simulated: SimulatedProgram, process_key: str) -> Program:
    """The most specific of what the scenario says it is: container, app, unit, bare process."""
    kind, key, name = ProgramKind.PROCESS, process_key, simulated.name
    if simulated.container is not None:
        kind, key = ProgramKind.CONTAINER, f"container:{simulated.container}"
        name = f"{simulated.name} ({simulated.container.partition(':')[0]})"
    elif simulated.app is not None:
        kind, key, name = ProgramKind.APP, f"app:{simulated.uid}:{simulated.app}", simulated.app
    elif simulated.unit is not None:
        kind, key, name = ProgramKind.UNIT, f"unit:{simulated.unit}", simulated.unit
    elif simulated.user_unit is not None:
        kind, key = ProgramKind.UNIT, f"user-unit:{simulated.uid}:{simulated.user_unit}"
        name = simulated.user_unit
    return Program(
        kind=kind,
        key=key,
        name=name,
        unit=simulated.unit,
        user_unit=simulated.user_unit,
        container=simulated.container,
        app=simulated.app,
        user=simulated.user,
    )
