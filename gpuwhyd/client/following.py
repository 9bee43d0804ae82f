"""Staying with the daemon for as long as the user wants: a session on one connection after the other."""

import asyncio
import os
import stat
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress

from gpuwhyd.client.ask import BusLostError, Daemon

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 30.0


async def follow(
    bus: str, session: Callable[[Daemon], Awaitable[None]], bus_lost: Callable[[BusLostError], None]
) -> None:
    """Runs `session` on a connection to `bus`. When the bus is lost, calls `bus_lost` (which may raise, to end it) and
    connects anew, each time a bit later. Returns when nobody reads our standard output any more.
    """
    await _first_of(_connected_anew(bus, session, bus_lost), _nobody_reads())


async def _connected_anew(
    bus: str, session: Callable[[Daemon], Awaitable[None]], bus_lost: Callable[[BusLostError], None]
) -> None:
    wait_seconds = FIRST_WAIT_SECONDS
    while True:
        try:
            async with await Daemon.reach(bus) as daemon:
                wait_seconds = FIRST_WAIT_SECONDS
                await _first_of(_as_coroutine(session(daemon)), _raise_when_lost(daemon))
        except BusLostError as error:
            bus_lost(error)
        await asyncio.sleep(wait_seconds)
        wait_seconds = min(wait_seconds * 2, LONGEST_WAIT_SECONDS)


async def _as_coroutine(awaitable: Awaitable[None]) -> None:
    await awaitable


async def _raise_when_lost(daemon: Daemon) -> None:
    raise BusLostError(await daemon.bus_lost())


async def _nobody_reads() -> None:
    """Returns when standard output is a pipe that its reader has closed; else never.

    epoll(7) reports EPOLLERR for the write end of such a pipe; without asking, it would be noticed at the next event,
    perhaps hours later.
    """
    closed = asyncio.Event()
    # not a descriptor, or one that epoll does not take: then there is nothing to notice
    with suppress(OSError):
        descriptor = sys.stdout.fileno()
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            asyncio.get_running_loop().add_reader(descriptor, closed.set)
    await closed.wait()


async def _first_of(*coroutines: Coroutine[object, object, None]) -> None:
    """Runs all until one has ended, cancels the others, and raises what that one raised."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
