"""A scenario file for a long simulation: five unlike cards, and a hundred programs that come and go all day."""

import random

SLICE_MINUTES = 120
"""All programs repeat with periods that divide this, so that equal slices of the day hold the same work."""
_HEAVY_PERIODS_MINUTES = (40, 60, 120)
_LIGHT_PERIODS_MINUTES = (5, 8, 10, 12, 15, 20, 30)
_LIGHT_PROGRAMS = 17
"""On each card; with the heavy ones a hundred in all, half of what a scenario may hold."""

_CARDS = (
    ("zero RPM", "[card.fan]\ncount = 2"),
    ("always turning", "[card.fan]\ncount = 1\nzero_rpm = false\nmin_percent = 30"),
    ("loud at rest", "[card.fan]\ncount = 3\nzero_rpm = false\nmin_percent = 41"),
    ("pinned", '[card.fan]\nmode = "manual"'),
    ("without a fan", ""),
)
_OWNERS = (
    "",
    "",
    'unit = "job-{n}.service"',
    'container = "docker:{n:012x}"',
    'app = "org.example.App{n}"\nuser = "anna"\nuid = 1000',
    'user_unit = "work-{n}.service"\nuser = "ben"\nuid = 1001',
)
"""Bare processes twice as often: each of their starts is a program of its own to the daemon."""


def scenario(speed: float, seed: int = 1) -> str:
    """TOML; the same for the same seed."""
    rng = random.Random(seed)
    parts = [f"speed = {speed:g}\nseed = {seed}\n"]
    for name, fan in _CARDS:
        parts.append(f'[[card]]\nname = "{name} (simulated)"\nmemory_mib = 65536\n{fan}\n')
    for card in range(len(_CARDS)):
        for period_minutes in _HEAVY_PERIODS_MINUTES:
            parts.append(_program(rng, len(parts), card, period_minutes, (200, 500), (60, 95)))
        for _ in range(_LIGHT_PROGRAMS):
            period_minutes = rng.choice(_LIGHT_PERIODS_MINUTES)
            parts.append(_program(rng, len(parts), card, period_minutes, (3, 90), (0, 3)))
    return "\n".join(parts)


def starts(text: str, seconds: float) -> int:
    """How many processes a scenario has started by that moment of it."""
    begun = 0
    start_seconds = 0.0
    for line in text.splitlines():
        key, _, value = line.partition(" = ")
        if key == "start":
            start_seconds = _duration_seconds(value)
        elif key == "repeat" and seconds >= start_seconds:
            begun += 1 + int((seconds - start_seconds) // _duration_seconds(value))
    return begun


def _program(
    rng: random.Random,
    number: int,
    card: int,
    period_minutes: int,
    life_seconds: tuple[int, int],
    percent: tuple[int, int],
) -> str:
    start = rng.randrange(period_minutes * 60)
    life = rng.randint(*life_seconds)
    owner = rng.choice(_OWNERS).format(n=number)
    return (
        f'[[program]]\nname = "program-{number}"\ncard = {card}\nstart = "{start}s"\nexit = "{start + life}s"\n'
        f'repeat = "{period_minutes * 60}s"\nload = [["0s", {rng.randint(*percent)}], ["{life / 2}s", {rng.randint(*percent)}]]\n'
        f"memory_mib = {rng.randint(100, 2000)}\n{owner}\n"
    )


def _duration_seconds(value: str) -> float:
    return float(value.strip('"').removesuffix("s"))
