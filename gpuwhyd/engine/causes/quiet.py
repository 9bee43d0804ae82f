"""`quiet`: nothing to hear."""

from gpuwhyd.engine.causes.facts import Facts, Finding
from gpuwhyd.model import Cause


def quiet(facts: Facts) -> Finding | None:
    """The card sleeps; its fan is at rest; or it has no fan, and neither work nor heat."""
    if facts.asleep:
        return Finding(cause=Cause.QUIET, confidence=0.99, marks=("asleep",))
    if facts.has_fan:
        return None if facts.fan_is_up else Finding(cause=Cause.QUIET, confidence=0.95)
    return None if facts.working or facts.warm else Finding(cause=Cause.QUIET, confidence=0.95)
