"""Load -> power, heat, temperature and fan of the simulated cards, in fixed steps.

A card's state at a moment depends on the scenario and that moment alone, not on how often it was looked at.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

from gpuwhyd.backends.simulated_model import Card, FanModel, Scenario, SimulatedProgram, ThermalModel
from gpuwhyd.model import FanMode

STEP_SECONDS = 0.25
_SOFTEST_CLAMP = 0.3
"""A card that is too hot slows itself down to no less than this part of its load power."""
_ROTOR_LAG_SECONDS = 1.5
"""RPM follows the percent that the fan was told; 1 to 12 s on recorded cards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One process: a program from one of its starts to its exit."""

    program: SimulatedProgram
    pid: int
    start_seconds: float
    exit_seconds: float | None

    def load_percent(self, seconds: float) -> float:
        """What it asks of the card's engine at a moment of the scenario."""
        since_start = seconds - self.start_seconds
        steps = [step for step in self.program.load if step.at_seconds <= since_start]
        return steps[-1].percent if steps else 0.0


def running(scenario: Scenario, seconds: float) -> tuple[Run, ...]:
    """The processes that live at a moment of the scenario."""
    runs = (_run(program, index, seconds) for index, program in enumerate(scenario.programs))
    return tuple(run for run in runs if run is not None)


def _run(program: SimulatedProgram, index: int, seconds: float) -> Run | None:
    since_start = seconds - program.start_seconds
    if since_start < 0:
        return None
    number = int(since_start // program.repeat_seconds) if program.repeat_seconds else 0
    shift = number * (program.repeat_seconds or 0.0)
    exit_seconds = None if program.exit_seconds is None else program.exit_seconds + shift
    if exit_seconds is not None and seconds >= exit_seconds:
        return None
    return Run(
        program=program,
        pid=4242 + 10_000 * index + number % 10_000,
        start_seconds=program.start_seconds + shift,
        exit_seconds=exit_seconds,
    )


class CardState:
    """One card, moved on step by step."""

    def __init__(self, card: Card) -> None:
        self.card = card
        fan = card.fan
        self.fan_turns = fan is not None and not (fan.zero_rpm and fan.mode is FanMode.AUTO)
        self.fan_percent = 0.0
        if fan is not None and self.fan_turns:
            self.fan_percent = fan.manual_percent if fan.mode is FanMode.MANUAL else fan.min_percent
        self.fan_target_percent = self.fan_percent
        self.rotor_percent = self.fan_percent
        self.power_watts = card.idle_watts
        self.utilization_percent = 0.0
        self.energy_joules = 0.0
        self.throttle_reasons: tuple[str, ...] = ()
        # In balance: the card has been idle for long.
        self.die_kelvin = card.idle_watts * card.thermal.die_kelvin_per_watt
        self.heatsink_kelvin = card.idle_watts * _heatsink_kelvin_per_watt(card.thermal, self.fan_percent)

    @property
    def temperature_celsius(self) -> float:
        return self.card.ambient_celsius + self.die_kelvin + self.heatsink_kelvin

    def step(self, runs: tuple[Run, ...], seconds: float) -> None:
        """From `seconds` of the scenario to `STEP_SECONDS` later, under the load at `seconds`."""
        self._set_power(runs, seconds)
        thermal = self.card.thermal
        resistance = _heatsink_kelvin_per_watt(thermal, self.fan_percent)
        heatsink_seconds = thermal.heatsink_seconds * resistance / thermal.heatsink_kelvin_per_watt
        self.die_kelvin = _towards(
            self.die_kelvin, self.power_watts * thermal.die_kelvin_per_watt, thermal.die_seconds
        )
        self.heatsink_kelvin = _towards(self.heatsink_kelvin, self.power_watts * resistance, heatsink_seconds)
        self.energy_joules += self.power_watts * STEP_SECONDS
        if self.card.fan is not None:
            self._turn_fan(self.card.fan)

    def _set_power(self, runs: tuple[Run, ...], seconds: float) -> None:
        card = self.card
        loads = engine_percents(runs, seconds)
        excess_watts = sum(
            percent / 100 * (card.limit_watts - card.idle_watts if watts is None else watts)
            for percent, watts in ((loads[run.pid], run.program.watts_at_full_load) for run in runs)
        )
        reasons = []
        if card.idle_watts + excess_watts > card.limit_watts:
            excess_watts = card.limit_watts - card.idle_watts
            reasons.append("power-cap")
        too_hot_kelvin = self.temperature_celsius - card.temperature_limit_celsius
        if too_hot_kelvin >= 0 and excess_watts:
            excess_watts *= max(_SOFTEST_CLAMP, 1 - too_hot_kelvin / 10)
            reasons.append("sw-thermal")
        self.power_watts = card.idle_watts + excess_watts
        self.utilization_percent = sum(loads.values())
        self.throttle_reasons = tuple(reasons)

    def _turn_fan(self, fan: FanModel) -> None:
        celsius = self.temperature_celsius
        if fan.mode is FanMode.MANUAL:
            self.fan_target_percent = fan.manual_percent
        else:
            if fan.zero_rpm:
                self.fan_turns = (
                    celsius > fan.stop_celsius if self.fan_turns else celsius >= fan.start_celsius
                )
            wanted = max(fan.min_percent, _on_curve(fan.curve, celsius))
            self.fan_target_percent = wanted if self.fan_turns else 0.0
        self.fan_percent = _towards(self.fan_percent, self.fan_target_percent, fan.lag_seconds)
        if self.fan_target_percent == 0 and self.fan_percent < 2:
            self.fan_percent = 0.0
        self.rotor_percent = _towards(self.rotor_percent, self.fan_percent, _ROTOR_LAG_SECONDS)
        if self.fan_percent == 0 and self.rotor_percent < 3:
            self.rotor_percent = 0.0


class World:
    """All cards of a scenario, at one moment of it."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self.steps = 0
        self.cards = tuple(CardState(card) for card in scenario.cards)

    def advance(self, seconds: float) -> None:
        """To that moment of the scenario; a moment that has passed changes nothing."""
        while (self.steps + 1) * STEP_SECONDS <= seconds:
            now = self.steps * STEP_SECONDS
            runs = running(self._scenario, now)
            for index, state in enumerate(self.cards):
                state.step(tuple(run for run in runs if run.program.card == index), now)
            self.steps += 1


def engine_percents(runs: tuple[Run, ...], seconds: float) -> dict[int, float]:
    """By pid: the part of one card's engine time each of its processes gets; together at most 100."""
    asked = {run.pid: run.load_percent(seconds) for run in runs}
    scale = min(1.0, 100 / total) if (total := sum(asked.values())) else 1.0
    return {pid: percent * scale for pid, percent in asked.items()}


def _heatsink_kelvin_per_watt(thermal: ThermalModel, fan_percent: float) -> float:
    return thermal.heatsink_kelvin_per_watt / (1 + thermal.fan_cooling * fan_percent / 100)


def _towards(value: float, target: float, time_constant_seconds: float) -> float:
    return target + (value - target) * math.exp(-STEP_SECONDS / time_constant_seconds)


def _on_curve(curve: tuple[tuple[float, float], ...], celsius: float) -> float:
    if celsius <= curve[0][0]:
        return curve[0][1]
    for (cool, low), (hot, high) in pairwise(curve):
        if celsius <= hot:
            return low + (high - low) * (celsius - cool) / (hot - cool)
    return curve[-1][1]
