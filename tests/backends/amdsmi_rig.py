"""A fake ROCm, a fake sysfs and an AmdsmiBackend over both, in this process, through the genuine amdsmi wrapper."""

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self

from gpuwhyd.backends.amdsmi import AmdsmiBackend
from gpuwhyd.backends.amdsmi_library import AmdsmiLibrary
from gpuwhyd.backends.base import BackendReadings
from gpuwhyd.model import GpuReading
from tests.fake_amdsmi.control import FakeCard, FakeRocm, Fault, installed_wrapper
from tests.fake_nvml.sysfs import AMD, FakeSysfs
from tests.samples import bind

ADDRESS = "0000:0c:00.0"
SECOND = "0000:22:00.0"
OWN_PID = 999_999
REPOSITORY = Path(__file__).parents[2]
NO_SYSTEM = Path("/nonexistent")
"""In place of the root of the file system: no /opt/rocm, no loader cache."""


@functools.cache
def in_process() -> tuple[FakeRocm, AmdsmiLibrary]:
    """Library and wrapper, loaded into this process once: they cannot be unloaded."""
    folder = Path(tempfile.mkdtemp(prefix="gpuwhyd-fake-rocm-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    rocm = FakeRocm.build(folder)
    library = AmdsmiLibrary(
        variables={"ROCM_PATH": str(folder)}, system=NO_SYSTEM, installed=installed_wrapper
    )
    return rocm, library


class AmdsmiRig:
    """Time stands still unless a test moves it: `monotonic` in seconds."""

    def __init__(self, folder: Path, *, lists_processes: bool = True) -> None:
        self.rocm, self.library = in_process()
        self.rocm.reset()
        self.sysfs = FakeSysfs(folder / "sys")
        self.monotonic = 1000.0
        self.seconds_a_list = 0.0
        """So long each list of processes takes."""
        self.backend = AmdsmiBackend(
            sysfs=self.sysfs.root,
            own_pid=OWN_PID,
            library=self.library,
            lists_processes=lists_processes,
            monotonic=self._now,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.rocm.release()
        self.rocm.reset()
        self.library.shut_down()

    def _now(self) -> float:
        return self.monotonic + self.seconds_a_list * self.rocm.calls("amdsmi_get_gpu_process_list")

    def add_card(
        self,
        address: str = ADDRESS,
        *,
        status: str = "active",
        control: str = "on",
        **values: int | Fault | None,
    ) -> FakeCard:
        plug(self.sysfs, address, status=status, control=control)
        return self.rocm.add_card(address, **values)

    def unplug(self, address: str) -> None:
        (self.sysfs.root / "bus/pci/drivers/amdgpu" / address).unlink()

    def read(self, seconds: float = 2.0) -> BackendReadings:
        """The next tick."""
        self.monotonic += seconds
        return self.backend.read()

    def reading(self, seconds: float = 2.0, *, index: int = 0) -> GpuReading:
        return self.read(seconds).readings[index]

    def lacks(self) -> dict[str, str | None]:
        """Of the first card: quantity -> why it has no value."""
        sources = self.backend.sources()
        return {source.quantity: source.lack for source in sources if source.gpu_id == sources[0].gpu_id}


def plug(sysfs: FakeSysfs, address: str, *, status: str | None = "active", control: str = "on") -> None:
    """A card that the kernel driver amdgpu has."""
    sysfs.add(address, vendor=AMD, status=status, control=control, driver=None)
    bind(sysfs.root, address, "amdgpu")


def run_python(code: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Runs code in a process of its own, with a fresh import of everything, in this environment."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(REPOSITORY), "PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done
