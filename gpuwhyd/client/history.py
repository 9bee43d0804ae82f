"""`gpuwhy history`: past spikes, alerts, lost GPUs; with `--all` also GPUs and backends that came and went."""

from collections.abc import Sequence
from typing import cast

from gpuwhyd.client.answer import Answer, Options
from gpuwhyd.client.ask import Daemon, Plain
from gpuwhyd.client.gpus import chosen_gpus, gpu_name
from gpuwhyd.client.happenings import (
    event_title,
    leading_suspect,
    most_telling,
    spike_duration,
)
from gpuwhyd.client.quantities import UNKNOWN, clock_and_date, number, percent, share, span
from gpuwhyd.client.table import Column, table
from gpuwhyd.client.terminal import Terminal, printable
from gpuwhyd.client.why import suspect_name

MOST_EVENTS = 1000
"""What the daemon gives at most in one answer."""

_COLUMNS = (
    Column(title="WHEN"),
    Column(title="GPU", shrinks_to=8, drop=6),
    Column(title="WHAT", shrinks_to=12),
    Column(title="LASTED", right=True, drop=2),
    Column(title="PEAK", right=True, drop=5),
    Column(title="CAUSE", drop=4),
    Column(title="BY", shrinks_to=14),
    Column(title="SHARE", right=True, drop=3),
    Column(title="SPIKE", drop=1),
)
_FULL_ID_COLUMNS = 120
"""In a narrower terminal a spike's id is shown without its GPU; `gpuwhy` takes that too."""
_SPIKE_EVENTS = frozenset({"spike-started", "spike-updated", "spike-ended"})
_ALERT_EVENTS = frozenset({"alert-raised", "alert-cleared"})
_ALWAYS = _SPIKE_EVENTS | _ALERT_EVENTS | {"gpu-lost"}


async def answer(daemon: Daemon, options: Options) -> Answer:
    only = {}
    if options.gpu is not None:
        only = {"gpu": str(chosen_gpus(await daemon.summary(), options.gpu)[0]["gpu"])}
    events = await daemon.events(since_usec=options.since_usec, maximum=MOST_EVENTS, **only)
    if not options.all_events:
        events = [event for event in events if event.get("event") in _ALWAYS]
    entries = grouped(events)[-options.limit :]
    if options.as_json:
        from gpuwhyd.client import json_form  # noqa: PLC0415 - only --json needs the model's field names

        shown = [json_form.event(event) for entry in entries for event in entry]
        return Answer(document={"events": shown})
    return Answer(lines=tuple(history_lines(entries, options.terminal)))


def grouped(events: Sequence[Plain]) -> list[list[Plain]]:
    """The events of one spike together, at the place where it began; every other event for itself."""
    entries: list[list[Plain]] = []
    spikes: dict[object, list[Plain]] = {}
    for event in events:
        spike_id = event.get("spike_id")
        if event.get("event") in _SPIKE_EVENTS and spike_id in spikes:
            spikes[spike_id].append(event)
            continue
        entries.append([event])
        if event.get("event") in _SPIKE_EVENTS:
            spikes[spike_id] = entries[-1]
    return entries


def history_lines(entries: Sequence[Sequence[Plain]], terminal: Terminal) -> list[str]:
    entries = cast("Sequence[Sequence[Plain]]", printable(entries))
    if not entries:
        return ["Nothing happened in this time: no spike, no alert."]
    short = terminal.columns is not None and terminal.columns < _FULL_ID_COLUMNS
    return table(_COLUMNS, [_row(entry, short=short) for entry in entries], terminal)


def _row(entry: Sequence[Plain], *, short: bool) -> tuple[str, ...]:
    first, last = entry[0], entry[-1]
    gpu = gpu_name({"name": first.get("gpu_name") or first.get("gpu_id") or UNKNOWN})
    telling = most_telling(entry) or last
    suspect = leading_suspect(telling)
    who, heat = (suspect_name(suspect), share(suspect.get("share"))) if suspect else (UNKNOWN, UNKNOWN)
    if first.get("event") not in _SPIKE_EVENTS:
        when, what = _minute(first.get("wall_usec")), event_title(first)
        return (when, gpu, what, UNKNOWN, UNKNOWN, UNKNOWN, who, heat, "")
    spike = cast("Plain", last.get("spike") or {})
    spike_id = str(first.get("spike_id") or "")
    return (
        _minute(spike.get("began_usec") or first.get("wall_usec")),
        gpu,
        "fan up",
        _lasted(last, spike),
        percent(spike.get("peak_fan_percent")),
        str(telling.get("cause") or UNKNOWN),
        who,
        heat,
        spike_id.rpartition("-")[2] if short else spike_id,
    )


def _minute(wall_usec: object) -> str:
    """Date and time of day without the seconds."""
    return clock_and_date(wall_usec).rpartition(":")[0]


def _lasted(last: Plain, spike: Plain) -> str:
    if last.get("event") != "spike-ended":
        return "not over"
    seconds = number(last.get("duration_seconds"))
    return span(spike_duration(spike) if seconds is None else seconds)
