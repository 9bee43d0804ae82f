"""`neighbour-heat`: the card gets hotter without power of its own; another GPU or the CPU heats it."""

from gpuwhyd.engine.causes.facts import Facts, Finding
from gpuwhyd.engine.neighbours import CPU
from gpuwhyd.model import Cause, Evidence


def neighbour_heat(facts: Facts) -> Finding | None:
    """It does. Named are the programs that heat the neighbour, with their parts of its heat."""
    warmed = facts.warmed
    if warmed is None or not facts.fan_is_up or facts.asleep or facts.working:
        return None
    return Finding(
        cause=Cause.NEIGHBOUR_HEAT,
        confidence=0.8 if warmed.by.label == CPU else 0.9,
        evidence=(
            Evidence(quantity="neighbour", value=warmed.by.label),
            Evidence(quantity="neighbour_heat_watts", value=warmed.by.heat.ledger.heat_watts, unit="W"),
            Evidence(quantity="warmed_from_celsius", value=warmed.low_celsius, unit="degC"),
        ),
        suspects=facts.neighbours_suspects,
        unattributed_share=warmed.by.heat.ledger.share(warmed.by.heat.ledger.unattributed),
    )
