"""What is said where no load is the reason: a fan's fault, clocks that stay up, something that only watches."""

from gpuwhyd.engine.words import (
    as_watts,
    duration,
    evidence_of,
    fan_speed,
    how_long,
    listed,
    meanwhile,
    number_of,
    opening,
    texts_of,
    who,
)
from gpuwhyd.model import Explanation

ADVICE_FAN = "Stop the load, and look whether a cable or dust blocks it"
ADVICE_CLOCKS = "Several monitors or a high refresh rate do that; else the driver has got stuck, which a restart of the session or of the machine ends"
ADVICE_PASSIVE = "A program that keeps the card open does that, also when it does nothing"


def fan_fault(e: Explanation) -> str:
    held = next((item for item in e.evidence if item.quantity in _FAULTS), None)
    return f"{_FAULTS[held.quantity](e)}{meanwhile(e)}" if held is not None else f"{opening(e)}."


def fan_fault_ended(_: Explanation) -> str:
    return ", and it did not do what it was told"


def driver_event(e: Explanation) -> str:
    event = _EVENTS.get(str(evidence_of(e, "driver_event")), "its driver has just come")
    return (
        f"{opening(e)} because {event}: no work is behind it, and it should be over within a minute or two."
    )


def driver_event_ended(_: Explanation) -> str:
    return " because the machine or the card had just started, without any work"


def idle_clocks(e: Explanation) -> str:
    advice = ADVICE_PASSIVE if evidence_of(e, "no_fan") else ADVICE_CLOCKS
    return f"{opening(e)}: nobody uses the card, but {_clocks(e)}. {advice}."


def idle_clocks_ended(_: Explanation) -> str:
    return " because its clocks stayed up though nobody used the card"


def monitor(e: Explanation) -> str:
    kept = "busy" if texts_of(e, "kept_busy_by") else "awake"
    if not e.suspects:
        return (
            f"{opening(e)}; it does nothing and could sleep, but no program that can be seen from here has it open:"
            " gpuwhyd itself, which reads it, may be what keeps it awake."
        )
    holding = listed([who(suspect) for suspect in e.suspects])
    has, keep = ("has", "keeps") if len(e.suspects) == 1 else ("have", "keep")
    return f"{opening(e)}; nobody works on it, but {holding} {has} it open and {keep} it {kept}{_held(e)}."


def monitor_ended(e: Explanation) -> str:
    by = listed([who(suspect) for suspect in e.suspects]) if e.suspects else "gpuwhyd itself"
    return f" because {by} had the card open, on which nobody worked"


def wasted(e: Explanation) -> str:
    """Behind the words for a fan that rests: what keeps the card from sleeping or its clocks up."""
    said = ""
    if by := texts_of(e, "kept_awake_by"):
        said += f"; it could sleep, but {listed(by)} keep{'s' if len(by) == 1 else ''} it awake"
    elif by := texts_of(e, "kept_busy_by"):
        said += f"; nobody works on it, but {listed(by)} keep{'s' if len(by) == 1 else ''} it busy"
    elif evidence_of(e, "kept_awake_by_gpuwhyd"):
        said += "; it could sleep, but gpuwhyd itself, which reads it, may keep it awake"
    if number_of(e, "idle_power_watts") is not None:
        said += f"; nobody uses it, but {_clocks(e)}"
    return said


def _stalled(e: Explanation) -> str:
    return f"{_which(e)} stands still{_held(e)} though it is told to turn at {_told(e)}{_celsius(e)}. {ADVICE_FAN}."


def _slow(e: Explanation) -> str:
    rpm, expected = number_of(e, "fan_measured_rpm"), number_of(e, "fan_expected_rpm")
    speed = f"at {round(rpm)} RPM" if rpm is not None else "slowly"
    before = f" made at least {round(expected)} RPM of it before" if expected is not None else " was faster"
    return (
        f"{_which(e)} turns {speed}{_held(e)} though it is told {_told(e)}, and{before}{_celsius(e)}."
        " Dust, a cable or a worn bearing holds it."
    )


def _suspected(e: Explanation) -> str:
    margin = number_of(e, "temperature_margin_celsius")
    limit = f", {max(0, round(margin))} degC below its limit," if margin is not None else ""
    hot = f" is at {round(e.temperature_celsius)} degC{limit}" if e.temperature_celsius is not None else ""
    power = f" at a steady {as_watts(e.power_watts)}" if e.power_watts is not None else ""
    return (
        f"fan told {fan_speed(e)}{how_long(e)}, but the card{hot} and does not cool{power}: the fan may not turn (it has no"
        " tachometer that tells), or dust or a closed case holds the heat."
    )


_EVENTS = {
    "boot": "the machine has just started, and fans run fast until the card's driver governs them",
    "resume": "the machine has just woken up",
    "wake": "the card has just woken up",
    "load": "its driver has just been loaded",
    "reset": "the card or its driver has just been reset",
}
_FAULTS = {"fan_stalled": _stalled, "fan_slow": _slow, "fan_suspected": _suspected}


def _which(e: Explanation) -> str:
    label, index = evidence_of(e, "fan_label"), number_of(e, "fan_index")
    if label is not None:
        return f'fan "{label}"'
    return "fan" if index is None else f"fan {round(index) + 1}"


def _told(e: Explanation) -> str:
    told = number_of(e, "fan_told_percent")
    return "some speed" if told is None else f"{round(told)} %"


def _celsius(e: Explanation) -> str:
    return "" if e.temperature_celsius is None else f"; the card is at {round(e.temperature_celsius)} degC"


def _held(e: Explanation) -> str:
    seconds = number_of(e, "held_for_seconds")
    return f" for {duration(seconds)}" if seconds is not None else ""


def _clocks(e: Explanation) -> str:
    """`it draws 62 W where 15 W are enough, with its clocks up (P0, memory at 9501 MHz)`."""
    drawn, needed = number_of(e, "idle_power_watts"), number_of(e, "idle_power_needed_watts")
    details = [str(state)] if (state := evidence_of(e, "performance_state")) is not None else []
    for quantity, name in (("core_clock_mhz", "core"), ("memory_clock_mhz", "memory")):
        if (mhz := number_of(e, quantity)) is not None:
            details.append(f"{name} at {round(mhz)} MHz")
    seen = f" ({', '.join(details)})" if details else ""
    power = "it draws power" if drawn is None else f"it draws {as_watts(drawn)}"
    if needed is not None and not evidence_of(e, "idle_power_never_seen_lower"):
        power += f" where {as_watts(needed)} are enough"
    return f"{power} with its clocks up{seen}"
