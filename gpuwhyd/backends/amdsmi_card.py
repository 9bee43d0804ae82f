"""One AMD card: what AMD's library says of it at one moment.

Of what sysfs has too, only the temperatures are served: both give whole degrees of the same sensors. The library gives
power in whole watts and memory in whole MiB, and its fans have neither mode nor range; sysfs says these better. Calls go
to the wrapper's C functions with arguments that are made once: its own functions make dicts whose keys differ by version.
"""

import ctypes
from pathlib import Path
from typing import Any

from gpuwhyd.backends.amdsmi_processes import Entry, ProcessList, ProcessWork
from gpuwhyd.backends.amdsmi_questions import Questions
from gpuwhyd.backends.amdsmi_throttling import COUNTERS, Violations, supported
from gpuwhyd.backends.pci import gpu_id
from gpuwhyd.backends.pci_names import device_name, pci_id
from gpuwhyd.backends.plausible import CELSIUS, JOULES
from gpuwhyd.model import FieldSource, GpuIdentity, GpuProcess, GpuReading, GpuState, Lack

BACKEND_NAME = "amdsmi"

_TEMPERATURES = {
    "temperature_celsius": ("AMDSMI_TEMPERATURE_TYPE_EDGE", 0),
    "hotspot_celsius": ("AMDSMI_TEMPERATURE_TYPE_HOTSPOT", 1),
    "memory_temperature_celsius": ("AMDSMI_TEMPERATURE_TYPE_VRAM", 2),
}
_CURRENT = ("AMDSMI_TEMP_CURRENT", 0)
_ENERGY = "amdsmi_get_energy_count"
_METRICS = "amdsmi_get_gpu_metrics_info"
_VIOLATIONS = f"{_METRICS}: violation counters"
_PROCESSES = "amdsmi_get_gpu_process_list"
_SOURCES = {
    **{quantity: f"amdsmi_get_temp_metric({kind})" for quantity, (kind, _) in _TEMPERATURES.items()},
    "energy_joules": _ENERGY,
    "throttle_reasons": _VIOLATIONS,
    "processes": _PROCESSES,
}
"""Quantity -> how its question is called."""
_ADVICE = {
    Lack.NO_PERMISSION: "run as root, or join the group render",
    Lack.OLD_DRIVER: "a newer ROCm offers it",
}

_MICRO = 1e-6
_MOST_ACTIVITY = 100
"""Percent; 0xFFFF is not available."""


class AmdsmiCard:
    """What is kept of one card between ticks: identity, handle, what it declines, and its counters of the last tick."""

    def __init__(self, sysfs: Path, address: str) -> None:
        device = f"{sysfs}/bus/pci/devices/{address}"
        self.address = address
        self.identity = GpuIdentity(
            id=gpu_id(address),
            name=device_name(device),
            vendor="amd",
            pci_address=address.lower(),
            pci_id=pci_id(device),
        )
        self._questions = Questions(f"GPU {address}")
        self._gauges: _Gauges | None = None
        self._violations = Violations()
        self._work = ProcessWork()
        self._activity_percent: int | None = None
        self._state = GpuState.UNKNOWN
        self._told: tuple[Lack | None, ...] = ()
        self._sources: tuple[FieldSource, ...] = ()

    def attach(self, wrapper: Any, handle: Any) -> None:
        """Takes the card up with a handle of the session that has just begun."""
        self._gauges = _Gauges(wrapper, handle)
        self._questions.forget()
        self._violations.restart()
        self._work.restart()

    @property
    def is_attached(self) -> bool:
        return self._gauges is not None

    def detach(self) -> None:
        """The handle has died with its session."""
        self._gauges = None

    def unread(self, state: GpuState) -> GpuReading:
        """The card without a single reading: asleep, lost, let go, or not to be talked to."""
        self._state = state
        return GpuReading(gpu=self.identity, backend=BACKEND_NAME, state=state)

    def read(self, now: float) -> GpuReading:
        """All but the processes; to be called while attached. Only failures: state `unknown`.

        Raises CardLostError and SessionLostError.
        """
        gauges, questions = self._gauges, self._questions
        if gauges is None:
            raise ValueError(f"GPU {self.address} is read without a handle")
        questions.begin(now)
        reading = GpuReading(
            gpu=self.identity,
            backend=BACKEND_NAME,
            temperature_celsius=self._temperature(gauges, "temperature_celsius"),
            hotspot_celsius=self._temperature(gauges, "hotspot_celsius"),
            memory_temperature_celsius=self._temperature(gauges, "memory_temperature_celsius"),
            energy_joules=self._energy(gauges),
            throttle_reasons=self._throttle_reasons(gauges),
        )
        if questions.raise_if_lost():
            return self.unread(GpuState.UNKNOWN)
        self._state = GpuState.AWAKE
        return reading

    def list_processes(self) -> tuple[Entry, ...] | None:
        """Who has the card open, to be called after `read`; None when that is not known. Raises SessionLostError."""
        processes = self._gauges.processes if self._gauges is not None else None
        answered = self._questions.ask(_PROCESSES, None if processes is None else processes.fetch)
        return processes.entries() if answered and processes is not None else None

    def weigh(self, entries: tuple[Entry, ...], *, own_pid: int, seconds: float) -> tuple[GpuProcess, ...]:
        """What the processes of a list, of this monotonic time, made the card work since the last one."""
        return self._work.weigh(entries, own_pid=own_pid, seconds=seconds)

    def is_idle(self, processes: tuple[GpuProcess, ...] | None) -> bool:
        """Nobody works on the card, as far as it tells. A compute process keeps it awake anyway."""
        return not self._activity_percent and not any(p.kind == "compute" for p in processes or ())

    def sources(self) -> tuple[FieldSource, ...]:
        """Made anew only when something has changed: it is asked after each read."""
        lacks = tuple(map(self._lack, _SOURCES.values()))
        if lacks != self._told:
            self._told = lacks
            self._sources = tuple(map(self._source, _SOURCES.keys(), _SOURCES.values(), lacks))
        return self._sources

    def _lack(self, function: str) -> Lack | None:
        if self._state is GpuState.AWAKE:
            return self._questions.lacks.get(function)
        return Lack.ASLEEP if self._state is GpuState.ASLEEP or self._gauges is None else Lack.UNREADABLE

    def _source(self, quantity: str, function: str, lack: Lack | None) -> FieldSource:
        return FieldSource(
            gpu_id=self.identity.id,
            backend=BACKEND_NAME,
            quantity=quantity,
            source=function,
            lack=lack,
            advice=_ADVICE.get(lack, "") if lack is not None else "",
        )

    def _temperature(self, gauges: "_Gauges", quantity: str) -> float | None:
        name = _SOURCES[quantity]
        if not self._questions.ask(name, *gauges.temperatures[quantity]):
            return None
        return self._plausible(name, float(gauges.celsius.value), *CELSIUS)

    def _energy(self, gauges: "_Gauges") -> float | None:
        """The counter times its unit, which is in microjoules; 0 is how a card says that it does not count."""
        if not self._questions.ask(_ENERGY, *gauges.energy):
            return None
        joules = gauges.energy_count.value * gauges.energy_unit.value * _MICRO
        return self._plausible(_ENERGY, joules, _MICRO, JOULES[1])

    def _throttle_reasons(self, gauges: "_Gauges") -> tuple[str, ...] | None:
        self._activity_percent = None
        if not self._questions.ask(_METRICS, *gauges.metrics_call):
            self._questions.lacks[_VIOLATIONS] = self._questions.lacks[_METRICS]
            self._violations.restart()
            return None
        activity = gauges.metrics.average_gfx_activity
        self._activity_percent = activity if activity <= _MOST_ACTIVITY else None
        counters = {name: getattr(gauges.metrics, name) for name in gauges.counters}
        lack = None if supported(counters) else Lack.NO_SENSOR if gauges.counters else Lack.OLD_DRIVER
        self._questions.lacks[_VIOLATIONS] = lack
        return self._violations.reasons(counters)

    def _plausible(self, name: str, value: float, low: float, high: float) -> float | None:
        if low <= value <= high:  # NaN is within nothing
            return value
        self._questions.implausible(name)
        return None


class _Gauges:
    """The questions of one card, each with its arguments, for as long as its handle lives."""

    def __init__(self, wrapper: Any, handle: Any) -> None:
        self.celsius = ctypes.c_int64()
        current = getattr(wrapper, *_CURRENT)
        temperature = getattr(wrapper, "amdsmi_get_temp_metric", None)
        self.temperatures = {
            quantity: (temperature, handle, getattr(wrapper, *kind), current, ctypes.byref(self.celsius))
            for quantity, kind in _TEMPERATURES.items()
        }
        self.energy_count, self.energy_unit, stamp_ns = ctypes.c_uint64(), ctypes.c_float(), ctypes.c_uint64()
        self.energy = (
            getattr(wrapper, _ENERGY, None),
            handle,
            ctypes.byref(self.energy_count),
            ctypes.byref(self.energy_unit),
            ctypes.byref(stamp_ns),
        )
        self.metrics = wrapper.amdsmi_gpu_metrics_t()
        self.metrics_call = (getattr(wrapper, _METRICS, None), handle, ctypes.byref(self.metrics))
        self.counters = tuple(name for name in COUNTERS if hasattr(self.metrics, name))
        """None of them in ROCm 6.2."""
        self.processes = ProcessList(wrapper, handle) if hasattr(wrapper, _PROCESSES) else None
