"""Real processes for tests, and the one place where they are waited for."""

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


def until(condition: Callable[[], bool], deadline_seconds: float = 10.0) -> None:
    end = time.monotonic() + deadline_seconds
    while not condition():
        assert time.monotonic() < end, "the process did not get there in time"
        time.sleep(0.005)


@contextmanager
def running(
    command: Sequence[str] = ("sleep", "600"), *, settled: bool = True, **options: object
) -> Iterator[subprocess.Popen[bytes]]:
    """A process of this command; settled: its execve is over, which `Popen` does not quite wait for."""
    with subprocess.Popen(command, **options) as process:  # type: ignore[call-overload]
        try:
            if settled:
                until(lambda: _command_line(process.pid) != b"" or state(process.pid) == "Z")
            yield process
        finally:
            process.kill()


def _command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
