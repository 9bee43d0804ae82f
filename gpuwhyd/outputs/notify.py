"""Tells systemd how the daemon is, as sd_notify(3): ready, the headline for `systemctl status`, and that it lives."""

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping

from gpuwhyd.engine.sentences import redacted_headline
from gpuwhyd.model import Report

log = logging.getLogger(__name__)

_NO_DIGITS = dict.fromkeys(map(ord, "0123456789"))

_DIGITS_LIMIT = 20
"""WATCHDOG_USEC is a 64-bit number."""
STATUS_LIMIT = 1024
"""Characters; systemctl shows one line of it."""
NUMBERS_USEC = 10_000_000
"""The numbers in the headline change with every sample, and systemd tells each STATUS= to all who watch its units. While
the words stay the same it gets the numbers so often."""

MEALS = 4
"""How often in its time the watchdog is fed: sd_watchdog_enabled(3) asks for twice at least. More would only wake systemd."""


def _monotonic_usec() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


class NotifyOutput:
    """Silent where nobody asked (no NOTIFY_SOCKET). Never waits: what the socket does not take now goes with a later report.

    The watchdog is fed by reports only, so that it starves when sampling stops.
    """

    def __init__(
        self,
        *,
        address: str | None,
        watchdog_usec: int | None = None,
        monotonic_usec: Callable[[], int] = _monotonic_usec,
    ) -> None:
        """`address`: what NOTIFY_SOCKET holds, a path or `@` and an abstract name; `watchdog_usec`: its patience."""
        self._address = _socket_name(address)
        self._feed_after_usec = None if watchdog_usec is None else watchdog_usec // MEALS
        self._fed_usec: int | None = None
        self._monotonic_usec = monotonic_usec
        self._ready = False
        self._status = ""
        self._status_usec = 0
        self._failing = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "NotifyOutput":
        """NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID as systemd sets them: sd_watchdog_enabled(3)."""
        meant = environment.get("WATCHDOG_PID") in (None, "", str(os.getpid()))
        usec = environment.get("WATCHDOG_USEC", "")
        patience = (
            int(usec) if meant and usec.isascii() and usec.isdecimal() and len(usec) < _DIGITS_LIMIT else 0
        )
        return cls(address=environment.get("NOTIFY_SOCKET"), watchdog_usec=patience or None)

    async def publish(self, report: Report) -> None:
        lines = []
        status = " ".join(redacted_headline(report).split())[:STATUS_LIMIT]
        now_usec = self._monotonic_usec()
        if not self._ready:
            lines.append("READY=1")
        is_news = _words(status) != _words(self._status) or now_usec - self._status_usec >= NUMBERS_USEC
        if status != self._status and is_news:
            lines.append(f"STATUS={status}")
        hungry = self._feed_after_usec is not None and (
            self._fed_usec is None or now_usec - self._fed_usec >= self._feed_after_usec
        )
        if hungry:
            lines.append("WATCHDOG=1")
        if lines and self._send(lines):
            self._ready = True
            if hungry:
                self._fed_usec = now_usec
            if status != self._status and is_news:
                self._status, self._status_usec = status, now_usec

    async def close(self) -> None:
        self.stopping()

    def reloading(self) -> None:
        self._send(["RELOADING=1", f"MONOTONIC_USEC={self._monotonic_usec()}"])

    def reloaded(self) -> None:
        self._send(["READY=1"])

    def stopping(self) -> None:
        self._send(["STOPPING=1"])

    def _send(self, lines: list[str]) -> bool:
        if self._address is None:
            return True
        message = "\n".join(lines).encode("utf-8", "replace")
        with socket.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        ) as sender:
            try:
                sender.sendto(message, self._address)
            except OSError as error:
                if not self._failing:
                    log.warning(
                        "systemd does not take notifications at %s: %s",
                        self._address,
                        error.strerror or error,
                    )
                self._failing = True
                return False
        self._failing = False
        return True


def _words(status: str) -> str:
    """What does not change when numbers do: neither from "70 degC" to "67 to 73 degC"."""
    return status.translate(_NO_DIGITS).replace(" to ", "")


def _socket_name(address: str | None) -> str | None:
    if not address:
        return None
    if address.startswith("@"):
        return "\0" + address[1:]
    if address.startswith("/"):
        return address
    log.warning("NOTIFY_SOCKET=%s is neither a path nor an abstract name; systemd is not notified", address)
    return None
