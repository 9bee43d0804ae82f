"""`gpuwhyd replay`: a recording through the same engine that the daemon runs. The same file gives the same output."""

import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from gpuwhyd.engine.engine import Engine
from gpuwhyd.engine.settings import EngineSettings
from gpuwhyd.errors import RecordingError
from gpuwhyd.model import AlertEvent, BackendEvent, Event, GpuEvent, Snapshot, SpikeEvent, Suspect
from gpuwhyd.recording.reader import snapshots

_log = logging.getLogger(__name__)

STANDARD_INPUT = Path("-")


def replay(path: Path, settings: EngineSettings) -> Iterator[tuple[float, Event]]:
    """Every event of a recording, with the seconds since its start; where no spike and no alert is among them, the
    log says so. Raises RecordingError.
    """
    source = "standard input" if path == STANDARD_INPUT else str(path)
    samples, is_quiet = 0, True

    def counted(row: Iterable[Snapshot]) -> Iterator[Snapshot]:
        nonlocal samples
        for snapshot in row:
            samples += 1
            yield snapshot

    try:
        with _opened(path) as file:
            for seconds, event in events(counted(snapshots(file, source)), settings):
                is_quiet = is_quiet and not isinstance(event, SpikeEvent | AlertEvent)
                yield seconds, event
    except UnicodeDecodeError:
        raise RecordingError(f"{source}: not UTF-8 text") from None
    except OSError as error:
        raise RecordingError(f"{source}: cannot be read: {error.strerror}") from None
    if is_quiet:
        _log.info("%s: no spike and no alert in its %d samples", source, samples)


def _opened(path: Path) -> TextIO:
    if path == STANDARD_INPUT:
        return open(0, encoding="utf-8", closefd=False)
    return path.open(encoding="utf-8")


def events(row: Iterable[Snapshot], settings: EngineSettings) -> Iterator[tuple[float, Event]]:
    """The same from snapshots."""
    engine = Engine(settings, boot_id="recording")
    start: float | None = None
    for snapshot in row:
        if start is None:
            start = snapshot.boottime_seconds
        for event in engine.follow(snapshot):
            yield snapshot.boottime_seconds - start, event


def as_json(seconds: float, event: Event) -> str:
    """One line: `event`, `t`, and as far as the event has them `gpu`, `spike_id`, `rule`, `cause`, `confidence`,
    `suspects`, `sentence`. In ASCII, which every output can take.
    """
    table: dict[str, object] = {"event": event.kind.value, "t": round(seconds, 3)}
    table |= _details(event)
    return json.dumps(table)


def as_text(seconds: float, event: Event) -> str:
    """The same for a person."""
    return f"{seconds:10.1f} s  {event.kind.value:<17}  {_sentence(event)}"


def _details(event: Event) -> dict[str, object]:
    if isinstance(event, BackendEvent):
        return {"backend": event.backend, "sentence": event.sentence}
    if isinstance(event, GpuEvent):
        return {"gpu": event.gpu.id, "sentence": event.sentence}
    explanation = event.explanation
    told: dict[str, object] = {"gpu": event.gpu.id}
    if isinstance(event, SpikeEvent):
        told["spike_id"] = event.spike.spike_id
    else:
        told |= {"rule": event.rule, "severity": event.severity.value, "value": event.value}
    return told | {
        "cause": explanation.cause.value,
        "confidence": explanation.confidence,
        "suspects": [_suspect(suspect) for suspect in explanation.suspects],
        "sentence": _sentence(event),
    }


def _sentence(event: Event) -> str:
    if isinstance(event, SpikeEvent):
        return event.explanation.sentence
    if isinstance(event, AlertEvent | GpuEvent | BackendEvent):
        return event.sentence
    raise TypeError(f"{type(event).__name__} is no event")


def _suspect(suspect: Suspect) -> dict[str, object]:
    return {
        "name": suspect.program.name,
        "unit": suspect.program.unit,
        "pids": list(suspect.pids),
        "share": suspect.share,
        "alive": suspect.alive,
    }
