"""Asking one card: what it declines is remembered and not asked again for a while, what goes wrong is told once."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from gpuwhyd.backends import nvml_library as codes
from gpuwhyd.backends.nvml_library import CardLostError, SessionLostError, describe

_log = logging.getLogger(__name__)
_Answer = TypeVar("_Answer")

ASK_AGAIN_SECONDS = 600.0
"""A card may learn to answer (MIG switched off, driver options changed), but rarely; asking costs time each tick."""

DECLINED = frozenset(
    {
        codes.INVALID_ARGUMENT,  # this card or driver does not know the sensor, field or threshold
        codes.NOT_SUPPORTED,
        codes.NO_PERMISSION,
        codes.FUNCTION_NOT_FOUND,  # an older driver
        codes.ARGUMENT_VERSION_MISMATCH,
        codes.DEPRECATED,
    }
)
_CARD_LOST = frozenset({codes.GPU_IS_LOST, codes.RESET_REQUIRED, codes.GPU_NOT_FOUND})
_SESSION_LOST = frozenset({codes.UNINITIALIZED, codes.DRIVER_NOT_LOADED, codes.VERSION_MISMATCH})


Refusals = Mapping[str, tuple[float, int]]
"""Question -> until when it is not asked again, and the NVML error; what failed, but was not declined, is asked again
with the next tick. One that is over stays, so see `refusal`."""


def refusal(refusals: Refusals, name: str, now: float) -> int | None:
    """The NVML error that a question got when it was asked last; `None` when it got none, or was not asked."""
    refused = refusals.get(name)
    return refused[1] if refused is not None and now <= refused[0] else None


class Questions:
    """What one card answers, fails and declines. `now` is set once a tick, in monotonic seconds."""

    def __init__(self, nvml: Any, label: str) -> None:
        self._nvml = nvml
        self._label = label
        self.refusals: Refusals = {}
        """Replaced and never changed: another thread may look at it."""
        self._told: set[tuple[str, int]] = set()
        self.now = 0.0
        self.answers = 0
        self.failures = 0

    def begin(self, now: float) -> None:
        self.now = now
        self.answers = 0
        self.failures = 0

    @property
    def all_failed(self) -> bool:
        """Something went wrong and nothing was answered since `begin`."""
        return self.answers == 0 and self.failures > 0

    def forget(self) -> None:
        """After a new initialisation the driver may be another one."""
        self.refusals = {}

    def ask(self, name: str, call: Callable[..., _Answer], *arguments: object) -> _Answer | None:
        """The answer, or None. Raises CardLostError and SessionLostError.

        `name` tells questions apart: a card may support one argument of a function and not another.
        """
        if self.refusals and self.is_declined(name):
            return None
        try:
            answer = call(*arguments)
        except self._nvml.NVMLError as error:
            self.refused(name, int(error.value))
            return None
        except UnicodeDecodeError:  # nvidia-ml-py decodes names strictly
            self.refused(name, codes.NOT_SUPPORTED)
            return None
        self.answers += 1
        return answer

    def raise_if_lost(self, code: int) -> None:
        """Raises CardLostError or SessionLostError for the NVML errors that mean it."""
        if code in _CARD_LOST:
            raise CardLostError(f"{self._label}: {describe(self._nvml, code)}")
        if code in _SESSION_LOST:
            raise SessionLostError(f"NVML: {describe(self._nvml, code)}")

    def is_declined(self, name: str) -> bool:
        refused = self.refusals.get(name)
        return refused is not None and self.now < refused[0]

    def is_forbidden(self, name: str) -> bool:
        """It is declined, and for want of permission: there may be something to tell."""
        return refusal(self.refusals, name, self.now) == codes.NO_PERMISSION

    def refused(self, name: str, code: int) -> None:
        """Takes note of an NVML error. Raises CardLostError and SessionLostError."""
        self.raise_if_lost(code)
        is_declined = code in DECLINED
        until = self.now + ASK_AGAIN_SECONDS if is_declined else self.now
        self.refusals = {**self.refusals, name: (until, code)}
        if is_declined:
            self.answers += 1  # declining is an answer: the card is there
            return
        self.failures += 1
        if (name, code) not in self._told:
            self._told.add((name, code))
            _log.info("%s: %s gives %r; it is left out", self._label, name, describe(self._nvml, code))
