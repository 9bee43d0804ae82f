"""`gpuwhy SPIKE_ID`: why the fan ran then."""

from collections.abc import Sequence
from datetime import datetime
from typing import cast

from gpuwhyd.client.answer import Answer, Options
from gpuwhyd.client.ask import AskError, Daemon, Plain
from gpuwhyd.client.gpus import gpus_of
from gpuwhyd.client.happenings import event_message, event_style, event_title, most_telling, spike_duration
from gpuwhyd.client.history import MOST_EVENTS
from gpuwhyd.client.open_spikes import as_high_as_known, open_spikes, states
from gpuwhyd.client.quantities import UNKNOWN, celsius, clock, clock_and_date, percent, rpm, span
from gpuwhyd.client.terminal import Terminal, printable, wrap, wrap_below
from gpuwhyd.client.why import PEAKS, evidence_words, suspect_lines

_ENDINGS = {
    "rest": "the fan is back at rest",
    "new-rest": "this is the fan's new rest level",
    "removed": "the GPU was removed",
    "reboot": "the machine was started anew",
}
_TOLD_FIRST = PEAKS | {"ended_after_seconds", "ended_by"}
"""Evidence that the first line tells in words."""


async def answer(daemon: Daemon, options: Options) -> Answer:
    spike_id, events = await _found(daemon, str(options.spike_id))
    lasting = await open_spikes(daemon, events)
    if options.as_json:
        from gpuwhyd.client import json_form  # noqa: PLC0415 - only --json needs the model's field names

        shown = [json_form.event(event) for event in events]
        return Answer(
            document={"spike_id": spike_id, "events": shown, "spike_states": states(events, lasting)}
        )
    now = lasting.get(spike_id)
    return Answer(lines=tuple(past_spike_lines(events, options.terminal, options.now, now)))


async def _found(daemon: Daemon, wanted: str) -> tuple[str, list[Plain]]:
    """The spike's whole id, and its events. `wanted` may lack the GPU, as `gpuwhy history` shows it where room is scarce."""
    gpu_id = wanted.rpartition("-")[0]
    gpu_ids = [gpu_id] if gpu_id else [str(gpu.get("id")) for gpu in gpus_of(await daemon.summary())]
    digits = wanted.rpartition("-")[2]
    found: list[tuple[str, list[Plain]]] = []
    for candidate in (f"{one}-{digits}" for one in gpu_ids):
        events = await daemon.events(since_usec=0, maximum=MOST_EVENTS, spike_id=candidate)
        if events:
            found.append((candidate, events))
    if not found:
        raise AskError(
            f"No spike {wanted} is known, or the journal no longer has it. Those that are: gpuwhy history"
        )
    if len(found) > 1:
        raise AskError(
            f"{len(found)} GPUs had a spike then; write which: {' or '.join(one for one, _ in found)}"
        )
    return found[0]


def past_spike_lines(
    events: Sequence[Plain], terminal: Terminal, now: datetime, answer_now: Plain | None
) -> list[str]:
    """When, how long and how loud; who heated the card; then the events as they came.

    `answer_now`: the daemon's answer for it, while it lasts.
    """
    events = cast("Sequence[Plain]", printable(events))
    telling = most_telling(events) or events[-1]
    explanation = cast("Plain", telling.get("explanation") or {})
    head = f"{explanation.get('gpu_label') or events[0].get('gpu_name') or 'GPU'}: {_course(events[-1], answer_now)}"
    lines = [terminal.paint(line, "bold") for line in wrap(head, terminal.columns, "  ")]
    over = telling.get("event") == "spike-ended"
    when = "At its hottest:" if over else f"As it was at {clock(telling.get('wall_usec'), now)}:"
    suspects = suspect_lines(explanation, terminal, over=over)
    lines += ["", f"  {when}", *suspects] if suspects else [""]
    measured = cast("Sequence[Plain]", explanation.get("evidence") or ())
    evidence = evidence_words([one for one in measured if one.get("quantity") not in _TOLD_FIRST], now)
    if evidence:
        lines += [*wrap_below("  Evidence:   ", evidence, terminal, " " * 14), ""]
    for event in events:
        head = f"  {clock(event.get('wall_usec'), now)}  {event_title(event):<8} "
        lines += wrap_below(head, event_message(event), terminal, " " * 4, event_style(event))
    return lines


def _course(last: Plain, now: Plain | None) -> str:
    spike = as_high_as_known(cast("Plain", last.get("spike") or {}), now)
    began = clock_and_date(spike.get("began_usec") or last.get("wall_usec"))
    peaks = (
        percent(spike.get("peak_fan_percent")),
        rpm(spike.get("peak_fan_rpm")),
        celsius(spike.get("peak_temperature_celsius")),
    )
    peak = ", ".join(text for text in peaks if text != UNKNOWN)
    parts = [f"fan up since {began}" if now is not None else f"fan up at {began}"]
    if spike.get("began_before_start"):
        parts[0] += " or before"
    if last.get("event") == "spike-ended":
        lasted = last.get("duration_seconds")
        parts[0] += f" for {span(spike_duration(spike) if lasted is None else lasted)}"
        parts.append(_ENDINGS.get(str(spike.get("ended_by")), "it is over"))
    else:
        parts.append("it is not over" if now is not None else "how it ended is unknown")
    return f"{parts[0]}{f', at most {peak}' if peak else ''}; {parts[1]}."
