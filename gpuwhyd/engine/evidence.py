"""What an answer rests on, machine-readable."""

from gpuwhyd.engine.causes.facts import Finding
from gpuwhyd.engine.known import Known
from gpuwhyd.engine.shared_heat import Cooler
from gpuwhyd.engine.suspects import PAUSED_SECONDS
from gpuwhyd.engine.trace import Trace
from gpuwhyd.model import Evidence, Snapshot


def evidence(known: Known, snapshot: Snapshot, finding: Finding) -> tuple[Evidence, ...]:
    """What the finding says itself first, then what was measured, learned and remembered of the card."""
    found = [Evidence(quantity=mark, value=1.0) for mark in finding.marks]
    found += finding.evidence
    spike = known.watch.spike
    if spike is not None and spike.began_before_start:
        found.append(Evidence(quantity="began_before_start", value=1.0, since_usec=spike.began_usec))
    if known.cooler is not None and known.is_loud(snapshot.boottime_seconds):
        found += _of_the_cpu(known.cooler, snapshot)
    found += _measured(known, snapshot)
    found += _peaks(known)
    found += _learned(known)
    found += [Evidence(quantity="alert", value=name) for name in known.rules.raised()]
    if not known.heat.ledger.engine_times_known:
        found.append(Evidence(quantity="engine_times_unknown", value=1.0))
    found += _last_spike(known, snapshot)
    return tuple(found)


def _measured(known: Known, snapshot: Snapshot) -> list[Evidence]:
    """Since the card has been working."""
    heat = known.heat
    if heat.working_since is None:
        return []
    return _of_the_trace(heat.trace, heat.working_since, snapshot)


def _of_the_trace(trace: Trace, working_since: float, snapshot: Snapshot, prefix: str = "") -> list[Evidence]:
    """Average power and lowest temperature since the work began, as far back as the trace goes: `since` says how far."""

    def since(boottime_seconds: float, quantity: str, value: float, unit: str) -> Evidence:
        since_usec = _wall_usec(snapshot, boottime_seconds)
        return Evidence(quantity=prefix + quantity, value=value, unit=unit, since_usec=since_usec)

    found = []
    if (average := trace.average_watts(working_since - 1e-6)) is not None:
        watts, over, began = average
        found.append(since(began, "average_power_watts", watts, "W"))
        found.append(Evidence(quantity=f"{prefix}average_over_seconds", value=over, unit="s"))
    if (lowest := trace.lowest_celsius(working_since - PAUSED_SECONDS)) is not None:
        low, began = lowest
        found.append(since(began, "temperature_low_celsius", low, "degC"))
    return found


def _wall_usec(snapshot: Snapshot, boottime_seconds: float) -> int:
    """The wall clock at that moment, by what it says now."""
    return snapshot.wall_usec - round((snapshot.boottime_seconds - boottime_seconds) * 1e6)


def _peaks(known: Known) -> list[Evidence]:
    """How high an open spike has come."""
    spike = known.watch.spike
    if spike is None:
        return []
    peaks = (
        ("peak_fan_percent", None if known.level.percent_lies else spike.peak_fan_percent, "%"),
        ("peak_fan_rpm", spike.peak_fan_rpm, "RPM"),
        ("peak_temperature_celsius", spike.peak_temperature_celsius, "degC"),
    )
    return [
        Evidence(quantity=quantity, value=value, unit=unit, since_usec=spike.began_usec)
        for quantity, value, unit in peaks
        if value is not None
    ]


def _of_the_cpu(cooler: Cooler, snapshot: Snapshot) -> list[Evidence]:
    """What the CPU does, which shares the cooler or may do so."""
    cpu, host = cooler.cpu, cooler.cpu.host
    if host is None or cpu.watts is None:
        return [Evidence(quantity="cpu_unknown", value=1.0)]
    found = [Evidence(quantity="cpu_power_watts", value=cpu.watts, unit="W")]
    if cpu.is_estimated:
        found.append(Evidence(quantity="cpu_power_estimated", value=1.0))
    if host.cpu_utilization_percent is not None:
        found.append(Evidence(quantity="cpu_use_percent", value=host.cpu_utilization_percent, unit="%"))
    if host.cpu_temperature_celsius is not None:
        found.append(
            Evidence(quantity="cpu_temperature_celsius", value=host.cpu_temperature_celsius, unit="degC")
        )
    if (began := cpu.heat.working_since) is not None:
        found += _of_the_trace(cpu.heat.trace, began, snapshot, "cpu_")
    return found


def _learned(known: Known) -> list[Evidence]:
    found, level = [], known.level
    if known.heat.floor.watts is not None:
        found.append(Evidence(quantity="idle_floor_watts", value=known.heat.floor.watts, unit="W"))
    if level.rest_percent is not None and not level.percent_lies:
        found.append(Evidence(quantity="fan_rest_percent", value=level.rest_percent, unit="%"))
    elif level.rest_rpm is not None:
        if level.percent_lies:
            found.append(Evidence(quantity="fan_percent_untrusted", value=1.0))
        found.append(Evidence(quantity="fan_rest_rpm", value=level.rest_rpm, unit="RPM"))
    thermal = known.thermal
    if known.watch.spike is not None and (error := thermal.error_part) is not None:
        found.append(Evidence(quantity="outlook_error_percent", value=100 * error, unit="%"))
    return found


def _last_spike(known: Known, snapshot: Snapshot) -> list[Evidence]:
    last = known.watch.last
    if last is None or known.watch.spike is not None:
        return []
    if last.ended_boottime_seconds is not None:
        ago = snapshot.boottime_seconds - last.ended_boottime_seconds
    else:
        ago = max(0.0, (snapshot.wall_usec - last.ended_usec) / 1e6)
    found = [Evidence(quantity="last_spike_seconds_ago", value=ago, unit="s", since_usec=last.ended_usec)]
    if last.program:
        found.append(Evidence(quantity="last_spike_program", value=last.program))
    return found
