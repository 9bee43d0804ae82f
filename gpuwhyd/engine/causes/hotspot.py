"""`hotspot`: the hot spot or the memory drives the fan while the core is cool."""

from gpuwhyd.engine.causes.facts import Facts, Finding, held_for
from gpuwhyd.model import Cause, Evidence


def hotspot(facts: Facts) -> Finding | None:
    """One of them is near its limit, or far above what this card has shown at this core temperature; and the fan is not
    where it always was at this core temperature.
    """
    hot = facts.hot
    if hot is None or not facts.fan_is_up or facts.asleep:
        return None
    quantity = "memory_temperature_celsius" if hot.what == "memory" else "hotspot_celsius"
    evidence = [
        Evidence(quantity=quantity, value=hot.celsius, unit="degC", since_usec=facts.since(hot.for_seconds))
    ]
    if hot.usual_celsius is not None:
        evidence.append(Evidence(quantity="hotspot_usual_celsius", value=hot.usual_celsius, unit="degC"))
    return Finding(
        cause=Cause.HOTSPOT,
        confidence=0.25,
        evidence=(*evidence, held_for(hot.for_seconds)),
    )
