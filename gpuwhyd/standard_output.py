"""Standard output of both commands: all of what an answer is, or a fault that is told."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator

from gpuwhyd.errors import OutputError


def take_every_name() -> None:
    """For the start of a command: a name of any script must not fail in a terminal of another encoding."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """For a block that prints: what it printed is out when it ends. Where the reader has gone away (`... | head`) the
    block ends early, and that is no fault. Raises OutputError when nothing can be written, to a full disk above all.
    """
    if sys.stdout is None:  # Python's word for a closed descriptor
        raise OutputError("standard output is closed; open it, or send it to a file or to /dev/null")
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        _give_up()
    except OSError as error:
        _give_up()
        raise OutputError(f"standard output cannot be written: {error.strerror}") from None


def _give_up() -> None:
    """Python flushes what is left once more when it ends; it must not meet the same fault again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
