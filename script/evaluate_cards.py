"""What scenarios are made of: a random card, and a program on it."""

import random

from script.evaluate_world import CardKind, Program


def card(rng: random.Random, *, pinned: bool = False) -> CardKind:
    """A card within the measured ranges; at full load it reaches 65 to 85 degC."""
    limit = rng.uniform(120, 350)
    ambient, zero_rpm = rng.uniform(19, 27), rng.random() < 0.4
    rest = 0.0 if zero_rpm else rng.uniform(20, 41)
    kelvin = rng.uniform(38, 50)
    """At full load and full fan."""
    die_part, fast_part = rng.uniform(0.2, 0.35), rng.uniform(0.25, 0.4)
    start = rng.uniform(50, 60) if zero_rpm else rng.uniform(45, 52)
    return CardKind(
        name=f"Card {limit:.0f} W",
        idle_watts=rng.uniform(8, 30),
        limit_watts=round(limit),
        ambient_celsius=ambient,
        die_kelvin_per_watt=die_part * kelvin / limit,
        fast_kelvin_per_watt=fast_part * kelvin / limit,
        slow_kelvin_per_watt=(1 - die_part - fast_part) * kelvin / limit,
        fast_seconds=rng.uniform(10, 40),
        slow_seconds=rng.uniform(140, 300),
        rest_percent=rest,
        start_celsius=start,
        stop_below_kelvin=rng.uniform(3, 10),
        percent_per_kelvin=rng.uniform(1.4, 2.6),
        start_percent=rng.uniform(20, 30) if zero_rpm else rest,
        slew_up=rng.uniform(0.3, 1.4),
        slew_down=rng.uniform(0.3, 1.5),
        filter_seconds=rng.uniform(2, 8),
        top_rpm=rng.uniform(2200, 4000),
        pinned_percent=rng.uniform(65, 100) if pinned else None,
    )


def watts_per_percent(rng: random.Random, kind: CardKind) -> float:
    """Programs of the same engine time differ by up to 20 % in what they draw."""
    return (kind.limit_watts - kind.idle_watts) / 100 * rng.uniform(0.9, 1.1) * 0.95


def program(
    rng: random.Random,
    kind: CardKind,
    number: int,
    start: float,
    length: float,
    percent: float,
    **more: object,
) -> Program:
    return Program(
        name=f"program-{number}.service",
        pid=1000 * number,
        start_seconds=start,
        stop_seconds=start + length,
        engine_percent=percent,
        watts_per_percent=watts_per_percent(rng, kind),
        **more,  # type: ignore[arg-type]
    )
