"""The daemon with a pulse: `python -m tests.bus.heartbeat FILE ARGUMENTS OF gpuwhyd`.

FILE holds two doubles: the longest time in which its event loop did not come round since somebody wrote zeros there, by
the clock on the wall and by what the loop's own thread worked meanwhile (the rest of it other processes had the processor).
"""

import asyncio
import mmap
import struct
import sys
import time
from pathlib import Path

import gpuwhyd.daemon
from gpuwhyd.cli import main

_FORMAT = "dd"
_BEAT_SECONDS = 0.005


class Pulse:
    def __init__(self, file: Path) -> None:
        if not file.exists():
            file.write_bytes(bytes(struct.calcsize(_FORMAT)))
        with file.open("r+b") as opened:
            self._map = mmap.mmap(opened.fileno(), 0)

    def reset(self) -> None:
        self.write(0.0, 0.0)

    def read(self) -> tuple[float, float]:
        wall, worked = struct.unpack_from(_FORMAT, self._map)
        return wall, worked

    def write(self, wall: float, worked: float) -> None:
        struct.pack_into(_FORMAT, self._map, 0, wall, worked)


async def beat(pulse: Pulse) -> None:
    while True:
        wall, worked = time.monotonic(), time.thread_time()
        await asyncio.sleep(_BEAT_SECONDS)
        longest_wall, longest_worked = pulse.read()
        pulse.write(
            max(longest_wall, time.monotonic() - wall - _BEAT_SECONDS),
            max(longest_worked, time.thread_time() - worked),
        )


def start(file: Path, arguments: list[str]) -> int:
    run = gpuwhyd.daemon.run

    async def with_pulse(options: gpuwhyd.daemon.Options) -> None:
        beating = asyncio.create_task(beat(Pulse(file)))
        try:
            await run(options)
        finally:
            beating.cancel()

    gpuwhyd.daemon.run = with_pulse
    return main(arguments)


if __name__ == "__main__":
    sys.exit(start(Path(sys.argv[1]), sys.argv[2:]))
