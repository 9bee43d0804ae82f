"""What is said where a fan that CPU and GPU share runs because of the CPU."""

from gpuwhyd.engine.words import (
    SOON_SECONDS,
    as_percent,
    as_watts,
    became,
    duration,
    evidence_of,
    listed,
    number_of,
    opening,
    who,
    who_now,
)
from gpuwhyd.model import Explanation, Suspect

LEADS_WITH = 0.5
"""A program with so much of the heat is named alone."""


def shared_cooler(e: Explanation) -> str:
    if evidence_of(e, "cpu_unknown"):
        hot = (
            f", which is at {round(e.temperature_celsius)} degC" if e.temperature_celsius is not None else ""
        )
        return (
            f"{opening(e)}, probably because of the CPU, which shares the cooler{hot}; what it draws and which programs"
            " keep it busy is not known here."
        )
    if evidence_of(e, "cpu_load_is_over"):
        return _over(e)
    by = f"; {_made(e)}" if _named(e) else ""
    return f"{opening(e)} because the CPU, which shares the cooler, works{by}{_measured(e)}{_unseen(e)}."


def shared_cooler_ended(e: Explanation) -> str:
    by = f"; {_made(e)}" if _named(e) else ""
    return f" because the CPU, which shares the cooler, worked{by}"


def _over(e: Explanation) -> str:
    quiet = e.outlook.quiet_in_seconds
    when = "soon" if quiet is not None and quiet < SOON_SECONDS else f"in about {duration(quiet or 0)}"
    outlook = f"; quiet again {when}" if quiet is not None else ""
    named = _named(e)
    if not named:
        return f"{opening(e)} because of heat that the CPU, which shares the cooler, has left{outlook}."
    leading = named[0]
    return (
        f"{opening(e)} because of heat that {who(leading)} left through the CPU, which shares the cooler;"
        f" it {became(leading)}{outlook}."
    )


def _named(e: Explanation) -> list[Suspect]:
    """The programs that heat through the CPU, those that do so most first."""
    on_cpu = [suspect for suspect in e.suspects if suspect.cpu_share]
    return sorted(on_cpu, key=lambda suspect: -(suspect.cpu_share or 0.0))


def _made(e: Explanation) -> str:
    """`firefox (user anna) made 64 % of the heat`."""
    named = _named(e)
    if len(named) == 1 or named[0].share >= LEADS_WITH:
        return f"{who_now(e, named[0])} made {as_percent(named[0].share)} of the heat"
    several = listed([f"{who_now(e, suspect)} {as_percent(suspect.share)}" for suspect in named[:3]])
    return f"{several} of the heat"


def _measured(e: Explanation) -> str:
    """`: 38 W, 61 to 88 degC`, as far as it is known."""
    parts = []
    average, over = number_of(e, "cpu_average_power_watts"), number_of(e, "cpu_average_over_seconds")
    if average is not None and over is not None:
        guess = "about " if evidence_of(e, "cpu_power_estimated") else ""
        parts.append(f"{guess}{as_watts(average)} on average over {duration(over)}")
    low, now = number_of(e, "cpu_temperature_low_celsius"), number_of(e, "cpu_temperature_celsius")
    if now is not None:
        rose = low is not None and now - low >= 2
        parts.append(f"{round(low or 0)} to {round(now)} degC" if rose else f"{round(now)} degC")
    return f": {', '.join(parts)}" if parts else ""


def _unseen(e: Explanation) -> str:
    if evidence_of(e, "cpu_programs_unknown"):
        return "; which programs keep it busy was not looked at"
    return "" if _named(e) else "; no program stands out"
