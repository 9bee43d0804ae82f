"""AMD cards through ROCm's program rocm-smi, while the files of amdgpu cannot be read.

It has no mode in which it goes on, so each look is one bounded run of it, at most every 10 s.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from gpuwhyd.backends.battery import is_on_battery
from gpuwhyd.backends.pci import PowerPaths, bound_to, gpu_id, may_suspend
from gpuwhyd.backends.pci_names import device_name, pci_id
from gpuwhyd.backends.program_answer import Answer, Told
from gpuwhyd.backends.program_backend import ProgramBackend
from gpuwhyd.backends.programs import found, output_of
from gpuwhyd.backends.rocm_smi_json import ANSWER_LIMIT_BYTES, BACKEND_NAME, AnswerError, cards
from gpuwhyd.backends.rocm_smi_sources import sources_of
from gpuwhyd.errors import BackendError
from gpuwhyd.model import FieldSource, GpuIdentity, GpuReading

PROGRAM = "rocm-smi"
INTERVAL_SECONDS = 10.0
INTERVAL_ON_BATTERY_SECONDS = 60.0
RUN_SECONDS = 4.0
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


class RocmSmi:
    """See program_backend.py. `path` is where to look for the program, as PATH."""

    name = BACKEND_NAME
    no_card = f"no card has the kernel driver {_DRIVER}"

    def __init__(self, *, sysfs: Path, path: str | None, run_seconds: float) -> None:
        self._sysfs = sysfs
        self._path = path
        self._run_seconds = run_seconds
        self._answer: Answer | None = None
        self._run_at = float("-inf")
        self._complaint = ""

    def missing(self) -> str:
        return "" if found(PROGRAM, self._path) else f"the program {PROGRAM} is not installed"

    def addresses(self) -> list[str]:
        return bound_to(self._sysfs, _DRIVER)

    def meet(self, address: str) -> "RocmSmiCard":
        return RocmSmiCard(self._sysfs, address)

    def answer(self, now: float) -> Answer:
        """Runs it when what it last said is too old. Raises BackendError, after a failure for a while."""
        if self._answer is not None:
            interval = INTERVAL_ON_BATTERY_SECONDS if is_on_battery(self._sysfs) else INTERVAL_SECONDS
            if now - self._run_at < interval:
                return self._answer
        elif self._complaint and now - self._run_at < _FAILED_SECONDS:
            raise BackendError(self._complaint)
        program = found(PROGRAM, self._path)
        if program is None:
            raise BackendError("the program rocm-smi is gone")
        self._run_at, self._answer = now, None
        try:
            output = output_of(
                [program, *_ARGUMENTS],
                seconds=self._run_seconds,
                most_bytes=ANSWER_LIMIT_BYTES,
                is_good=_tells_of_a_card,
            )
            told = {card.reading.gpu.id: card for card in cards(output)}
        except AnswerError as error:
            self._complaint = f"rocm-smi is not understood: {error}"
            raise BackendError(self._complaint) from error
        except BackendError as error:
            self._complaint = str(error)
            raise
        self._answer, self._complaint = Answer(told, now), ""
        return self._answer

    def is_idle(self, reading: GpuReading) -> bool:
        """Nobody computes (a context keeps a card awake anyway), and the card does not work."""
        return (reading.utilization_percent or 0.0) <= _IDLE_PERCENT and not reading.processes

    def fall_silent(self) -> None:
        """Nothing runs between two answers."""

    def start_over(self) -> None:
        self._answer = None

    def sources(self, told: Told) -> tuple[FieldSource, ...]:
        return sources_of(told)


class RocmSmiCard:
    """One card: named by its files, and by what the first answer adds."""

    def __init__(self, sysfs: Path, address: str) -> None:
        device = f"{sysfs}/bus/pci/devices/{address}"
        self.identity = GpuIdentity(
            id=gpu_id(address),
            name=device_name(device),
            vendor="amd",
            pci_address=address.lower(),
            driver=_DRIVER,
            pci_id=pci_id(device),
        )

    def can_suspend(self, paths: PowerPaths) -> bool:
        return may_suspend(paths)

    def judged(self, reading: GpuReading, at: float) -> GpuReading:  # noqa: ARG002 - it holds whenever it was said
        if self.identity.vbios_version is None:
            known, told = self.identity, reading.gpu
            name = told.name if known.pci_id and known.pci_id in known.name else known.name
            self.identity = replace(known, name=name, driver=told.driver, vbios_version=told.vbios_version)
        return replace(reading, gpu=self.identity)


def rocm_smi_backend(
    sysfs: Path,
    *,
    path: str | None = None,
    run_seconds: float = RUN_SECONDS,
    monotonic: Callable[[], float] = time.monotonic,
) -> ProgramBackend:
    """`path` is where to look for the program, as PATH; the time that it may take and the clock are for tests."""
    program = RocmSmi(sysfs=sysfs, path=path, run_seconds=run_seconds)
    return ProgramBackend(program, sysfs=sysfs, monotonic=monotonic)


def _tells_of_a_card(answer: bytes) -> bool:
    """rocm-smi ends with 2 whenever a card lacks anything that was asked for; the temperatures of HBM, which hardly any
    card has, are among --showtemp (getTemp and rsmi_ret_ok of rocm_smi.py).
    """
    try:
        return bool(cards(answer))
    except AnswerError:
        return False
