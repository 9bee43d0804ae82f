"""`gpuwhy`: why each fan runs, now."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import cast

from gpuwhyd.client.answer import Answer, Options
from gpuwhyd.client.ask import Daemon, Plain
from gpuwhyd.client.gpus import chosen_gpus, fan_is_up, loudest_first
from gpuwhyd.client.quantities import about, clock, number, percent, share, size, span, watts
from gpuwhyd.client.table import Column, table
from gpuwhyd.client.terminal import Terminal, printable, wrap, wrap_below

_SUSPECT_COLUMNS = (
    Column(title="SUSPECT", shrinks_to=20),
    Column(title="SHARE", right=True),
    Column(title="BY CPU", right=True, drop=2),
    Column(title="MEAN POWER", right=True, drop=1),
    Column(title="STATE"),
    Column(title="MEMORY", right=True, drop=5),
    Column(title="USER", shrinks_to=8, drop=3),
    Column(title="PIDS", drop=4),
)
PEAKS = frozenset({"peak_fan_percent", "peak_fan_rpm", "peak_temperature_celsius"})
"""Evidence of how high a spike has come: told of past spikes, in words."""
_NEGLIGIBLE_SHARE = 0.005
"""A share that would be shown as 0 %."""
_BUSY_PERCENT = 0.5
"""Less would be shown as 0 %."""
_OUTLOOK_WITHOUT_LOAD = {
    "manual-fan": "stays until the fan is set back to automatic",
    "idle-clocks": "stays like this while the clocks do",
    "monitor": "stays like this while it is held open",
    "driver-event": "over within a minute or two",
}
"""What the card's load and temperature have no part in."""
_UNIT_ENDINGS = ("_watts", "_percent", "_celsius", "_bytes", "_seconds", "_rpm", "_mhz", "_joules", "_share")


async def answer(daemon: Daemon, options: Options) -> Answer:
    summary = await daemon.summary()
    gpus = loudest_first(chosen_gpus(summary, options.gpu))
    explanations = await asyncio.gather(*(daemon.explain(str(gpu["gpu"])) for gpu in gpus))
    if options.as_json:
        from gpuwhyd.client import json_form  # noqa: PLC0415 - only --json needs the model's field names

        document = {
            "headline": summary.get("headline"),
            "fan_active": summary.get("fan_active"),
            "wall_usec": summary.get("wall_usec"),
            "explanations": [json_form.explanation(explanation) for explanation in explanations],
        }
        return Answer(document=document, fan_up=fan_is_up(gpus))
    blocks = [explanation_lines(explanation, options.terminal, options.now) for explanation in explanations]
    lines: list[str] = []
    for previous, block in zip([[], *blocks], blocks, strict=False):
        # A long answer stands apart; GPUs that are quiet stay close together.
        lines += ["", *block] if previous and len(previous) + len(block) > 2 else block
    return Answer(lines=tuple(lines), fan_up=fan_is_up(gpus))


def explanation_lines(explanation: Plain, terminal: Terminal, now: datetime) -> list[str]:
    """The sentence first; then, unless the card is quiet, suspects, evidence and outlook."""
    explanation = cast("Plain", printable(explanation))
    is_quiet = explanation.get("cause") == "quiet"
    sentence = str(
        explanation.get("sentence") or f"{explanation.get('gpu_label', 'GPU')}: {explanation.get('cause')}"
    )
    lines = [
        terminal.paint(line, *(() if is_quiet else ("bold",)))
        for line in wrap(sentence, terminal.columns, "  ")
    ]
    if is_quiet:
        return lines
    lines += suspect_lines(explanation, terminal)
    evidence = cast("Sequence[Plain]", explanation.get("evidence") or ())
    measured = [one for one in evidence if one.get("quantity") not in PEAKS]
    notes = [
        ("Outlook", outlook_words(explanation)),
        ("Evidence", evidence_words(measured, now)),
        ("Confidence", share(explanation.get("confidence"))),
        ("Spike", str(explanation.get("spike_id") or "")),
    ]
    for title, words in notes:
        if words:
            lines += wrap_below(f"  {title + ':':<12}", words, terminal, " " * 14)
    return lines


def suspect_lines(explanation: Plain, terminal: Terminal, *, over: bool = False) -> list[str]:
    """The suspects as a table, the hottest first, and what nobody visible explains; nothing when there is neither.

    Of a spike that is `over` they are those of its hottest moment: whether they worked then or live now is not told.
    """
    suspects = cast("Sequence[Plain]", explanation.get("suspects") or ())
    watching = explanation.get("cause") == "monitor"
    rows = [_suspect_row(suspect, watching=watching, over=over) for suspect in suspects]
    unattributed = number(explanation.get("unattributed_share")) or 0.0
    if rows and unattributed > _NEGLIGIBLE_SHARE:
        rows.append(("nobody visible", share(unattributed), "", "", "", "", "", ""))
    if not rows:
        return []

    def style(row: int) -> tuple[str, ...]:
        if row >= len(suspects) or (not over and not suspects[row].get("alive", True)):
            return ("dim",)
        return ("yellow",) if row == 0 else ()

    hidden = {"STATE"} if over else set()
    if all(number(suspect.get("cpu_share")) is None for suspect in suspects):
        hidden.add("BY CPU")
    shown = [i for i, column in enumerate(_SUSPECT_COLUMNS) if column.title not in hidden]
    columns = [_SUSPECT_COLUMNS[i] for i in shown]
    cells = [[row[i] for i in shown] for row in rows]
    return ["", *table(columns, cells, terminal, indent="  ", row_style=style), ""]


def _suspect_row(suspect: Plain, *, watching: bool, over: bool) -> tuple[str, ...]:
    """Its power is a mean over the last half minute: of who has exited that says nothing, but at the hottest moment of a spike."""
    draws = over or suspect.get("alive", True)
    program = cast("Plain", suspect.get("program") or {})
    pids = [str(pid) for pid in cast("Sequence[object]", suspect.get("pids") or ())]
    return (
        suspect_name(suspect),
        share(suspect.get("share")),
        share(suspect.get("cpu_share")),
        watts(suspect.get("power_watts") if draws else None),
        "watching" if watching and suspect.get("alive", True) else state_words(suspect),
        size(suspect.get("memory_used_bytes")),
        str(program.get("user") or ""),
        " ".join(pids[:3]) + (f" +{len(pids) - 3}" if len(pids) > 3 else ""),
    )


def suspect_name(suspect: Plain) -> str:
    """The program's name; under hidepid an ordinary user gets none."""
    program = cast("Plain", suspect.get("program") or {})
    return str(program.get("name") or "(another user's)")


def state_words(suspect: Plain) -> str:
    """`working`, `busy 2 %` where that is too little to heat, `idle for 20 s`, `exited 2 min ago`."""
    stopped = number(suspect.get("stopped_seconds_ago"))
    if not suspect.get("alive", True):
        return "exited" if stopped is None else f"exited {about(stopped)} ago"
    if stopped is not None and (number(suspect.get("engine_percent")) or 0.0) >= _BUSY_PERCENT:
        return f"busy {percent(suspect.get('engine_percent'))}"
    return "working" if stopped is None else f"idle for {about(stopped)}"


def outlook_words(explanation: Plain) -> str:
    """What happens next; empty when nobody can tell.

    A load that is over does not keep the card as it is, also while its temperature stands still.
    """
    cause = str(explanation.get("cause"))
    if cause in _OUTLOOK_WITHOUT_LOAD:
        return _OUTLOOK_WITHOUT_LOAD[cause]
    outlook = cast("Plain", explanation.get("outlook") or {})
    quiet_in = number(outlook.get("quiet_in_seconds"))
    is_over = cause == "residual-heat" or quiet_in is not None
    trend = "falling" if is_over else str(outlook.get("trend"))
    words = {
        "rising": "still getting hotter",
        "steady": "stays like this while the load does",
        "falling": "cooling down",
    }.get(trend, "")
    if quiet_in is None:
        coming = number(outlook.get("peak_fan_percent"))
        if coming is None:
            return words
        hotter = "still getting hotter" if trend == "rising" else "still getting hotter slowly"
        return f"{hotter}, settles at about {round(coming)} %"
    return (f"{words}, " if words else "") + f"quiet in about {about(quiet_in)}"


def evidence_words(evidence: Sequence[Plain], now: datetime) -> str:
    """What was measured: `power 212 W since 12:04:10; fan 57 %`."""
    return "; ".join(_one_evidence(one, now) for one in evidence)


def _one_evidence(one: Plain, now: datetime) -> str:
    quantity, value, unit = str(one.get("quantity", "")), one.get("value"), str(one.get("unit") or "")
    since = one.get("since_usec")
    if quantity == "began_before_start" and since is not None:
        return f"up already when gpuwhyd started at {clock(since, now)}"
    for ending in _UNIT_ENDINGS if unit else ():
        quantity = quantity.removesuffix(ending)
    words = [quantity.replace("_", " ")]
    known = number(value)
    if known is None:
        words.append(f"{value} {unit}".rstrip())
    elif unit == "s":
        words.append(span(known))
    elif unit in {"B", "bytes"}:
        words.append(size(known))
    elif unit or known != 1:  # 1 without a unit marks that something holds; its name says all
        words.append(f"{known:.0f} {unit}".rstrip() if abs(known) >= 100 else f"{known:.3g} {unit}".rstrip())
    return " ".join([*words, f"since {clock(since, now)}"] if since is not None else words)
