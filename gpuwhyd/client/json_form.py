"""Answers as JSON documents: always all of the model's field names, null for what is not known.

Separate from the commands because only `--json` and `doctor` pay for loading the model.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict, cast

from gpuwhyd import model
from gpuwhyd.client.ask import Plain

_HEALTH = (
    "version",
    "started_usec",
    "uptime_seconds",
    "samples",
    "last_sample_seconds_ago",
    "sample_interval_seconds",
    "backends",
    "bus_library",
    "python",
    "journal",
    "state_file",
    "config_file",
    "processes_hidden",
    "memory_bytes",
    "cpu_seconds",
    "threads",
    "notes",
)
_SUMMARY = ("headline", "fan_active", "version", "wall_usec", "sample_interval_seconds", "backends", "gpus")
_SUMMARY_GPU = (
    "number",
    "gpu",
    "id",
    "name",
    "vendor",
    "state",
    "fan_percent",
    "fan_rpm",
    "fan_mode",
    "temperature_celsius",
    "power_watts",
    "utilization_percent",
    "memory_used_bytes",
    "memory_total_bytes",
    "spike_active",
    "cause",
    "confidence",
    "sentence",
)
_PROCESS = (
    "pid",
    "name",
    "user",
    "uid",
    "program",
    "program_kind",
    "unit",
    "container",
    "app",
    "kind",
    "memory_used_bytes",
    "engine_percent",
    "encoder_percent",
    "decoder_percent",
    "share",
    "command_line",
    "executable",
)
_EVENT = (
    "event",
    "wall_usec",
    "gpu",
    "gpu_id",
    "gpu_pci",
    "gpu_name",
    "spike_id",
    "cause",
    "confidence",
    "message",
    "severity",
    "rule",
    "duration_seconds",
    "explanation",
    "spike",
)
_SOURCE = ("backend", "quantity", "source", "lack", "advice", "used")
"""The keys of GetSummary, GetProcesses, GetEvents, GetSources and GetHealth: `dbus/org.gpuwhyd1.Manager.xml`."""


class SummaryDocument(TypedDict):
    """`gpuwhy status --json`; other keys are those of GetSummary."""

    gpus: list[Plain]


def one_line(document: object) -> str:
    return json.dumps(_finite(document), allow_nan=False)


def several_lines(document: object) -> str:
    return json.dumps(_finite(document), allow_nan=False, indent=2)


def explanation(plain: Plain) -> Plain:
    """An Explanation whole, down to its suspects' programs."""
    full = _whole(_fields(model.Explanation), plain)
    full["suspects"] = [
        _whole(_fields(model.Suspect), suspect)
        | {"program": _whole(_fields(model.Program), cast("Plain", suspect.get("program") or {}))}
        for suspect in _dicts(plain.get("suspects"))
    ]
    full["evidence"] = [_whole(_fields(model.Evidence), one) for one in _dicts(plain.get("evidence"))]
    full["outlook"] = _whole(_fields(model.Outlook), cast("Plain", plain.get("outlook") or {}))
    return full


def summary(plain: Plain, gpus: Sequence[Plain]) -> SummaryDocument:
    whole = _whole(_SUMMARY, plain) | {"gpus": [_whole(_SUMMARY_GPU, gpu) for gpu in gpus]}
    return cast("SummaryDocument", whole)


def process(plain: Plain) -> Plain:
    return _whole(_PROCESS, plain)


def source(plain: Plain) -> Plain:
    return _whole(_SOURCE, plain)


def event(plain: Plain) -> Plain:
    """An event whole; `explanation` and `spike` are null for kinds that have none."""
    full = _whole(_EVENT, plain)
    if plain.get("explanation"):
        full["explanation"] = explanation(cast("Plain", plain["explanation"]))
    if plain.get("spike"):
        full["spike"] = _whole(_fields(model.Spike), cast("Plain", plain["spike"]))
    return full


def health(plain: Plain) -> Plain:
    return _whole(_HEALTH, plain)


def metrics(plain: Plain) -> Plain:
    """A GpuReading whole, its fans too; `missing` names the quantities that this card does not offer."""
    names = [name for name in _fields(model.GpuReading) if name not in {"gpu", "processes"}]
    full = _whole(("gpu", "identity", *names, "fan_percent", "fan_rpm"), plain)
    full["identity"] = _whole(_fields(model.GpuIdentity), cast("Plain", plain.get("identity") or {}))
    full["fans"] = [_whole(_fields(model.FanReading), fan) for fan in _dicts(plain.get("fans"))]
    return full | {"missing": [name for name, value in full.items() if value is None]}


def _fields(of: type) -> list[str]:
    return [field.name for field in dataclasses.fields(of)]


def _whole(names: Iterable[str], plain: Mapping[str, object]) -> Plain:
    """`plain` with every one of these names; keys of a newer daemon stay."""
    return {name: plain.get(name) for name in names} | dict(plain)


def _dicts(value: object) -> list[Plain]:
    return (
        [cast("Plain", item) for item in value if isinstance(item, Mapping)]
        if isinstance(value, list | tuple)
        else []
    )


def _finite(value: object) -> object:
    """JSON has no NaN and no infinity: null."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
