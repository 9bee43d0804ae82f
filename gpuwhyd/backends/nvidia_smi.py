"""NVIDIA cards through the driver's program nvidia-smi, while NVML is not usable from here.

One long-running `nvidia-smi -q -x -l` writes a document every few seconds; starting one anew each time would cost the
initialisation of the driver. While it runs it holds every card's device node open.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from gpuwhyd.backends.nvidia_smi_loop import PROGRAM, SmiLoop
from gpuwhyd.backends.nvidia_smi_sources import sources_of
from gpuwhyd.backends.nvidia_smi_xml import BACKEND_NAME
from gpuwhyd.backends.nvml_card import is_idle
from gpuwhyd.backends.nvml_fans import FanReader
from gpuwhyd.backends.nvml_pci import can_suspend, missing_driver, nvidia_addresses
from gpuwhyd.backends.pci import PowerPaths, gpu_id
from gpuwhyd.backends.program_answer import Answer, Told
from gpuwhyd.backends.program_backend import ProgramBackend
from gpuwhyd.backends.programs import found
from gpuwhyd.errors import BackendError
from gpuwhyd.model import FanMode, FieldSource, GpuIdentity, GpuReading, GpuState

_LIMIT_JITTER_CELSIUS = 2.0
"""As in nvml_card.py: a limit that is margin plus temperature is two readings, and small changes are noise."""


class NvidiaSmi:
    """See program_backend.py. `path` is where to look for the program, as PATH."""

    name = BACKEND_NAME
    no_card = "no NVIDIA card on the PCI bus"

    def __init__(self, *, sysfs: Path, procfs: Path, path: str | None) -> None:
        self._sysfs = sysfs
        self._procfs = procfs
        self._path = path
        self._loop = SmiLoop(sysfs=sysfs, path=path)

    def missing(self) -> str:
        if not found(PROGRAM, self._path):
            return f"the program {PROGRAM} is not installed"
        return missing_driver(self._sysfs)

    def addresses(self) -> tuple[str, ...]:
        return nvidia_addresses(self._sysfs)

    def meet(self, address: str) -> "NvidiaSmiCard":
        return NvidiaSmiCard(address, self._procfs)

    def answer(self, now: float) -> Answer | None:
        if missing := missing_driver(self._sysfs):
            raise BackendError(missing)
        self._loop.listen(now)
        cards = self._loop.cards
        return None if cards is None else Answer(cards, self._loop.heard_at)

    def is_idle(self, reading: GpuReading) -> bool:
        return reading.state is GpuState.AWAKE and is_idle(reading)

    def fall_silent(self) -> None:
        self._loop.stop()

    def start_over(self) -> None:
        """The child knows the cards that were there when it began."""
        self._loop.stop()

    def sources(self, told: Told) -> tuple[FieldSource, ...]:
        return sources_of(told)


class NvidiaSmiCard:
    """What is learned of one card."""

    def __init__(self, address: str, procfs: Path) -> None:
        self._address = address
        self._procfs = procfs
        self.identity = GpuIdentity(
            id=gpu_id(address), name="NVIDIA GPU", vendor="nvidia", pci_address=address.lower()
        )
        self._fans = FanReader()
        self._limit_celsius: float | None = None

    def can_suspend(self, paths: PowerPaths) -> bool:
        return can_suspend(paths, self._procfs, self._address)

    def judged(self, reading: GpuReading, at: float) -> GpuReading:
        self.identity = reading.gpu
        if reading.state is not GpuState.AWAKE:
            return reading
        power, most = reading.power_watts, reading.power_limit_watts
        fan_mode, fans = self._fans.judge(
            None if not reading.fans and reading.fan_mode is FanMode.UNKNOWN else reading.fans,
            name=reading.gpu.name,
            temperature_celsius=reading.temperature_celsius,
            power_share=power / most if power is not None and most is not None else None,
            now=at,
        )
        return replace(
            reading,
            fan_mode=fan_mode,
            fans=fans,
            temperature_limit_celsius=self._limit(reading.temperature_limit_celsius),
        )

    def _limit(self, told: float | None) -> float | None:
        known = self._limit_celsius
        if told is None or known is None or abs(told - known) > _LIMIT_JITTER_CELSIUS:
            self._limit_celsius = told
        return self._limit_celsius


def nvidia_smi_backend(
    sysfs: Path,
    *,
    procfs: Path = Path("/proc"),
    path: str | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> ProgramBackend:
    """`path` is where to look for the program, as PATH; the clock is for tests."""
    return ProgramBackend(NvidiaSmi(sysfs=sysfs, procfs=procfs, path=path), sysfs=sysfs, monotonic=monotonic)
