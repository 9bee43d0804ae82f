"""AMD cards through ROCm's program rocm-smi, while the files of amdgpu cannot be read.

It has no mode in which it goes on, so each look is one bounded run of it, at most every 10 s. It reads the cards' sensors
and so wakes sleeping ones: it runs only while no card sleeps, and not while all are let go.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from gpuwhyd.backends.base import BackendReadings, Probe, ProbeResult
from gpuwhyd.backends.battery import is_on_battery
from gpuwhyd.backends.grip import Grip
from gpuwhyd.backends.pci import PowerPaths, bound_to, gpu_id, has_ever_slept, may_suspend, sleeps
from gpuwhyd.backends.pci_names import device_name, pci_id
from gpuwhyd.backends.programs import found, output_of
from gpuwhyd.backends.rocm_smi_json import ANSWER_LIMIT_BYTES, BACKEND_NAME, AnswerError, readings
from gpuwhyd.errors import BackendError, NoCardError
from gpuwhyd.model import BackendState, FieldSource, GpuIdentity, GpuReading, GpuState

_log = logging.getLogger(__name__)

PROGRAM = "rocm-smi"
INTERVAL_SECONDS = 10.0
INTERVAL_ON_BATTERY_SECONDS = 60.0
_RUN_SECONDS = 4.0
"""It is a Python program that reads some hundred files; less than the sampler's deadline of 5 s."""
_FAILED_SECONDS = 60.0
_ARGUMENTS = (
    "--showbus",
    "--showproductname",
    "--showvbios",
    "--showdriverversion",
    "--showtemp",
    "--showfan",
    "--showpower",
    "--showmaxpower",
    "--showuse",
    "--showmemuse",
    "--showmeminfo",
    "vram",
    "--showclocks",
    "--showpids",
    "--json",
)
_DRIVER = "amdgpu"
_IDLE_PERCENT = 2.0
"""As in amdgpu_card.py."""
_CAN_SUSPEND_SECONDS = 30.0
"""As in sysfs_backend.py: how old the word may be that a card may suspend."""


@dataclass(slots=True)
class _Slot:
    identity: GpuIdentity
    paths: PowerPaths
    can_suspend: bool = False
    can_suspend_at: float = float("-inf")


class RocmSmiBackend:
    """See backends/base.py. `path` is where to look for the program, as PATH; the clock is for tests."""

    name = BACKEND_NAME

    def __init__(
        self,
        *,
        sysfs: Path,
        path: str | None = None,
        run_seconds: float = _RUN_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sysfs = sysfs
        self._path = path
        self._run_seconds = run_seconds
        self._monotonic = monotonic
        self._slots: dict[str, _Slot] = {}
        self._grip = Grip()
        self._cards: dict[str, GpuReading] | None = None
        self._run_at = float("-inf")
        self._complaint = ""

    def probe(self) -> ProbeResult:
        try:
            addresses = bound_to(self._sysfs, _DRIVER)
        except OSError as error:
            return ProbeResult(answer=Probe.LATER, message=f"the PCI bus cannot be looked at: {error}")
        if not addresses:
            return ProbeResult(
                answer=Probe.LATER, message=f"no card has the kernel driver {_DRIVER}", no_card=True
            )
        if found(PROGRAM, self._path) is None:
            return ProbeResult(answer=Probe.LATER, message="the program rocm-smi is not installed")
        return ProbeResult(answer=Probe.READY)

    def read(self) -> BackendReadings:
        now = self._monotonic()
        self._look_at_bus()
        if not self._slots:
            raise NoCardError(f"no card is left with the kernel driver {_DRIVER}")
        asleep = frozenset(address for address, slot in self._slots.items() if sleeps(slot.paths))
        if asleep:
            self._grip.slept()
            return self._beside_sleepers(asleep)
        if self._grip.is_let_go(now):
            return BackendReadings(
                readings=self._unread(),
                state=BackendState.ASLEEP,
                message="let go of the idle card, so that it can suspend",
            )
        cards = self._told(now)
        told = tuple(self._reading(slot, cards, now) for slot in self._slots.values())
        self._let_go_of_idle(told, now)
        return BackendReadings(readings=told)

    def close(self) -> None:
        """Nothing runs between two reads."""
        self._cards = None

    def sources(self) -> tuple[FieldSource, ...]:
        return ()

    def _look_at_bus(self) -> None:
        try:
            addresses = bound_to(self._sysfs, _DRIVER)
        except OSError as error:
            raise BackendError(f"the PCI bus cannot be looked at: {error}") from error
        if addresses != list(self._slots):
            self._cards = None
            self._slots = {address: self._slots.get(address) or self._meet(address) for address in addresses}

    def _meet(self, address: str) -> _Slot:
        device = f"{self._sysfs}/bus/pci/devices/{address}"
        identity = GpuIdentity(
            id=gpu_id(address),
            name=device_name(device),
            vendor="amd",
            pci_address=address.lower(),
            driver=_DRIVER,
            pci_id=pci_id(device),
        )
        return _Slot(identity=identity, paths=PowerPaths.of(self._sysfs, address))

    def _unread(self, asleep: frozenset[str] = frozenset()) -> tuple[GpuReading, ...]:
        return tuple(
            GpuReading(
                gpu=slot.identity,
                backend=self.name,
                state=GpuState.ASLEEP if address in asleep else GpuState.UNKNOWN,
            )
            for address, slot in self._slots.items()
        )

    def _beside_sleepers(self, asleep: frozenset[str]) -> BackendReadings:
        if len(asleep) == len(self._slots):
            return BackendReadings(readings=self._unread(asleep), state=BackendState.ASLEEP)
        return BackendReadings(
            readings=self._unread(asleep),
            message="rocm-smi would wake the sleeping card; the awake one is not read meanwhile",
        )

    def _told(self, now: float) -> dict[str, GpuReading]:
        """What the last run said; runs it when that is too old. Raises BackendError, after a failure for a while."""
        cards = self._cards
        if cards is not None:
            interval = INTERVAL_ON_BATTERY_SECONDS if is_on_battery(self._sysfs) else INTERVAL_SECONDS
            if now - self._run_at < interval:
                return cards
        elif self._complaint and now - self._run_at < _FAILED_SECONDS:
            raise BackendError(self._complaint)
        program = found(PROGRAM, self._path)
        if program is None:
            raise BackendError("the program rocm-smi is gone")
        self._run_at, self._cards = now, None
        try:
            answer = output_of(
                [program, *_ARGUMENTS],
                seconds=self._run_seconds,
                most_bytes=ANSWER_LIMIT_BYTES,
                is_good=_tells_of_a_card,
            )
            cards = {reading.gpu.id: reading for reading in readings(answer)}
        except AnswerError as error:
            self._complaint = f"rocm-smi is not understood: {error}"
            raise BackendError(self._complaint) from error
        except BackendError as error:
            self._complaint = str(error)
            raise
        self._cards, self._complaint = cards, ""
        return cards

    def _reading(self, slot: _Slot, cards: dict[str, GpuReading], now: float) -> GpuReading:
        reading = cards.get(slot.identity.id)
        if reading is None:
            return GpuReading(gpu=slot.identity, backend=self.name, state=GpuState.UNKNOWN)
        if slot.identity.vbios_version is None:
            known, told = slot.identity, reading.gpu
            name = told.name if known.pci_id and known.pci_id in known.name else known.name
            slot.identity = replace(known, name=name, driver=told.driver, vbios_version=told.vbios_version)
        return replace(reading, gpu=slot.identity, can_suspend=self._may_suspend(slot, now))

    def _let_go_of_idle(self, told: tuple[GpuReading, ...], now: float) -> None:
        """Nobody computes (a context keeps a card awake anyway), and no card works."""
        idle = all(
            (reading.utilization_percent or 0.0) <= _IDLE_PERCENT and not reading.processes
            for reading in told
        )
        if self._grip.should_let_go(
            now,
            idle=idle,
            may_suspend=lambda: any(self._may_suspend(slot, now) for slot in self._slots.values()),
            has_ever_slept=lambda: any(has_ever_slept(slot.paths) for slot in self._slots.values()),
        ):
            self._cards = None
            if self._grip.is_first_pause:
                _log.info("rocm-smi is not run for a while, so that the idle card can suspend")

    def _may_suspend(self, slot: _Slot, now: float) -> bool:
        if now - slot.can_suspend_at >= _CAN_SUSPEND_SECONDS:
            slot.can_suspend, slot.can_suspend_at = may_suspend(slot.paths), now
        return slot.can_suspend


def _tells_of_a_card(answer: bytes) -> bool:
    """rocm-smi ends with 2 whenever a card lacks anything that was asked for; the temperatures of HBM, which hardly any
    card has, are among --showtemp (getTemp and rsmi_ret_ok of rocm_smi.py).
    """
    try:
        return bool(readings(answer))
    except AnswerError:
        return False
