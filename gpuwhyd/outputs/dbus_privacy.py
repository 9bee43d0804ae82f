"""Who may see what on the bus.

gpuwhyd reads more of a process than /proc shows to everyone, so it keeps to these rules:

- Command lines and executables go to root and to the process's own user.
- Names, units, users and pids go to anyone, unless /proc is mounted with hidepid: then to root only, and each user
  sees their own processes in GetProcesses.
- What is broadcast (signals, properties) holds only what any user may see.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from gpuwhyd.engine.sentences import redacted, redacted_headline
from gpuwhyd.model import AlertEvent, EventKind, Explanation, GpuUse, ProcessIdentity, Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewer:
    uid: int | None
    """`None`: everyone (a broadcast), or somebody whose uid could not be found out."""


ANYONE = Viewer(uid=None)


def names_are_hidden(report: Report | None, viewer: Viewer) -> bool:
    """Before the first report it is not known how /proc is mounted: hidden then."""
    hidden = report is None or report.snapshot.processes_hidden
    return hidden and viewer.uid != 0


def sees_command_line(process: ProcessIdentity, viewer: Viewer) -> bool:
    return viewer.uid is not None and viewer.uid in (0, process.uid)


def explanation_for(report: Report, explanation: Explanation, viewer: Viewer) -> Explanation:
    return redacted(explanation) if names_are_hidden(report, viewer) else explanation


def headline_for(report: Report, viewer: Viewer) -> str:
    return redacted_headline(report) if names_are_hidden(report, viewer) else report.headline


def uses_for(report: Report, gpu_id: str, viewer: Viewer) -> tuple[GpuUse, ...]:
    """The processes on one GPU that the viewer may know of."""
    hidden = names_are_hidden(report, viewer)
    return tuple(
        use
        for use in report.snapshot.uses
        if use.gpu_id == gpu_id and (not hidden or sees_command_line(use.process, viewer))
    )


def alert_sentence_for(report: Report, alert: AlertEvent, viewer: Viewer) -> str:
    """An alert's own sentence may name who heats the card."""
    if not names_are_hidden(report, viewer):
        return alert.sentence
    return f"{alert.gpu.name}: {alert.metric} is {alert.value:g}, the limit of rule {alert.rule} is {alert.threshold:g}."


_PUBLIC_EVENT_KEYS = frozenset(
    {
        "event",
        "wall_usec",
        "gpu",
        "gpu_id",
        "gpu_pci",
        "gpu_name",
        "spike_id",
        "cause",
        "confidence",
        "severity",
        "rule",
        "duration_seconds",
        "spike",
        "metric",
        "value",
        "threshold",
        "for_seconds",
        "backend",
    }
)
_HARDWARE_EVENTS = frozenset(
    {
        EventKind.GPU_ADDED,
        EventKind.GPU_REMOVED,
        EventKind.GPU_LOST,
        EventKind.BACKEND_FAILING,
        EventKind.BACKEND_RECOVERED,
    }
)
_PUBLIC_EXPLANATION_KEYS = frozenset(
    {
        "gpu_id",
        "gpu_label",
        "cause",
        "confidence",
        "unattributed_share",
        "outlook",
        "fan_percent",
        "fan_rpm",
        "temperature_celsius",
        "power_watts",
        "for_seconds",
        "spike_id",
    }
)


def redacted_event(event: Mapping[str, object]) -> dict[str, object]:
    """An event of the history as an ordinary user sees it under hidepid.

    Only keys known to be harmless are kept, so that a key that is added later is private until somebody decides; the
    message, written when names were known, is replaced.
    """
    public = {key: value for key, value in event.items() if key in _PUBLIC_EVENT_KEYS}
    if event.get("event") in _HARDWARE_EVENTS:
        return public | {key: event[key] for key in ("message",) if key in event}
    explanation = event.get("explanation")
    if isinstance(explanation, Mapping):
        public["explanation"] = {k: v for k, v in explanation.items() if k in _PUBLIC_EXPLANATION_KEYS}
    words = [str(event.get("gpu_name") or event.get("gpu_id") or "GPU"), str(event.get("event") or "event")]
    cause = f" ({event['cause']})" if event.get("cause") else ""
    public["message"] = (
        f"{words[0]}: {words[1]}{cause}; names are told to root only, /proc hides processes here."
    )
    return public
