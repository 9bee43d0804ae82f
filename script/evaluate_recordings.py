"""The engine on logs of real fans: every swing that a person sees in the plot in one spike, none invented, none late.

A folder of fan logs (see script/convert_fan_log.py) with SPIKES.tsv: `name`, `onset_s`, `low`, ... of each upward swing.
"""

import csv
from pathlib import Path

from gpuwhyd.engine.engine import Engine
from gpuwhyd.engine.settings import EngineSettings
from gpuwhyd.model import EventKind, Snapshot, SpikeEvent
from gpuwhyd.recording.reader import snapshots
from script.convert_fan_log import recording

_MARGIN_SECONDS = 60.0
_RISE = 8.0


def evaluate_recordings(folder: Path) -> None:
    """Prints a line a recording, and what is wrong."""
    with (folder / "SPIKES.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    print("\n| recording | swings | spikes | late | invented | cause at first |\n|---|---|---|---|---|---|")
    for path in sorted(folder.glob("*.csv")):
        seen = [row for row in rows if row["name"] == path.stem]
        _evaluate(path, [(float(row["onset_s"]), float(row["low"])) for row in seen])


def _evaluate(path: Path, seen: list[tuple[float, float]]) -> None:
    import json  # noqa: PLC0415 - here alone

    with path.open(newline="") as file:
        lines = [json.dumps(line) for line in recording(csv.DictReader(file), path.stem, "load")]
    row = list(snapshots(lines, str(path)))
    engine = Engine(EngineSettings(rules=()), boot_id="evaluate")
    spikes: dict[str, tuple[float, str]] = {}
    ends: dict[str, float] = {}
    for snapshot in row:
        for event in engine.feed(snapshot).events:
            if not isinstance(event, SpikeEvent):
                continue
            if event.kind is EventKind.SPIKE_STARTED:
                spikes[event.spike.spike_id] = (snapshot.boottime_seconds, event.explanation.cause.value)
            elif event.kind is EventKind.SPIKE_ENDED and event.spike.ended_boottime_seconds is not None:
                ends[event.spike.spike_id] = event.spike.ended_boottime_seconds
    invented = [
        told
        for spike, (told, _) in spikes.items()
        if not any(told - _MARGIN_SECONDS <= onset <= ends.get(spike, float("inf")) for onset, _ in seen)
    ]
    late = []
    for onset, low in seen:
        up = [i for i, s in enumerate(row) if s.boottime_seconds >= onset and _percent(s) >= low + _RISE]
        if not up:
            continue
        deadline = row[min(up[0] + 2, len(row) - 1)].boottime_seconds
        covered = [
            told
            for spike, (told, _) in spikes.items()
            if told <= deadline and onset <= ends.get(spike, float("inf"))
        ]
        if not covered:
            late.append(f"{onset:.0f} s")
    causes = ", ".join(sorted({cause for _, cause in spikes.values()}))
    print(
        f"| {path.stem} | {len(seen)} | {len(spikes)} | {', '.join(late) or 0} | {len(invented)} | {causes} |"
    )


def _percent(snapshot: Snapshot) -> float:
    return snapshot.readings[0].fan_percent or 0.0
