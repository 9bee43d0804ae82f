"""One Intel card as its kernel driver, `i915` or `xe`, shows it below /sys.

Reading almost any of these files takes the card's runtime power reference and so would wake it; SysfsBackend sees to it
that it is awake. Neither driver tells utilisation, memory in use or a fan's percent.
"""

import time
from collections.abc import Callable
from pathlib import Path

from gpuwhyd.backends.energy import EnergyMeter
from gpuwhyd.backends.hwmon import MICRO, MILLI
from gpuwhyd.backends.intel_fans import Tachometers
from gpuwhyd.backends.intel_layout import Gt, Layout, layout_of
from gpuwhyd.backends.intel_sources import sources_of
from gpuwhyd.backends.pci import gpu_id
from gpuwhyd.backends.pci_names import device_name, pci_id
from gpuwhyd.backends.plausible import CELSIUS, JOULES, LIMIT_CELSIUS, WATTS
from gpuwhyd.backends.sysfs import Attributes
from gpuwhyd.errors import BackendError
from gpuwhyd.kernel_files import read_text
from gpuwhyd.model import FanMode, FieldSource, GpuIdentity, GpuReading, Lack

_LOOK_SECONDS = 60.0
"""What rarely changes is read this often: which files there are, limits, the most that a clock can do."""
_LOOK_SOON_SECONDS = 4.0
"""So soon when a sensor is gone that was there: the driver was loaded anew, and its chip has another number."""

_MEGAHERTZ = (0.0, 10_000.0)
_MILLISECONDS = (0.0, 1e15)
_RESTING_SHARE = 0.95
"""Of the time since the last read: a desktop's now and then is rest, a program at work is not."""

_INTEGRATED = ":00:02."
"""Graphics in the processor are device 2 of the first bus, always; a discrete card is behind a bridge."""
_PASSIVE_BOARDS = ("8086:56c", "8086:0b")
"""PCI ids of Flex (56c0 to 56c2) and Max (0b69 to 0be5), datacenter boards cooled by the chassis (xe_pciids.h)."""


class IntelCard:
    """See SysfsCard in sysfs_backend.py. `sleep` and `monotonic` are for tests."""

    def __init__(
        self,
        driver: str,
        sysfs: Path,
        address: str,
        *,
        procfs: Path = Path("/proc"),
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._device = f"{sysfs}/bus/pci/devices/{address}"
        known = pci_id(self._device)
        release = read_text(f"{procfs}/sys/kernel/osrelease")
        self.identity = GpuIdentity(
            id=gpu_id(address),
            name=device_name(self._device),
            vendor="intel",
            pci_address=address.lower(),
            driver=f"{driver} {release}".strip(),  # both come with the kernel
            pci_id=known,
        )
        self._driver = driver
        self._release = release
        self._is_passive_board = known is not None and known.startswith(_PASSIVE_BOARDS)
        self._monotonic = monotonic
        self._attributes = Attributes(self._device, remembers_lacks=True)
        self._layout: Layout | None = None
        self._look_at = 0.0
        self._meter = EnergyMeter()
        self._fans = Tachometers(sleep=sleep, monotonic=monotonic)
        self._power_limit_watts: float | None = None
        self._temperature_limit_celsius: float | None = None
        self._clock_maximum_mhz: float | None = None
        self._rest: dict[str, tuple[float, float]] = {}
        self._rests = False
        self._sources: tuple[FieldSource, ...] = ()
        self._sources_when: object = None

    def read(self, now: float) -> GpuReading:
        layout = self._layout
        if layout is None or now >= self._look_at:
            layout = self._look()
            self._look_at = now + _LOOK_SECONDS
        number = self._attributes.number
        # Its own time: `now` is when the tick began, and another card may have been read since.
        watts, joules = self._meter.read(
            [(file, number(file, *JOULES, scale=MICRO)) for file in layout.energies], self._monotonic()
        )
        self._rests = self._all_rest(layout.gts)
        reading = GpuReading(
            gpu=self.identity,
            backend=self._driver,
            fan_mode=self._fan_mode(layout),
            fans=self._fans.read(self._attributes, layout.fans),
            temperature_celsius=self._celsius(layout.temperature),
            memory_temperature_celsius=self._celsius(layout.memory_temperature),
            temperature_limit_celsius=self._temperature_limit_celsius,
            power_watts=watts if watts is not None and watts <= WATTS[1] else None,
            energy_joules=joules,
            power_limit_watts=self._power_limit_watts,
            core_clock_mhz=number(layout.gts[0].clock, *_MEGAHERTZ) if layout.gts else None,
            core_clock_max_mhz=self._clock_maximum_mhz,
            throttle_reasons=self._throttle_reasons(layout.gts),
        )
        self._tell_sources(layout)
        if any(self._attributes.lacks.get(file) is Lack.NO_SENSOR for file in layout.sensors):
            self._look_at = min(self._look_at, now + _LOOK_SOON_SECONDS)
        if _is_empty(reading) and set(self._attributes.lacks.values()) - {None, Lack.NO_SENSOR}:
            self._layout = None
            raise BackendError(
                f"{self.identity.name} answers none of its sensors: see `dmesg | grep -i {self._driver}`"
            )
        return reading

    def is_idle(self, reading: GpuReading) -> bool:  # noqa: ARG002 - what tells it is no quantity of a reading
        """All its GTs rested nearly all the time since the last read.

        Without a counter of that: none runs faster than it must.
        """
        return self._rests

    def stirs(self) -> bool:
        """By i915's clock, which is 0 unless somebody uses the card, and which takes no reference of its own
        (intel_rps_read_actual_frequency). With xe nothing can be looked at.
        """
        if self._driver != "i915" or self._layout is None:
            return False
        return any(self._attributes.number(gt.clock, *_MEGAHERTZ) for gt in self._layout.gts)

    def sources(self) -> tuple[FieldSource, ...]:
        return self._sources

    def _look(self) -> Layout:
        """Looks for its files, and reads what rarely changes."""
        layout = layout_of(self._driver, self._device)
        if self._is_passive_board:
            layout = layout.without_fans()  # i915 shows a fan of theirs that is always 0
        lacks, number = self._attributes.lacks, self._attributes.number
        lacks.clear()
        self._attributes.ask_anew()
        self._layout, self._sources_when = layout, None
        self._power_limit_watts = None
        for file in layout.power_limits:
            self._power_limit_watts = number(file, 0.0, WATTS[1], scale=MICRO) or None
            if self._power_limit_watts is not None:
                break
            if lacks[file] is None:  # 0 says that this limit is switched off
                self._attributes.note(file, Lack.NO_SENSOR)
        hottest = (number(file, *LIMIT_CELSIUS, scale=MILLI) for file in layout.temperature_limits)
        self._temperature_limit_celsius = min((limit for limit in hottest if limit is not None), default=None)
        self._clock_maximum_mhz = number(layout.gts[0].clock_maximum, *_MEGAHERTZ) if layout.gts else None
        return layout

    def _celsius(self, file: str | None) -> float | None:
        return None if file is None else self._attributes.number(file, *CELSIUS, scale=MILLI)

    def _has_fan(self, layout: Layout) -> bool | None:
        """`None`: it is a discrete card, of whose fans its driver does not tell."""
        if layout.fans:
            return True
        is_integrated = layout.chip is None and _INTEGRATED in f"{self.identity.pci_address}"
        return False if self._is_passive_board or is_integrated else None

    def _fan_mode(self, layout: Layout) -> FanMode:
        """The card's firmware turns the fans: Linux has no switch for them."""
        has_fan = self._has_fan(layout)
        if has_fan is None:
            return FanMode.UNKNOWN
        return FanMode.AUTO if has_fan else FanMode.NONE

    def _throttle_reasons(self, gts: tuple[Gt, ...]) -> tuple[str, ...] | None:
        """`unnamed`: the driver says that a clock is held down and not by what."""
        number = self._attributes.number
        names: set[str] = set()
        is_known = False
        for gt in gts:
            is_throttled = number(gt.is_throttled, 0, 1)
            is_known |= is_throttled is not None
            if is_throttled:
                names.update({name for file, name in gt.reasons if number(file, 0, 1)} or {"unnamed"})
        return tuple(sorted(names)) if is_known else None

    def _all_rest(self, gts: tuple[Gt, ...]) -> bool:
        now, before, self._rest = self._monotonic(), self._rest, {}
        rests = [self._rests_since(gt, before.get(gt.resting), now) for gt in gts]
        return bool(rests) and all(rests)

    def _rests_since(self, gt: Gt, before: tuple[float, float] | None, now: float) -> bool:
        number = self._attributes.number
        seconds = number(gt.resting, *_MILLISECONDS, scale=MILLI)
        if seconds is None:
            clock, least = number(gt.clock, *_MEGAHERTZ), number(gt.clock_minimum, *_MEGAHERTZ)
            return clock is not None and clock <= (least or 0.0)
        self._rest[gt.resting] = (seconds, now)
        return before is not None and seconds - before[0] >= _RESTING_SHARE * (now - before[1])

    def _tell_sources(self, layout: Layout) -> None:
        """Made anew only when a file begins or stops to answer."""
        when = (self._attributes.revision, self._meter.source)
        if self._sources_when == when:
            return
        self._sources_when = when
        self._sources = sources_of(
            layout,
            self._attributes.lacks,
            gpu_id=self.identity.id,
            driver=self._driver,
            release=self._release,
            energy=self._meter.source,
            has_fan=self._has_fan(layout),
        )


def _is_empty(reading: GpuReading) -> bool:
    """Nothing was read that a card tells anew each time."""
    values = (
        reading.temperature_celsius,
        reading.memory_temperature_celsius,
        reading.energy_joules,
        reading.core_clock_mhz,
        reading.throttle_reasons,
        reading.fan_rpm,
    )
    return all(value is None for value in values)
