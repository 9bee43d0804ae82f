"""A report as the D-Bus interface shows it: plain dicts under the names that the XML files promise. Pure."""

from math import nan

from gpuwhyd import __version__
from gpuwhyd.bus.codec import ObjectPath
from gpuwhyd.model import AlertEvent, Explanation, GpuReading, GpuUse, Report, SpikeEvent, as_plain
from gpuwhyd.outputs.dbus_contract import gpu_path
from gpuwhyd.outputs.dbus_privacy import (
    ANYONE,
    Viewer,
    alert_sentence_for,
    explanation_for,
    headline_for,
    sees_command_line,
    uses_for,
)

Plain = dict[str, object]
Topic = tuple[object, ...]

API_FEATURES = ("explain", "processes", "metrics", "sources", "events", "alerts", "refresh", "reload")
STARTING = "gpuwhyd is starting: no sample has been taken yet."


def readings_by_id(report: Report | None) -> dict[str, GpuReading]:
    """The GPUs of the last sample, in their order."""
    return {} if report is None else {reading.gpu.id: reading for reading in report.snapshot.readings}


def spike_is_active(explanation: Explanation | None) -> bool:
    """`for_seconds` is how long the fan has been up in a spike, and only set in one."""
    return explanation is not None and explanation.for_seconds is not None


def manager_properties(report: Report | None, sample_interval_seconds: float) -> Plain:
    """The properties of org.gpuwhyd1.Manager, as everyone may see them."""
    explanations = report.explanations.values() if report else ()
    return {
        "Version": __version__,
        "ApiFeatures": list(API_FEATURES),
        "Headline": headline_for(report, ANYONE) if report else STARTING,
        "FanActive": any(spike_is_active(explanation) for explanation in explanations),
        "Backends": {health.name: health.state.value for health in report.snapshot.backends}
        if report
        else {},
        "SampleIntervalSeconds": float(sample_interval_seconds),
    }


def gpu_properties(report: Report, reading: GpuReading) -> Plain:
    """The properties of org.gpuwhyd1.Gpu, as everyone may see them: NaN or an empty string for what is not known."""
    gpu = reading.gpu
    private = report.explanations.get(gpu.id)
    explanation = explanation_for(report, private, ANYONE) if private else None
    return {
        "Name": gpu.name,
        "Vendor": gpu.vendor,
        "PciAddress": gpu.pci_address or "",
        "Uuid": gpu.uuid or "",
        "Driver": gpu.driver or "",
        "State": reading.state.value,
        "FanPercent": _number(reading.fan_percent),
        "FanRpm": _number(reading.fan_rpm),
        "FanMode": reading.fan_mode.value,
        "TemperatureCelsius": _number(reading.temperature_celsius),
        "HotspotCelsius": _number(reading.hotspot_celsius),
        "MemoryTemperatureCelsius": _number(reading.memory_temperature_celsius),
        "PowerWatts": _number(reading.power_watts),
        "PowerLimitWatts": _number(reading.power_limit_watts),
        "UtilizationPercent": _number(reading.utilization_percent),
        "MemoryUsedBytes": _number(reading.memory_used_bytes),
        "MemoryTotalBytes": _number(reading.memory_total_bytes),
        "SpikeActive": spike_is_active(explanation),
        "Cause": explanation.cause.value if explanation else "unknown",
        "Confidence": _number(explanation.confidence if explanation else None),
        "Sentence": explanation.sentence if explanation else "",
    }


def gpu_topic(report: Report, gpu_id: str) -> Topic:
    """What a GPU's sentence is about, without the numbers in it: while this stays, the sentence says the same."""
    explanation = report.explanations.get(gpu_id)
    if explanation is None:
        return ()
    public = explanation_for(report, explanation, ANYONE)
    suspects = tuple((suspect.program.key, suspect.alive) for suspect in public.suspects)
    return (public.cause, suspects, public.spike_id, spike_is_active(public))


def explanation_view(report: Report, explanation: Explanation, viewer: Viewer) -> Plain:
    """What Explain answers."""
    return _plain(explanation_for(report, explanation, viewer)) | {
        "gpu": ObjectPath(gpu_path(explanation.gpu_id))
    }


def summary(report: Report | None, sample_interval_seconds: float, viewer: Viewer) -> Plain:
    """What GetSummary answers."""
    public = manager_properties(report, sample_interval_seconds)
    readings = readings_by_id(report).values()
    return {
        "headline": headline_for(report, viewer) if report else STARTING,
        "fan_active": public["FanActive"],
        "version": __version__,
        "wall_usec": report.snapshot.wall_usec if report else None,
        "sample_interval_seconds": sample_interval_seconds,
        "backends": public["Backends"],
        "gpus": [_gpu_summary(report, reading, viewer) for reading in readings] if report else [],
    }


def metrics(report: Report | None) -> list[Plain]:
    """What GetMetrics answers."""
    return [_gpu_metrics(reading) for reading in readings_by_id(report).values()]


def processes(report: Report, gpu_id: str, viewer: Viewer) -> list[Plain]:
    """What GetProcesses answers: the most heat first."""
    explanation = report.explanations.get(gpu_id)
    shares = {s.program.key: s.share for s in explanation.suspects} if explanation else {}
    uses = uses_for(report, gpu_id, viewer)
    ordered = sorted(
        uses,
        key=lambda use: (shares.get(use.process.program.key, 0.0), use.use.memory_used_bytes or 0),
        reverse=True,
    )
    return [_process(use, shares.get(use.process.program.key), viewer) for use in ordered]


def spike_signal(report: Report, event: SpikeEvent) -> Plain:
    """The last argument of SpikeStarted, SpikeUpdated and SpikeEnded."""
    public = explanation_view(report, event.explanation, ANYONE)
    return public | {"wall_usec": event.wall_usec, "spike": _plain(event.spike)}


def alert_signal(report: Report, event: AlertEvent) -> Plain:
    """The last argument of AlertRaised and AlertCleared."""
    return {
        "wall_usec": event.wall_usec,
        "severity": event.severity.value,
        "metric": event.metric,
        "value": float(event.value),
        "threshold": float(event.threshold),
        "for_seconds": float(event.for_seconds),
        "sentence": alert_sentence_for(report, event, ANYONE),
        "explanation": explanation_view(report, event.explanation, ANYONE),
    }


def _gpu_summary(report: Report, reading: GpuReading, viewer: Viewer) -> Plain:
    gpu = reading.gpu
    private = report.explanations.get(gpu.id)
    explanation = explanation_for(report, private, viewer) if private else None
    return {
        "gpu": ObjectPath(gpu_path(gpu.id)),
        "id": gpu.id,
        "name": gpu.name,
        "vendor": gpu.vendor,
        "state": reading.state.value,
        "fan_percent": reading.fan_percent,
        "fan_rpm": reading.fan_rpm,
        "fan_mode": reading.fan_mode.value,
        "temperature_celsius": reading.temperature_celsius,
        "power_watts": reading.power_watts,
        "utilization_percent": reading.utilization_percent,
        "memory_used_bytes": reading.memory_used_bytes,
        "memory_total_bytes": reading.memory_total_bytes,
        "spike_active": spike_is_active(explanation),
        "cause": explanation.cause.value if explanation else "unknown",
        "confidence": explanation.confidence if explanation else None,
        "sentence": explanation.sentence if explanation else None,
    }


def _gpu_metrics(reading: GpuReading) -> Plain:
    plain = _plain(reading)
    plain.pop("processes", None)
    identity = plain.pop("gpu")
    return plain | {
        "gpu": ObjectPath(gpu_path(reading.gpu.id)),
        "identity": identity,
        "fan_percent": reading.fan_percent,
        "fan_rpm": reading.fan_rpm,
    }


def _process(use: GpuUse, share: float | None, viewer: Viewer) -> Plain:
    process, program = use.process, use.process.program
    shown: Plain = {
        "pid": process.pid,
        "name": process.name,
        "user": process.user,
        "uid": process.uid,
        "program": program.name,
        "program_kind": program.kind.value,
        "unit": program.unit or program.user_unit,
        "container": program.container,
        "app": program.app,
        "kind": use.use.kind,
        "memory_used_bytes": use.use.memory_used_bytes,
        "engine_percent": use.use.engine_percent,
        "encoder_percent": use.use.encoder_percent,
        "decoder_percent": use.use.decoder_percent,
        "share": share,
    }
    if sees_command_line(process, viewer):
        shown["command_line"] = None if process.command_line is None else list(process.command_line)
        shown["executable"] = process.executable
    return shown


def _number(value: float | None) -> float:
    return nan if value is None else float(value)


def _plain(value: object) -> Plain:
    plain = as_plain(value)
    if not isinstance(plain, dict):
        raise TypeError(f"{type(value).__name__} is not a value of the model")
    return plain
