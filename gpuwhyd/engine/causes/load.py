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
GUESSED_ALONE, GUESSED, GUESSED_MIXED, GUESSED_BY_MEMORY = 0.9, 0.75, 0.6, 0.68
"""The same where engine times are not known: one program has next to all memory; one or several are the suspects of those who
came with the load; memory alone tells."""


def residual_heat(facts: Facts) -> Finding | None:
    """The load is over: the card draws no more than at idle and cools down from what the ledger knows."""
    if facts.working:
        return None
    if facts.warm:
        confidence = _sure(facts, SURE_IT_IS_OVER) * quality(facts)
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
    dominates = leading >= DOMINANT_SHARE or (leading >= 2 * second and leading >= facts.unattributed_share)
    # that several hold memory is no sign that several work
    by_memory_alone = not facts.engine_times_known and not facts.came_with_load
    if dominates or by_memory_alone:
        confidence = _sure(facts, SURE) * quality(facts)
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


def _sure(facts: Facts, measured: float, guessed: float = GUESSED) -> float:
    """How sure, with engine times and without them."""
    if facts.engine_times_known:
        return measured
    if facts.shares and facts.shares[0] >= ALONE_SHARE:
        return GUESSED_ALONE
    return guessed if facts.came_with_load else GUESSED_BY_MEMORY
