"""Clocks that can be set, and processes that end at a chosen step, for one service of a container. See shim.c."""

import mmap
import os
import struct
import subprocess
from pathlib import Path

_LAYOUT = struct.Struct("=qqii")
_SOURCE = Path(__file__).with_suffix(".c")
STATE_NAME = "shim.state"


class Shim:
    """`place`: a folder of the container, as the host sees it; the library and its state are put there."""

    def __init__(self, place: Path) -> None:
        self.library = place / "shim.so"
        command = ("cc", "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared")
        subprocess.run([*command, str(_SOURCE), "-o", str(self.library), "-ldl"], check=True)
        descriptor = os.open(place / STATE_NAME, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            os.ftruncate(descriptor, _LAYOUT.size)
            self._map = mmap.mmap(descriptor, _LAYOUT.size)
        finally:
            os.close(descriptor)
        self._slept = self._ahead = 0
        self._victim = self._step = 0
        self._write()

    @staticmethod
    def drop_in(inside: str) -> str:
        """Of a unit that is to be subject to it; `inside`: the folder as the container names it."""
        return f"[Service]\nEnvironment=LD_PRELOAD={inside}/shim.so\nEnvironment=GPUWHYD_SHIM={inside}/{STATE_NAME}\n"

    def set_wall_clock(self, ahead_seconds: int) -> None:
        """It shows so much more than the right time; 0 sets it right."""
        self._ahead = ahead_seconds
        self._write()

    def sleep(self, seconds: int) -> None:
        """The machine was suspended for so long: CLOCK_BOOTTIME and the wall clock went on, CLOCK_MONOTONIC did not."""
        self._slept += seconds
        self._write()

    def kill_at(self, pid: int, step: int) -> None:
        """This process, by its number in the container, ends just before it is touched for the `step`-th time."""
        self._victim, self._step = pid, step
        self._write()

    def close(self) -> None:
        self._map.close()

    def _write(self) -> None:
        self._map[:] = _LAYOUT.pack(self._slept + self._ahead, self._slept, self._victim, self._step)
