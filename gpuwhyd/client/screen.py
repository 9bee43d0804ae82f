"""A screen that is drawn anew every some seconds, as top does it, until the user ends it."""

import asyncio
import contextlib
import os
import signal
import sys
import termios
import tty
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

# xterm's control sequences, which every terminal of today knows: alternate screen, cursor, home, erase.
_ENTER = "\x1b[?1049h\x1b[?25l"
_LEAVE = "\x1b[?25h\x1b[?1049l"
_HOME, _ERASE_LINE, _ERASE_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


async def refresh(
    draw: Callable[[], Awaitable[tuple[tuple[str, ...], int]]], *, every_seconds: float
) -> None:
    """Shows the lines that `draw` gives, cut to the rows it gives with them, until `q`, SIGTERM or SIGHUP.

    Gives the terminal back as it was, whatever happens; errors of `draw` are raised after that.
    """
    async with _own_screen() as ended:
        while not ended.is_set():
            lines, rows = await draw()
            picture = "".join(f"{line}{_ERASE_LINE}\r\n" for line in lines[: max(1, rows - 1)])
            sys.stdout.write(_HOME + picture + _ERASE_BELOW)
            sys.stdout.flush()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every_seconds):  # wait_for can lose a Ctrl-C, until Python 3.12
                    await ended.wait()


@asynccontextmanager
async def _own_screen() -> AsyncIterator[asyncio.Event]:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, ended.set)
    with _single_keys():
        if sys.stdin.isatty():
            loop.add_reader(sys.stdin.fileno(), _end_at_q, ended)
        sys.stdout.write(_ENTER)
        try:
            yield ended
        finally:
            sys.stdout.write(_LEAVE)
            sys.stdout.flush()
            if sys.stdin.isatty():
                loop.remove_reader(sys.stdin.fileno())


def _end_at_q(ended: asyncio.Event) -> None:
    keys = os.read(sys.stdin.fileno(), 64)
    if not keys or b"q" in keys.lower():
        ended.set()


@contextlib.contextmanager
def _single_keys() -> Iterator[None]:
    """Keys arrive without Return and are not echoed; Ctrl-C stays what it is."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
