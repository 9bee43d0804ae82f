"""`idle-clocks`: clocks and power stay up though nobody uses the card."""

from gpuwhyd.engine.causes.facts import Facts, Finding, held_for
from gpuwhyd.engine.held_clocks import Held
from gpuwhyd.model import Cause, Evidence


def idle_clocks(facts: Facts) -> Finding | None:
    """They do, and that is more than the heat which programs have left."""
    held = facts.clocks
    if held is None or not facts.is_heard or facts.asleep or facts.let_go:
        return None
    if facts.visible_heat_watts > max(held.watts - held.needed_watts, 0.0):
        return None
    confidence = 0.8 if held.seen_lower else 0.6
    return Finding(
        cause=Cause.IDLE_CLOCKS,
        confidence=confidence,
        evidence=(*clocks_evidence(facts, held), held_for(held.for_seconds)),
        suspects=(),
    )


def clocks_evidence(facts: Facts, held: Held) -> tuple[Evidence, ...]:
    """Also for a fan that has come to rest above such clocks."""
    since_usec = facts.since(held.for_seconds)
    found = [
        Evidence(quantity="idle_power_watts", value=held.watts, unit="W", since_usec=since_usec),
        Evidence(quantity="idle_power_needed_watts", value=held.needed_watts, unit="W"),
    ]
    if not held.seen_lower:
        found.append(Evidence(quantity="idle_power_never_seen_lower", value=1.0))
    if held.performance_state is not None:
        found.append(Evidence(quantity="performance_state", value=f"P{held.performance_state}"))
    for quantity, value in (
        ("core_clock_mhz", held.core_clock_mhz),
        ("memory_clock_mhz", held.memory_clock_mhz),
    ):
        if value is not None:
            found.append(Evidence(quantity=quantity, value=value, unit="MHz"))
    return tuple(found)
