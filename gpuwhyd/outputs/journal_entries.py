"""An event as a journal entry, and as the record that history gives back. Pure: no clock, no I/O.

A record is a plain dict under the model's field names. The entry carries it whole as JSON in GPUWHY_DETAIL, so that
what is read back later is what was written; the other GPUWHY_* fields are for `journalctl` and its matches.
"""

import dataclasses
import functools
import importlib
import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

from gpuwhyd.model import (
    AlertEvent,
    BackendEvent,
    Event,
    EventKind,
    Explanation,
    GpuEvent,
    Severity,
    SpikeEvent,
)
from gpuwhyd.model import as_plain as plain

Fields = tuple[tuple[str, str], ...]
"""A journal entry. Pairs, because a field may stand in an entry more than once."""

Record = dict[str, object]
"""What history gives: keys `event`, `wall_usec`, `message`, and those of the event's kind; unknown ones left out."""

MESSAGE_IDS = {
    EventKind.SPIKE_STARTED: "872bc86b0cd44ed39f0fdd6c188eede3",
    EventKind.SPIKE_UPDATED: "329201a4906b40b38bbd1f3b69c70de3",
    EventKind.SPIKE_ENDED: "7dcf8f1673e345239fd60d8c68306708",
    EventKind.ALERT_RAISED: "f690d7be9da04635bff0e3a7c370dc4c",
    EventKind.ALERT_CLEARED: "1154b9ca57114e17b9fc5edd3e6b2b85",
    EventKind.GPU_ADDED: "5b07418df76f45efb269b98fc937fd93",
    EventKind.GPU_REMOVED: "0cc426443f8243b09d9d6b62c101f5a2",
    EventKind.GPU_LOST: "b8bfefd224384d64b9b257f5de036c7c",
    EventKind.BACKEND_FAILING: "e893a193a6c94f8ab74cad7c42efe440",
    EventKind.BACKEND_RECOVERED: "ddb396a02ccb4f80943d5ae693972e58",
}
"""Random UUIDs, never to change: `systemd/gpuwhyd.catalog` and people's filters refer to them."""

PRIORITIES = {
    EventKind.SPIKE_STARTED: 5,
    EventKind.SPIKE_UPDATED: 6,
    EventKind.SPIKE_ENDED: 6,
    EventKind.ALERT_CLEARED: 6,
    EventKind.GPU_ADDED: 6,
    EventKind.GPU_REMOVED: 6,
    EventKind.GPU_LOST: 3,
    EventKind.BACKEND_FAILING: 4,
    EventKind.BACKEND_RECOVERED: 6,
}
"""syslog(3) levels: 3 error, 4 warning, 5 notice, 6 info. A raised alert has its severity's."""

SEVERITY_PRIORITIES = {Severity.NOTICE: 5, Severity.WARNING: 4, Severity.ERROR: 3, Severity.CRITICAL: 2}

SUSPECTS_KEPT = 10
PIDS_KEPT = 32
EVIDENCE_KEPT = 20
TEXT_LIMIT = 2048
"""Characters of any one text."""
SHORT_TEXT_LIMIT = 200
"""The same where the texts together would be too long: JSON takes up to 12 bytes for a character."""
DETAIL_LIMIT = 32_768
"""Bytes of GPUWHY_DETAIL. libsystemd gives readers 64 KiB of a field and cuts off the rest (sd_journal_set_data_threshold(3))."""

FIELD_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
"""What journald keeps of a client: journal_field_valid() in journal-util.c; names with `_` in front are its own."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def event_id(event: Event) -> str:
    """32 hexadecimal digits: the same for the same event after a restart, different for any other."""
    name = f"{event.kind.value}\0{_subject(event)}\0{event.wall_usec}"
    return str(_sha256()(name.encode("utf-8", "surrogatepass")).hexdigest()[:32])


@functools.cache
def _sha256() -> Callable[[bytes], Any]:
    """Hashlib's own, from where it has it: hashlib itself loads OpenSSL, 3.6 MiB, where Python was built with that."""
    for module in ("_sha2", "_sha256"):  # since Python 3.12, before it
        try:
            return importlib.import_module(module).sha256  # type: ignore[no-any-return]
        except ImportError:
            continue
    return importlib.import_module("hashlib").sha256  # type: ignore[no-any-return]


def record(event: Event) -> Record:
    """The event as history gives it; its JSON is at most DETAIL_LIMIT bytes."""
    for explanation in _ever_shorter(event):
        whole = _plain_record(event, explanation)
        if len(as_json(whole)) <= DETAIL_LIMIT:
            return whole
    return _known_items(_plain_record(event, None), SHORT_TEXT_LIMIT)


def _ever_shorter(event: Event) -> Iterator[Explanation | None]:
    if isinstance(event, SpikeEvent | AlertEvent):
        bounded = _bounded(event.explanation)
        yield bounded
        yield dataclasses.replace(bounded, suspects=bounded.suspects[:1], evidence=())
    yield None


def entry(event: Event, *, object_pid: bool) -> Fields:
    """The event as a journal entry.

    OBJECT_SYSTEMD_UNIT stands there for the unit of each suspect, alive or exited, so that `journalctl -u UNIT` shows
    the event (journald and journalctl honour it from UID 0 only). OBJECT_SYSTEMD_USER_UNIT can be matched by name;
    `journalctl --user-unit` asks for `_UID` of that user besides, and so does not show it. With `object_pid`, OBJECT_PID
    names the leading suspect's first process while it lives: journald then stores that process's command line.
    """
    detail = record(event)
    fields: list[tuple[str, str | None]] = [
        ("MESSAGE", str(detail["message"])),
        ("MESSAGE_ID", MESSAGE_IDS[event.kind]),
        ("PRIORITY", str(_priority(event))),
        ("SYSLOG_IDENTIFIER", "gpuwhyd"),
        ("SYSLOG_FACILITY", "3"),  # daemon, as syslog(3) counts
        ("DOCUMENTATION", "man:gpuwhyd(8)"),
        ("GPUWHY_EVENT", event.kind.value),
        ("GPUWHY_EVENT_ID", event_id(event)),
    ]
    match event:
        case BackendEvent():
            fields.append(("GPUWHY_BACKEND", _clean(event.backend)))
        case _:
            fields.append(("GPUWHY_GPU", _clean(event.gpu.pci_address or event.gpu.id)))
            fields.append(("GPUWHY_GPU_NAME", _clean(event.gpu.name)))
    match event:
        case SpikeEvent():
            fields.append(("GPUWHY_SPIKE_ID", _clean(event.spike.spike_id)))
            fields.append(("GPUWHY_DURATION_SECONDS", _number(_spike_seconds(event), digits=1)))
            fields += _explanation_fields(event.explanation, object_pid=object_pid)
        case AlertEvent():
            fields.append(("GPUWHY_RULE", _clean(event.rule)))
            fields.append(("GPUWHY_SEVERITY", event.severity.value))
            fields.append(("GPUWHY_METRIC", _clean(event.metric)))
            fields.append(("GPUWHY_VALUE", _number(event.value)))
            fields.append(("GPUWHY_DURATION_SECONDS", _number(event.for_seconds, digits=1)))
            fields += _explanation_fields(event.explanation, object_pid=object_pid)
        case GpuEvent() | BackendEvent():
            pass
    fields.append(("GPUWHY_DETAIL", as_json(detail)))
    return tuple((name, value) for name, value in fields if value is not None and value != "")


def _subject(event: Event) -> str:
    match event:
        case SpikeEvent():
            return event.spike.spike_id
        case AlertEvent():
            return f"{event.gpu.id}/{event.rule}"
        case GpuEvent():
            return event.gpu.id
        case BackendEvent():
            return event.backend


def _plain_record(event: Event, explanation: Explanation | None) -> Record:
    facts: Record = {"event": event.kind.value, "wall_usec": event.wall_usec}
    if not isinstance(event, BackendEvent):
        facts |= {
            "gpu_id": event.gpu.id,
            "gpu_pci": event.gpu.pci_address,
            "gpu_name": _clean(event.gpu.name),
        }
    if explanation is not None:
        facts |= {
            "cause": explanation.cause.value,
            "confidence": explanation.confidence,
            "explanation": plain(explanation),
        }
    match event:
        case SpikeEvent():
            facts |= {
                "spike_id": event.spike.spike_id,
                "message": _clean(event.explanation.sentence),
                "duration_seconds": _spike_seconds(event),
                "spike": plain(event.spike),
            }
        case AlertEvent():
            facts |= {
                "message": _clean(event.sentence),
                "rule": event.rule,
                "severity": event.severity.value,
                "metric": event.metric,
                "value": event.value,
                "threshold": event.threshold,
                "for_seconds": event.for_seconds,
                "duration_seconds": event.for_seconds,
            }
        case GpuEvent():
            facts["message"] = _clean(event.sentence)
        case BackendEvent():
            facts |= {"message": _clean(event.sentence), "backend": event.backend}
    return _known_items(facts)


def _explanation_fields(explanation: Explanation, *, object_pid: bool) -> list[tuple[str, str | None]]:
    suspects = explanation.suspects
    units = dict.fromkeys(
        suspect.program.unit for suspect in suspects[:SUSPECTS_KEPT] if suspect.program.unit
    )
    user_units = dict.fromkeys(
        suspect.program.user_unit for suspect in suspects[:SUSPECTS_KEPT] if suspect.program.user_unit
    )
    fields: list[tuple[str, str | None]] = [
        ("GPUWHY_CAUSE", explanation.cause.value),
        ("GPUWHY_CONFIDENCE", _number(explanation.confidence)),
        ("GPUWHY_FAN_PERCENT", _number(explanation.fan_percent)),
        ("GPUWHY_FAN_RPM", _number(explanation.fan_rpm)),
        ("GPUWHY_TEMPERATURE_CELSIUS", _number(explanation.temperature_celsius)),
        ("GPUWHY_POWER_WATTS", _number(explanation.power_watts)),
    ]
    if suspects:
        leader = suspects[0]
        pid = str(leader.pids[0]) if leader.pids else None
        fields += [
            ("GPUWHY_SUSPECT_PID", pid),
            ("GPUWHY_SUSPECT_NAME", _clean(leader.program.name)),
            ("GPUWHY_SUSPECT_UNIT", _clean(leader.program.unit or leader.program.user_unit or "")),
            ("GPUWHY_SUSPECT_USER", _clean(leader.program.user or "")),
            ("GPUWHY_SUSPECT_SHARE", _number(leader.share)),
        ]
        if object_pid and leader.alive:
            fields.append(("OBJECT_PID", pid))
    fields += [("OBJECT_SYSTEMD_UNIT", _clean(unit)) for unit in units]
    fields += [("OBJECT_SYSTEMD_USER_UNIT", _clean(unit)) for unit in user_units]
    return fields


def _bounded(explanation: Explanation) -> Explanation:
    suspects = tuple(
        dataclasses.replace(suspect, pids=suspect.pids[:PIDS_KEPT])
        for suspect in explanation.suspects[:SUSPECTS_KEPT]
    )
    return dataclasses.replace(explanation, suspects=suspects, evidence=explanation.evidence[:EVIDENCE_KEPT])


def _priority(event: Event) -> int:
    if isinstance(event, AlertEvent) and event.kind is EventKind.ALERT_RAISED:
        return SEVERITY_PRIORITIES[event.severity]
    return PRIORITIES[event.kind]


def _spike_seconds(event: SpikeEvent) -> float:
    """How long the spike lasts, or lasted: an end may be back-dated to when the fan was at rest."""
    until = event.spike.ended_boottime_seconds
    until = event.boottime_seconds if until is None else until
    return round(max(0.0, until - event.spike.began_boottime_seconds), 3)


def _number(value: float | None, *, digits: int = 3) -> str | None:
    """`digits` behind the point at most: people read durations, in the catalog's texts."""
    if value is None or not math.isfinite(value):
        return None
    return f"{round(value, digits):.15g}"


def _clean(text: str) -> str:
    """One line: journalctl shows a field with control characters as `[blob data]`."""
    return _CONTROL.sub(" ", text).strip()[:TEXT_LIMIT]


def _known(value: object, text_limit: int = TEXT_LIMIT) -> object:
    """JSON has no NaN, and texts from /proc have no bounds."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value[:text_limit]
    if isinstance(value, list):
        return [_known(item, text_limit) for item in value]
    if isinstance(value, dict):
        return _known_items(value, text_limit)
    return value


def _known_items(value: Record, text_limit: int = TEXT_LIMIT) -> Record:
    known = ((key, _known(item, text_limit)) for key, item in value.items())
    return {key: item for key, item in known if item is not None}


def as_json(detail: Record) -> str:
    """A record as GPUWHY_DETAIL holds it: ASCII, on one line."""
    return json.dumps(detail, separators=(",", ":"), allow_nan=False)
