"""A made-up card for tests: heat in one lump behind a die, a fan on a curve with a slew rate, sensors in whole degrees."""

import math
from dataclasses import dataclass

from gpuwhyd.model import ProcessIdentity
from tests.engine.rig import Rig, unit

GAME = unit("game.service", 5)


@dataclass
class Cooler:
    """Left alone it idles at 25 W; the rig's card has a limit of 220 W."""

    room_celsius: float = 22.0
    kelvin_per_watt: float = 0.2
    """Of the lump, with the fan at full speed; without air it is twice that."""
    die_kelvin_per_watt: float = 0.06
    seconds: float = 180.0
    rest: float = 0.0
    onset_celsius: float = 50.0
    stop_celsius: float = 44.0
    start_percent: float = 25.0
    percent_per_kelvin: float = 2.0
    lower_down_kelvin: float = 0.0
    """By how much lower its curve lies on the way down, as those of real fans do."""
    slew: float = 1.0
    creeps_up: bool = False
    """From a standstill through all the speeds below its least, not at once to that."""
    fan: float = 0.0
    warm_watts: float = 40.0
    turns: bool = False

    def __post_init__(self) -> None:
        self.fan = self.rest

    @property
    def kelvin(self) -> float:
        return self.kelvin_per_watt * self.warm_watts

    def step(self, watts: float, seconds: float) -> float:
        """The temperature after so long at this power."""
        factor = 2 - self.fan / 100
        goal = watts * factor
        keep = math.exp(-seconds / (self.seconds * factor))
        self.warm_watts = goal + (self.warm_watts - goal) * keep
        celsius = self.room_celsius + self.die_kelvin_per_watt * watts + self.kelvin
        self.turns = celsius >= self.onset_celsius or (
            self.turns and (celsius > self.stop_celsius or self.rest > 0)
        )
        low = self.rest or self.start_percent
        cools = celsius > self.room_celsius + self.die_kelvin_per_watt * watts + goal * self.kelvin_per_watt
        onset = self.onset_celsius - (self.lower_down_kelvin if cools else 0.0)
        above = max(0.0, celsius - onset)
        wanted = min(100.0, low + self.percent_per_kelvin * above) if self.turns else self.rest
        if self.fan < low <= wanted and not self.creeps_up:
            self.fan = low
        self.fan += max(-self.slew * seconds, min(self.slew * seconds, wanted - self.fan))
        if not wanted and self.fan < self.start_percent:
            self.fan = 0.0
        return celsius


def work(
    rig: Rig, cooler: Cooler, seconds: float, watts: float, who: ProcessIdentity = GAME, **told: object
) -> Rig:
    """The card works for one program; idle at 25 W. `told`: what its readings have besides."""
    busy = watts > 30
    for _ in range(round(seconds / rig.step)):
        celsius = round(cooler.step(watts, rig.step))
        rig.tick({who: 95.0 if busy else 0.0}, fan=round(cooler.fan), celsius=celsius, watts=watts, **told)
    return rig


def quiet_after(cooler: Cooler, step: float = 2.0) -> float:
    """How long the fan stays up from now at idle, in truth; the cooler itself does not move."""
    ahead = Cooler(**vars(cooler))
    ahead.fan, seconds = cooler.fan, 0.0
    while ahead.fan > ahead.rest + 3:
        ahead.step(25.0, step)
        seconds += step
    return seconds


def spike(
    rig: Rig, cooler: Cooler, *, seconds: float = 400.0, watts: float = 200.0, after: float = 1500.0
) -> Rig:
    """A load, and then so long idle."""
    return work(work(rig, cooler, seconds, watts), cooler, after, 25.0)
