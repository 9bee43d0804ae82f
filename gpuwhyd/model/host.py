"""The CPU side of the machine: what else heats a cooler that GPU and CPU share."""

from dataclasses import dataclass

from gpuwhyd.model.programs import ProcessIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class HostProcess:
    pid: int
    cpu_percent: float
    """Part of the whole machine's CPU time since the last look, 0 to 100."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostReading:
    """What the CPU does; a quantity that cannot be read is `None`."""

    cpu_temperature_celsius: float | None = None
    cpu_power_watts: float | None = None
    """Of all packages, from their energy counters (RAPL)."""
    cpu_utilization_percent: float | None = None
    """Of the whole machine, 0 to 100."""
    processes: tuple[HostProcess, ...] | None = None
    """The busiest ones; `None` when nobody looked, because no shared fan is up and the CPU has little to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostUse:
    """One process on the CPU during one tick."""

    process: ProcessIdentity
    use: HostProcess
