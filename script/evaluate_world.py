"""A made-up world with known truth: cards, fans and programs whose heat is followed exactly, and what sensors say of them.

It shares no code with gpuwhyd's engine, so that it cannot flatter it, and its physics is richer than what the engine
assumes: a die on top of two heat stores, a cooler that works better the faster its fan turns, a fan with a filter and a
slew rate, programs whose watts for a percent of engine time differ. Ranges are those measured on logs of real cards:
die +8 to 18 K within seconds of a step, stores of 10 to 47 s and 240 to 480 s, rest levels of 0 to 41 %, fans that start
at 50 to 61 degC and stop 3 to 10 K lower, 0.2 to 1.4 points a second.

Heat is additive: each program's part of each store is kept beside the whole, so the true shares are known at any time.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

STEP_SECONDS = 1.0
"""Of the physics; sensors are read every SAMPLE_SECONDS."""
SAMPLE_SECONDS = 2.0
HIDDEN = "(hidden)"
SPIN_SECONDS = 16.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """It works from `start` to `stop` at `engine_percent`; with `period` only for `duty` of each period."""

    name: str
    pid: int
    start_seconds: float
    stop_seconds: float
    engine_percent: float
    watts_per_percent: float
    exits: bool = True
    """Its process ends when it stops; else it stays and holds memory."""
    visible: bool = True
    period_seconds: float | None = None
    duty: float = 1.0
    jobs: bool = False
    """Each period is a process of its own, with a pid of its own."""
    memory_bytes: int = 1 << 30
    there_seconds: float = 5.0
    """Its process is there so long before it begins to work."""

    def works(self, now: float) -> bool:
        if not self.start_seconds <= now < self.stop_seconds:
            return False
        if self.period_seconds is None:
            return True
        return (now - self.start_seconds) % self.period_seconds < self.duty * self.period_seconds

    def process(self, now: float) -> int | None:
        """The pid of its process; `None` while there is none."""
        if self.jobs and self.period_seconds is not None:
            number = int((now - self.start_seconds) // self.period_seconds)
            return self.pid + number if self.works(now) else None
        lives = now >= self.start_seconds - self.there_seconds and (not self.exits or now < self.stop_seconds)
        return self.pid if lives else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """A second sensor: the hottest place of the die (AMD's junction), or the memory. Firmware has a fan curve for each
    sensor, and obeys the one that asks for most (AMD's power tables have a gain for edge, hot spot and memory).
    """

    kelvin_per_watt: float
    """Above the core: heat that crosses paste or pads at once. 8 to 20 K at full load are told of healthy dies, 30 to 50 of
    those with dried or squeezed-out paste; 15 to 28 K of memory on good pads."""
    start_celsius: float
    is_memory: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CardKind:
    """What a card is made of; kelvin per watt are with the fan at full speed."""

    name: str
    idle_watts: float
    limit_watts: float
    ambient_celsius: float
    die_kelvin_per_watt: float
    fast_kelvin_per_watt: float
    slow_kelvin_per_watt: float
    fast_seconds: float
    slow_seconds: float
    rest_percent: float
    """0: the fan stands still."""
    start_celsius: float
    """Where the curve leaves rest."""
    stop_below_kelvin: float
    percent_per_kelvin: float
    start_percent: float
    """A fan that stood still begins with so much."""
    slew_up: float
    slew_down: float
    filter_seconds: float
    top_rpm: float
    pinned_percent: float | None = None
    spot: "Spot | None" = None


@dataclass(slots=True)
class Card:
    """The state of one card. `heat` is each program's part of each store, in kelvin of the die above ambient."""

    kind: CardKind
    fast: dict[str, float] = field(default_factory=dict)
    slow: dict[str, float] = field(default_factory=dict)
    filtered_celsius: float = 0.0
    filtered_spot_celsius: float = 0.0
    percent: float = 0.0
    turning: bool = False
    watts: dict[str, float] = field(default_factory=dict)
    outside_kelvin: float = 0.0
    """What something beside the card adds."""

    def __post_init__(self) -> None:
        kind = self.kind
        self.percent = kind.rest_percent
        self.turning = kind.rest_percent > 0
        self._settle()

    @property
    def power_watts(self) -> float:
        return self.kind.idle_watts + sum(self.watts.values())

    @property
    def celsius(self) -> float:
        kind = self.kind
        die = kind.die_kelvin_per_watt * self.power_watts
        stores = sum(self.fast.values()) + sum(self.slow.values())
        return kind.ambient_celsius + self.outside_kelvin + die + stores

    @property
    def spot_celsius(self) -> float:
        spot = self.kind.spot
        return self.celsius + (0.0 if spot is None else spot.kelvin_per_watt * self.power_watts)

    def advance(self, programs: tuple[Program, ...], now: float, dt: float) -> None:
        """One step of the physics with these programs at work."""
        self.watts = {
            program.name: program.engine_percent * program.watts_per_percent
            for program in programs
            if program.works(now)
        }
        resistance = self._resistance()
        kind = self.kind
        sources = {**self.watts, "": kind.idle_watts}
        for store, kelvin, seconds in (
            (self.fast, kind.fast_kelvin_per_watt, kind.fast_seconds),
            (self.slow, kind.slow_kelvin_per_watt, kind.slow_seconds),
        ):
            keep = math.exp(-dt / (seconds * resistance))
            for name in {*store, *sources}:
                goal = kelvin * resistance * sources.get(name, 0.0)
                store[name] = goal + (store.get(name, goal if name == "" else 0.0) - goal) * keep
        self._turn(dt)

    def heat(self) -> dict[str, float]:
        """Each program's heat that is still in the cooler, in kelvin."""
        names = (self.fast.keys() | self.slow.keys()) - {""}
        heat = {name: self.fast.get(name, 0.0) + self.slow.get(name, 0.0) for name in names}
        return {name: kelvin for name, kelvin in heat.items() if kelvin > 1e-3}

    def _resistance(self) -> float:
        """A cooler without air is 2.2 times as bad as at full speed: what makes plateaus of 65 to 85 degC."""
        return 2.2 - 1.2 * min(1.0, self.percent / 100) ** 0.5

    def _settle(self) -> None:
        for store, kelvin in (
            (self.fast, self.kind.fast_kelvin_per_watt),
            (self.slow, self.kind.slow_kelvin_per_watt),
        ):
            store[""] = kelvin * self._resistance() * self.kind.idle_watts
        self.filtered_celsius, self.filtered_spot_celsius = self.celsius, self.spot_celsius

    def _turn(self, dt: float) -> None:
        kind = self.kind
        new = 1 - math.exp(-dt / kind.filter_seconds)
        self.filtered_celsius += (self.celsius - self.filtered_celsius) * new
        if kind.pinned_percent is not None:
            self.percent = kind.pinned_percent
            return
        above = self.filtered_celsius - kind.start_celsius
        if kind.spot is not None:
            self.filtered_spot_celsius += (self.spot_celsius - self.filtered_spot_celsius) * new
            above = max(above, self.filtered_spot_celsius - kind.spot.start_celsius)
        if above >= 0:
            self.turning = True
            goal = max(kind.rest_percent, kind.start_percent) + kind.percent_per_kelvin * above
        elif self.turning and above > -kind.stop_below_kelvin:
            goal = max(kind.rest_percent, kind.start_percent)
        else:
            self.turning = kind.rest_percent > 0
            goal = kind.rest_percent
        goal = min(100.0, goal)
        if self.percent == 0 < goal:
            self.percent = min(goal, kind.start_percent)
        change = max(-kind.slew_down * dt, min(kind.slew_up * dt, goal - self.percent))
        self.percent = max(0.0, self.percent + change)
        if goal == 0 and self.percent < kind.start_percent:
            self.percent = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """Another card in the same case, which warms the first."""

    program: Program
    idle_watts: float
    limit_watts: float
    gain_kelvin: float
    """So much at full load, in the end."""
    seconds: float

    def watts(self, now: float) -> float:
        program = self.program
        work = program.engine_percent * program.watts_per_percent if program.works(now) else 0.0
        return self.idle_watts + work


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The machine is used from `begin` to `end`; before and after it sleeps, and the card gets as cold as it can."""

    begin: float
    end: float
    kind: CardKind
    """The card as it is on that day."""
    sample_seconds: float = SAMPLE_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What has become of the card, beside the same card without it, at the same work."""

    cause: str
    sound: CardKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    seed: int
    story: str
    kind: CardKind
    programs: tuple[Program, ...]
    seconds: float
    gaps: tuple[tuple[float, float], ...] = ()
    """(from, to): no sample in between."""
    suspends: tuple[tuple[float, float], ...] = ()
    """(from, to): the machine sleeps, nobody works."""
    clock_jumps: tuple[tuple[float, float], ...] = ()
    """(when, seconds): the wall clock is set."""
    resets: tuple[tuple[float, float], ...] = ()
    """(from, to): the card is lost; then its fan runs full for SPIN_SECONDS."""
    engine_times: bool = True
    """False: nobody tells who works, only who holds memory."""
    beside: Beside | None = None
    sessions: tuple[Session, ...] = ()
    """Days that went before, and last the one whose answers are judged; none: one sitting."""
    fault: Fault | None = None

    @property
    def judged_from(self) -> float:
        return self.sessions[-1].begin if self.sessions else 0.0

    def asleep(self, now: float) -> bool:
        return any(begin <= now < end for begin, end in self.suspends)

    def lost(self, now: float) -> bool:
        return any(begin <= now < end for begin, end in self.resets)

    def spins(self, now: float) -> bool:
        return any(end <= now < end + SPIN_SECONDS for _, end in self.resets)

    def wall_offset(self, now: float) -> float:
        return sum(seconds for when, seconds in self.clock_jumps if when <= now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What the sensors say at one moment, and the truth behind it."""

    seconds: float
    fan_percent: float
    fan_rpm: float
    temperature_celsius: float
    power_watts: float
    utilization_percent: float
    engine_percents: dict[tuple[str, int], float]
    """Of the visible processes that live or worked since the last sample, by program and pid."""
    exited: tuple[tuple[str, int], ...]
    true_percent: float
    true_heat: dict[str, float]
    true_watts: dict[str, float]
    resumed: bool = False
    lost: bool = False
    true_outside_kelvin: float = 0.0
    spot_celsius: float | None = None
    true_sound_percent: float | None = None
    """The fan's speed of the same card without its fault."""


def run(scenario: Scenario) -> Iterator[Sample]:
    """The samples of a scenario, always the same for the same one."""
    noise = random.Random(scenario.seed ^ 0x5EED)
    if not scenario.sessions:
        yield from _sitting(scenario, Session(begin=0.0, end=scenario.seconds, kind=scenario.kind), noise)
    for session in scenario.sessions:
        yield from _sitting(scenario, session, noise)


def _sitting(scenario: Scenario, session: Session, noise: random.Random) -> Iterator[Sample]:
    card = Card(kind=session.kind)
    sound = None
    if scenario.fault is not None and session.begin == scenario.judged_from:
        sound = Card(kind=scenario.fault.sound)
    now, due, since = session.begin, session.begin, 0.0
    busy: dict[tuple[str, int], float] = {}
    total = 0.0
    alive: set[tuple[str, int]] = set()
    slept = session.begin > 0
    while now < session.end:
        asleep = scenario.asleep(now)
        slept = slept or asleep
        _warm(card, scenario, now, asleep=asleep)
        card.advance(() if asleep else scenario.programs, now, STEP_SECONDS)
        if sound is not None:
            sound.advance(scenario.programs, now, STEP_SECONDS)
        if scenario.spins(now):
            card.percent, card.turning = 100.0, True
        for program in () if asleep else scenario.programs:
            pid = program.process(now)
            if program.works(now) and pid is not None:
                work = program.engine_percent * STEP_SECONDS
                total += work
                if program.visible:
                    busy[program.name, pid] = busy.get((program.name, pid), 0.0) + work
        now += STEP_SECONDS
        since += STEP_SECONDS
        if now < due or asleep or any(begin <= now < end for begin, end in scenario.gaps):
            continue
        due = now + session.sample_seconds - STEP_SECONDS / 2
        living = {
            (p.name, pid) for p in scenario.programs if p.visible and (pid := p.process(now)) is not None
        }
        yield Sample(
            seconds=now,
            fan_percent=_fan_percent(card, noise),
            fan_rpm=_fan_rpm(card, noise),
            temperature_celsius=round(card.celsius + noise.gauss(0, 0.3)),
            power_watts=round(card.power_watts * (1 + noise.gauss(0, 0.02)) + noise.gauss(0, 0.5), 2),
            utilization_percent=round(min(100.0, max(0.0, total / since + noise.gauss(0, 1)))),
            engine_percents={
                who: _engine(busy.get(who, 0.0) / since, noise) for who in sorted(living | busy.keys())
            },
            exited=tuple(sorted((alive | busy.keys()) - living)),
            true_percent=card.percent,
            true_heat=card.heat(),
            true_watts=dict(card.watts),
            resumed=slept,
            lost=scenario.lost(now),
            true_outside_kelvin=card.outside_kelvin,
            spot_celsius=None if card.kind.spot is None else round(card.spot_celsius + noise.gauss(0, 0.5)),
            true_sound_percent=None if sound is None else sound.percent,
        )
        alive, busy, total, since, slept = living, {}, 0.0, 0.0, False


def _warm(card: Card, scenario: Scenario, now: float, *, asleep: bool) -> None:
    if (beside := scenario.beside) is not None:
        full = beside.limit_watts - beside.idle_watts
        part = 0.0 if asleep else (beside.watts(now) - beside.idle_watts) / full
        goal = beside.gain_kelvin * part
        card.outside_kelvin += (goal - card.outside_kelvin) * (1 - math.exp(-STEP_SECONDS / beside.seconds))


def _engine(percent: float, noise: random.Random) -> float:
    return max(0.0, min(100.0, round(percent + noise.gauss(0, 1.5)))) if percent else 0.0


def _fan_rpm(card: Card, noise: random.Random) -> float:
    return 0.0 if card.percent == 0 else round(card.percent / 100 * card.kind.top_rpm + noise.gauss(0, 8))


def _fan_percent(card: Card, noise: random.Random) -> float:
    if card.percent == 0:
        return 0.0
    if card.kind.pinned_percent is not None:
        return round(card.percent)
    return round(max(1.0, card.percent + noise.choice((0, 0, 0, 0, -1, 1)) * noise.random()))
