"""An explanation -> one sentence that a person understands; and its public form where processes are hidden."""

from collections.abc import Callable
from dataclasses import replace

from gpuwhyd.model import Cause, Explanation, Program, ProgramKind, Report, Suspect

_HIDDEN = Program(kind=ProgramKind.PROCESS, key="hidden", name="a program")
SOON_SECONDS = 10.0
JUST_NOW_SECONDS = 3.0
_PRIVATE_EVIDENCE = frozenset({"last_spike_program"})


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


def evidence_of(explanation: Explanation, quantity: str) -> float | str | None:
    """The value of one piece of evidence, `None` when the explanation has none of that name."""
    return next((item.value for item in explanation.evidence if item.quantity == quantity), None)


def number_of(explanation: Explanation, quantity: str) -> float | None:
    """The same where it is a number."""
    value = evidence_of(explanation, quantity)
    return None if isinstance(value, str) else value


def compose(explanation: Explanation) -> str:
    """The sentence for an explanation; its own `sentence` is not looked at."""
    ended = number_of(explanation, "ended_after_seconds")
    if ended is not None:
        return f"{explanation.gpu_label}: {_ended(explanation, ended)}"
    return f"{explanation.gpu_label}: {_BY_CAUSE[explanation.cause](explanation)}"


def redacted(explanation: Explanation) -> Explanation:
    """The same answer without names, units, users and pids: what any user may see when /proc hides processes."""
    suspects = tuple(replace(s, program=_HIDDEN, process_name=None, pids=()) for s in explanation.suspects)
    evidence = tuple(item for item in explanation.evidence if item.quantity not in _PRIVATE_EVIDENCE)
    public = replace(explanation, suspects=suspects, evidence=evidence)
    return replace(public, sentence=compose(public))


def headline(explanations: tuple[Explanation, ...]) -> str:
    """The answer of the whole machine in one line: the loudest fan first."""
    if not explanations:
        return "No GPU found; `gpuwhy doctor` tells what was looked at."
    active = [e for e in explanations if e.cause is not Cause.QUIET]
    if not active:
        if len(explanations) == 1:
            return explanations[0].sentence
        return f"All {len(explanations)} GPUs are quiet."
    loudest = max(active, key=lambda e: (e.fan_percent or 0.0, e.fan_rpm or 0.0, e.power_watts or 0.0))
    rest = len(active) - 1
    return loudest.sentence + (f" ({rest} more: see `gpuwhy`.)" if rest else "")


def redacted_headline(report: Report) -> str:
    """`report.headline` as any user may see it."""
    if not report.snapshot.processes_hidden:
        return report.headline
    return headline(tuple(redacted(e) for e in report.explanations.values()))


def _percent(share: float) -> str:
    return f"{min(round(share * 100), 100)} %"


def _watts(value: float) -> str:
    return f"{round(value)} W"


def _fan(e: Explanation) -> str:
    if e.fan_percent is not None and not evidence_of(e, "fan_percent_untrusted"):
        return f"{round(e.fan_percent)} %"
    if e.fan_rpm is not None:
        return f"{round(e.fan_rpm)} RPM"
    return "an unknown speed"


def _stands_still(e: Explanation) -> bool:
    if e.fan_percent is not None and not evidence_of(e, "fan_percent_untrusted"):
        return e.fan_percent == 0
    return not e.fan_rpm


def _who(suspect: Suspect) -> str:
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


def _list(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _several(e: Explanation) -> str:
    return _list([f"{_who(s)} {_percent(s.share)}" for s in e.suspects[:3]])


def _measured(e: Explanation) -> str:
    """`: 212 W on average over 3 min, 52 to 78 degC`, as far as it is known."""
    parts = []
    average, over = number_of(e, "average_power_watts"), number_of(e, "average_over_seconds")
    if average is not None and over is not None:
        parts.append(f"{_watts(average)} on average over {duration(over)}")
    low, now = number_of(e, "temperature_low_celsius"), e.temperature_celsius
    if low is not None and now is not None:
        parts.append(f"{round(low)} to {round(now)} degC" if now - low >= 2 else f"{round(now)} degC")
    return f": {', '.join(parts)}" if parts else ""


def _guess(e: Explanation) -> str:
    """What shares rest on where nobody tells who made the card work."""
    return " (a guess, by who holds its memory)" if evidence_of(e, "engine_times_unknown") else ""


def _how_long(e: Explanation) -> str:
    if evidence_of(e, "began_before_start"):
        return " since before gpuwhyd started"
    return f" for {duration(e.for_seconds)}" if e.for_seconds is not None else ""


def _opening(e: Explanation) -> str:
    if evidence_of(e, "no_fan"):
        power = f"; {_watts(e.power_watts)}" if e.power_watts is not None else ""
        return f"no fan of its own{power}"
    if (
        e.for_seconds is not None
        and e.for_seconds < JUST_NOW_SECONDS
        and not evidence_of(e, "began_before_start")
    ):
        return f"fan rose to {_fan(e)}"
    return f"fan at {_fan(e)}{_how_long(e)}"


def _ended(e: Explanation, after_seconds: float) -> str:
    """A spike that is over: the suspects are those of its hottest moment."""
    by = evidence_of(e, "ended_by")
    if by == "removed":
        over = f"the card went away {duration(after_seconds)} after its fan had risen"
    elif by == "reboot":
        over = "the machine was restarted while the fan was up"
    elif by == "new-rest":
        over = f"fan at a new rest level after {duration(after_seconds)}"
    else:
        over = f"fan back at rest after {duration(after_seconds)}"
    peak = number_of(e, "peak_fan_percent")
    height = f"at up to {round(peak)} %" if peak else "up"
    if e.cause is Cause.MANUAL_FAN:
        return f"{over}; it had been {height}, set by hand or by a fan-control program."
    if not e.suspects or e.cause in {Cause.HIDDEN_WORKLOAD, Cause.UNKNOWN}:
        return f"{over}; it had been {height} and no visible program explains it."
    if e.cause is Cause.WORKLOAD_MIXED:
        return f"{over}; it had been {height} because several programs heated it together, {_several(e)}."
    leading = e.suspects[0]
    return f"{over}; it had been {height} because {_who(leading)} made {_percent(leading.share)} of its heat."


def _worker(e: Explanation) -> Suspect | None:
    """Who heats the card now; nobody while it draws no more than at idle."""
    if number_of(e, "average_power_watts") is None:
        return None
    return next((s for s in e.suspects if s.stopped_seconds_ago is None), None)


def _quiet(e: Explanation) -> str:
    if evidence_of(e, "asleep"):
        now = "asleep"
    elif evidence_of(e, "let_go"):
        now = "idle, and let alone for a while so that it can fall asleep"
    elif evidence_of(e, "no_fan"):
        now = f"{_opening(e)}, little to do"
    elif e.fan_percent is None and e.fan_rpm is None:
        now = "it does not tell its fan's speed"
    elif _stands_still(e):
        now = "quiet, the fan stands still"
    else:
        now = f"quiet, the fan rests at {_fan(e)}"
    worker = _worker(e)
    if worker is not None:
        now += f", while {_who(worker)} uses the card"
    ago, program = number_of(e, "last_spike_seconds_ago"), evidence_of(e, "last_spike_program")
    if ago is not None:
        because = f" because of {program}" if program else ""
        return f"{now}. It was last up {duration(ago)} ago{because}."
    return f"{now}."


def _workload(e: Explanation) -> str:
    leading = e.suspects[0]
    if evidence_of(e, "no_fan"):
        return f"{_opening(e)}, {_percent(leading.share)} of its heat by {_who(leading)}{_guess(e)}."
    made = f"{_who(leading)} made {_percent(leading.share)} of its heat{_guess(e)}"
    return f"{_opening(e)} because {made}{_measured(e)}."


def _workload_mixed(e: Explanation) -> str:
    return f"{_opening(e)} because several programs heat it together, {_several(e)}{_guess(e)}{_measured(e)}."


def _residual_heat(e: Explanation) -> str:
    quiet = e.outlook.quiet_in_seconds
    when = "soon" if quiet is not None and quiet < SOON_SECONDS else f"in about {duration(quiet or 0)}"
    outlook = f"; quiet again {when}" if quiet is not None else ""
    if not e.suspects:
        return f"{_opening(e)}, cooling down from a load that is over{outlook}."
    leading = e.suspects[0]
    how = "exited" if not leading.alive else "stopped working"
    if leading.alive and leading.stopped_seconds_ago is None:
        how = "does little now"
    ago = f" {duration(leading.stopped_seconds_ago)} ago" if leading.stopped_seconds_ago is not None else ""
    others = len(e.suspects) - 1
    more = f" and {others} other program{'s' if others > 1 else ''}" if others and leading.share < 0.6 else ""
    return f"{_opening(e)} because of the heat that {_who(leading)}{more} left, which {how}{ago}{outlook}."


def _hidden_workload(e: Explanation) -> str:
    return (
        f"{_opening(e)} because the card works, but no process that can be seen from here explains it"
        f"{_measured(e)}. Look into virtual machines, other PID namespaces, MIG instances."
    )


def _manual_fan(e: Explanation) -> str:
    temperature = f" ({round(e.temperature_celsius)} degC)" if e.temperature_celsius is not None else ""
    if evidence_of(e, "fan_pinned"):
        text = f"fan pinned at {_fan(e)} and not following the temperature{temperature}"
    else:
        text = f"fan set to {_fan(e)} by hand or by a fan-control program{temperature}"
    worker = _worker(e)
    return f"{text}." + (
        f" Meanwhile {_who(worker)} makes {_percent(worker.share)} of its heat." if worker else ""
    )


def _unknown(e: Explanation) -> str:
    if evidence_of(e, "no_reading"):
        return "no reading at present, its driver does not answer; `gpuwhy doctor` tells more."
    looked = [_watts(e.power_watts)] if e.power_watts is not None else []
    looked += [f"{round(e.temperature_celsius)} degC"] if e.temperature_celsius is not None else []
    seen = f" ({', '.join(looked)})" if looked else ""
    return f"{_opening(e)}; neither its power{seen} nor the programs that use it explain why."


_BY_CAUSE: dict[Cause, Callable[[Explanation], str]] = {
    Cause.QUIET: _quiet,
    Cause.WORKLOAD: _workload,
    Cause.WORKLOAD_MIXED: _workload_mixed,
    Cause.RESIDUAL_HEAT: _residual_heat,
    Cause.HIDDEN_WORKLOAD: _hidden_workload,
    Cause.MANUAL_FAN: _manual_fan,
    Cause.UNKNOWN: _unknown,
}
