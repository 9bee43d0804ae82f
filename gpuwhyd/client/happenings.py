"""What happened, in one form: the daemon's signals and the events that it remembers."""

from collections.abc import Sequence
from typing import cast

from gpuwhyd.client.ask import Plain
from gpuwhyd.client.shape import shaped

SPIKE_SIGNALS = {
    "SpikeStarted": "spike-started",
    "SpikeUpdated": "spike-updated",
    "SpikeEnded": "spike-ended",
}
ALERT_SIGNALS = {"AlertRaised": "alert-raised", "AlertCleared": "alert-cleared"}

_TITLES = {
    "spike-started": "fan up",
    "spike-updated": "update",
    "spike-ended": "quiet",
    "alert-raised": "ALERT",
    "alert-cleared": "cleared",
    "gpu-added": "GPU added",
    "gpu-removed": "GPU removed",
    "gpu-lost": "GPU LOST",
    "backend-failing": "FAILING",
    "backend-recovered": "recovered",
    "watching": "now",
    "daemon-stopped": "stopped",
    "daemon-started": "started",
    "bus-lost": "bus lost",
    "bus-back": "bus back",
}
"""The last five are `gpuwhy watch`'s own."""


def from_spike_signal(event: str, body: Sequence[object]) -> Plain:
    """SpikeStarted(s spike_id, o gpu, a{sv} explanation) and its kin, under the keys that GetEvents uses.

    ValueError for a signal of another form.
    """
    spike_id, gpu, explanation = _name_gpu_table(body)
    spike = cast("Plain", explanation.get("spike") or {})
    return {
        "event": event,
        "wall_usec": explanation.get("wall_usec"),
        "gpu": gpu,
        "gpu_id": explanation.get("gpu_id"),
        "spike_id": spike_id,
        "cause": explanation.get("cause"),
        "confidence": explanation.get("confidence"),
        "message": explanation.get("sentence"),
        "duration_seconds": spike_duration(spike),
        "explanation": {
            key: value for key, value in explanation.items() if key not in {"spike", "wall_usec"}
        },
        "spike": spike,
    }


def from_alert_signal(event: str, body: Sequence[object]) -> Plain:
    """AlertRaised(s rule, o gpu, a{sv} alert) and AlertCleared, under the keys that GetEvents uses and their own.

    ValueError for a signal of another form.
    """
    rule, gpu, alert = _name_gpu_table(body)
    explanation = cast("Plain", alert.get("explanation") or {})
    rest = {key: value for key, value in alert.items() if key != "sentence"}
    return {
        **rest,
        "event": event,
        "gpu": gpu,
        "gpu_id": explanation.get("gpu_id"),
        "rule": rule,
        "message": alert.get("sentence"),
    }


def from_gpu_signal(event: str, body: Sequence[object]) -> Plain:
    """InterfacesAdded and InterfacesRemoved of the ObjectManager. ValueError for a signal of another form."""
    if not body or not isinstance(body[0], str):
        raise ValueError(f"{event} does not tell which GPU")
    gpu = body[0]
    gpu_id = gpu.rpartition("/")[2]
    verb = "is there" if event == "gpu-added" else "is gone"
    return {"event": event, "gpu": gpu, "gpu_id": gpu_id, "message": f"{gpu_id} {verb}"}


def _name_gpu_table(body: Sequence[object]) -> tuple[str, str, Plain]:
    match list(body[:3]):
        case [str(name), str(gpu), dict(table)]:
            return name, gpu, cast("Plain", shaped(table))
        case _:
            raise ValueError("a signal of another version of gpuwhyd")


def spike_duration(spike: Plain) -> float | None:
    """Seconds from onset to the end; None while it lasts. By CLOCK_BOOTTIME where both ends have it."""
    for begin, end, unit in (
        ("began_boottime_seconds", "ended_boottime_seconds", 1.0),
        ("began_usec", "ended_usec", 1e6),
    ):
        began, ended = spike.get(begin), spike.get(end)
        if isinstance(began, int | float) and isinstance(ended, int | float) and ended >= began:
            return (ended - began) / unit
    return None


def event_title(event: Plain) -> str:
    """`fan up`, `quiet`, `ALERT overheating`, `FAILING nvml`; an event of a newer daemon keeps its own name."""
    name = str(event.get("event", ""))
    which = str(event.get("rule") or event.get("backend") or "")
    return " ".join(filter(None, (_TITLES.get(name, name), which)))


def event_message(event: Plain) -> str:
    explanation = cast("Plain", event.get("explanation") or {})
    return str(event.get("message") or explanation.get("sentence") or "")


def event_style(event: Plain) -> tuple[str, ...]:
    name = event.get("event")
    if name in {"alert-raised", "gpu-lost", "backend-failing", "daemon-stopped", "bus-lost"}:
        return ("bold", "red")
    if name in {"spike-ended", "alert-cleared", "backend-recovered"}:
        return ("green",)
    return ("bold", "yellow") if name == "spike-started" else ()


def leading_suspect(event: Plain) -> Plain | None:
    explanation = cast("Plain", event.get("explanation") or {})
    suspects = cast("Sequence[Plain]", explanation.get("suspects") or ())
    return suspects[0] if suspects else None


def most_telling(events: Sequence[Plain]) -> Plain | None:
    """Of a spike's events the last one that names a reason for the rise; else the last with suspects; else the last."""
    loads = {
        "workload",
        "workload-mixed",
        "hidden-workload",
        "shared-cooler",
        "monitor",
        "idle-clocks",
        "hotspot",
        "neighbour-heat",
        "driver-event",
        "manual-fan",
        "fan-fault",
    }
    with_suspects = [event for event in events if leading_suspect(event)]
    by_load = [event for event in events if event.get("cause") in loads]
    for choice in (by_load, with_suspects, events):
        if choice:
            return choice[-1]
    return None
