"""`quiet`: nothing to hear."""

from gpuwhyd.engine.causes.facts import Facts, Finding
from gpuwhyd.engine.causes.idle_clocks import clocks_evidence
from gpuwhyd.engine.causes.monitor import watched_evidence
from gpuwhyd.model import Cause, Evidence


def quiet(facts: Facts) -> Finding | None:
    """The card sleeps; its fan is at rest; or it has no fan, and neither work nor heat."""
    if facts.asleep and not facts.fan_is_up:
        return Finding(cause=Cause.QUIET, confidence=0.99, marks=("asleep",))
    if facts.let_go:
        if facts.fan_is_up:
            return None
        return Finding(
            cause=Cause.QUIET, confidence=0.6, marks=("let_go",), evidence=_wasted(facts), suspects=()
        )
    if facts.has_fan:
        rests = not facts.fan_is_up
        return Finding(cause=Cause.QUIET, confidence=0.95, evidence=_wasted(facts)) if rests else None
    return None if facts.working or facts.warm else Finding(cause=Cause.QUIET, confidence=0.95)


def _wasted(facts: Facts) -> tuple[Evidence, ...]:
    """Nothing to hear, and power drawn for nothing all the same."""
    found: tuple[Evidence, ...] = ()
    if facts.watched is not None:
        found += watched_evidence(facts, facts.watched)
    if facts.clocks is not None:
        found += clocks_evidence(facts, facts.clocks)
    return found
