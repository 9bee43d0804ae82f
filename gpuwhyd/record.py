"""`gpuwhyd record`: what the sampler sees, written to a file until it is told to stop. See docs/recording.md."""

import asyncio
import contextlib
import logging
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from gpuwhyd.backends.catalog import BACKEND_NAMES
from gpuwhyd.config import load
from gpuwhyd.daemon import Options, build_sampler
from gpuwhyd.errors import RecordingError
from gpuwhyd.recording.writer import RecordingWriter
from gpuwhyd.sampler import Sampler

_log = logging.getLogger(__name__)

STANDARD_OUTPUT = Path("-")


async def record(options: Options, path: Path, *, anonymous: bool) -> None:
    """Until SIGINT or SIGTERM, or until nobody reads any more. Each line is written at once.

    Raises RecordingError when the file is there already, or cannot be written, and ConfigError.
    """
    sampler = build_sampler(options, load(options.config, backends=BACKEND_NAMES))
    task = asyncio.current_task()
    if task is not None:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        with _opened(path) as file, contextlib.suppress(asyncio.CancelledError):
            await _write(sampler, RecordingWriter(anonymous=anonymous), file, path)
    except BrokenPipeError:
        sys.stderr.close()  # else Python complains at exit that standard output cannot be flushed
    except OSError as error:
        raise RecordingError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        await sampler.close()


async def _write(sampler: Sampler, writer: RecordingWriter, file: TextIO, path: Path) -> None:
    file.write(writer.header(time.time_ns() // 1000))
    is_first = True
    async for snapshot in sampler.snapshots():
        if is_first:
            names = ", ".join(reading.gpu.name for reading in snapshot.readings) or "no GPU so far"
            place = "standard output" if path == STANDARD_OUTPUT else path
            _log.info("recording to %s, a line a sample: %s. Ctrl-C ends it", place, names)
            is_first = False
        file.write(writer.line(snapshot))
        file.flush()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """The file, which must not be there yet: no recording is lost to a second one."""
    if path == STANDARD_OUTPUT:
        yield sys.stdout
        return
    try:
        file = path.open("x", encoding="utf-8")
    except FileExistsError:
        raise RecordingError(f"{path}: is there already; name another file, or remove it") from None
    with file:
        yield file
