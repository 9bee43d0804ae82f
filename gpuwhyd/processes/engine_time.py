"""Two readings of an engine's counters -> the part of the time in which it worked. Pure."""

from dataclasses import replace

from gpuwhyd.processes.fdinfo import Engine

UNUSED = Engine(busy_nanoseconds=0, cycles=0)
"""An engine as it was before its client was opened."""


def larger(engine: Engine, before: Engine | None) -> Engine:
    """With the larger of each counter: drivers may go back a little, and then catch up (drm-usage-stats.rst)."""
    if before is None:
        return engine
    busy, cycles = before.busy_nanoseconds or 0, before.cycles or 0
    if (engine.busy_nanoseconds or 0) >= busy and (engine.cycles or 0) >= cycles:
        return engine
    return replace(
        engine,
        busy_nanoseconds=None if engine.busy_nanoseconds is None else max(engine.busy_nanoseconds, busy),
        cycles=None if engine.cycles is None else max(engine.cycles, cycles),
    )


def busy_percent(
    engine: Engine, before: Engine | None, seconds: float | None, clock_hertz: float | None = None
) -> float | None:
    """How much of the last `seconds` the engine worked, 0 to 100; None when the counters do not tell.

    `before` None: not known. `seconds` None: no time to compare with. `clock_hertz`: how fast total cycles run, for a
    client without an earlier reading.
    """
    if engine.percent is not None:
        return min(100.0, engine.percent)
    if before is None or seconds is None or seconds <= 0:
        return None
    if engine.busy_nanoseconds is not None and before.busy_nanoseconds is not None:
        worked, whole = engine.busy_nanoseconds - before.busy_nanoseconds, seconds * 1e9
    elif engine.cycles is not None and before.cycles is not None:
        worked, whole = engine.cycles - before.cycles, _all_cycles(engine, before, seconds, clock_hertz)
    else:
        return None
    if whole <= 0:
        return None
    return max(0.0, min(100.0, 100 * worked / (whole * engine.capacity)))


def _all_cycles(engine: Engine, before: Engine, seconds: float, clock_hertz: float | None) -> float:
    """How many cycles went by; 0: not known."""
    if engine.total_cycles is None:
        return (engine.max_frequency_hertz or 0) * seconds
    if before.total_cycles is None:
        return (clock_hertz or 0.0) * seconds
    return engine.total_cycles - before.total_cycles
