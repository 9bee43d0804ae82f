"""What is put around AMD's wrapper while it is imported and its library initialised: variables, and silence."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator, Mapping


@contextlib.contextmanager
def environment(variables: Mapping[str, str | None]) -> Iterator[None]:
    """These variables for a moment, None: without; the wrapper looks at them while it is imported."""
    before = {name: os.environ.get(name) for name in variables}
    _put(variables)
    try:
        yield
    finally:
        _put(before)


def _put(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextlib.contextmanager
def quiet_stdout() -> Iterator[None]:
    """What Python or C code of this process prints meanwhile goes nowhere; the daemon itself prints nothing.

    The wrapper prints when it finds no library, and the library has its std::cout.
    """
    try:
        kept = os.dup(1)
    except OSError:  # started without a standard output: there is nothing to keep clean
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        _flush()
        os.dup2(nowhere, 1)
        yield
    finally:
        _flush()
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _flush() -> None:
    """Whatever waits in a buffer goes where it was printed to."""
    if sys.stdout is not None:
        sys.stdout.flush()
    ctypes.CDLL(None).fflush(None)
