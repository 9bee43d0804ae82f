"""`hotspot`: the hot spot or the memory drives the fan while the core is cool."""

from gpuwhyd.engine.causes.facts import Facts, Finding, held_for
from gpuwhyd.engine.hot_spots import Hot
from gpuwhyd.model import Cause, Evidence

SURE = 0.9
"""Measured, see "How sure" in docs/causes.md."""


def hotspot(facts: Facts) -> Finding | None:
    """One of them is near its limit, or far above what this card has shown at this core temperature; and the core alone
    explains no such fan.
    """
    hot = facts.hot
    if hot is None or not hot.drives_fan or not facts.fan_is_up or facts.asleep:
        return None
    return Finding(cause=Cause.HOTSPOT, confidence=SURE, evidence=_seen(facts, hot))


def hot_beside(facts: Facts, finding: Finding) -> tuple[Evidence, ...]:
    """What is hot while the fan is up for something else, or nobody can say that it is not."""
    if facts.hot is None or not facts.fan_is_up or finding.cause is Cause.HOTSPOT:
        return ()
    return _seen(facts, facts.hot, told_alone=False)


def _seen(facts: Facts, hot: Hot, *, told_alone: bool = True) -> tuple[Evidence, ...]:
    """`told_alone`: for how long is the finding's own, of which there is one."""
    quantity = "memory_temperature_celsius" if hot.what == "memory" else "hotspot_celsius"
    found = [
        Evidence(quantity=quantity, value=hot.celsius, unit="degC", since_usec=facts.since(hot.for_seconds))
    ]
    if hot.usual_celsius is not None:
        found.append(Evidence(quantity="hotspot_usual_celsius", value=hot.usual_celsius, unit="degC"))
    if told_alone:
        found.append(held_for(hot.for_seconds))
    return tuple(found)
