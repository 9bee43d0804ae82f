"""AMD cards through AMD's own library, for what sysfs lacks: compute processes, energy, violations of limits.

The library cannot open one card and leave another alone: initialising it opens /dev/kfd and the render node of every
card, which wakes them, and reading a card's metrics keeps it awake. So it is loaded and initialised only while every card
is awake and none is let go to fall asleep; as soon as one is, it is shut down and sysfs alone goes on.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from gpuwhyd.backends.amdsmi_card import BACKEND_NAME, AmdsmiCard
from gpuwhyd.backends.amdsmi_library import AmdsmiLibrary
from gpuwhyd.backends.amdsmi_processes import without_strangers
from gpuwhyd.backends.amdsmi_questions import CardLostError
from gpuwhyd.backends.base import BackendReadings, Probe, ProbeResult
from gpuwhyd.backends.grip import Grip
from gpuwhyd.backends.pci import PowerPaths, bound_to, has_ever_slept, may_suspend, sleeps
from gpuwhyd.errors import BackendError, BackendUnavailableError, NoCardError
from gpuwhyd.model import BackendState, FieldSource, GpuProcess, GpuReading, GpuState

_log = logging.getLogger(__name__)

DRIVER = "amdgpu"
_OLD_DRIVER = "radeon"
"""The library reads no card of this driver, but takes each card of AMD's for its own and opens its render node."""
_RETRY_SECONDS = 60.0
"""A lost card comes back only when the library is initialised anew, which disturbs the others: not too often."""
_RETRY_UNLISTED_SECONDS = 600.0
_LIST_TIME_SHARE = 0.01
"""The library walks KFD and /proc for each list; it is asked so rarely that this takes no more than so much of the time."""
_LONGEST_LIST_PAUSE_SECONDS = 30.0


@dataclass(slots=True)
class _Slot:
    """One card on the bus and what this backend keeps of it."""

    card: AmdsmiCard
    paths: PowerPaths
    grip: Grip = field(default_factory=Grip)
    processes: tuple[GpuProcess, ...] | None = None
    trouble: GpuState | None = None
    complaint: str = ""
    retry_at: float = 0.0


class AmdsmiBackend:
    """`own_pid` is left out of the process lists; see backends/base.py for the contract.

    `lists_processes` False: who uses the cards is left to others, and the library is not asked.
    """

    name = BACKEND_NAME

    def __init__(
        self,
        *,
        sysfs: Path,
        own_pid: int,
        library: AmdsmiLibrary,
        lists_processes: bool = True,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sysfs = sysfs
        self._own_pid = own_pid
        self._library = library
        self._lists_processes = lists_processes
        self._monotonic = monotonic
        self._slots: dict[str, _Slot] = {}
        self._bystanders: dict[str, PowerPaths] = {}
        self._list_due_at = 0.0
        self._sources: tuple[FieldSource, ...] = ()

    def probe(self) -> ProbeResult:
        try:
            self._look_at_bus()
            if not self._slots:
                return ProbeResult(
                    answer=Probe.LATER, message=f"no card has the kernel driver {DRIVER}", no_card=True
                )
            self._library.locate()
            if not self._resting(self._monotonic()):
                self._initialise()
        except (BackendUnavailableError, BackendError) as error:
            # A mismatch of library and wrapper too: a package update mends it, and nothing is loaded until then.
            return ProbeResult(answer=Probe.LATER, message=str(error))
        return ProbeResult(answer=Probe.READY)

    def read(self) -> BackendReadings:
        now = self._monotonic()
        self._look_at_bus()
        if not self._slots:
            raise NoCardError(f"no card is left with the kernel driver {DRIVER}")
        if resting := self._resting(now):
            return self._let_go(resting)
        self._restart_for_lost(now)
        try:
            self._initialise()
        except BackendUnavailableError as error:
            raise BackendError(str(error)) from error
        readings = {address: self._read_card(slot, now) for address, slot in self._slots.items()}
        if self._lists_processes:
            self._list_processes(readings)
        self._remember_sources()
        if all(reading.state is GpuState.UNKNOWN for reading in readings.values()):
            complaints = [slot.complaint for slot in self._slots.values() if slot.complaint]
            what = complaints[0] if complaints else "AMD's library answers nothing but errors"
            raise BackendError(f"{what}; see `dmesg | grep -i amdgpu`")
        self._begin_pauses(readings, now)
        return BackendReadings(readings=tuple(readings.values()))

    def close(self) -> None:
        """Gives up the session and device nodes; what was learned of the cards stays."""
        for slot in self._slots.values():
            slot.trouble = None
        self._shut_down()

    def sources(self) -> tuple[FieldSource, ...]:
        return self._sources

    def _look_at_bus(self) -> None:
        """Cards come and go: external ones, or unbound for a virtual machine, or with the driver."""
        bystanders = bound_to(self._sysfs, _OLD_DRIVER)
        if bystanders != list(self._bystanders):
            self._bystanders = {address: PowerPaths.of(self._sysfs, address) for address in bystanders}
        addresses = bound_to(self._sysfs, DRIVER)
        if addresses == list(self._slots):
            return
        self._shut_down()
        self._slots = {address: self._slots.get(address) or self._meet(address) for address in addresses}

    def _meet(self, address: str) -> _Slot:
        return _Slot(card=AmdsmiCard(self._sysfs, address), paths=PowerPaths.of(self._sysfs, address))

    def _resting(self, now: float) -> dict[str, GpuState]:
        """The cards that must not be touched: asleep, or (UNKNOWN) let go so that they can fall asleep."""
        resting = {address: GpuState.ASLEEP for address, paths in self._bystanders.items() if sleeps(paths)}
        for address, slot in self._slots.items():
            if sleeps(slot.paths):
                slot.grip.slept()
                resting[address] = GpuState.ASLEEP
            elif slot.grip.is_let_go(now):
                resting[address] = GpuState.UNKNOWN
        return resting

    def _let_go(self, resting: dict[str, GpuState]) -> BackendReadings:
        self._shut_down()
        readings = tuple(
            slot.card.unread(resting.get(address, GpuState.UNKNOWN)) for address, slot in self._slots.items()
        )
        self._remember_sources()
        message = "AMD's library is shut down: it would wake the sleeping card, or keep the idle one awake"
        all_asleep = all(reading.state is GpuState.ASLEEP for reading in readings)
        return BackendReadings(
            readings=readings, state=BackendState.ASLEEP, message="" if all_asleep else message
        )

    def _initialise(self) -> None:
        if self._library.initialised:
            return
        handles = self._library.initialise()
        for address, slot in self._slots.items():
            handle = handles.get(address.lower())
            if handle is not None:
                slot.card.attach(self._library.wrapper, handle)

    def _shut_down(self) -> None:
        self._library.shut_down()
        for slot in self._slots.values():
            slot.card.detach()
        self._list_due_at = 0.0

    def _restart_for_lost(self, now: float) -> None:
        due = [slot for slot in self._slots.values() if slot.trouble is not None]
        if not any(now >= slot.retry_at for slot in due):
            return
        self._shut_down()
        for slot in due:
            slot.trouble = None

    def _read_card(self, slot: _Slot, now: float) -> GpuReading:
        if slot.trouble is not None:
            return slot.card.unread(slot.trouble)
        if not slot.card.is_attached:
            complaint = f"GPU {slot.card.address}: AMD's library does not list it"
            return self._in_trouble(slot, GpuState.UNKNOWN, complaint, now, _RETRY_UNLISTED_SECONDS)
        try:
            reading = slot.card.read(now)
        except CardLostError as error:
            return self._in_trouble(slot, GpuState.LOST, str(error), now)
        slot.complaint = ""
        return reading

    def _in_trouble(
        self, slot: _Slot, state: GpuState, what: str, now: float, retry_seconds: float = _RETRY_SECONDS
    ) -> GpuReading:
        if what != slot.complaint:
            _log.warning("%s; tried again every %.0f s", what, retry_seconds)
        slot.complaint = what
        slot.trouble, slot.retry_at = state, now + retry_seconds
        return slot.card.unread(state)

    def _list_processes(self, readings: dict[str, GpuReading]) -> None:
        """Adds who uses the cards. The lists belong together: what a process has on another card decides, see there."""
        awake = [address for address, reading in readings.items() if reading.state is GpuState.AWAKE]
        began = self._monotonic()
        if began >= self._list_due_at:
            lists = {address: self._slots[address].card.list_processes() for address in awake}
            took = self._monotonic() - began
            self._list_due_at = began + min(took / _LIST_TIME_SHARE, _LONGEST_LIST_PAUSE_SECONDS)
            known = without_strangers({card: list_ for card, list_ in lists.items() if list_ is not None})
            for address in awake:
                slot, entries = self._slots[address], known.get(address)
                slot.processes = None
                if entries is not None:
                    slot.processes = slot.card.weigh(entries, own_pid=self._own_pid, seconds=began)
        for address in awake:
            readings[address] = replace(readings[address], processes=self._slots[address].processes)

    def _remember_sources(self) -> None:
        self._sources = tuple(
            source
            for slot in self._slots.values()
            for source in slot.card.sources()
            if self._lists_processes or source.quantity != "processes"
        )

    def _begin_pauses(self, readings: dict[str, GpuReading], now: float) -> None:
        """Idle cards are let go so that they can suspend: from the next tick on no card is read by the library."""
        for address, reading in readings.items():
            slot = self._slots[address]
            if (
                reading.state is GpuState.AWAKE
                and slot.grip.should_let_go(
                    now,
                    idle=slot.card.is_idle(reading.processes),
                    may_suspend=partial(may_suspend, slot.paths),
                    has_ever_slept=partial(has_ever_slept, slot.paths),
                )
                and slot.grip.is_first_pause
            ):
                _log.info("GPU %s is idle; AMD's library is shut down, so that it can suspend", address)
