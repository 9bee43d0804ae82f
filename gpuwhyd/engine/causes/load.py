"""What programs do to a card: `workload`, `workload-mixed`, `residual-heat` and `hidden-workload`."""

from gpuwhyd.engine.causes.facts import Facts, Finding, quality
from gpuwhyd.engine.suspects import VISIBLE_SHARE
from gpuwhyd.model import Cause

DOMINANT_SHARE = 0.6
"""One suspect with this much of the heat is the answer; with less, when it has twice that of the next."""

# How often such answers, cause and leading suspect, are right: measured, see "How sure" in docs/causes.md.
SURE = 0.97
SURE_IT_IS_OVER = 0.96
SURE_IT_IS_HIDDEN = 0.95
SHARES_CHANGE = 0.5
"""Several programs, of which one of the two foremost works no more: who leads, and whether it dominates, is about to change."""
ALONE_SHARE = 0.95
GUESSED_ALONE, GUESSED, GUESSED_MIXED = 0.9, 0.75, 0.38
"""The same by who holds memory: one program has next to all of it, several have."""


def residual_heat(facts: Facts) -> Finding | None:
    """The load is over: the card draws no more than at idle and cools down from what the ledger knows."""
    if facts.working:
        return None
    if facts.warm:
        confidence = _sure(facts, SURE_IT_IS_OVER, GUESSED) * quality(facts)
        return Finding(cause=Cause.RESIDUAL_HEAT, confidence=confidence)
    if facts.trend == "falling":
        return Finding(cause=Cause.RESIDUAL_HEAT, confidence=0.5)
    if facts.let_go:  # its fan was up when it was last seen
        return Finding(cause=Cause.RESIDUAL_HEAT, confidence=0.4, marks=("let_go",))
    return None


def workload(facts: Facts) -> Finding | None:
    """One suspect's heat dominates."""
    if not facts.warm or not facts.shares or facts.visible_share < VISIBLE_SHARE:
        return None
    leading = facts.shares[0]
    second = facts.shares[1] if len(facts.shares) > 1 else 0.0
    if leading >= DOMINANT_SHARE or (leading >= 2 * second and leading >= facts.unattributed_share):
        confidence = _sure(facts, SURE, GUESSED) * quality(facts)
        return Finding(cause=Cause.WORKLOAD, confidence=confidence)
    return None


def workload_mixed(facts: Facts) -> Finding | None:
    """Several suspects made the heat together."""
    visible = facts.visible_share
    if not facts.warm or len(facts.shares) < 2 or visible < VISIBLE_SHARE:
        return None
    confidence = _sure(facts, SHARES_CHANGE if facts.a_leader_stopped else SURE, GUESSED_MIXED) * quality(
        facts
    )
    return Finding(cause=Cause.WORKLOAD_MIXED, confidence=confidence)


def hidden_workload(facts: Facts) -> Finding | None:
    """The card works, but what is visible explains less than half of its heat."""
    if not facts.working or not facts.warm:
        return None
    return Finding(cause=Cause.HIDDEN_WORKLOAD, confidence=SURE_IT_IS_HIDDEN * quality(facts))


def _sure(facts: Facts, measured: float, guessed: float) -> float:
    """How sure, with engine times and without them."""
    if facts.engine_times_known:
        return measured
    alone = bool(facts.shares) and facts.shares[0] >= ALONE_SHARE
    return GUESSED_ALONE if alone else guessed
