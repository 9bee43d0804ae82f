"""A fake driver, a fake sysfs and an NvmlBackend over both, in this process, through the genuine nvidia-ml-py."""

import atexit
import ctypes
import functools
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self

from gpuwhyd.backends.base import BackendReadings
from gpuwhyd.backends.nvml import NvmlBackend
from gpuwhyd.model import GpuReading
from tests.fake_nvml.control import FakeCard, FakeDriver, Fault, now_us
from tests.fake_nvml.sysfs import FakeSysfs

ADDRESS = "0000:01:00.0"
SECOND = "0000:02:00.0"
OWN_PID = 999_999
REPOSITORY = Path(__file__).parents[2]


@functools.cache
def in_process_library() -> Path:
    """The fake library, loaded into this process under its soname: nvidia-ml-py then finds it already there."""
    folder = Path(tempfile.mkdtemp(prefix="gpuwhyd-fake-nvml-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    library = FakeDriver.build(folder)
    FakeDriver(library).close()
    ctypes.CDLL(str(library))
    return library


class NvmlRig:
    """Time stands still unless a test moves it: `monotonic` in seconds, `wall_us` as the driver stamps samples."""

    def __init__(self, folder: Path) -> None:
        self.driver = FakeDriver(in_process_library())
        self.driver.reset()
        self.procfs = folder / "proc"
        self.sysfs = FakeSysfs(folder / "sys")
        self.monotonic = 1000.0
        self.wall_us = now_us()
        self.backend = NvmlBackend(
            sysfs=self.sysfs.root,
            procfs=self.procfs,
            own_pid=OWN_PID,
            monotonic=lambda: self.monotonic,
            wall_usec=lambda: self.wall_us,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.driver.release()
        self.driver.fail("nvmlShutdown", 0)
        self.driver.load()
        self.backend.close()
        self.driver.close()

    def add_card(
        self,
        address: str = ADDRESS,
        *,
        name: str = "NVIDIA GeForce RTX 3070",
        status: str = "active",
        control: str = "on",
        **sensors: float | Fault | None,
    ) -> FakeCard:
        self.sysfs.add(address, status=status, control=control)
        return self.driver.add_card(address, name=name, **sensors)

    def later(self, seconds: float) -> None:
        self.monotonic += seconds
        self.wall_us += int(seconds * 1e6)

    def read(self, seconds: float = 2.0) -> BackendReadings:
        """The next tick."""
        self.later(seconds)
        return self.backend.read()

    def reading(self, seconds: float = 2.0, *, index: int = 0) -> GpuReading:
        return self.read(seconds).readings[index]


def run_python(code: str, *, library_folder: Path, timeout: float = 30) -> str:
    """Runs code in a process of its own, whose dynamic loader looks for the driver's library in this folder."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"LD_LIBRARY_PATH": str(library_folder), "PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
