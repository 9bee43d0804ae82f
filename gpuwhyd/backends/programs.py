"""The driver's own programs, run while nothing better reads the cards: bounded, and gone when they should be."""

import contextlib
import fcntl
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable

from gpuwhyd.errors import BackendError

_MORE_FOLDERS = ("/opt/rocm/bin", "/usr/lib/wsl/lib")
"""Where these programs are when no PATH names them."""
_PIPE_BYTES = 1 << 20
"""Room for what a child writes from one tick to the next; pipe(7): the most without privilege."""
_KILL_SECONDS = 1.0
"""A child that does not die within this hangs in the driver; it is left, and dies when the driver lets it."""


def found(program: str, path: str | None = None) -> str | None:
    """Where a program is; `path` as in PATH, whose value is the default."""
    folders = (
        path if path is not None else os.pathsep.join([os.environ.get("PATH", os.defpath), *_MORE_FOLDERS])
    )
    return shutil.which(program, path=folders)


class Child:
    """One running program: no input, no translation, its own process group, and its output read without waiting."""

    def __init__(self, arguments: list[str]) -> None:
        """Raises BackendError."""
        kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
        try:
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**kept, "LC_ALL": "C"},
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            raise BackendError(f"{arguments[0]} cannot be run: {error.strerror}") from error
        output = self._process.stdout
        if output is None:
            raise ValueError("a pipe was asked for")
        self._output = output
        os.set_blocking(output.fileno(), False)
        try:
            fcntl.fcntl(output.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        except OSError:  # the system allows less: a child with many cards then waits for the next tick
            return

    def output(self, most_bytes: int) -> bytes:
        """What it has written since; empty also when it has closed its output."""
        parts, room = [], most_bytes
        while room > 0:
            try:
                part = os.read(self._output.fileno(), min(room, _PIPE_BYTES))
            except BlockingIOError:
                break
            if not part:
                break
            parts.append(part)
            room -= len(part)
        return b"".join(parts)

    def wait_for_output(self, seconds: float) -> bool:
        """Whether there is some, or its end, within so much time; never after a deadline."""
        return seconds > 0.0 and bool(select.select([self._output], [], [], seconds)[0])

    @property
    def exit_code(self) -> int | None:
        """`None` while it runs; negative: by that signal. It is not reaped here, so that its group is still its."""
        status = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if status is None:
            return None
        return status.si_status if status.si_code == os.CLD_EXITED else -status.si_status

    def stop(self) -> bool:
        """Ends it and whatever it has started. False: it hangs in the driver."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # only zombies are left
                os.killpg(self._process.pid, signal.SIGKILL)
        self._output.close()
        try:
            self._process.wait(_KILL_SECONDS)
        except subprocess.TimeoutExpired:
            return False
        return True


def output_of(
    arguments: list[str],
    *,
    seconds: float,
    most_bytes: int,
    is_good: Callable[[bytes], bool] = lambda _output: False,
) -> bytes:
    """All that a program writes. Raises BackendError when it fails, takes longer or writes more.

    `is_good` says of an output whether it holds although the program ended with a status that is not 0.
    """
    name = os.path.basename(arguments[0])  # noqa: PTH119 - no path to be worked with
    child = Child(arguments)
    parts: list[bytes] = []
    room, deadline = most_bytes, time.monotonic() + seconds
    try:
        while child.wait_for_output(deadline - time.monotonic()):
            part = child.output(room + 1)
            if not part:
                break
            parts.append(part)
            room -= len(part)
            if room < 0:
                raise BackendError(f"{name} writes more than {most_bytes} bytes")
        while (code := child.exit_code) is None and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        child.stop()
    if code is None:
        raise BackendError(f"{name} has not ended within {seconds:g} s")
    output = b"".join(parts)
    if code < 0 or (code > 0 and not is_good(output)):
        raise BackendError(f"{name} failed with {code}: {first_line(output)}")
    return output


def first_line(output: bytes) -> str:
    """What a failed program says, for a person."""
    text = output[:1000].decode("utf-8", "replace")
    line = next((line.strip() for line in text.splitlines() if line.strip()), "it says nothing")
    return "".join(letter if letter.isprintable() else "?" for letter in line)[:200]
