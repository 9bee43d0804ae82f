"""`gpuwhy history`: past spikes, alerts, lost GPUs; with `--all` also GPUs and backends that came and went."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import cast

from gpuwhyd.client.answer import Answer, Options
from gpuwhyd.client.ask import Daemon, Plain
from gpuwhyd.client.gpus import chosen_gpus, gpu_name, gpus_of
from gpuwhyd.client.happenings import (
    event_title,
    leading_suspect,
    most_telling,
    spike_duration,
)
from gpuwhyd.client.open_spikes import SPIKE_EVENTS, as_high_as_known, open_spikes, states
from gpuwhyd.client.quantities import UNKNOWN, clock_and_date, number, percent, share, span
from gpuwhyd.client.table import Column, table
from gpuwhyd.client.terminal import Terminal, printable
from gpuwhyd.client.why import suspect_name

MOST_EVENTS = 1000
"""What the daemon gives at most in one answer."""

_COLUMNS = (
    Column(title="WHEN"),
    Column(title="GPU", shrinks_to=8),
    Column(title="WHAT", shrinks_to=12),
    Column(title="LASTED", right=True, drop=2),
    Column(title="PEAK", right=True, drop=3),
    Column(title="CAUSE", drop=4),
    Column(title="BY", shrinks_to=12),
    Column(title="SHARE", right=True, drop=5),
    Column(title="SPIKE", drop=1),
)
_FULL_COLUMNS = 120
"""In a narrower terminal a spike's id is shown without its GPU, which `gpuwhy` takes too, and a date without its year
where all are of one.
"""
_ALERT_EVENTS = frozenset({"alert-raised", "alert-cleared"})
_ALWAYS = SPIKE_EVENTS | _ALERT_EVENTS | {"gpu-lost"}


async def answer(daemon: Daemon, options: Options) -> Answer:
    summary = await daemon.summary()
    only = {}
    if options.gpu is not None:
        only = {"gpu": str(chosen_gpus(summary, options.gpu)[0]["gpu"])}
    events = await daemon.events(since_usec=options.since_usec, maximum=MOST_EVENTS, **only)
    if not options.all_events:
        events = [event for event in events if event.get("event") in _ALWAYS]
    entries = grouped(events)[-options.limit :]
    shown_events = [event for entry in entries for event in entry]
    lasting = await open_spikes(daemon, shown_events)
    if options.as_json:
        from gpuwhyd.client import json_form  # noqa: PLC0415 - only --json needs the model's field names

        shown = [json_form.event(event) for event in shown_events]
        return Answer(document={"events": shown, "spike_states": states(shown_events, lasting)})
    ids = {gpu.get("id") for gpu in gpus_of(summary)} | {entry[0].get("gpu_id") for entry in entries}
    one_card = options.gpu is not None or len(ids - {None}) < 2
    return Answer(lines=tuple(history_lines(entries, options.terminal, lasting, one_card=one_card)))


def grouped(events: Sequence[Plain]) -> list[list[Plain]]:
    """The events of one spike together, at the place where it began, which is the first where that is not among them; every
    other event for itself.
    """
    entries: list[list[Plain]] = []
    spikes: dict[object, list[Plain]] = {}
    for event in events:
        spike_id = event.get("spike_id")
        if event.get("event") in SPIKE_EVENTS and spike_id in spikes:
            spikes[spike_id].append(event)
            continue
        entries.append([event])
        if event.get("event") in SPIKE_EVENTS:
            spikes[spike_id] = entries[-1]
    began_earlier = sorted(
        filter(_begins_earlier, entries), key=lambda entry: number(_began_usec(entry)) or 0.0
    )
    return [*began_earlier, *(entry for entry in entries if not _begins_earlier(entry))]


def _begins_earlier(entry: Sequence[Plain]) -> bool:
    return entry[0].get("event") in {"spike-updated", "spike-ended"}


def history_lines(
    entries: Sequence[Sequence[Plain]],
    terminal: Terminal,
    lasting: Mapping[str, Plain],
    *,
    one_card: bool = False,
) -> list[str]:
    """A title and a row for each. `lasting`: the daemon's answers for the spikes that it has open. With `one_card` it is
    not told which.
    """
    entries = cast("Sequence[Sequence[Plain]]", printable(entries))
    if not entries:
        return ["Nothing happened: no spike, no alert."]
    short = terminal.columns is not None and terminal.columns < _FULL_COLUMNS
    names = {} if one_card else _gpu_names([entry[0] for entry in entries])
    rows = [
        _row(entry, names.get(entry[0].get("gpu_id"), UNKNOWN), lasting, short=short) for entry in entries
    ]
    if short and len({row[0].partition("-")[0] for row in rows}) == 1:
        rows = [(row[0].partition("-")[2], *row[1:]) for row in rows]
    return table(_COLUMNS, rows, terminal)


def _gpu_names(events: Sequence[Plain]) -> dict[object, str]:
    """By id; of cards with one name also where they are."""
    cards = {event.get("gpu_id"): event for event in events if event.get("gpu_id")}
    names = {gpu_id: gpu_name({"name": card.get("gpu_name") or gpu_id}) for gpu_id, card in cards.items()}
    places = {
        gpu_id: str(card.get("gpu_pci") or gpu_id).removeprefix("0000:") for gpu_id, card in cards.items()
    }
    given = Counter(names.values())
    return {gpu_id: f"{places[gpu_id]} {name}" if given[name] > 1 else name for gpu_id, name in names.items()}


def _row(entry: Sequence[Plain], gpu: str, lasting: Mapping[str, Plain], *, short: bool) -> tuple[str, ...]:
    first, last = entry[0], entry[-1]
    telling = most_telling(entry) or last
    suspect = leading_suspect(telling)
    who, heat = (suspect_name(suspect), share(suspect.get("share"))) if suspect else (UNKNOWN, UNKNOWN)
    if first.get("event") not in SPIKE_EVENTS:
        when, what = _minute(first.get("wall_usec")), event_title(first)
        return (when, gpu, what, UNKNOWN, UNKNOWN, UNKNOWN, who, heat, "")
    spike_id = str(first.get("spike_id") or "")
    now = lasting.get(spike_id)
    spike = as_high_as_known(cast("Plain", last.get("spike") or {}), now)
    return (
        _minute(_began_usec(entry)),
        gpu,
        "fan up",
        _lasted(last, spike, lasts=now is not None),
        percent(spike.get("peak_fan_percent")),
        str(telling.get("cause") or UNKNOWN),
        who,
        heat,
        spike_id.rpartition("-")[2] if short else spike_id,
    )


def _began_usec(entry: Sequence[Plain]) -> object:
    spike = cast("Plain", entry[-1].get("spike") or {})
    return spike.get("began_usec") or entry[0].get("wall_usec")


def _minute(wall_usec: object) -> str:
    """Date and time of day without the seconds."""
    return clock_and_date(wall_usec).rpartition(":")[0]


def _lasted(last: Plain, spike: Plain, *, lasts: bool) -> str:
    if last.get("event") != "spike-ended":
        return "not over" if lasts else "end unknown"
    seconds = number(last.get("duration_seconds"))
    return span(spike_duration(spike) if seconds is None else seconds)
