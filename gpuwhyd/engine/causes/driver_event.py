"""`driver-event`: the fan spun up at boot, at a resume, or when the driver was loaded or reset; nothing heats."""

from gpuwhyd.engine.causes.facts import Facts, Finding
from gpuwhyd.model import Cause, Evidence


def driver_event(facts: Facts) -> Finding | None:
    """It rose just after such an event, and the card neither works nor holds heat that is worth a fan."""
    event = facts.driver_event
    if event is None or not facts.fan_is_up or facts.asleep or facts.working:
        return None
    if facts.heat_watts > facts.significant_watts:
        return None
    return Finding(
        cause=Cause.DRIVER_EVENT,
        confidence=0.9,
        evidence=(
            Evidence(quantity="driver_event", value=event.kind, since_usec=facts.since(event.seconds_ago)),
            Evidence(quantity="driver_event_seconds_ago", value=event.seconds_ago, unit="s"),
        ),
        suspects=(),
    )
