"""NVIDIA cards through NVML, the driver's own library, without waking a sleeping card or keeping an idle one awake.

Before any call of the library, its load included, the kernel's power state of each card is looked at. Initialising
NVML attaches, and so wakes, every card. So when one sleeps and another is awake, NVML is initialised with NO_ATTACH and
a handle is asked for the awake card only, which attaches just that one (nvml.h, nvmlDeviceGetHandleByPciBusId_v2).
Should a driver wake the sleeping card even so, that is seen in its power state: NVML is shut down at once and the
awake card stays unread while the other sleeps. Never waking comes before reading.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from gpuwhyd.backends.base import BackendReadings, Probe, ProbeResult
from gpuwhyd.backends.grip import CanSuspend, Grip
from gpuwhyd.backends.nvml_card import BACKEND_NAME, NvmlCard, is_idle
from gpuwhyd.backends.nvml_library import (
    NO_ATTACH,
    BindingMissingError,
    CardLostError,
    CardRefusedError,
    NvmlLibrary,
    describe,
    load_binding,
)
from gpuwhyd.backends.nvml_pci import can_suspend, missing_driver, module_version, nvidia_addresses
from gpuwhyd.backends.nvml_sources import CardRead, sources_of
from gpuwhyd.backends.pci import PowerPaths, bindings, has_ever_slept, instances_in, sleeps
from gpuwhyd.backends.pci_names import pci_id
from gpuwhyd.errors import BackendError, BackendUnavailableError, NoCardError
from gpuwhyd.model import BackendState, FieldSource, GpuReading, GpuState

_log = logging.getLogger(__name__)

_RETRY_SECONDS = 60.0
"""NVML keeps a lost card lost until it is initialised anew, which disturbs the other cards: not too often."""
_SHY_SECONDS = 600.0
"""So long no NVML beside a sleeping card, after initialising it woke one."""
_LOOK_AGAIN_SECONDS = 10.0
"""How often the whole bus is listed, which has 40 devices and more. What the driver has is listed every time, and tells at
once of every card that it gets or loses; only one that it does not have yet waits so long."""


def _wall_usec() -> int:
    return time.time_ns() // 1000


@dataclass(slots=True)
class _Slot:
    """One card on the bus and what this backend keeps of it."""

    card: NvmlCard
    paths: PowerPaths
    can_suspend: CanSuspend
    instance: int
    """Another one at this address is another card, or the same one plugged in anew; see pci.instances_in."""
    grip: Grip = field(default_factory=Grip)
    trouble: GpuState | None = None
    complaint: str = ""
    retry_at: float = 0.0


class NvmlBackend:
    """`own_pid` is left out of the process lists. The clocks are for tests; see backends/base.py for the contract."""

    name = BACKEND_NAME

    def __init__(
        self,
        *,
        sysfs: Path,
        own_pid: int,
        procfs: Path = Path("/proc"),
        monotonic: Callable[[], float] = time.monotonic,
        wall_usec: Callable[[], int] = _wall_usec,
    ) -> None:
        self._sysfs = sysfs
        self._devices = str(sysfs / "bus/pci/devices")
        self._procfs = procfs
        self._own_pid = own_pid
        self._monotonic = monotonic
        self._wall_usec = wall_usec
        self._library: NvmlLibrary | None = None
        self._bus: tuple[dict[str, int], dict[str, int]] | None = None
        """All PCI devices, and those that NVIDIA's driver has, as of the last look."""
        self._look_again_at = 0.0
        self._slots: dict[str, _Slot] = {}
        self._shy_until = 0.0
        self._last: tuple[CardRead, ...] = ()

    def probe(self) -> ProbeResult:
        try:
            library = self._binding()
            self._bus = None  # a card without a driver may have got another one than NVIDIA's
            self._look_at_bus(library)
            if not self._slots:
                return ProbeResult(answer=Probe.LATER, message="no NVIDIA card on the PCI bus", no_card=True)
            if not self._have_driver():
                return ProbeResult(answer=Probe.LATER, message=missing_driver(self._sysfs))
            asleep = self._asleep()
            if len(asleep) < len(self._slots) and not self._is_shy(asleep):
                self._initialise(library, asleep, attach_all=not asleep)
        except BindingMissingError as error:
            return ProbeResult(answer=Probe.NEVER, message=str(error))
        except (BackendUnavailableError, BackendError) as error:
            return ProbeResult(answer=Probe.LATER, message=str(error))
        return ProbeResult(answer=Probe.READY)

    def read(self) -> BackendReadings:
        read = self._read()
        shy = read.message if read.state is BackendState.READY else ""
        self._last = tuple(
            slot.card.left_behind(reading, slot.complaint or shy)
            for slot, reading in zip(self._slots.values(), read.readings, strict=True)
        )
        return read

    def _read(self) -> BackendReadings:
        now = self._monotonic()
        try:
            library = self._binding()
            self._look_at_bus(library)
            if not self._slots:
                raise NoCardError("no NVIDIA card is left on the PCI bus")
            if not self._have_driver():
                raise BackendUnavailableError(missing_driver(self._sysfs))
            asleep = self._asleep()
            held = self._held(asleep, now)
            if not held:
                return self._nothing_held(library, asleep)
            self._restart_for_lost(library, held, now)
            if not self._is_shy(asleep):
                self._initialise(library, asleep, attach_all=len(held) == len(self._slots))
        except BackendUnavailableError as error:
            raise BackendError(str(error)) from error
        if self._is_shy(asleep):
            return self._too_shy(library, asleep)
        return self._read_held(library, asleep, held, now)

    def close(self) -> None:
        """Gives up library and device nodes; what was learned of the cards stays."""
        for slot in self._slots.values():
            slot.trouble = None
        if self._library is not None:
            self._shut_down(self._library)

    def sources(self) -> tuple[FieldSource, ...]:
        library, last = self._library, self._last
        if library is None:
            return ()
        return tuple(source for read in last for source in sources_of(read, partial(describe, library.nvml)))

    def _binding(self) -> NvmlLibrary:
        if self._library is None:
            self._library = NvmlLibrary(load_binding())
        return self._library

    def _look_at_bus(self, library: NvmlLibrary) -> None:
        """Cards come and go (external ones, or unbound for a virtual machine); NVML has to look anew then."""
        bound, now = bindings(self._sysfs, "nvidia"), self._monotonic()
        if self._slots and self._bus is not None and self._bus[1] == bound and now < self._look_again_at:
            return
        self._look_again_at = now + _LOOK_AGAIN_SECONDS
        devices = instances_in(self._devices)
        bus = devices, bound
        if bus == self._bus and self._slots:
            return
        before, self._bus = self._bus, bus
        ours = {address: devices[address] for address in nvidia_addresses(self._sysfs) if address in devices}
        known = {address: slot.instance for address, slot in self._slots.items()}
        if ours == known and before is not None and before[1] == bound:
            return
        self._shut_down(library)
        self._slots = {
            address: self._slots[address]
            if known.get(address) == instance
            else self._meet(library, address, instance)
            for address, instance in ours.items()
        }

    def _meet(self, library: NvmlLibrary, address: str, instance: int) -> _Slot:
        what = pci_id(f"{self._devices}/{address}")
        paths = PowerPaths.of(self._sysfs, address)
        return _Slot(
            card=NvmlCard(library, address, self._procfs, pci_id=what),
            paths=paths,
            can_suspend=CanSuspend(partial(can_suspend, paths, self._procfs, address)),
            instance=instance,
        )

    def _asleep(self) -> frozenset[str]:
        asleep = frozenset(address for address, slot in self._slots.items() if sleeps(slot.paths))
        for address in asleep:
            self._slots[address].grip.slept()
        return asleep

    def _have_driver(self) -> frozenset[str]:
        """The cards that NVIDIA's driver has now. Unbinding first takes the link away (__device_release_driver in
        drivers/base/dd.c), then waits until nobody has the card open: to open it once more would hold that up.
        """
        return frozenset(self._bus[1]) & self._slots.keys() if self._bus is not None else frozenset()

    def _held(self, asleep: frozenset[str], now: float) -> tuple[str, ...]:
        """The cards that NVML may have open now."""
        with_driver = self._have_driver()
        return tuple(
            address
            for address, slot in self._slots.items()
            if address in with_driver and address not in asleep and not slot.grip.is_let_go(now)
        )

    def _initialise(self, library: NvmlLibrary, asleep: frozenset[str], *, attach_all: bool) -> None:
        if library.initialised:
            return
        flags = 0 if attach_all else NO_ATTACH
        library.initialise(flags=flags, kernel_version=module_version(self._sysfs))
        if any(not sleeps(self._slots[address].paths) for address in asleep):
            _log.warning("initialising NVML woke a sleeping card; NVML is left alone while a card sleeps")
            self._shy_until = self._monotonic() + _SHY_SECONDS
            self._shut_down(library)

    def _is_shy(self, asleep: frozenset[str]) -> bool:
        return bool(asleep) and self._monotonic() < self._shy_until

    def _shut_down(self, library: NvmlLibrary) -> None:
        library.shut_down()
        for slot in self._slots.values():
            slot.card.detach()

    def _unread(self, asleep: frozenset[str], address: str) -> GpuReading:
        slot = self._slots[address]
        if address in asleep:
            return slot.card.unread(GpuState.ASLEEP)
        return replace(slot.card.unread(GpuState.UNKNOWN), can_suspend=slot.can_suspend.known)

    def _nothing_held(self, library: NvmlLibrary, asleep: frozenset[str]) -> BackendReadings:
        self._shut_down(library)
        all_asleep = len(asleep) == len(self._slots)
        return BackendReadings(
            readings=tuple(self._unread(asleep, address) for address in self._slots),
            state=BackendState.ASLEEP,
            message="" if all_asleep else "let go of the idle card, so that it can suspend",
        )

    def _too_shy(self, library: NvmlLibrary, asleep: frozenset[str]) -> BackendReadings:
        self._shut_down(library)
        return BackendReadings(
            readings=tuple(self._unread(asleep, address) for address in self._slots),
            message="this driver's NVML would wake the sleeping card; the awake one is not read meanwhile",
        )

    def _restart_for_lost(self, library: NvmlLibrary, held: tuple[str, ...], now: float) -> None:
        due = [self._slots[address] for address in held if self._slots[address].trouble is not None]
        if not any(now >= slot.retry_at for slot in due):
            return
        self._shut_down(library)
        for slot in due:
            slot.trouble = None

    def _read_held(
        self, library: NvmlLibrary, asleep: frozenset[str], held: tuple[str, ...], now: float
    ) -> BackendReadings:
        readings = {
            address: self._read_card(slot, now) if address in held else self._unread(asleep, address)
            for address, slot in self._slots.items()
        }
        if all(readings[address].state is GpuState.UNKNOWN for address in held):
            complaints = [slot.complaint for slot in self._slots.values() if slot.complaint]
            what = complaints[0] if complaints else "NVML answers nothing but errors"
            raise BackendError(f"{what}; see `nvidia-smi` and `dmesg | grep -i nvrm`")
        if self._let_go(readings, held, now):
            self._shut_down(library)
        return BackendReadings(readings=tuple(readings.values()))

    def _read_card(self, slot: _Slot, now: float) -> GpuReading:
        if slot.trouble is not None:
            return slot.card.unread(slot.trouble)
        try:
            if slot.card.handle is None:
                slot.card.attach(now)
            reading = slot.card.read(
                now=now,
                wall_usec=self._wall_usec(),
                own_pid=self._own_pid,
                can_suspend=slot.can_suspend.at(now),
            )
        except CardLostError as error:
            return self._in_trouble(slot, GpuState.LOST, str(error), now)
        except CardRefusedError as error:
            return self._in_trouble(slot, GpuState.UNKNOWN, str(error), now)
        slot.complaint = ""
        return reading

    def _in_trouble(self, slot: _Slot, state: GpuState, what: str, now: float) -> GpuReading:
        if what != slot.complaint:
            _log.warning("%s; tried again every %.0f s", what, _RETRY_SECONDS)
        slot.complaint = what
        slot.trouble, slot.retry_at = state, now + _RETRY_SECONDS
        slot.card.detach()
        return slot.card.unread(state)

    def _let_go(self, readings: dict[str, GpuReading], held: tuple[str, ...], now: float) -> bool:
        """Whether a card is to be let go. Closing one card's node takes a shutdown; the others are taken up again."""
        let_go = False
        for address in held:
            slot, reading = self._slots[address], readings[address]
            if reading.state is GpuState.AWAKE and slot.grip.should_let_go(
                now,
                idle=is_idle(reading),
                may_suspend=partial(slot.can_suspend.at, now),
                has_ever_slept=partial(has_ever_slept, slot.paths),
            ):
                let_go = True
                if slot.grip.is_first_pause:
                    _log.info("GPU %s is idle and let go, so that it can suspend", address)
        return let_go
