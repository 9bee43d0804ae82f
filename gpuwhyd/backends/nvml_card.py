"""One NVIDIA card: everything that NVML says of it at one moment."""

import ctypes
import struct
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from gpuwhyd.backends.nvml_fans import FanReader
from gpuwhyd.backends.nvml_gauges import CardGauges
from gpuwhyd.backends.nvml_library import CardRefusedError, NvmlLibrary, describe
from gpuwhyd.backends.nvml_processes import ProcessReader
from gpuwhyd.backends.nvml_questions import Questions
from gpuwhyd.backends.nvml_sources import CardRead
from gpuwhyd.backends.pci import gpu_id
from gpuwhyd.backends.plausible import (
    BYTES,
    CELSIUS,
    JOULES,
    LIMIT_CELSIUS,
    MEGAHERTZ,
    PERCENT,
    WATTS,
    within,
)
from gpuwhyd.model import GpuIdentity, GpuReading, GpuState

BACKEND_NAME = "nvml"

# Field ids of nvml.h, asked for in one call.
_MEMORY_TEMPERATURE = 82
_POWER_AVERAGE = 185  # over 1 s; Ampere (but GA100) and newer
_POWER_INSTANT = 186
_FIELDS = (_MEMORY_TEMPERATURE, _POWER_AVERAGE, _POWER_INSTANT)
_FIELD = struct.Struct("=IIqqII8s")  # nvmlFieldValue_t
_FIELD_VALUES = tuple(struct.Struct(code) for code in ("=d", "=I", "=Q", "=Q", "=q", "=i", "=H"))
"""By nvmlValueType_t: double, unsigned int, unsigned long, unsigned long long, signed long long, int, unsigned short."""
_NOT_FILLED = 999

_SENSOR_GPU = 0
_IDLE_PSTATE = 8
_PSTATES = range(16)  # 32 is NVML_PSTATE_UNKNOWN

_LIMIT_JITTER_CELSIUS = 2.0

_GPU_IDLE_BIT = 0x1
_THROTTLE_REASONS = {
    0x2: "app-clocks",
    0x4: "power-cap",
    0x8: "hw-slowdown",
    0x10: "sync-boost",
    0x20: "sw-thermal",
    0x40: "hw-thermal",
    0x80: "power-brake",
    0x100: "display-clocks",
    0x200: "board-limit",
    0x400: "reliability",
}
"""nvml.h, nvmlClocksEventReason*; that the card is idle (0x1) holds no clock down."""
_ALL_BITS = 0xFFFF_FFFF
"""How a register reads that nobody answers for; no card has every reason at once."""


@lru_cache(maxsize=64)
def throttle_names(bits: int) -> tuple[str, ...]:
    """Generic names of why clocks are held down; a bit newer than this table is `bit-N`."""
    return tuple(
        _THROTTLE_REASONS.get(1 << place, f"bit-{place}")
        for place in range(64)
        if bits & (1 << place) & ~_GPU_IDLE_BIT
    )


class NvmlCard:
    """What is kept of one card between ticks: identity, handle, what it declines, and what was learned of it."""

    def __init__(
        self, library: NvmlLibrary, address: str, procfs: Path, *, pci_id: str | None = None
    ) -> None:
        self.address = address
        self.identity = GpuIdentity(
            id=gpu_id(address),
            name="NVIDIA GPU",
            vendor="nvidia",
            pci_address=address.lower(),
            pci_id=pci_id,
        )
        self.handle: Any = None
        self._gauges: CardGauges | None = None
        self._core_clock_max_mhz: float | None = None
        self._memory_clock_max_mhz: float | None = None
        self._library = library
        self._questions = Questions(library.nvml, f"GPU {address}")
        self._fans = FanReader()
        self._processes = ProcessReader(procfs)
        self._limit_celsius: float | None = None
        self._field_buffer = ctypes.create_string_buffer(len(_FIELDS) * _FIELD.size)

    def attach(self, now: float) -> None:
        """Takes the card up: its handle and identity. Raises CardRefusedError, CardLostError and SessionLostError."""
        nvml, questions = self._library.nvml, self._questions
        try:
            self.handle = nvml.nvmlDeviceGetHandleByPciBusId(self.address)
        except nvml.NVMLError as error:
            questions.raise_if_lost(int(error.value))
            raise CardRefusedError(
                f"GPU {self.address} cannot be opened: {describe(nvml, error.value)}"
            ) from error
        questions.forget()
        questions.begin(now)
        self._gauges = CardGauges(self._library, questions, self.handle)
        self._core_clock_max_mhz = within(self._gauges.core_clock_max(), *MEGAHERTZ)
        self._memory_clock_max_mhz = within(self._gauges.memory_clock_max(), *MEGAHERTZ)
        self._processes.restart()
        name = questions.ask("nvmlDeviceGetName", nvml.nvmlDeviceGetName, self.handle)
        uuid = questions.ask("nvmlDeviceGetUUID", nvml.nvmlDeviceGetUUID, self.handle)
        vbios = questions.ask("nvmlDeviceGetVbiosVersion", nvml.nvmlDeviceGetVbiosVersion, self.handle)
        driver = questions.ask("nvmlSystemGetDriverVersion", nvml.nvmlSystemGetDriverVersion)
        self.identity = GpuIdentity(
            id=self.identity.id,
            name=_shown(name) or self.identity.name,
            vendor="nvidia",
            pci_address=self.identity.pci_address,
            uuid=_shown(uuid),
            driver=f"nvidia {driver}" if _shown(driver) else None,
            vbios_version=_shown(vbios),
            pci_id=self.identity.pci_id,
        )

    def detach(self) -> None:
        self.handle = self._gauges = None

    def unread(self, state: GpuState) -> GpuReading:
        """The card without a single reading: asleep, lost, let go, or not to be talked to."""
        return GpuReading(gpu=self.identity, backend=BACKEND_NAME, state=state)

    def left_behind(self, reading: GpuReading, complaint: str) -> CardRead:
        """For whoever asks later where that reading came from."""
        if not complaint and reading.state is GpuState.UNKNOWN and self.handle is not None:
            complaint = "NVML answers nothing but errors; see `nvidia-smi` and `dmesg | grep -i nvrm`"
        return CardRead(reading, self._questions.refusals, self._questions.now, complaint)

    def read(self, *, now: float, wall_usec: int, own_pid: int, can_suspend: bool) -> GpuReading:
        """To be called while attached. A card that answers nothing but errors is state `unknown`.

        `can_suspend` is passed on: it is the kernel's word, not NVML's.

        Raises CardLostError and SessionLostError.
        """
        handle, questions, gauges = self.handle, self._questions, self._gauges
        if gauges is None:
            raise ValueError(f"GPU {self.address} is read without a handle")
        questions.begin(now)
        fields = self._field_values()
        temperature = self._temperature(gauges)
        power = self._power(fields)
        limit = within(_thousandth(gauges.power_limit()), *WATTS)
        utilization, memory_utilization = gauges.utilization() or (None, None)
        used, total = self._memory(gauges)
        fan_mode, fans = self._fans.judge(
            self._fans.read(self._library.nvml, handle, gauges, questions),
            name=self.identity.name,
            temperature_celsius=temperature,
            power_share=power / limit if power is not None and limit is not None else None,
            now=now,
        )
        pstate = gauges.performance_state()
        reading = GpuReading(
            gpu=self.identity,
            backend=BACKEND_NAME,
            fan_mode=fan_mode,
            fans=fans,
            temperature_celsius=temperature,
            memory_temperature_celsius=within(fields.get(_MEMORY_TEMPERATURE), *CELSIUS),
            temperature_limit_celsius=self._limit(gauges, temperature),
            power_watts=power,
            power_average_watts=within(_thousandth(fields.get(_POWER_AVERAGE)), *WATTS),
            energy_joules=within(_thousandth(gauges.energy()), *JOULES),
            power_limit_watts=limit,
            utilization_percent=within(utilization, *PERCENT),
            memory_utilization_percent=within(memory_utilization, *PERCENT),
            encoder_percent=within(gauges.encoder(), *PERCENT),
            decoder_percent=within(gauges.decoder(), *PERCENT),
            memory_used_bytes=used,
            memory_total_bytes=total,
            core_clock_mhz=within(gauges.core_clock(), *MEGAHERTZ),
            core_clock_max_mhz=self._core_clock_max_mhz,
            memory_clock_mhz=within(gauges.memory_clock(), *MEGAHERTZ),
            memory_clock_max_mhz=self._memory_clock_max_mhz,
            performance_state=pstate if pstate in _PSTATES else None,
            throttle_reasons=self._throttle_reasons(gauges),
            can_suspend=can_suspend,
            processes=self._processes.read(
                self._library, handle, questions, own_pid=own_pid, wall_usec=wall_usec
            ),
        )
        if questions.all_failed:
            return replace(self.unread(GpuState.UNKNOWN), can_suspend=can_suspend)
        return reading

    def _field_values(self) -> dict[int, float]:
        """The fields that the card has; each entry has its own return code, the call itself succeeds."""
        questions, buffer = self._questions, self._field_buffer
        wanted = [field for field in _FIELDS if not questions.is_declined(f"field {field}")]
        if not wanted:
            return {}
        for place, field in enumerate(wanted):
            _FIELD.pack_into(buffer, place * _FIELD.size, field, 0, 0, 0, 0, _NOT_FILLED, b"")
        if questions.ask("nvmlDeviceGetFieldValues", self._call_field_values, len(wanted)) is None:
            return {}
        values: dict[int, float] = {}
        for place in range(len(wanted)):
            field, _, _, _, kind, code, raw = _FIELD.unpack_from(buffer, place * _FIELD.size)
            if code == 0 and kind < len(_FIELD_VALUES):
                values[field] = _FIELD_VALUES[kind].unpack_from(raw)[0]
            elif code != 0:
                questions.refused(f"field {field}", code)
        return values

    def _call_field_values(self, count: int) -> bool:
        function = self._library.function("nvmlDeviceGetFieldValues")
        code = function(self.handle, ctypes.c_int(count), self._field_buffer)
        if code != 0:
            raise self._library.nvml.NVMLError(code)
        return True

    def _temperature(self, gauges: CardGauges) -> float | None:
        """The old function first: every driver has it; the new one for drivers that will drop it (CUDA 14)."""
        nvml, value = self._library.nvml, gauges.temperature()
        if value is None:
            value = self._questions.ask(
                "nvmlDeviceGetTemperatureV", nvml.nvmlDeviceGetTemperatureV, self.handle, _SENSOR_GPU
            )
        return within(value, *CELSIUS)

    def _limit(self, gauges: CardGauges, temperature: float | None) -> float | None:
        """Where the card begins to slow down: the threshold, or on Ada and later the temperature plus the margin.

        The margin and the temperature are two readings, so small changes of their sum are noise and not passed on.
        (The T.Limit fields 193 to 196 are offsets within the margin, 0 and -2 degC; alone they give no temperature.)
        """
        if (limit := within(gauges.slowdown(), *LIMIT_CELSIUS)) is not None:
            return limit
        nvml, ask = self._library.nvml, self._questions.ask
        margin = ask("nvmlDeviceGetMarginTemperature", nvml.nvmlDeviceGetMarginTemperature, self.handle)
        if margin is None or temperature is None:
            return None
        limit = within(temperature + margin, *LIMIT_CELSIUS)
        if limit is None:
            return None
        if self._limit_celsius is None or abs(limit - self._limit_celsius) > _LIMIT_JITTER_CELSIUS:
            self._limit_celsius = limit
        return self._limit_celsius

    def _power(self, fields: dict[int, float]) -> float | None:
        """Instant draw; else GetPowerUsage, which is a 1 s average on Ampere and newer."""
        instant = within(_thousandth(fields.get(_POWER_INSTANT)), *WATTS)
        if instant is not None:
            return instant
        nvml = self._library.nvml
        usage = self._questions.ask("nvmlDeviceGetPowerUsage", nvml.nvmlDeviceGetPowerUsage, self.handle)
        return within(_thousandth(usage), *WATTS)

    def _memory(self, gauges: CardGauges) -> tuple[int | None, int | None]:
        """(used, total). Version 2 leaves out what the driver reserves for itself, which version 1 counts as used."""
        used, total = gauges.memory() or self._memory_of_old_driver()
        return (used, total) if 0 < total < BYTES[1] and used <= total else (None, None)

    def _memory_of_old_driver(self) -> tuple[int, int]:
        nvml = self._library.nvml
        memory = self._questions.ask("nvmlDeviceGetMemoryInfo", nvml.nvmlDeviceGetMemoryInfo, self.handle)
        return (int(memory.used), int(memory.total)) if memory is not None else (0, 0)

    def _throttle_reasons(self, gauges: CardGauges) -> tuple[str, ...] | None:
        """Drivers before 535 know the same bits under their old name."""
        nvml, ask, bits = self._library.nvml, self._questions.ask, gauges.event_reasons()
        if bits is None:
            name = "nvmlDeviceGetCurrentClocksThrottleReasons"
            bits = ask(name, nvml.nvmlDeviceGetCurrentClocksThrottleReasons, self.handle)
        return None if bits is None or bits & _ALL_BITS == _ALL_BITS else throttle_names(bits)


def is_idle(reading: GpuReading) -> bool:
    """Nobody works on the card, so holding it open serves no one.

    A compute process counts as work even when it does nothing: its context keeps the card awake anyway. A desktop's
    display server is listed on most laptops' sleeping cards, so graphics processes count by what they do.
    """
    busy = (reading.utilization_percent, reading.encoder_percent, reading.decoder_percent)
    if any(percent for percent in busy):
        return False
    if reading.performance_state is not None and reading.performance_state < _IDLE_PSTATE:
        return False
    return not any(
        process.kind != "graphics"
        or process.engine_percent
        or process.encoder_percent
        or process.decoder_percent
        for process in reading.processes or ()
    )


def _shown(text: str | None) -> str | None:
    """`None` for a name that is none: a card whose memory of its own is damaged gives control characters."""
    return text if text and text.isprintable() and not text.isspace() else None


def _thousandth(value: float | None) -> float | None:
    """NVML's milliwatts and millijoules as watts and joules."""
    return None if value is None else value / 1000.0
