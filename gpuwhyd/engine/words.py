"""The words that sentences share: durations, speeds, names of programs, what was measured."""

from gpuwhyd.model import Explanation, Suspect

JUST_NOW_SECONDS = 3.0
SOON_SECONDS = 10.0
BUSY_PERCENT = 0.5
"""Engine time that is shown as 1 % or more."""


def duration(seconds: float) -> str:
    """`40 s`, `3 min`, `1 h 20 min`, `2 d 3 h`: no false precision."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def texts_of(explanation: Explanation, quantity: str) -> list[str]:
    """The values of all evidence of that name: `kept_awake_by` may stand there for several programs."""
    return [str(item.value) for item in explanation.evidence if item.quantity == quantity]


def evidence_of(explanation: Explanation, quantity: str) -> float | str | None:
    """The value of one piece of evidence, `None` when the explanation has none of that name."""
    for item in explanation.evidence:
        if item.quantity == quantity:
            return item.value
    return None


def number_of(explanation: Explanation, quantity: str) -> float | None:
    """The same where it is a number."""
    value = evidence_of(explanation, quantity)
    return None if isinstance(value, str) else value


def is_of_the_machine(e: Explanation) -> bool:
    """It is about a fan of the machine itself, which the label names."""
    return e.gpu_id.startswith("chassis_")


def as_percent(share: float) -> str:
    return f"{min(round(share * 100), 100)} %"


def as_watts(value: float) -> str:
    return f"{round(value)} W"


def fan_speed(e: Explanation) -> str:
    if e.fan_percent is not None and not evidence_of(e, "fan_percent_untrusted"):
        return f"{round(e.fan_percent)} %"
    if e.fan_rpm is not None:
        return f"{round(e.fan_rpm)} RPM"
    return "an unknown speed"


def stands_still(e: Explanation) -> bool:
    if e.fan_percent is not None and not evidence_of(e, "fan_percent_untrusted"):
        return e.fan_percent == 0
    return not e.fan_rpm


def who(suspect: Suspect) -> str:
    """`ollama.service (ollama, pid 4242, user ollama)`, shorter where less is known."""
    program, details = suspect.program, []
    if suspect.process_name and suspect.process_name != program.name:
        details.append(suspect.process_name)
    if len(suspect.pids) == 1:
        details.append(f"pid {suspect.pids[0]}")
    elif len(suspect.pids) > 1:
        details.append(f"{len(suspect.pids)} processes")
    if program.user:
        details.append(f"user {program.user}")
    return f"{program.name} ({', '.join(details)})" if details else program.name


def who_now(e: Explanation, suspect: Suspect) -> str:
    """The same, with how long ago it exited: what follows is said of it as if it lived. Of a spike that is over it is not."""
    if suspect.alive or evidence_of(e, "ended_after_seconds") is not None:
        return who(suspect)
    return f"{who(suspect)}, which exited{_ago(suspect.stopped_seconds_ago)},"


def became(suspect: Suspect) -> str:
    """`exited 2 min ago`, `stopped working 40 s ago`, `does little now`: of one whose load is over."""
    ago = suspect.stopped_seconds_ago
    if suspect.alive and (ago is None or (suspect.engine_percent or 0.0) >= BUSY_PERCENT):
        return "does little now"
    return f"{'stopped working' if suspect.alive else 'exited'}{_ago(ago)}"


def _ago(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f" {duration(seconds)} ago" if seconds >= 1 else " just now"


def listed(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def several(e: Explanation) -> str:
    return listed([f"{who_now(e, s)} {as_percent(s.share)}" for s in e.suspects[:3]])


def measured(e: Explanation) -> str:
    """`: 212 W on average over 3 min, 52 to 78 degC`, as far as it is known."""
    parts = []
    average, over = number_of(e, "average_power_watts"), number_of(e, "average_over_seconds")
    if average is not None and over is not None:
        parts.append(f"{as_watts(average)} on average over {duration(over)}")
    low, now = number_of(e, "temperature_low_celsius"), e.temperature_celsius
    if low is not None and now is not None:
        parts.append(f"{round(low)} to {round(now)} degC" if now - low >= 2 else f"{round(now)} degC")
    return f": {', '.join(parts)}" if parts else ""


def settles(e: Explanation) -> str:
    """`; it will settle at about 65 %`, while the fan rises and that is known."""
    coming, now = e.outlook.peak_fan_percent, e.fan_percent
    if coming is None or now is None or evidence_of(e, "fan_percent_untrusted"):
        return ""
    return f"; it will settle at about {round(coming)} %"


def guess(e: Explanation) -> str:
    """What shares rest on where nobody tells who made the card work."""
    return (
        " (a guess, by who holds its memory and since when)" if evidence_of(e, "engine_times_unknown") else ""
    )


def how_long(e: Explanation) -> str:
    if evidence_of(e, "began_before_start"):
        return " since before gpuwhyd started"
    return f" for {duration(e.for_seconds)}" if e.for_seconds is not None else ""


def opening(e: Explanation) -> str:
    if evidence_of(e, "no_fan"):
        power = f"; {as_watts(e.power_watts)}" if e.power_watts is not None else ""
        return f"no fan of its own{power}"
    if (
        e.for_seconds is not None
        and e.for_seconds < JUST_NOW_SECONDS
        and not evidence_of(e, "began_before_start")
    ):
        return f"fan rose to {fan_speed(e)}"
    return f"fan at {fan_speed(e)}{how_long(e)}"


def worker(e: Explanation) -> Suspect | None:
    """Who heats the card now; nobody while it draws no more than at idle."""
    if number_of(e, "average_power_watts") is None:
        return None
    return next((s for s in e.suspects if s.stopped_seconds_ago is None), None)


def meanwhile(e: Explanation) -> str:
    """Who works, where that is not the reason."""
    working = worker(e)
    return f" Meanwhile {who(working)} makes {as_percent(working.share)} of its heat." if working else ""
