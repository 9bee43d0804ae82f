"""What programs do to a card: `workload`, `workload-mixed`, `residual-heat` and `hidden-workload`."""

from gpuwhyd.engine.causes.facts import Facts, Finding, quality
from gpuwhyd.engine.suspects import VISIBLE_SHARE
from gpuwhyd.model import Cause

DOMINANT_SHARE = 0.6
"""One suspect with this much of the heat is the answer; with less, when it has twice that of the next."""


def residual_heat(facts: Facts) -> Finding | None:
    """The load is over: the card draws no more than at idle and cools down from what the ledger knows."""
    if facts.working:
        return None
    if facts.warm:
        confidence = (0.5 + 0.45 * facts.visible_share) * quality(facts)
        return Finding(cause=Cause.RESIDUAL_HEAT, confidence=confidence)
    if facts.trend == "falling":
        return Finding(cause=Cause.RESIDUAL_HEAT, confidence=0.5)
    if facts.let_go:  # its fan was up when it was last seen
        return Finding(cause=Cause.RESIDUAL_HEAT, confidence=0.4, marks=("let_go",))
    return None


def workload(facts: Facts) -> Finding | None:
    """One suspect's heat dominates."""
    if not facts.warm or not facts.suspects or facts.visible_share < VISIBLE_SHARE:
        return None
    leading = facts.suspects[0].share
    second = facts.suspects[1].share if len(facts.suspects) > 1 else 0.0
    if leading >= DOMINANT_SHARE or (leading >= 2 * second and leading >= facts.unattributed_share):
        return Finding(cause=Cause.WORKLOAD, confidence=(0.35 + 0.6 * leading) * quality(facts))
    return None


def workload_mixed(facts: Facts) -> Finding | None:
    """Several suspects made the heat together."""
    visible = facts.visible_share
    if not facts.warm or len(facts.suspects) < 2 or visible < VISIBLE_SHARE:
        return None
    return Finding(cause=Cause.WORKLOAD_MIXED, confidence=(0.35 + 0.55 * visible) * quality(facts))


def hidden_workload(facts: Facts) -> Finding | None:
    """The card works, but what is visible explains less than half of its heat."""
    if not facts.working or not facts.warm:
        return None
    confidence = (0.4 + 0.5 * facts.unattributed_share) * quality(facts)
    return Finding(cause=Cause.HIDDEN_WORKLOAD, confidence=confidence)
