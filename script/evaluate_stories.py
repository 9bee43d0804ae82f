"""Scenarios from seeds: a random card and what happened on it. The same seed is the same scenario for ever."""

import random
from collections.abc import Callable
from dataclasses import replace

from script.evaluate_cards import card
from script.evaluate_cards import program as _program
from script.evaluate_faults import hotspot, worse_cooler
from script.evaluate_world import Beside, Card, CardKind, Program, Scenario


def scenario(seed: int) -> Scenario:
    """The scenario of a seed; its story is one of STORIES, in turn."""
    rng = random.Random(seed)
    story = list(STORIES)[seed % len(STORIES)]
    return STORIES[story](rng, seed, story)


def _holders(rng: random.Random, kind: CardKind, seconds: float) -> tuple[Program, ...]:
    """Programs that hold memory and never work."""
    return tuple(
        _program(rng, kind, 90 + number, 6, seconds, 0.0, exits=False) for number in range(rng.randrange(4))
    )


def single(rng: random.Random, seed: int, story: str) -> Scenario:
    kind = card(rng)
    start, length = rng.uniform(60, 180), rng.uniform(180, 700)
    program = _program(rng, kind, 1, start, length, rng.uniform(70, 100), exits=rng.random() < 0.5)
    seconds = start + length + 900
    return Scenario(
        seed=seed, story=story, kind=kind, programs=(program, *_holders(rng, kind, seconds)), seconds=seconds
    )


def mixed(rng: random.Random, seed: int, story: str) -> Scenario:
    kind = card(rng)
    start, length = rng.uniform(60, 180), rng.uniform(240, 600)
    count = rng.choice((2, 3))
    programs = tuple(
        _program(
            rng,
            kind,
            number,
            start + rng.uniform(0, 20),
            length,
            rng.uniform(75, 98) / count,
            exits=rng.random() < 0.5,
        )
        for number in range(1, count + 1)
    )
    return Scenario(seed=seed, story=story, kind=kind, programs=programs, seconds=start + length + 900)


def gone_early(rng: random.Random, seed: int, story: str) -> Scenario:
    """A short hard load whose program has exited when the fan is loudest, or before it starts."""
    kind = card(rng)
    start, length = rng.uniform(60, 180), rng.uniform(40, 120)
    program = _program(rng, kind, 1, start, length, rng.uniform(90, 100))
    return Scenario(seed=seed, story=story, kind=kind, programs=(program,), seconds=start + length + 900)


def pulses(rng: random.Random, seed: int, story: str) -> Scenario:
    kind = card(rng)
    start, length = rng.uniform(60, 180), rng.uniform(300, 800)
    program = _program(
        rng,
        kind,
        1,
        start,
        length,
        rng.uniform(90, 100),
        period_seconds=rng.uniform(6, 40),
        duty=rng.uniform(0.5, 0.8),
        exits=False,
    )
    return Scenario(seed=seed, story=story, kind=kind, programs=(program,), seconds=start + length + 900)


def short_jobs(rng: random.Random, seed: int, story: str) -> Scenario:
    """One unit that starts a process for each job."""
    kind = card(rng)
    start, length = rng.uniform(60, 180), rng.uniform(300, 600)
    program = _program(
        rng,
        kind,
        1,
        start,
        length,
        rng.uniform(85, 100),
        period_seconds=rng.uniform(5, 20),
        duty=0.85,
        jobs=True,
    )
    return Scenario(seed=seed, story=story, kind=kind, programs=(program,), seconds=start + length + 900)


def handover(rng: random.Random, seed: int, story: str) -> Scenario:
    """One program works, then another."""
    kind = card(rng)
    start, first, second = rng.uniform(60, 180), rng.uniform(180, 400), rng.uniform(180, 400)
    programs = (
        _program(rng, kind, 1, start, first, rng.uniform(80, 100)),
        _program(rng, kind, 2, start + first, second, rng.uniform(80, 100), exits=False),
    )
    return Scenario(
        seed=seed, story=story, kind=kind, programs=programs, seconds=start + first + second + 900
    )


def hidden(rng: random.Random, seed: int, story: str) -> Scenario:
    """A virtual machine, or another PID namespace."""
    kind = card(rng)
    start, length = rng.uniform(60, 180), rng.uniform(240, 600)
    program = _program(rng, kind, 1, start, length, rng.uniform(80, 100), visible=False)
    seconds = start + length + 900
    return Scenario(
        seed=seed, story=story, kind=kind, programs=(program, *_holders(rng, kind, seconds)), seconds=seconds
    )


def pinned(rng: random.Random, seed: int, story: str) -> Scenario:
    kind = card(rng, pinned=True)
    programs: tuple[Program, ...] = ()
    if rng.random() < 0.5:
        programs = (_program(rng, kind, 1, rng.uniform(200, 300), 200, rng.uniform(20, 60)),)
    return Scenario(seed=seed, story=story, kind=kind, programs=programs, seconds=900)


def rest(rng: random.Random, seed: int, story: str) -> Scenario:
    """Nothing happens for a quarter of an hour, with a desktop's little work."""
    kind = card(rng)
    desktop = _program(
        rng, kind, 1, 10, 880, rng.uniform(0.5, 3), period_seconds=rng.uniform(20, 90), duty=0.2, exits=False
    )
    return Scenario(seed=seed, story=story, kind=kind, programs=(desktop,), seconds=900)


def gap(rng: random.Random, seed: int, story: str) -> Scenario:
    """A load with 30 s without samples in it."""
    whole = single(rng, seed, story)
    begin = whole.programs[0].start_seconds + rng.uniform(20, 150)
    return Scenario(
        seed=seed,
        story=story,
        kind=whole.kind,
        programs=whole.programs,
        seconds=whole.seconds,
        gaps=((begin, begin + 30),),
    )


def half_hidden(rng: random.Random, seed: int, story: str) -> Scenario:
    """A program that can be seen and one that cannot, together; one of them may end before the other."""
    kind = card(rng)
    start, length = rng.uniform(60, 180), rng.uniform(240, 600)
    percent, part = rng.uniform(80, 98), rng.uniform(0.2, 0.8)
    seen = _program(rng, kind, 1, start, length * rng.uniform(0.6, 1), percent * part)
    unseen = _program(rng, kind, 2, start, length * rng.uniform(0.6, 1), percent * (1 - part), visible=False)
    return Scenario(seed=seed, story=story, kind=kind, programs=(seen, unseen), seconds=start + length + 900)


def blind(rng: random.Random, seed: int, story: str) -> Scenario:
    """Nobody tells who works, only who holds how much memory; those who work tend to hold more. Some of them have been
    there long before, and some of those who only hold memory come at any time.
    """
    kind = card(rng)
    start, length = rng.uniform(60, 180), rng.uniform(180, 500)
    seconds = start + length + 900
    count = rng.choice((1, 1, 2))
    workers = tuple(
        _program(
            rng,
            kind,
            number,
            start,
            length,
            rng.uniform(70, 100) / count,
            memory_bytes=round(rng.uniform(0.5, 10) * (1 << 30)),
            there_seconds=start if rng.random() < 0.35 else rng.uniform(2, 20),
        )
        for number in range(1, count + 1)
    )
    holders = tuple(
        _program(
            rng,
            kind,
            90 + number,
            6 if rng.random() < 0.6 else rng.uniform(6, start + length),
            seconds,
            0.0,
            exits=False,
            memory_bytes=round(rng.uniform(0.1, 6) * (1 << 30)),
        )
        for number in range(rng.randrange(3))
    )
    return Scenario(
        seed=seed, story=story, kind=kind, programs=(*workers, *holders), seconds=seconds, engine_times=False
    )


def suspend(rng: random.Random, seed: int, story: str) -> Scenario:
    """The machine sleeps in mid-load, for a minute or an hour."""
    whole = single(rng, seed, story)
    program = whole.programs[0]
    begin = program.start_seconds + rng.uniform(100, 170)
    slept = rng.choice((60.0, 600.0, 3600.0))
    programs = (replace(program, stop_seconds=program.stop_seconds + slept), *whole.programs[1:])
    return replace(
        whole, programs=programs, seconds=whole.seconds + slept, suspends=((begin, begin + slept),)
    )


def clock_jump(rng: random.Random, seed: int, story: str) -> Scenario:
    """The wall clock is set twice, by hours."""
    whole = single(rng, seed, story)
    start = whole.programs[0].start_seconds
    jumps = ((start + rng.uniform(50, 150), rng.choice((-7200.0, 7200.0))), (start + 400, 86400.0))
    return replace(whole, clock_jumps=jumps)


def pid_reuse(rng: random.Random, seed: int, story: str) -> Scenario:
    """A program ends, and another gets its pid."""
    whole = handover(rng, seed, story)
    first, second = whole.programs
    later = replace(
        second,
        pid=first.pid,
        start_seconds=second.start_seconds + 8,
        stop_seconds=second.stop_seconds + 8,
    )
    return replace(whole, programs=(first, later))


def reset(rng: random.Random, seed: int, story: str) -> Scenario:
    """The driver resets an idle card, or one in mid-load, whose program it kills; the fan runs full for a while."""
    kind = card(rng)
    at = rng.uniform(150, 300)
    lost = (at, at + rng.uniform(4, 15))
    programs: tuple[Program, ...] = ()
    if rng.random() < 0.5:
        start = at - rng.uniform(90, 140)
        programs = (_program(rng, kind, 1, start, at - start, rng.uniform(80, 100)),)
    return Scenario(seed=seed, story=story, kind=kind, programs=programs, seconds=at + 600, resets=(lost,))


def neighbour(rng: random.Random, seed: int, story: str) -> Scenario:
    """Two cards in one case: the other one works, and this one gets hot enough for its fan."""
    kind = card(rng)
    limit = rng.uniform(180, 350)
    idle = rng.uniform(10, 30)
    start, length = rng.uniform(60, 180), rng.uniform(500, 900)
    worker = Program(
        name="program-7.service",
        pid=7000,
        start_seconds=start,
        stop_seconds=start + length,
        engine_percent=rng.uniform(90, 100),
        watts_per_percent=(limit - idle) / 100,
    )
    to_start = kind.start_celsius - Card(kind=kind).celsius
    beside = Beside(
        program=worker,
        idle_watts=idle,
        limit_watts=limit,
        gain_kelvin=(to_start + rng.uniform(6, 14)) / 0.9,
        seconds=rng.uniform(80, 200),
    )
    return Scenario(
        seed=seed, story=story, kind=kind, programs=(), seconds=start + length + 900, beside=beside
    )


def cycling(rng: random.Random, seed: int, story: str) -> Scenario:
    """A zero-RPM card whose load keeps it around the threshold of its fan for an hour."""
    kind = replace(
        card(rng), rest_percent=0.0, start_percent=rng.uniform(25, 32), stop_below_kelvin=rng.uniform(3, 6)
    )
    kelvin = kind.die_kelvin_per_watt + 2.2 * (kind.fast_kelvin_per_watt + kind.slow_kelvin_per_watt)
    needed = (kind.start_celsius - kind.ambient_celsius + rng.uniform(1, 4)) / kelvin - kind.idle_watts
    program = _program(rng, kind, 1, 60, 3600, 50.0, exits=False)
    program = replace(program, watts_per_percent=max(needed, 0.1 * kind.limit_watts) / 50)
    return Scenario(seed=seed, story=story, kind=kind, programs=(program,), seconds=4500)


STORIES: dict[str, Callable[[random.Random, int, str], Scenario]] = {
    "single": single,
    "mixed": mixed,
    "gone-early": gone_early,
    "pulses": pulses,
    "short-jobs": short_jobs,
    "handover": handover,
    "hidden": hidden,
    "pinned": pinned,
    "rest": rest,
    "gap": gap,
    "half-hidden": half_hidden,
    "blind": blind,
    "suspend": suspend,
    "clock-jump": clock_jump,
    "pid-reuse": pid_reuse,
    "reset": reset,
    "neighbour": neighbour,
    "cycling": cycling,
    "worse-cooler": worse_cooler,
    "hotspot": hotspot,
}
