"""Cards that are read through sysfs alone: found by their kernel driver, left asleep, let go while they idle.

Which files a card has is its `SysfsCard`'s business (amdgpu_card.py, intel_card.py); when it may be read at all is
decided here, alike for all of them.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from gpuwhyd.backends.base import BackendReadings, Probe, ProbeResult
from gpuwhyd.backends.grip import CanSuspend, Grip
from gpuwhyd.backends.pci import (
    PowerPaths,
    bindings,
    bound_to,
    has_ever_slept,
    instances_in,
    may_suspend,
    sleeps,
)
from gpuwhyd.backends.unread import unread_source
from gpuwhyd.errors import BackendError, NoCardError
from gpuwhyd.model import BackendState, FieldSource, GpuIdentity, GpuReading, GpuState

_log = logging.getLogger(__name__)

_LOG_AGAIN_SECONDS = 600.0
"""A card that fails in every other tick fills no log."""
_SETTLING_SECONDS = 60.0
"""A driver may go on for so long after a card is bound to it before all of the card's devices are there."""


class SysfsCard(Protocol):
    """One card. `read` is called while it is awake; it raises BackendError when nothing can be said this time."""

    @property
    def identity(self) -> GpuIdentity: ...

    def read(self, now: float) -> GpuReading: ...

    def is_idle(self, reading: GpuReading) -> bool:
        """Nobody works on it, as far as the card itself tells."""
        ...

    def stirs(self) -> bool:
        """While it is let go: whether something has begun on it, by what can be read without keeping it awake."""
        ...

    def sources(self) -> tuple[FieldSource, ...]:
        """Of the last read. The same tuple as before, as long as nothing changes: it is asked for every tick."""
        ...


@dataclass(slots=True)
class _Slot:
    card: SysfsCard
    paths: PowerPaths
    can_suspend: CanSuspend
    met_at: float
    parts: dict[str, int] | None = None
    """What its driver had made of it when it was last looked at while it was awake."""
    grip: Grip = field(default_factory=Grip)
    complaint: str = ""
    """Why it cannot be read, while it should be readable."""
    logged: str = ""
    logged_at: float = float("-inf")
    sources: tuple[FieldSource, ...] = ()
    """Of the card, as they were when `shown_sources` was made of them."""
    sources_unread: tuple[GpuState, str] | None = None
    shown_sources: tuple[FieldSource, ...] = ()


class SysfsBackend:
    """`make_card` gets the root of sysfs and a card's PCI address; see backends/base.py for the contract."""

    def __init__(
        self,
        name: str,
        *,
        sysfs: Path,
        make_card: Callable[[Path, str], SysfsCard],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`name` is also the kernel driver's."""
        self.name = name
        self._sysfs = sysfs
        self._make_card = make_card
        self._monotonic = monotonic
        self._slots: dict[str, _Slot] = {}
        self._bindings: dict[str, int] = {}
        self._sources: tuple[FieldSource, ...] = ()
        self._sources_of = 0

    def probe(self) -> ProbeResult:
        try:
            addresses = bound_to(self._sysfs, self.name)
        except BackendError as error:
            return ProbeResult(answer=Probe.LATER, message=str(error))
        if not addresses:
            return ProbeResult(
                answer=Probe.LATER, message=f"no card has the kernel driver {self.name}", no_card=True
            )
        return ProbeResult(answer=Probe.READY)

    def read(self) -> BackendReadings:
        now = self._monotonic()
        self._look_at_bus(now)
        if not self._slots:
            raise NoCardError(f"no card is left with the kernel driver {self.name}")
        readings = tuple(self._reading(address, now) for address in self._slots)
        self._note_sources(readings)
        complaints = [slot.complaint for slot in self._slots.values() if slot.complaint]
        if len(complaints) == len(self._slots):
            raise BackendError(complaints[0])
        if all(reading.state is GpuState.AWAKE for reading in readings):
            return BackendReadings(readings=readings)
        all_rest = all(reading.state is not GpuState.AWAKE for reading in readings) and not complaints
        asleep = all(reading.state is GpuState.ASLEEP for reading in readings)
        return BackendReadings(
            readings=readings,
            state=BackendState.ASLEEP if all_rest else BackendState.READY,
            message="let go of the idle card, so that it can suspend"
            if all_rest and not asleep
            else next(iter(complaints), ""),
        )

    def close(self) -> None:
        """No file is kept open; what was learned of the cards stays."""

    def sources(self) -> tuple[FieldSource, ...]:
        return self._sources

    def _look_at_bus(self, now: float) -> None:
        """Cards come and go: external ones, or unbound for a virtual machine, or with the driver.

        One that was bound anew is met anew, however quickly that went: its hwmon and DRM devices have other numbers.
        """
        before, bound = self._bindings, bindings(self._sysfs, self.name)
        if bound != before:
            self._slots = {
                address: self._slots[address] if before.get(address) == number else self._meet(address, now)
                for address, number in bound.items()
            }
            self._bindings = bound

    def _settled(self, address: str, now: float) -> _Slot:
        """The card, met anew while its driver is still at it.

        The kernel shows a card as bound before the driver has begun with it (really_probe in drivers/base/dd.c).
        """
        slot = self._slots[address]
        if now - slot.met_at >= _SETTLING_SECONDS:
            return slot
        parts = self._parts(address)
        # some are new; fewer are a farewell
        if slot.parts is not None and not parts.items() <= slot.parts.items():
            slot = self._slots[address] = self._meet(address, now)
        slot.parts = parts
        return slot

    def _meet(self, address: str, now: float) -> _Slot:
        paths = PowerPaths.of(self._sysfs, address)
        return _Slot(
            card=self._make_card(self._sysfs, address),
            paths=paths,
            can_suspend=CanSuspend(partial(may_suspend, paths)),
            met_at=now,
        )

    def _parts(self, address: str) -> dict[str, int]:
        """The DRM and hwmon devices that the driver has made of a card so far."""
        device = self._sysfs / "bus/pci/devices" / address
        return {**instances_in(f"{device}/drm"), **instances_in(f"{device}/hwmon")}

    def _reading(self, address: str, now: float) -> GpuReading:
        slot = self._slots[address]
        if sleeps(slot.paths):
            return self._asleep(slot)
        slot = self._settled(address, now)
        if slot.grip.is_let_go(now):
            if not slot.card.stirs():
                slot.complaint = ""
                return self._unread(slot, GpuState.UNKNOWN)
            slot.grip.take_up()
        try:
            reading = slot.card.read(now)
        except BackendError as error:
            if sleeps(slot.paths):  # it fell asleep between the look and the read
                return self._asleep(slot)
            self._complain(slot, str(error), now)
            return self._unread(slot, GpuState.UNKNOWN)
        slot.complaint = ""
        reading = replace(reading, can_suspend=slot.can_suspend.at(now))
        if (
            slot.grip.should_let_go(
                now,
                idle=slot.card.is_idle(reading),
                may_suspend=partial(slot.can_suspend.at, now),
                has_ever_slept=partial(has_ever_slept, slot.paths),
            )
            and slot.grip.is_first_pause
        ):
            _log.info("GPU %s is idle and let go, so that it can suspend", slot.card.identity.id)
        return reading

    def _asleep(self, slot: _Slot) -> GpuReading:
        slot.grip.slept()
        slot.complaint = ""
        return self._unread(slot, GpuState.ASLEEP)

    def _complain(self, slot: _Slot, complaint: str, now: float) -> None:
        slot.complaint = complaint
        if complaint != slot.logged or now - slot.logged_at >= _LOG_AGAIN_SECONDS:
            slot.logged, slot.logged_at = complaint, now
            _log.warning("GPU %s: %s", slot.card.identity.id, complaint)

    def _note_sources(self, readings: tuple[GpuReading, ...]) -> None:
        """Made anew only when something has changed."""
        changed = False
        for slot, reading in zip(self._slots.values(), readings, strict=True):
            sources, unread = slot.card.sources(), (reading.state, slot.complaint)
            if sources is slot.sources and unread == slot.sources_unread:
                continue
            changed = True
            slot.sources, slot.sources_unread = sources, unread
            awake = reading.state is GpuState.AWAKE
            slot.shown_sources = sources if awake else (unread_source(reading, slot.complaint),)
        if changed or len(self._slots) != self._sources_of:
            self._sources_of = len(self._slots)
            self._sources = tuple(source for slot in self._slots.values() for source in slot.shown_sources)

    def _unread(self, slot: _Slot, state: GpuState) -> GpuReading:
        can_suspend = None if state is GpuState.ASLEEP else slot.can_suspend.known
        return GpuReading(gpu=slot.card.identity, backend=self.name, state=state, can_suspend=can_suspend)
