"""Asks one backend each tick, off the event loop and with a deadline, and keeps its health."""

import asyncio
import logging
from collections.abc import Callable

from gpuwhyd.backends.base import Backend, BackendReadings, Probe, ProbeResult
from gpuwhyd.backends.deferred import Deferred
from gpuwhyd.errors import BackendError, NoCardError
from gpuwhyd.model import BackendHealth, BackendState, FieldSource, GpuReading
from gpuwhyd.worker import LateError, Worker

log = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 2.0
LONGEST_RETRY_SECONDS = 60.0
LATER_SECONDS = 10.0
"""How often a missing driver or library is looked for."""

_TOO_SLOW = "a driver call took too long; `dmesg` may tell why"


class BackendWatch:
    """One backend's life: probed until it is ready, then read; after a failure closed, and retried with backoff.

    One that was late is retried with backoff too, and keeps what it holds; and no tick waits for it any more. It is tried
    beside the ticks, until it has answered in time; then the next tick reads it. The pauses begin anew when that was in time.
    """

    def __init__(self, backend: Backend, monotonic_seconds: Callable[[], float]) -> None:
        self.health = BackendHealth(name=backend.name, state=BackendState.WAITING, message="not asked yet")
        self._backend = backend
        self._monotonic_seconds = monotonic_seconds
        self._worker = Worker(f"backend-{backend.name}")
        self._open = False
        self._next_try_seconds = float("-inf")
        self._retry_seconds = FIRST_RETRY_SECONDS
        self._asked_at_seconds: float | None = None
        self._was_late = False
        self._trial: asyncio.Task[tuple[GpuReading, ...]] | None = None
        """The last one of those that no tick waits for."""
        self._known_fault = ""

    @property
    def was_asked(self) -> bool:
        """Whether its health says anything yet."""
        return self._asked_at_seconds is not None

    def is_due(self) -> bool:
        """Whether there is anything to ask it: not while an earlier call hangs, before it is to be tried again, or without
        a card for it.
        """
        if self._is_on_trial():
            return False
        now = self._monotonic_seconds()
        if self._worker.is_busy:
            self._set(BackendState.FAILING, _late(now - (self._asked_at_seconds or now)))
            return False
        if self._was_late:
            self._set(BackendState.FAILING, _TOO_SLOW)
        return now >= self._next_try_seconds and not self._has_no_card(now)

    async def ask(self, deadline_seconds: float) -> tuple[GpuReading, ...]:
        """Its readings of this tick; none while it cannot say anything, or was late before: then this returns at once.

        Never raises. To be called when it is due.
        """
        if not self._was_late:
            return await self._ask(deadline_seconds)
        self._trial = asyncio.create_task(self._ask(deadline_seconds))
        return ()

    async def _ask(self, deadline_seconds: float) -> tuple[GpuReading, ...]:
        is_trial, self._was_late = self._was_late, False
        self._asked_at_seconds = self._monotonic_seconds()
        try:
            answer = await self._worker.call(self._step, deadline_seconds)
        except LateError:
            self._was_late = True
            self._set(BackendState.FAILING, _late(deadline_seconds))
            self._back_off()
        except NoCardError as error:
            self._probed(ProbeResult(answer=Probe.LATER, message=str(error), no_card=True))
            await self._let_go(deadline_seconds)
        except BackendError as error:
            await self._failed(str(error), deadline_seconds)
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"
            if fault != self._known_fault:
                log.exception("%s: a fault of gpuwhyd, please report it", self._backend.name)
            self._known_fault = fault
            await self._failed(f"a fault of gpuwhyd ({fault})", deadline_seconds)
        else:
            if isinstance(answer, BackendReadings):
                self._open = True
                # the next tick reads it; until then it is not ready, because whoever is lists its cards
                if is_trial:
                    return ()
                self._retry_seconds = FIRST_RETRY_SECONDS
                self._set(answer.state, answer.message)
                return answer.readings
            self._probed(answer)
        return ()

    async def stand_by(self, message: str, deadline_seconds: float) -> None:
        """Another backend reads the same cards better: lets go of them, and waits."""
        if self._worker.is_busy or self._is_on_trial():
            return
        if self._open:
            await self._let_go(deadline_seconds)
        self._next_try_seconds = self._monotonic_seconds()
        self._set(BackendState.WAITING, message)

    def look_anew(self) -> None:
        """Something came or went: what it waits for may be there, and what failed may work or have gone.

        It is due at once, but not sooner than a first retry after it was asked: whatever comes in floods hammers no
        driver. A backoff starts anew, because what it is to spare may be another driver now.
        """
        if self.health.state not in {BackendState.WAITING, BackendState.FAILING}:
            return
        now = self._monotonic_seconds()
        asked_at = float("-inf") if self._asked_at_seconds is None else self._asked_at_seconds
        self._retry_seconds = FIRST_RETRY_SECONDS
        self._next_try_seconds = min(self._next_try_seconds, max(now, asked_at + FIRST_RETRY_SECONDS))

    def sources(self) -> tuple[FieldSource, ...]:
        """Where its quantities come from, as of its last reading; nothing while it gives none."""
        return self._backend.sources() if self._open else ()

    async def close(self, deadline_seconds: float) -> None:
        """Lets go of the hardware, unless a call hangs in it; ends the thread."""
        if self._trial is not None:
            self._trial.cancel()
        if not self._worker.is_busy:
            await self._close(deadline_seconds)
        self._worker.rest()

    def _is_on_trial(self) -> bool:
        return self._trial is not None and not self._trial.done()

    def _has_no_card(self, now: float) -> bool:
        """Most backends have nothing to read on most machines; a thread for each to find that out costs more than the rest."""
        if not isinstance(self._backend, Deferred):
            return False
        try:
            absence = self._backend.absence()
        except Exception:  # noqa: BLE001 - a fault of ours: its probe meets it anew, where it is logged and survived
            return False
        if absence is None:
            return False
        self._asked_at_seconds = now
        self._probed(absence)
        return True

    def _step(self) -> BackendReadings | ProbeResult:
        """In the worker thread."""
        if not self._open:
            result = self._backend.probe()
            if result.answer is not Probe.READY:
                return result
        return self._backend.read()

    def _probed(self, result: ProbeResult) -> None:
        self._worker.rest()  # most backends have nothing to read on most machines
        if result.answer is Probe.NEVER:
            self._set(BackendState.ABSENT, result.message)
            self._next_try_seconds = float("inf")
        else:
            self._set(BackendState.WAITING, result.message, has_no_card=result.no_card)
            self._next_try_seconds = self._monotonic_seconds() + LATER_SECONDS

    async def _failed(self, message: str, deadline_seconds: float) -> None:
        self._set(BackendState.FAILING, message)
        self._back_off()
        await self._let_go(deadline_seconds)

    def _back_off(self) -> None:
        self._next_try_seconds = self._monotonic_seconds() + self._retry_seconds
        self._retry_seconds = min(2 * self._retry_seconds, LONGEST_RETRY_SECONDS)

    async def _let_go(self, deadline_seconds: float) -> None:
        self._open = False
        await self._close(deadline_seconds)

    async def _close(self, deadline_seconds: float) -> None:
        try:
            await self._worker.call(self._backend.close, deadline_seconds)
        except LateError:
            self._was_late = True
            log.warning(
                "%s: letting go of the driver takes longer than %g s", self._backend.name, deadline_seconds
            )
        except Exception:  # a fault of ours or a driver's: the other backends must still be read
            log.exception("%s could not let go of the driver", self._backend.name)

    def _set(self, state: BackendState, message: str, *, has_no_card: bool = False) -> None:
        before = self.health
        if (state, message, has_no_card) == (before.state, before.message, before.has_no_card):
            return
        if state is not before.state:
            log.info("backend %s: %s%s", before.name, state, f" ({message})" if message else "")
        self.health = BackendHealth(name=before.name, state=state, message=message, has_no_card=has_no_card)


def _late(seconds: float) -> str:
    return f"a driver call has not returned for {round(seconds)} s; `dmesg` may tell why"
