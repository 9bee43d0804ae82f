"""`fan-fault`: a fan does not do what it is told."""

from gpuwhyd.engine.causes.facts import Facts, Finding, held_for
from gpuwhyd.engine.tachometers import FanFault
from gpuwhyd.model import Cause, Evidence

CONFIDENCES = {"stalled": 0.9, "slow": 0.75, "suspected": 0.4}
"""A suspicion never passes 0.5: without a tachometer dust, a closed case and a dead fan look alike."""


def fan_fault(facts: Facts) -> Finding | None:
    """A real tachometer says so; or, without one, the card heats up as if it were so."""
    if facts.fault is None or facts.asleep:
        return None
    return Finding(
        cause=Cause.FAN_FAULT,
        confidence=CONFIDENCES[facts.fault.kind],
        evidence=(
            *_evidence(facts.fault, facts.since(facts.fault.for_seconds)),
            held_for(facts.fault.for_seconds),
        ),
        suspects=None if facts.working or facts.heat_watts > facts.significant_watts else (),
    )


def _evidence(fault: FanFault, since_usec: int) -> tuple[Evidence, ...]:
    found = [
        Evidence(quantity=f"fan_{fault.kind}", value=1.0, since_usec=since_usec),
        Evidence(quantity="fan_told_percent", value=fault.told_percent, unit="%"),
    ]
    if fault.index is not None:
        found.append(Evidence(quantity="fan_index", value=float(fault.index)))
    if fault.label is not None:
        found.append(Evidence(quantity="fan_label", value=fault.label))
    for quantity, value, unit in (
        ("fan_measured_rpm", fault.rpm, "RPM"),
        ("fan_expected_rpm", fault.expected_rpm, "RPM"),
        ("temperature_margin_celsius", fault.margin_celsius, "degC"),
    ):
        if value is not None:
            found.append(Evidence(quantity=quantity, value=value, unit=unit))
    return tuple(found)
