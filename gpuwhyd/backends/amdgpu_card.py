"""One AMD card, read through the files of its kernel driver amdgpu (Documentation/gpu/amdgpu/thermal.rst, hwmon).

What is read when:

- asleep, ever: nothing of the card but `vendor`, `device` and `revision`, once. They are the PCI core's own memory of
  the configuration space (drivers/pci/pci-sysfs.c), as the directory that lists the driver's cards is;
- let go: `mem_info_vram_used`, a counter of the kernel's memory manager that asks no hardware (amdgpu_vram_mgr.c);
- awake, each tick: the sensors. Each read starts the time anew after which the card suspends;
- awake, each minute: what a user changes (limits, fan curve), what never changes, and what was not there before.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from gpuwhyd.backends.amdgpu_chip import Chip, Sensors, find_chip, highest_mhz
from gpuwhyd.backends.amdgpu_fan_control import read_fan_control
from gpuwhyd.backends.amdgpu_fans import is_built_into_portable
from gpuwhyd.backends.amdgpu_metrics import (
    EDGE_BIT,
    HOTSPOT_BIT,
    MEMORY_BIT,
    POWER_BITS,
    GpuMetrics,
    parse,
    reasons_between,
    throttle_reasons,
)
from gpuwhyd.backends.amdgpu_sources import sources_of
from gpuwhyd.backends.pci import gpu_id
from gpuwhyd.backends.pci_names import device_name, pci_id
from gpuwhyd.backends.plausible import BYTES, PERCENT
from gpuwhyd.backends.sysfs import Attributes
from gpuwhyd.backends.sysfs_backend import SysfsBackend
from gpuwhyd.errors import BackendError
from gpuwhyd.kernel_files import read_text
from gpuwhyd.model import FanControl, FieldSource, GpuIdentity, GpuReading, Lack

NAME = "amdgpu"
"""Of the backend, and of the kernel driver."""

SELDOM_SECONDS = 60.0
_IDLE_PERCENT = 2.0
"""Work below this heats nothing; some firmware never says less than 1 on an idle card."""
_STIR_BYTES = 16 << 20
"""Programs that begin on a card take more, the display server's small change is less."""
_THROTTLES_WITHIN_CELSIUS = 20.0
"""A firmware that says "throttled by heat" farther below the critical temperature is wrong. Laptop makers set limits some
10 degC below it; see amdgpu_metrics.throttle_reasons for the firmware that always says so."""
_THROTTLES_ABOVE_SHARE = 0.5
"""As much for "throttled by the power limit", at less than this part of it: RX 6700 XTs say so at little load."""
_SAME_LOAD_SECONDS = 15.0
"""What held the clocks at some time in a longer pause need not be what holds them now."""
_NO_VBIOS = "xxx-xxx-xxx"  # drivers/gpu/drm/amd/amdgpu/atom.c, where the card has no part number

_NOTHING = Sensors()
"""Of a virtual function, or with a kernel without hwmon."""
_NO_METRICS = GpuMetrics()


class AmdgpuCard:
    """A SysfsCard; see sysfs_backend.py. Making one touches nothing that a sleeping card would have to answer for."""

    def __init__(self, sysfs: Path, address: str, *, procfs: Path, run: Path, share: Path) -> None:
        """`run` and `share`: where udev and other packages keep the names of cards."""
        self._sysfs = sysfs
        self._path = f"{sysfs}/bus/pci/devices/{address}"
        self._device = Attributes(self._path, remembers_lacks=True)
        self.identity = GpuIdentity(
            id=gpu_id(address),
            name=device_name(self._path, run=run, share=share),
            vendor="amd",
            pci_address=address.lower(),
            driver=_driver(sysfs, procfs),
            pci_id=pci_id(self._path),
        )
        self._is_met = False
        self._chip: Chip | None = None
        self._built_into_portable = False
        self._learned_at = float("-inf")
        self._fan_control: FanControl | None = None
        self._core_clock_max_mhz: float | None = None
        self._memory_clock_max_mhz: float | None = None
        self._memory_total_bytes: int | None = None
        self._metrics: GpuMetrics | None = None
        self._metrics_at = float("-inf")
        self._metrics_are_known = True
        self._held: tuple[str, ...] | None = None
        """What held the clocks down since the last reading, of cards that count it."""
        self._memory_used_bytes: int | None = None
        self._sources: tuple[FieldSource, ...] = sources_of(self.identity.id, NAME, self._device, None, None)
        self._sources_key: object = None

    def read(self, now: float) -> GpuReading:
        if now - self._learned_at >= SELDOM_SECONDS:
            self._learn(now)
        reading = self._sensors(now)
        if reading is None and self._chip is not None and self._chip.is_gone():
            self._learn(now)  # the driver was loaded anew: the chip has another number
            reading = self._sensors(now)
        if reading is None:
            self._learned_at = float("-inf")
            raise BackendError(self._complaint())
        self._memory_used_bytes = reading.memory_used_bytes
        return reading

    def is_idle(self, reading: GpuReading) -> bool:
        """No engine works. What nobody measures counts as idle: a card is rather let go than kept awake for nothing."""
        busy = (reading.utilization_percent or 0.0) > _IDLE_PERCENT
        return not busy and (self._media_busy_percent() or 0.0) <= _IDLE_PERCENT

    def stirs(self) -> bool:
        """Somebody has begun to use its memory, or has left."""
        used = self._device.number("mem_info_vram_used", *BYTES)
        before = self._memory_used_bytes
        return used is not None and before is not None and abs(used - before) > _STIR_BYTES

    def sources(self) -> tuple[FieldSource, ...]:
        """Made anew only when something else is lacking than before."""
        chip, metrics = self._chip, self._metrics
        key = (
            self._device.revision,
            id(chip),
            chip.files.revision if chip else 0,
            chip is not None and chip.fans.are_there,
            metrics is not None and metrics.energy_joules is not None,
        )
        if key != self._sources_key:
            self._sources_key = key
            self._sources = sources_of(self.identity.id, NAME, self._device, chip, metrics)
        return self._sources

    # -- awake ----------------------------------------------------------------------------------------------------

    def _learn(self, now: float) -> None:
        self._learned_at = now
        self._device.ask_anew()
        self._metrics_are_known = True
        if not self._is_met:
            self._meet()
        chip = self._chip
        if chip is None or chip.is_gone():
            found = find_chip(self._path, built_into_portable=self._built_into_portable)
            self._chip = chip = found or chip
        if chip is not None:
            chip.learn()
        self._fan_control = read_fan_control(self._device)
        self._core_clock_max_mhz = self._highest_mhz("pp_dpm_sclk")
        self._memory_clock_max_mhz = self._highest_mhz("pp_dpm_mclk")
        total = self._device.number("mem_info_vram_total", *BYTES)
        self._memory_total_bytes = int(total) if total else None

    def _meet(self) -> None:
        """Once: what is known of the card itself, from memory of the driver's."""
        self._is_met = True
        self._built_into_portable = is_built_into_portable(self._sysfs, self._path)
        vbios, unique = read_text(f"{self._path}/vbios_version"), read_text(f"{self._path}/unique_id")
        self.identity = replace(
            self.identity,
            name=_product(read_text(f"{self._path}/product_name")) or self.identity.name,
            vbios_version=vbios if vbios.isprintable() and vbios not in {"", _NO_VBIOS} else None,
            # As ROCm spells it (rocminfo, ROCR_VISIBLE_DEVICES).
            uuid=f"GPU-{unique.lower()}" if unique.isalnum() and unique.strip("0") else None,
        )

    def _highest_mhz(self, name: str) -> float | None:
        text = self._device.text(name)
        highest = None if text is None else highest_mhz(text)
        if text is not None and highest is None:
            self._device.note(name, Lack.NO_SENSOR if not text else Lack.UNREADABLE)
        return highest

    def _sensors(self, now: float) -> GpuReading | None:
        """`None` when the card has sensors and not one of them answers."""
        chip, device = self._chip, self._device
        sensors = _NOTHING if chip is None else chip.read(self._fan_control)
        if sensors is None:
            return None
        metrics = self._read_metrics(now) or _NO_METRICS
        edge = sensors.edge_celsius or metrics.edge_celsius
        hotspot = sensors.hotspot_celsius or metrics.hotspot_celsius
        memory = sensors.memory_celsius or metrics.memory_celsius
        temperature, limit = edge, sensors.edge_limit_celsius
        if chip is not None and chip.edge is None and edge is None:  # MI300
            temperature, limit = hotspot, sensors.hotspot_limit_celsius
        power = sensors.power_watts if sensors.power_watts is not None else sensors.power_average_watts
        used, total = device.number("mem_info_vram_used", *BYTES), self._memory_total_bytes
        if used is not None and total is not None and used > total:
            used = total = None
        return GpuReading(
            gpu=self.identity,
            backend=NAME,
            fan_mode=sensors.fan_mode,
            fans=sensors.fans,
            temperature_celsius=temperature,
            hotspot_celsius=hotspot,
            memory_temperature_celsius=memory,
            # Of the temperature that is shown, so that their difference is the margin: the edge's, where the card has
            # one. The driver calls it critical: there the firmware slows the card, and 5 degC above (`emergency`) it
            # switches it off.
            temperature_limit_celsius=limit,
            # On a processor's graphics this is the whole package's; there is no other.
            power_watts=power,
            power_average_watts=sensors.power_average_watts,
            energy_joules=metrics.energy_joules,
            power_limit_watts=sensors.power_limit_watts,
            utilization_percent=device.number("gpu_busy_percent", *PERCENT),
            memory_utilization_percent=device.number("mem_busy_percent", *PERCENT),
            # On a processor's graphics this is the part that the firmware set aside; what it borrows beyond that
            # (mem_info_gtt_*) is the machine's memory, which the system's own tools show.
            memory_used_bytes=None if used is None else int(used),
            memory_total_bytes=total,
            core_clock_mhz=sensors.core_clock_mhz,
            core_clock_max_mhz=self._core_clock_max_mhz,
            memory_clock_mhz=sensors.memory_clock_mhz,
            memory_clock_max_mhz=self._memory_clock_max_mhz,
            throttle_reasons=self._held
            if metrics.throttle_bits is None
            else throttle_reasons(
                metrics.throttle_bits,
                contradicted=_if_below(edge, sensors.edge_limit_celsius, EDGE_BIT)
                | _if_below(hotspot, sensors.hotspot_limit_celsius, HOTSPOT_BIT)
                | _if_below(memory, sensors.memory_limit_celsius, MEMORY_BIT)
                | (POWER_BITS if _is_far_from(power, sensors.power_limit_watts) else 0),
            ),
            fan_control=self._fan_control,
        )

    def _read_metrics(self, now: float) -> GpuMetrics | None:
        if not self._metrics_are_known:
            return None
        table = self._device.raw("gpu_metrics")
        metrics = None if table is None else parse(table)
        if table is not None and metrics is None:
            self._metrics_are_known = False
            self._device.note("gpu_metrics", Lack.UNREADABLE)
        before = self._metrics if now - self._metrics_at <= _SAME_LOAD_SECONDS else None
        self._held = None if before is None or metrics is None else reasons_between(before, metrics)
        self._metrics, self._metrics_at = metrics, now
        return metrics

    def _media_busy_percent(self) -> float | None:
        """Of the video engines. Which of encoding and decoding it is nobody says, so the reading has neither."""
        if self._metrics is not None and self._metrics.media_busy_percent is not None:
            return self._metrics.media_busy_percent
        return self._device.number("vcn_busy_percent", *PERCENT)

    def _complaint(self) -> str:
        lacks = set() if self._chip is None else set(self._chip.files.lacks.values())
        if Lack.ASLEEP in lacks:
            return "the card lets nobody read its sensors while it is reset or falls asleep; `dmesg` tells of resets"
        return "the card's sensors cannot be read; `dmesg` may tell why, and whether the card is still there"


def amdgpu_backend(
    sysfs: Path,
    *,
    procfs: Path = Path("/proc"),
    run: Path = Path("/run"),
    share: Path = Path("/usr/share"),
    monotonic: Callable[[], float] = time.monotonic,
) -> SysfsBackend:
    """All cards that the kernel driver amdgpu has; see backends/base.py for the contract."""
    make_card = partial(AmdgpuCard, procfs=procfs, run=run, share=share)
    return SysfsBackend(NAME, sysfs=sysfs, make_card=make_card, monotonic=monotonic)


def _if_below(celsius: float | None, limit: float | None, bit: int) -> int:
    """The bit "throttled by this temperature", if the temperature belies it."""
    believed = celsius is None or limit is None or celsius >= limit - _THROTTLES_WITHIN_CELSIUS
    return 0 if believed else bit


def _is_far_from(watts: float | None, limit: float | None) -> bool:
    return watts is not None and limit is not None and watts < limit * _THROTTLES_ABOVE_SHARE


def _driver(sysfs: Path, procfs: Path) -> str:
    """The driver of AMD's own packages has a version; the kernel's has that of the kernel."""
    version = read_text(f"{sysfs}/module/amdgpu/version") or read_text(f"{procfs}/sys/kernel/osrelease")
    return f"{NAME} {version}".strip()


def _product(text: str) -> str | None:
    """The name on a server board's own chip (`AMD Instinct MI210`); other cards have none, or only zeros."""
    if not text.isprintable() or not text.strip("0 "):
        return None
    return text if text.upper().startswith("AMD") else f"AMD {text}"
