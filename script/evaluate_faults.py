"""Scenarios of cards that have got worse, over days; the same card without its fault tells what is right."""

import random
from dataclasses import replace

from script.evaluate_cards import card, program
from script.evaluate_world import CardKind, Fault, Program, Scenario, Session, Spot

DAY_SECONDS = 86_400.0
DAYS_SAMPLE_SECONDS = 6.0
"""Days that are only remembered are sampled no finer than they must be; the last one is as all others."""
THROTTLE_CELSIUS = 108.0
"""Hot spots and memory get no hotter: the card slows down before."""


def _days(
    rng: random.Random, kinds: list[CardKind], percent: tuple[float, float]
) -> tuple[list[Session], list[Program], float]:
    """One day for each kind, one to ten days apart, on each one or two loads of so many percent -> and the end."""
    sessions, programs, now = list[Session](), list[Program](), 0.0
    for number, kind in enumerate(kinds):
        begin = now + 100
        at = begin + rng.uniform(90, 150)
        for load in range(rng.choice((1, 1, 2))):
            length = rng.uniform(240, 330)
            programs.append(program(rng, kind, 10 + 2 * number + load, at, length, rng.uniform(*percent)))
            at += length + 420
        sessions.append(Session(begin=begin, end=at, kind=kind, sample_seconds=DAYS_SAMPLE_SECONDS))
        now = begin + DAY_SECONDS * rng.randint(1, 10) + rng.uniform(-7200, 7200)
    return sessions, programs, now


def _worn(
    rng: random.Random,
    seed: int,
    story: str,
    days: list[CardKind],
    today: CardKind,
    percent: float,
    cause: str,
) -> Scenario:
    """Days that went before, and one on which a program works at so many percent."""
    sessions, programs, now = _days(rng, days, (75, 100))
    begin = now + 100
    start, length = begin + rng.uniform(90, 180), rng.uniform(300, 600)
    programs.append(program(rng, today, 1, start, length, percent, exits=rng.random() < 0.5))
    end = start + length + 700
    sound = days[0] if days else today
    return Scenario(
        seed=seed,
        story=story,
        kind=today,
        programs=tuple(programs),
        seconds=end,
        sessions=(*sessions, Session(begin=begin, end=end, kind=today)),
        fault=Fault(cause=cause, sound=sound),
    )


def worse_cooler(rng: random.Random, seed: int, story: str) -> Scenario:
    """Dust on the cooler, paste that dries, or a hotter room, at once or over weeks; or nothing of it. Then a load at which
    the fan used to rest, or one at which it did not.
    """
    sound = card(rng)
    what = rng.choice(("dust", "dust", "paste", "room", "nothing"))
    more, slowly = rng.uniform(0.2, 0.6), rng.random() < 0.5
    die, warmer = rng.uniform(0.6, 1.6), rng.uniform(5, 10)

    def worn(part: float) -> CardKind:
        if what == "dust":  # air takes less from the same metal
            resistance = 1 + more * part
            return replace(
                sound,
                fast_kelvin_per_watt=sound.fast_kelvin_per_watt * resistance,
                slow_kelvin_per_watt=sound.slow_kelvin_per_watt * resistance,
                slow_seconds=sound.slow_seconds * resistance,
            )
        if what == "paste":
            return replace(sound, die_kelvin_per_watt=sound.die_kelvin_per_watt * (1 + die * part))
        if what == "room":
            return replace(sound, ambient_celsius=sound.ambient_celsius + warmer * part)
        return sound

    before, since = rng.randint(7, 10), rng.randint(3, 6)
    parts = [0.0] * before + [((n + 1) / since if slowly else 1.0) for n in range(since)]
    if rng.random() < 0.6:
        below = rng.uniform(1.5, 6)
        air = 2.2 - 1.2 * (sound.rest_percent / 100) ** 0.5
        per_watt = sound.die_kelvin_per_watt + air * (sound.fast_kelvin_per_watt + sound.slow_kelvin_per_watt)
        watts = (sound.start_celsius - below - sound.ambient_celsius) / per_watt - sound.idle_watts
        percent = 105 * watts / (sound.limit_watts - sound.idle_watts)
    else:
        percent = rng.uniform(60, 100)
    percent = max(10.0, min(100.0, percent))
    return _worn(rng, seed, story, [worn(part) for part in parts], worn(1.0), percent, "ambient")


def hotspot(rng: random.Random, seed: int, story: str) -> Scenario:
    """A hot spot or memory that paste or pads do not cool, since ever or since today; or one that is as it should be."""
    kind = card(rng)
    is_memory = rng.random() < 0.3
    full = kind.limit_watts
    usual = rng.uniform(15, 28) if is_memory else rng.uniform(8, 20)
    begins = rng.uniform(88, 94) if is_memory else rng.uniform(80, 92)
    good = Spot(kelvin_per_watt=usual / full, start_celsius=begins, is_memory=is_memory)
    percent = rng.uniform(35, 100)
    watts = kind.idle_watts + 0.01 * percent * (full - kind.idle_watts)
    core = kind.ambient_celsius + watts * (
        kind.die_kelvin_per_watt + 1.4 * (kind.fast_kelvin_per_watt + kind.slow_kelvin_per_watt)
    )
    bad = replace(
        good,
        kelvin_per_watt=max(
            good.kelvin_per_watt,
            min(good.kelvin_per_watt * rng.uniform(1.8, 3.5), (THROTTLE_CELSIUS - core) / watts),
        ),
    )
    how = rng.choice(("since ever", "since today", "sound"))
    sound, ill = replace(kind, spot=good), replace(kind, spot=bad)
    days = [] if how == "since ever" else [sound] * rng.randint(3, 5)
    made = _worn(rng, seed, story, days, sound if how == "sound" else ill, percent, "hotspot")
    return replace(made, fault=Fault(cause="hotspot", sound=sound))
