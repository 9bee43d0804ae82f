"""`manual-fan`: somebody or something else than the card governs the fan."""

from gpuwhyd.engine.causes.facts import Facts, Finding
from gpuwhyd.model import Cause

PINNED_PERCENT = 60.0
PINNED_BELOW_CELSIUS = 55.0
PINNED_SECONDS = 120.0
"""No recorded card's own curve holds 60 % below 55 degC; the highest was 44 % there."""


def manual_fan(facts: Facts) -> Finding | None:
    """The fan turns under manual policy; or it is fast, flat and far above what the temperature asks for."""
    if facts.asleep or not facts.has_fan or not facts.fan_turns:
        return None
    # who works is worth telling beside it; little heat is nobody's doing
    suspects = None if facts.working else ()
    if facts.manual:
        return Finding(cause=Cause.MANUAL_FAN, confidence=0.95, suspects=suspects)
    pinned = (
        facts.hot is None  # a fan that cools hot memory does not follow the core
        and facts.fan_percent is not None
        and facts.fan_percent >= PINNED_PERCENT
        and facts.celsius is not None
        and facts.celsius <= PINNED_BELOW_CELSIUS
        and facts.flat_seconds >= PINNED_SECONDS
    )
    if not pinned:
        return None
    return Finding(cause=Cause.MANUAL_FAN, confidence=0.92, marks=("fan_pinned",), suspects=suspects)
