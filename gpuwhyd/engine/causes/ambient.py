"""`ambient`: the fan runs at a power at which it used to rest, because all around is hotter or the cooler is worse."""

from gpuwhyd.engine.causes.facts import Facts, Finding
from gpuwhyd.model import Cause, Evidence

WORSE_PART = 0.2
"""Some 8 K on a card that warms by 40: more than a warm room makes, and what a sensor or a fit is wrong by many times over."""

SURE = 0.9
"""Measured: see "How sure" in docs/causes.md."""


def ambient(facts: Facts) -> Finding | None:
    """It warms clearly more than it used to, and but for that the fan would rest."""
    worse = facts.worse
    if worse is None or not worse.rested_before or worse.loss_part < WORSE_PART:
        return None
    if not facts.fan_is_up or not (facts.working or facts.warm):
        return None
    return Finding(
        cause=Cause.AMBIENT,
        confidence=SURE,
        evidence=(Evidence(quantity="cooling_loss_percent", value=100 * worse.loss_part, unit="%"),),
    )
