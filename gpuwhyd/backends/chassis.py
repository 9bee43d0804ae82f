"""Fans of the machine itself that cool a GPU: of laptops, whose GPU has no fan of its own, and those that the user names.

A fan that belongs to one GPU comes as a reading of that GPU with nothing but the fan in it (see merge.py); fans that GPU
and CPU share are one reading of vendor `chassis`. Which fan is what: chassis_fans.py. No chip of a GPU's driver is touched.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpuwhyd.backends import chassis_chip
from gpuwhyd.backends.base import BackendReadings, Probe, ProbeResult
from gpuwhyd.backends.chassis_chip import FanChip
from gpuwhyd.backends.chassis_fans import GPU_DRIVERS, FanRule, Owner, PlacedFan, plan
from gpuwhyd.backends.chassis_machine import gpus_of, is_portable, machine_name
from gpuwhyd.backends.cpu_temperature import CpuTemperature
from gpuwhyd.backends.fan_mode import mode_of_all
from gpuwhyd.backends.pci import names_in
from gpuwhyd.backends.pci_names import device_name, pci_id
from gpuwhyd.errors import BackendError, NoCardError
from gpuwhyd.kernel_files import read_text
from gpuwhyd.model import (
    CHASSIS,
    FanReading,
    FieldSource,
    GpuIdentity,
    GpuReading,
    GpuState,
    Lack,
)

_log = logging.getLogger(__name__)

LOOK_SECONDS = 10.0
"""How often it is looked for chips and GPUs that have come or gone: two directories are listed."""
SILENT_SECONDS = 30.0
"""When for so long no fan could be read, something is broken; a single failed read is not (EAGAIN of a busy controller)."""
_VENDORS = {"0x10de": "nvidia", "0x1002": "amd", "0x8086": "intel"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fan:
    chip: FanChip
    number: int
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """The fans of one reading."""

    identity: GpuIdentity
    is_gpu: bool
    fans: tuple[_Fan, ...]


class ChassisBackend:
    """See backends/base.py for the contract. `rules` are the `[[fan]]` tables of the configuration."""

    name = CHASSIS

    def __init__(
        self,
        *,
        sysfs: Path,
        rules: Sequence[FanRule] = (),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sysfs = sysfs
        self._rules = tuple(rules)
        self._monotonic = monotonic
        self._temperature = CpuTemperature(sysfs)
        self._groups: tuple[_Group, ...] = ()
        self._chips: tuple[FanChip, ...] = ()
        self._complaints: tuple[str, ...] = ()
        self._listed: tuple[list[str], list[str]] | None = None
        self._looked_at = float("-inf")
        self._told_at = self._sources_at = float("-inf")
        self._sources: tuple[FieldSource, ...] = ()

    def probe(self) -> ProbeResult:
        if not Path(f"{self._sysfs}/class/hwmon").is_dir():
            lost = ", ".join(f"fan {rule.fan} of {rule.chip}" for rule in self._rules)
            consequence = f"; there is none of those in [[fan]]: {lost}" if lost else ""
            message = f"this kernel has no hardware monitoring (hwmon){consequence}"
            return ProbeResult(answer=Probe.NEVER, message=message)
        try:
            self._look(self._monotonic())
        except BackendError as error:
            return ProbeResult(answer=Probe.LATER, message=str(error))
        if self._groups:
            return ProbeResult(answer=Probe.READY)
        message = "; ".join(self._complaints) or "no fan of the machine itself is known to cool a GPU"
        return ProbeResult(answer=Probe.LATER, message=message, no_card=True)

    def read(self) -> BackendReadings:
        now = self._monotonic()
        if now - self._looked_at >= LOOK_SECONDS:
            self._look(now)
        if not all(chip.refresh(now) for chip in self._chips):
            self._listed = None  # a chip has gone or got another number
            self._look(now)
            for chip in self._chips:
                chip.refresh(now)
        if not self._groups:
            raise NoCardError(
                "; ".join(self._complaints) or "the fans of the machine are gone, with their driver"
            )
        readings = tuple(self._reading(group, now) for group in self._groups)
        if now - self._sources_at >= LOOK_SECONDS:
            self._sources_at = now
            self._sources = tuple(source for group in self._groups for source in self._sources_of(group))
        if any(chip.answers for chip in self._chips):
            self._told_at = now
        elif now - self._told_at >= SILENT_SECONDS:
            raise BackendError(
                f"no fan of {', '.join(chip.name for chip in self._chips)} can be read; see the kernel log (dmesg)"
            )
        return BackendReadings(readings=readings, message="; ".join(self._complaints))

    def close(self) -> None:
        """No file is kept open. What is there is looked for anew next time."""
        self._listed = None

    def sources(self) -> tuple[FieldSource, ...]:
        return self._sources

    # -- what is there --------------------------------------------------------------------------------------------

    def _look(self, now: float) -> None:
        """Finds chips and GPUs anew when any has come or gone."""
        hwmon = f"{self._sysfs}/class/hwmon"
        listed = sorted(names_in(hwmon)), sorted(names_in(f"{self._sysfs}/bus/pci/devices"))
        self._looked_at = now
        if listed == self._listed:
            return
        self._listed, self._told_at, self._sources_at = listed, now, float("-inf")
        named = [(f"{hwmon}/{entry}", read_text(f"{hwmon}/{entry}/name")) for entry in listed[0]]
        chips = [
            chassis_chip.found(directory, name)
            for directory, name in named
            if name and not GPU_DRIVERS.fullmatch(name)
        ]
        gpus, discrete = gpus_of(self._sysfs)
        planned = plan(
            chips,
            is_portable=is_portable(self._sysfs),
            discrete_gpus=discrete,
            present_gpus=gpus,
            rules=self._rules,
        )
        if planned.complaints != self._complaints:
            for complaint in planned.complaints:
                _log.warning("[[fan]] in the configuration: %s", complaint)
        self._complaints = planned.complaints
        self._take_up(planned.fans, dict(named))

    def _take_up(self, fans: Sequence[PlacedFan], names: dict[str, str]) -> None:
        numbers: dict[str, list[int]] = {}
        for fan in fans:
            numbers.setdefault(fan.directory, []).append(fan.number)
        known = {chip.files.directory: chip for chip in self._chips}
        chips: dict[str, FanChip] = {}
        for directory, wanted in numbers.items():
            chip = known.get(directory)
            if chip is None or (chip.name, chip.numbers) != (names[directory], tuple(wanted)):
                chip = FanChip(directory, names[directory], tuple(wanted))
            chips[directory] = chip
        owned: dict[Owner, list[_Fan]] = {}
        for fan in fans:
            one = _Fan(chip=chips[fan.directory], number=fan.number, label=fan.label)
            owned.setdefault(fan.owner, []).append(one)
        self._chips = tuple(chips.values())
        self._groups = tuple(
            _Group(identity=self._identity(owner, mine), is_gpu=owner.is_gpu, fans=tuple(mine))
            for owner, mine in owned.items()
        )

    def _identity(self, owner: Owner, fans: Sequence[_Fan]) -> GpuIdentity:
        if not owner.is_gpu:
            machine = machine_name(self._sysfs) or fans[0].chip.name
            name = owner.name or f"{machine} {'GPU fan' if owner.cools_gpu else 'fan'}"
            return GpuIdentity(id=owner.id, name=name, vendor=CHASSIS, driver=fans[0].chip.name)
        address = _address(owner.id)
        device = f"{self._sysfs}/bus/pci/devices/{address}"
        return GpuIdentity(
            id=owner.id,
            name=device_name(device),
            vendor=_VENDORS.get(read_text(f"{device}/vendor"), "unknown"),
            pci_address=address,
            pci_id=pci_id(device),
        )

    # -- what it says ---------------------------------------------------------------------------------------------

    def _reading(self, group: _Group, now: float) -> GpuReading:
        turned = [fan for fan in group.fans if fan.number in fan.chip.turned]
        fans = tuple(
            FanReading(
                index=index,
                label=fan.label,
                rpm=fan.chip.rpm[fan.number],
                rpm_max=fan.chip.rpm_max.get(fan.number),
                rpm_is_measured=True,
                mode=fan.chip.mode[fan.number],
            )
            for index, fan in enumerate(turned or group.fans)
        )
        return GpuReading(
            gpu=group.identity,
            backend=self.name,
            # of the GPU nothing is known here but its fan
            state=GpuState.UNKNOWN if group.is_gpu else GpuState.AWAKE,
            fan_mode=mode_of_all(fans),
            fans=fans,
            temperature_celsius=None if group.is_gpu else self._temperature.read(now),
        )

    def _sources_of(self, group: _Group) -> list[FieldSource]:
        asked: list[tuple[str, str, Lack | None]] = []
        for chip in dict.fromkeys(fan.chip for fan in group.fans):
            numbers = [fan.number for fan in group.fans if fan.chip is chip]
            asked.append(("fan_rpm", *chip.sources(numbers)))
            asked.append(("fan_mode", *chip.mode_sources(numbers)))
        if not group.is_gpu:
            source = self._temperature.source
            asked.append(("temperature_celsius", source or "class/hwmon", None if source else Lack.NO_SENSOR))
        return [
            FieldSource(
                gpu_id=group.identity.id, backend=self.name, quantity=quantity, source=source, lack=lack
            )
            for quantity, source, lack in asked
        ]


def _address(gpu_id: str) -> str:
    domain, bus, device, function = gpu_id.removeprefix("pci_").split("_")
    return f"{domain}:{bus}:{device}.{function}"
