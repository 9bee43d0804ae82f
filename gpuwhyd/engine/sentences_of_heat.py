"""What is said where it is not the core's heat that a fan runs for: a hot spot, hot memory, a hot neighbour."""

from gpuwhyd.engine.words import as_percent, as_watts, evidence_of, number_of, opening, several, who_now
from gpuwhyd.model import Explanation

LEADS_WITH = 0.6
"""A program with so much of the heat is named alone."""


def hotspot(e: Explanation) -> str:
    memory, spot, usual = (
        number_of(e, "memory_temperature_celsius"),
        number_of(e, "hotspot_celsius"),
        number_of(e, "hotspot_usual_celsius"),
    )
    core = f" while the core is only at {round(e.temperature_celsius)} degC" if e.temperature_celsius else ""
    if memory is not None:
        hot = f"its memory is at {round(memory)} degC{core}"
        advice = "Work that uses the memory more than the core does that, and so do worn thermal pads"
    else:
        at = f" is at {round(spot)} degC" if spot is not None else " is hot"
        rather = f" ({round(usual)} degC were usual)" if usual is not None else ""
        hot = f"the hottest spot of its chip{at}{rather}{core}"
        advice = "Dried thermal paste or a cooler that sits badly does that"
    return f"{opening(e)} because {hot}{_by(e)}. {advice}."


def hotspot_ended(e: Explanation) -> str:
    return f" because its memory or the hottest spot of its chip was hot while the core was cool{_by(e)}"


def neighbour_heat(e: Explanation) -> str:
    what = evidence_of(e, "neighbour") or "something beside it"
    low, now = number_of(e, "warmed_from_celsius"), e.temperature_celsius
    rose = f" and went from {round(low)} to {round(now)} degC" if low is not None and now is not None else ""
    power = f" ({as_watts(e.power_watts)})" if e.power_watts is not None else ""
    return f"{opening(e)} because {what} is hot and warms it{_by(e, 'there')}. The card itself idles{power}{rose}."


def neighbour_heat_ended(e: Explanation) -> str:
    return f" because something beside the card worked and warmed it{_by(e, 'there')}"


def _by(e: Explanation, where: str = "") -> str:
    """`; miner.service (pid 7) made 91 % of its heat`, as far as somebody is known."""
    heat = f"the heat {where}" if where else "its heat"
    if not e.suspects or e.suspects[0].share <= 0:
        return ""
    if len(e.suspects) == 1 or e.suspects[0].share >= LEADS_WITH:
        return f"; {who_now(e, e.suspects[0])} made {as_percent(e.suspects[0].share)} of {heat}"
    return f"; several programs made {heat} together, {several(e)}"
