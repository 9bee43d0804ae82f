"""Asking one card through AMD's library: what it declines is not asked again for a while, what goes wrong is told once."""

import logging
from collections.abc import Callable
from typing import Any

from gpuwhyd.errors import BackendError
from gpuwhyd.model import Lack

_log = logging.getLogger(__name__)

# amdsmi_status_t of amdsmi.h, the same numbers in all releases.
INVALID = 1
NOT_SUPPORTED = 2
NOT_YET_IMPLEMENTED = 3
NO_SYMBOL = 5
DRM_ERROR = 6
TIMEOUT = 8
RETRY = 9
NO_PERMISSION = 10
IO_ERROR = 12
FILE_ERROR = 14
OUT_OF_RESOURCES = 15
OUT_OF_BOUNDS = 17
DIRECTORY_NOT_FOUND = 20
BUSY = 30
NOT_FOUND = 31
NOT_INITIALISED = 32
DRIVER_NOT_LOADED = 34
INSUFFICIENT_SIZE = 41
FILE_NOT_FOUND = 52
SETTING_UNAVAILABLE = 55

ASK_AGAIN_SECONDS = 600.0
"""A card may learn to answer (a driver option, another partitioning), but rarely; asking costs time each tick."""

_DECLINED = {
    INVALID: Lack.NO_SENSOR,
    NOT_SUPPORTED: Lack.NO_SENSOR,
    OUT_OF_BOUNDS: Lack.NO_SENSOR,
    SETTING_UNAVAILABLE: Lack.NO_SENSOR,
    NOT_YET_IMPLEMENTED: Lack.OLD_DRIVER,
    NO_SYMBOL: Lack.OLD_DRIVER,
    NO_PERMISSION: Lack.NO_PERMISSION,
}
_CARD_GONE = frozenset({DRM_ERROR, IO_ERROR, FILE_ERROR, DIRECTORY_NOT_FOUND, NOT_FOUND, FILE_NOT_FOUND})
"""Of one question it says little, any file may be missing; when a card answers nothing else, it is gone."""
_SESSION_LOST = frozenset({NOT_INITIALISED, DRIVER_NOT_LOADED})
_NAMES = {
    DRM_ERROR: "DRM error",
    TIMEOUT: "timeout",
    RETRY: "retry",
    IO_ERROR: "I/O error",
    BUSY: "device busy",
    NOT_FOUND: "device not found",
    NOT_INITIALISED: "not initialised",
    DRIVER_NOT_LOADED: "driver not loaded",
}


class SessionLostError(BackendError):
    """AMD's library as a whole stopped to work: the driver was unloaded."""


class CardLostError(BackendError):
    """One card fell off the bus or needs a reset; the others may go on."""


class Questions:
    """What one card answers, fails and declines. `lacks` tells of each question why it has no answer, `None` if it has."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._declined: dict[str, float] = {}
        self._told: set[tuple[str, int]] = set()
        self._now = 0.0
        self._answers = 0
        self._failures: set[int] = set()
        self.lacks: dict[str, Lack | None] = {}

    def begin(self, now: float) -> None:
        """A new tick; `now` is monotonic seconds."""
        self._now = now
        self._answers = 0
        self._failures.clear()

    def forget(self) -> None:
        """After a new initialisation the driver may be another one."""
        self._declined.clear()

    def ask(self, name: str, function: Callable[..., Any] | None, *arguments: object) -> bool:
        """Whether the call succeeded; then its answer is in the arguments. `None`: a library too old to have it.

        Raises SessionLostError. A library that wants to be asked again (retry, timeout, busy) is, with the next tick.
        """
        if (until := self._declined.get(name)) is not None:
            if self._now < until:
                return False
            del self._declined[name]
        code = NO_SYMBOL if function is None else int(function(*arguments))
        if code == 0:
            self._answers += 1
            self.lacks[name] = None
            return True
        self._refused(name, code)
        return False

    def implausible(self, name: str) -> None:
        """It was answered, with what cannot be."""
        self.lacks[name] = Lack.UNREADABLE

    def raise_if_lost(self) -> bool:
        """Whether everything failed this tick. Raises CardLostError when the card is gone."""
        if self._answers or not self._failures:
            return False
        if self._failures <= _CARD_GONE:
            raise CardLostError(
                f"{self._label}: AMD's library finds it no more ({_describe(self._failures)})"
            )
        return True

    def _refused(self, name: str, code: int) -> None:
        if code in _SESSION_LOST:
            raise SessionLostError(f"AMD's library: {_describe({code})}")
        if code in _DECLINED:
            self._declined[name] = self._now + ASK_AGAIN_SECONDS
            self.lacks[name] = _DECLINED[code]
            return
        self.lacks[name] = Lack.UNREADABLE
        self._failures.add(code)
        if (name, code) not in self._told:
            self._told.add((name, code))
            _log.info("%s: %s gives %s; it is left out", self._label, name, _describe({code}))


def _describe(codes: set[int]) -> str:
    return ", ".join(_NAMES.get(code, f"AMDSMI status {code}") for code in sorted(codes))
