"""NVIDIA cards through the driver's program nvidia-smi, while NVML is not usable from here.

One long-running `nvidia-smi -q -x -l` writes a document every few seconds; starting one anew each time would cost the
initialisation of the driver. While it runs it holds every card's device node open, so it runs only while no card sleeps,
and is ended when one does or all are idle and one may suspend.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from gpuwhyd.backends.base import BackendReadings, Probe, ProbeResult
from gpuwhyd.backends.grip import Grip
from gpuwhyd.backends.nvidia_smi_loop import PROGRAM, SmiLoop
from gpuwhyd.backends.nvidia_smi_xml import BACKEND_NAME
from gpuwhyd.backends.nvml_card import is_idle
from gpuwhyd.backends.nvml_fans import FanReader
from gpuwhyd.backends.nvml_pci import driver_can_suspend, nvidia_addresses
from gpuwhyd.backends.pci import PowerPaths, gpu_id, has_ever_slept, may_suspend, sleeps
from gpuwhyd.backends.programs import found
from gpuwhyd.errors import BackendError, NoCardError
from gpuwhyd.model import BackendState, FanMode, FieldSource, GpuIdentity, GpuReading, GpuState

_log = logging.getLogger(__name__)

_LIMIT_JITTER_CELSIUS = 2.0
"""As in nvml_card.py: a limit that is margin plus temperature is two readings, and small changes are noise."""

_CAN_SUSPEND_SECONDS = 30.0
"""As in sysfs_backend.py: how old the word may be that a card may suspend."""


@dataclass(slots=True)
class _Slot:
    identity: GpuIdentity
    paths: PowerPaths
    fans: FanReader = field(default_factory=FanReader)
    limit_celsius: float | None = None
    can_suspend: bool = False
    can_suspend_at: float = float("-inf")


class NvidiaSmiBackend:
    """See backends/base.py. `path` is where to look for the program, as PATH; the clock is for tests."""

    name = BACKEND_NAME

    def __init__(
        self,
        *,
        sysfs: Path,
        procfs: Path = Path("/proc"),
        path: str | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sysfs = sysfs
        self._procfs = procfs
        self._path = path
        self._monotonic = monotonic
        self._loop = SmiLoop(sysfs=sysfs, path=path)
        self._slots: dict[str, _Slot] = {}
        self._grip = Grip()

    def probe(self) -> ProbeResult:
        try:
            addresses = nvidia_addresses(self._sysfs)
        except OSError as error:
            return ProbeResult(answer=Probe.LATER, message=f"the PCI bus cannot be looked at: {error}")
        if not addresses:
            return ProbeResult(answer=Probe.LATER, message="no NVIDIA card on the PCI bus", no_card=True)
        if found(PROGRAM, self._path) is None:
            return ProbeResult(answer=Probe.LATER, message="the program nvidia-smi is not installed")
        return ProbeResult(answer=Probe.READY)

    def read(self) -> BackendReadings:
        now = self._monotonic()
        self._look_at_bus()
        if not self._slots:
            raise NoCardError("no NVIDIA card is left on the PCI bus")
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
        self._loop.listen(now)
        cards = self._loop.cards
        if cards is None:
            return BackendReadings(
                readings=self._unread(), message="nvidia-smi was started and has not answered yet"
            )
        told = tuple(self._reading(slot, cards, now) for slot in self._slots.values())
        self._let_go_of_idle(told, now)
        return BackendReadings(readings=told)

    def close(self) -> None:
        """Ends the child; what was learned of the cards stays."""
        self._loop.stop()

    def sources(self) -> tuple[FieldSource, ...]:
        return ()

    def _look_at_bus(self) -> None:
        try:
            addresses = nvidia_addresses(self._sysfs)
        except OSError as error:
            raise BackendError(f"the PCI bus cannot be looked at: {error}") from error
        if addresses != tuple(self._slots):
            self._loop.stop()  # the child knows the cards that were there when it began
            self._slots = {address: self._slots.get(address) or self._meet(address) for address in addresses}

    def _meet(self, address: str) -> _Slot:
        identity = GpuIdentity(
            id=gpu_id(address), name="NVIDIA GPU", vendor="nvidia", pci_address=address.lower()
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
        self._loop.stop()
        if len(asleep) == len(self._slots):
            return BackendReadings(readings=self._unread(asleep), state=BackendState.ASLEEP)
        return BackendReadings(
            readings=self._unread(asleep),
            message="nvidia-smi would wake the sleeping card; the awake one is not read meanwhile",
        )

    def _reading(self, slot: _Slot, cards: dict[str, GpuReading], now: float) -> GpuReading:
        reading = cards.get(slot.identity.id)
        if reading is None:
            return GpuReading(gpu=slot.identity, backend=self.name, state=GpuState.UNKNOWN)
        slot.identity = reading.gpu
        if reading.state is not GpuState.AWAKE:
            return reading
        limit = reading.temperature_limit_celsius
        if (
            limit is None
            or slot.limit_celsius is None
            or abs(limit - slot.limit_celsius) > _LIMIT_JITTER_CELSIUS
        ):
            slot.limit_celsius = limit
        power, most = reading.power_watts, reading.power_limit_watts
        fan_mode, fans = slot.fans.judge(
            None if not reading.fans and reading.fan_mode is FanMode.UNKNOWN else reading.fans,
            name=reading.gpu.name,
            temperature_celsius=reading.temperature_celsius,
            power_share=power / most if power is not None and most is not None else None,
            now=self._loop.heard_at,
        )
        return replace(
            reading,
            fan_mode=fan_mode,
            fans=fans,
            temperature_limit_celsius=slot.limit_celsius,
            can_suspend=self._may_suspend(slot, now),
        )

    def _let_go_of_idle(self, told: tuple[GpuReading, ...], now: float) -> None:
        """One child holds all cards, so all must be idle; one that may suspend is reason enough."""
        if self._grip.should_let_go(
            now,
            idle=all(reading.state is GpuState.AWAKE and is_idle(reading) for reading in told),
            may_suspend=lambda: any(self._may_suspend(slot, now) for slot in self._slots.values()),
            has_ever_slept=lambda: any(has_ever_slept(slot.paths) for slot in self._slots.values()),
        ):
            self._loop.stop()
            if self._grip.is_first_pause:
                _log.info("nvidia-smi is ended, so that the idle card can suspend")

    def _may_suspend(self, slot: _Slot, now: float) -> bool:
        if now - slot.can_suspend_at >= _CAN_SUSPEND_SECONDS:
            address = f"{slot.identity.pci_address}"
            slot.can_suspend = may_suspend(slot.paths) and driver_can_suspend(self._procfs, address)
            slot.can_suspend_at = now
        return slot.can_suspend
