"""Cards that are read by a program of the driver's, all at once: left asleep, let go while they idle.

Such a program looks at every card and so wakes them all, and keeps them awake. Which one it is, how it is run and what
it says are its `Program`'s business (nvidia_smi.py, rocm_smi.py); when it may run at all is decided here, alike for all.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

from gpuwhyd.backends.base import BackendReadings, Probe, ProbeResult
from gpuwhyd.backends.grip import CanSuspend, Grip
from gpuwhyd.backends.pci import PowerPaths, has_ever_slept, sleeps
from gpuwhyd.backends.program_answer import Answer, Told
from gpuwhyd.backends.unread import unread_source
from gpuwhyd.errors import BackendError, NoCardError
from gpuwhyd.model import BackendState, FieldSource, GpuIdentity, GpuReading, GpuState

_log = logging.getLogger(__name__)


class ProgramCard(Protocol):
    """What is kept of one card from answer to answer."""

    @property
    def identity(self) -> GpuIdentity: ...

    def can_suspend(self, paths: PowerPaths) -> bool:
        """By what the kernel and the driver say of it."""
        ...

    def judged(self, reading: GpuReading, at: float) -> GpuReading:
        """What the program said of the card at `at`, in the light of what is known of the card."""
        ...


class Program(Protocol):
    """A program and the cards that are its own. Only `answer` may wake a card."""

    @property
    def name(self) -> str:
        """Also the backend's."""
        ...

    @property
    def no_card(self) -> str:
        """What is said where there are none of its cards."""
        ...

    def missing(self) -> str:
        """What there must be before it may be run, and is not: itself, a driver. Empty when all is there. Raises BackendError."""
        ...

    def addresses(self) -> Sequence[str]:
        """PCI addresses of its cards, in bus order. Raises BackendError."""
        ...

    def meet(self, address: str) -> ProgramCard: ...

    def answer(self, now: float) -> Answer | None:
        """The newest one that still holds; `None`: it was started and has not answered yet. Raises BackendError."""
        ...

    def is_idle(self, reading: GpuReading) -> bool:
        """Nobody works on the card, as far as the program tells."""
        ...

    def fall_silent(self) -> None:
        """Nothing is left of it that has a card open. May be called twice."""
        ...

    def start_over(self) -> None:
        """The same, and what it has said holds no longer."""
        ...

    def sources(self, told: Told) -> tuple[FieldSource, ...]:
        """Of an awake card. Asked from another thread: it depends on `told` alone."""
        ...


@dataclass(slots=True)
class _Slot:
    card: ProgramCard
    paths: PowerPaths
    can_suspend: CanSuspend


class _LeftBehind(NamedTuple):
    """By one read, for `sources`; nothing of it is ever changed."""

    readings: tuple[GpuReading, ...] = ()
    answer: Answer | None = None
    complaint: str = ""
    """Why no card is read; empty when they are, or rest."""


class ProgramBackend:
    """See backends/base.py for the contract. The clock is for tests."""

    def __init__(
        self, program: Program, *, sysfs: Path, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = program.name
        self._program = program
        self._sysfs = sysfs
        self._monotonic = monotonic
        self._slots: dict[str, _Slot] = {}
        self._grip = Grip()
        self._last = _LeftBehind()

    def probe(self) -> ProbeResult:
        try:
            addresses = self._program.addresses()
            missing = self._program.missing()
        except BackendError as error:
            return ProbeResult(answer=Probe.LATER, message=str(error))
        if not addresses:
            return ProbeResult(answer=Probe.LATER, message=self._program.no_card, no_card=True)
        if missing:
            return ProbeResult(answer=Probe.LATER, message=missing)
        return ProbeResult(answer=Probe.READY)

    def read(self) -> BackendReadings:
        now = self._monotonic()
        self._look_at_bus()
        if not self._slots:
            raise NoCardError(self._program.no_card)
        asleep = frozenset(address for address, slot in self._slots.items() if sleeps(slot.paths))
        if asleep:
            self._grip.slept()
            self._program.fall_silent()
            if len(asleep) == len(self._slots):
                return self._unread(asleep, state=BackendState.ASLEEP)
            what = f"{self.name} would wake the sleeping card; the awake one is not read meanwhile"
            return self._unread(asleep, message=what)
        if self._grip.is_let_go(now):
            what = "let go of the idle card, so that it can suspend"
            return self._unread(state=BackendState.ASLEEP, message=what)
        answer = self._program.answer(now)
        if answer is None:
            return self._unread(message=f"{self.name} was started and has not answered yet")
        readings = tuple(self._reading(slot, answer, now) for slot in self._slots.values())
        self._last = _LeftBehind(readings, answer)
        self._let_go_of_idle(readings, now)
        return BackendReadings(readings=readings)

    def close(self) -> None:
        """Nothing of the program is left; what was learned of the cards stays."""
        self._program.fall_silent()

    def sources(self) -> tuple[FieldSource, ...]:
        """Made when somebody asks, out of what the last read has left behind."""
        last = self._last
        return tuple(source for reading in last.readings for source in self._sources_of(reading, last))

    def _look_at_bus(self) -> None:
        addresses = self._program.addresses()
        if list(addresses) != list(self._slots):
            self._program.start_over()
            self._slots = {address: self._slots.get(address) or self._meet(address) for address in addresses}

    def _meet(self, address: str) -> _Slot:
        card, paths = self._program.meet(address), PowerPaths.of(self._sysfs, address)
        return _Slot(card=card, paths=paths, can_suspend=CanSuspend(partial(card.can_suspend, paths)))

    def _unread(
        self,
        asleep: frozenset[str] = frozenset(),
        *,
        state: BackendState = BackendState.READY,
        message: str = "",
    ) -> BackendReadings:
        """Of no card anything is known now."""
        readings = tuple(
            self._unread_card(slot, GpuState.ASLEEP if address in asleep else GpuState.UNKNOWN)
            for address, slot in self._slots.items()
        )
        self._last = _LeftBehind(readings, complaint=message if state is BackendState.READY else "")
        return BackendReadings(readings=readings, state=state, message=message)

    def _unread_card(self, slot: _Slot, state: GpuState) -> GpuReading:
        can_suspend = None if state is GpuState.ASLEEP else slot.can_suspend.known
        return GpuReading(gpu=slot.card.identity, backend=self.name, state=state, can_suspend=can_suspend)

    def _reading(self, slot: _Slot, answer: Answer, now: float) -> GpuReading:
        told = answer.cards.get(slot.card.identity.id)
        if told is None:
            return self._unread_card(slot, GpuState.UNKNOWN)
        reading = slot.card.judged(told.reading, answer.at)
        if reading.state is not GpuState.AWAKE:
            return reading
        return replace(reading, can_suspend=slot.can_suspend.at(now))

    def _let_go_of_idle(self, readings: tuple[GpuReading, ...], now: float) -> None:
        """One program reads all cards, so all must be idle; one that may suspend is reason enough."""
        slots = self._slots.values()
        if self._grip.should_let_go(
            now,
            idle=all(self._program.is_idle(reading) for reading in readings),
            may_suspend=lambda: any(slot.can_suspend.at(now) for slot in slots),
            has_ever_slept=lambda: any(has_ever_slept(slot.paths) for slot in slots),
        ):
            self._program.start_over()
            if self._grip.is_first_pause:
                _log.info("%s is not run for a while, so that the idle card can suspend", self.name)

    def _sources_of(self, reading: GpuReading, last: _LeftBehind) -> tuple[FieldSource, ...]:
        told = None if last.answer is None else last.answer.cards.get(reading.gpu.id)
        if told is not None and reading.state is GpuState.AWAKE:
            return self._program.sources(Told(reading, told.texts))
        complaint = last.complaint
        if last.answer is not None:
            complaint = f"{self.name} " + ("does not list it" if told is None else "says that it is lost")
        return (unread_source(reading, complaint),)
