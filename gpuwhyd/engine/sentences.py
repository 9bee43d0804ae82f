"""An explanation -> one sentence that a person understands; and its public form where processes are hidden."""

from collections.abc import Callable
from dataclasses import replace

from gpuwhyd.engine.sentences_of_heat import hotspot, hotspot_ended, neighbour_heat, neighbour_heat_ended
from gpuwhyd.engine.sentences_of_the_cpu import shared_cooler, shared_cooler_ended
from gpuwhyd.engine.sentences_without_load import (
    driver_event,
    driver_event_ended,
    fan_fault,
    fan_fault_ended,
    idle_clocks,
    idle_clocks_ended,
    monitor,
    monitor_ended,
    wasted,
)
from gpuwhyd.engine.words import (
    SOON_SECONDS,
    as_percent,
    as_watts,
    became,
    duration,
    evidence_of,
    fan_speed,
    guess,
    is_of_the_machine,
    meanwhile,
    measured,
    number_of,
    opening,
    settles,
    several,
    stands_still,
    who,
    who_now,
    worker,
)
from gpuwhyd.model import Cause, Evidence, Explanation, Program, ProgramKind, Report

ADVICE_COOLER = "Hotter surroundings or a worse cooler: dust, a blocked intake, dried paste"
_HIDDEN = Program(kind=ProgramKind.PROCESS, key="hidden", name="a program")
_PRIVATE_EVIDENCE = frozenset({"last_spike_program"})
_NAMES_PROGRAM = frozenset({"kept_awake_by", "kept_busy_by"})


def compose(explanation: Explanation) -> str:
    """The sentence for an explanation; its own `sentence` is not looked at."""
    ended = number_of(explanation, "ended_after_seconds")
    said = _BY_CAUSE[explanation.cause](explanation) if ended is None else _ended(explanation, ended)
    if is_of_the_machine(explanation):  # `ThinkPad P53 fan: at 4200 RPM`
        said = said.removeprefix("fan ")
    return f"{explanation.gpu_label}: {said}"


def redacted(explanation: Explanation) -> Explanation:
    """The same answer without names, units, users and pids: what any user may see when /proc hides processes."""
    suspects = tuple(replace(s, program=_HIDDEN, process_name=None, pids=()) for s in explanation.suspects)
    public = replace(explanation, suspects=suspects, evidence=_redacted(explanation.evidence))
    return replace(public, sentence=compose(public))


def _redacted(evidence: tuple[Evidence, ...]) -> tuple[Evidence, ...]:
    """That a program keeps a card awake is no secret; which one it is, is."""
    kept: list[Evidence] = []
    for item in evidence:
        if item.quantity in _NAMES_PROGRAM:
            item = replace(item, value=_HIDDEN.name)  # noqa: PLW2901
        if item.quantity not in _PRIVATE_EVIDENCE and item not in kept:
            kept.append(item)
    return tuple(kept)


def headline(explanations: tuple[Explanation, ...]) -> str:
    """The answer of the whole machine in one line: the loudest fan first."""
    if not explanations:
        return "No GPU found; `gpuwhy doctor` tells what was looked at."
    active = [e for e in explanations if e.cause is not Cause.QUIET]
    if not active:
        if len(explanations) == 1:
            return explanations[0].sentence
        fans = " and fans" if any(is_of_the_machine(e) for e in explanations) else ""
        return f"All {len(explanations)} GPUs{fans} are quiet."
    loudest = max(active, key=lambda e: (e.fan_percent or 0.0, e.fan_rpm or 0.0, e.power_watts or 0.0))
    rest = len(active) - 1
    return loudest.sentence + (f" ({rest} more: see `gpuwhy`.)" if rest else "")


def redacted_headline(report: Report) -> str:
    """`report.headline` as any user may see it."""
    if not report.snapshot.processes_hidden:
        return report.headline
    return headline(tuple(redacted(e) for e in report.explanations.values()))


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
    if (told := _ENDED_BY_CAUSE.get(e.cause)) is not None:
        return f"{over}; it had been {height}{told(e)}."
    if not e.suspects or e.cause in {Cause.HIDDEN_WORKLOAD, Cause.UNKNOWN}:
        return f"{over}; it had been {height} and no visible program explains it."
    if e.cause is Cause.WORKLOAD_MIXED:
        return f"{over}; it had been {height} because several programs heated it together, {several(e)}."
    leading = e.suspects[0]
    return (
        f"{over}; it had been {height} because {who(leading)} made {as_percent(leading.share)} of its heat."
    )


def _quiet(e: Explanation) -> str:
    if evidence_of(e, "asleep"):
        now = "asleep"
    elif evidence_of(e, "let_go"):
        now = "idle, and let alone for a while so that it can fall asleep"
    elif evidence_of(e, "no_fan"):
        now = f"{opening(e)}, little to do"
    elif e.fan_percent is None and e.fan_rpm is None:
        now = "it does not tell its fan's speed"
    elif stands_still(e):
        now = "quiet, the fan stands still"
    else:
        now = f"quiet, the fan rests at {fan_speed(e)}"
    working = worker(e)
    if working is not None and not is_of_the_machine(e):
        now += f", while {who(working)} uses the card"
    ago, program = number_of(e, "last_spike_seconds_ago"), evidence_of(e, "last_spike_program")
    now += wasted(e)
    if ago is not None:
        because = f" because of {program}" if program else ""
        return f"{now}. It was last up {duration(ago)} ago{because}."
    return f"{now}."


def _workload(e: Explanation) -> str:
    leading = e.suspects[0]
    if evidence_of(e, "no_fan"):
        by = who_now(e, leading).removesuffix(",")
        return f"{opening(e)}, {as_percent(leading.share)} of its heat by {by}{guess(e)}."
    made = f"{who_now(e, leading)} made {as_percent(leading.share)} of its heat{guess(e)}"
    return f"{opening(e)} because {made}{measured(e)}{settles(e)}."


def _workload_mixed(e: Explanation) -> str:
    heat = "heat" if all(suspect.alive for suspect in e.suspects[:3]) else "heated"
    return f"{opening(e)} because several programs {heat} it together, {several(e)}{guess(e)}{measured(e)}{settles(e)}."


def _ambient(e: Explanation) -> str:
    loss = number_of(e, "cooling_loss_percent")
    more = f"{round(loss)} % more" if loss is not None else "more"
    return (
        f"{opening(e)} though its fan used to rest at this load: the card warms {more} for the same power than before."
        f" {ADVICE_COOLER}.{meanwhile(e)}"
    )


def _residual_heat(e: Explanation) -> str:
    quiet = e.outlook.quiet_in_seconds
    when = "soon" if quiet is not None and quiet < SOON_SECONDS else f"in about {duration(quiet or 0)}"
    outlook = f"; quiet again {when}" if quiet is not None else ""
    if not e.suspects:
        return f"{opening(e)}, cooling down from a load that is over{outlook}."
    leading = e.suspects[0]
    others = len(e.suspects) - 1
    more = ""
    if others and leading.share < 0.6:
        more = f", and by {others} other programs" if others > 1 else ", and by another program"
    return f"{opening(e)} because of heat left by {who(leading)}, which {became(leading)}{more}{outlook}."


def _hidden_workload(e: Explanation) -> str:
    what = "a GPU that it cools" if is_of_the_machine(e) else "the card"
    return (
        f"{opening(e)} because {what} works, but no process that can be seen from here explains it"
        f"{measured(e)}. Look into virtual machines, containers whose processes are hidden,"
        " and slices of the card (MIG)."
    )


def _manual_fan(e: Explanation) -> str:
    temperature = f" ({round(e.temperature_celsius)} degC)" if e.temperature_celsius is not None else ""
    if evidence_of(e, "fan_pinned"):
        text = f"fan pinned at {fan_speed(e)} and not following the temperature{temperature}"
    else:
        text = f"fan set to {fan_speed(e)} by hand or by a fan-control program{temperature}"
    return f"{text}.{meanwhile(e)}"


def _unknown(e: Explanation) -> str:
    if evidence_of(e, "no_reading"):
        return "no reading at present, its driver does not answer; `gpuwhy doctor` tells more."
    looked = [as_watts(e.power_watts)] if e.power_watts is not None else []
    looked += [f"{round(e.temperature_celsius)} degC"] if e.temperature_celsius is not None else []
    seen = f" ({', '.join(looked)})" if looked else ""
    cpu = " What the CPU does is not known here." if evidence_of(e, "cpu_unknown") else ""
    return f"{opening(e)}; neither its power{seen} nor the programs that use it explain why.{cpu}"


_ENDED_BY_CAUSE: dict[Cause, Callable[[Explanation], str]] = {
    Cause.DRIVER_EVENT: driver_event_ended,
    Cause.AMBIENT: lambda _: " because the card warms more than it used to",
    Cause.FAN_FAULT: fan_fault_ended,
    Cause.HOTSPOT: hotspot_ended,
    Cause.IDLE_CLOCKS: idle_clocks_ended,
    Cause.MANUAL_FAN: lambda _: ", set by hand or by a fan-control program",
    Cause.MONITOR: monitor_ended,
    Cause.NEIGHBOUR_HEAT: neighbour_heat_ended,
    Cause.SHARED_COOLER: shared_cooler_ended,
}

_BY_CAUSE: dict[Cause, Callable[[Explanation], str]] = {
    Cause.QUIET: _quiet,
    Cause.WORKLOAD: _workload,
    Cause.AMBIENT: _ambient,
    Cause.WORKLOAD_MIXED: _workload_mixed,
    Cause.RESIDUAL_HEAT: _residual_heat,
    Cause.HIDDEN_WORKLOAD: _hidden_workload,
    Cause.MONITOR: monitor,
    Cause.IDLE_CLOCKS: idle_clocks,
    Cause.HOTSPOT: hotspot,
    Cause.MANUAL_FAN: _manual_fan,
    Cause.FAN_FAULT: fan_fault,
    Cause.NEIGHBOUR_HEAT: neighbour_heat,
    Cause.SHARED_COOLER: shared_cooler,
    Cause.DRIVER_EVENT: driver_event,
    Cause.UNKNOWN: _unknown,
}
