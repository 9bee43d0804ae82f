"""The CPU side of the machine, looked at only where its heat drives a GPU's fan.

That is where a fan of the machine itself cools the GPU (backends/chassis.py); elsewhere this costs nothing, and psutil
is not even loaded (2 MiB).
"""

import logging
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from gpuwhyd.model import CHASSIS, GpuReading, HostProcess, HostReading
from gpuwhyd.processes.cpu_time import BusyProcesses
from gpuwhyd.processes.rapl import CpuPower

_log = logging.getLogger(__name__)

BUSY_PERCENT = 15.0
"""A CPU that does less does not make a fan audible, and it is not looked at who does it."""
FAN_RISE_RPM = 300.0
"""So much above the lowest speed seen a fan is up; the engine, which knows better, begins a spike there."""
LOOK_SECONDS = 10.0
"""How often all processes are looked at, while there is a reason: 14 ms for 670 of them."""
STALE_SECONDS = 60.0
"""What happened since an older look is no longer what happens now."""


class HostWatch:
    """See sampler.Host. Not thread-safe: all calls come from one worker thread."""

    def __init__(
        self,
        procfs: Path,
        sysfs: Path,
        *,
        cpu_temperature: Callable[[float], float | None] = lambda _now: None,
    ) -> None:
        """`cpu_temperature` is asked with the time where no reading of the machine's fans has it."""
        self._procfs = procfs
        self._cpu_temperature = cpu_temperature
        self._power = CpuPower(f"{sysfs}/class/powercap")
        self._busy = BusyProcesses(str(procfs))
        self._psutil: ModuleType | None = None
        self._lowest_rpm: dict[str, float] = {}
        self._ticked: tuple[float, float] | None = None
        """Seconds of all CPUs, and of those the idle ones, at the last tick."""
        self._utilization_percent: float | None = None
        self._looked_at = float("-inf")
        self._seconds_at_look = 0.0
        self._processes: tuple[HostProcess, ...] | None = None
        self._complained = False

    def read(self, readings: tuple[GpuReading, ...], boottime_seconds: float) -> HostReading | None:
        """`None`, at once, unless some GPU's fan is one of the machine."""
        cooled = [reading for reading in readings if _is_cooled_by_the_machine(reading)]
        if not cooled:
            if self._ticked is not None:
                self._start_over()
            return None
        now = boottime_seconds
        seconds = self._cpu_seconds()
        self._processes = self._who(cooled, seconds, now)
        celsius = next((r.temperature_celsius for r in cooled if r.gpu.vendor == CHASSIS), None)
        return HostReading(
            cpu_temperature_celsius=self._cpu_temperature(now) if celsius is None else celsius,
            cpu_power_watts=self._power.read(now),
            cpu_utilization_percent=self._utilization_percent,
            processes=self._processes,
        )

    def _start_over(self) -> None:
        self._ticked = self._utilization_percent = self._processes = None
        self._looked_at = float("-inf")
        self._busy.forget()
        self._power.forget()

    def _cpu_seconds(self) -> float | None:
        """CPU time of the machine since it booted, of all CPUs together. Takes note of how busy they were since."""
        before, self._ticked = self._ticked, None
        self._utilization_percent = None
        try:
            times = self._loaded().cpu_times()
        except (ImportError, OSError, ValueError, IndexError, TypeError) as error:
            self._complain(error)
            return None
        # guest time is in user time already (proc(5))
        total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        idle = times.idle + getattr(times, "iowait", 0.0)
        self._ticked = (total, idle)
        if before is not None and total > before[0]:
            busy = 1.0 - (idle - before[1]) / (total - before[0])
            self._utilization_percent = 100.0 * min(1.0, max(0.0, busy))  # iowait may go backwards
        return float(total)

    def _who(
        self, cooled: list[GpuReading], seconds: float | None, now: float
    ) -> tuple[HostProcess, ...] | None:
        """The busiest processes while that matters; as of the last look."""
        fan_is_up = self._a_fan_is_up(cooled)
        age = now - self._looked_at
        if age > STALE_SECONDS:
            self._busy.forget()
            self._processes = None
        if seconds is None or not (fan_is_up or (self._utilization_percent or 0.0) >= BUSY_PERCENT):
            return None
        if age < LOOK_SECONDS:
            return self._processes
        try:
            pids = self._loaded().pids()
        except (OSError, ValueError, IndexError) as error:  # the last: there are none
            self._complain(error)
            return None
        self._looked_at = now
        before, self._seconds_at_look = self._seconds_at_look, seconds
        return self._busy.look(pids, seconds - before)

    def _a_fan_is_up(self, cooled: list[GpuReading]) -> bool:
        up = False
        for reading in cooled:
            if reading.fan_rpm is not None:
                lowest = min(reading.fan_rpm, self._lowest_rpm.get(reading.gpu.id, reading.fan_rpm))
                self._lowest_rpm[reading.gpu.id] = lowest
                up |= reading.fan_rpm >= lowest + FAN_RISE_RPM
        return up

    def _loaded(self) -> ModuleType:
        if self._psutil is None:
            import psutil  # noqa: PLC0415 - only where it is needed

            if self._procfs != Path("/proc"):
                psutil.PROCFS_PATH = str(self._procfs)
            self._psutil = psutil
        return self._psutil

    def _complain(self, error: Exception) -> None:
        """Once: nothing else depends on it."""
        if not self._complained:
            _log.warning("what the CPU does is not known: %s", error)
        self._complained = True


def _is_cooled_by_the_machine(reading: GpuReading) -> bool:
    """By a fan of its own, which has a label and a tachometer; or it is that fan itself."""
    return reading.gpu.vendor == CHASSIS or any(
        fan.label is not None and fan.rpm_is_measured for fan in reading.fans
    )
