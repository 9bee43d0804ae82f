"""Writes events to the journal, each once: through an outbox that survives a crash of either side.

A new event goes to the outbox, the outbox is saved (in one file with the engine's state, so that both are of one
moment), then it is sent, and leaves the outbox when journald has read it. What is left there after a crash is looked up
in the journal before it is sent again.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass

from gpuwhyd.errors import HistoryError
from gpuwhyd.model import Report
from gpuwhyd.outputs.journal_entries import entry, event_id
from gpuwhyd.outputs.journal_outbox import Outbox, OutboxEntry
from gpuwhyd.outputs.journal_socket import JournalSocket, Receipt, Sent
from gpuwhyd.outputs.state import StateStore

log = logging.getLogger(__name__)

SECTION = "outbox"
"""Its section in the state file."""
PROMPT_SECONDS = 0.05
"""First wait for journald to have read: it takes a few ms. Doubled up to RETRY_SECONDS."""
RETRY_SECONDS = 1.0
SAVE_SECONDS = 5.0
"""A disk that takes longer must not keep events from the journal, which may well be in memory."""
CLOSE_SECONDS = 0.5
"""How long closing waits for journald to have read."""
SILENT_ATTEMPTS = 5
"""Short stalls (a burst, a rotation) are not worth a log line: five attempts are 1.5 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalSettings:
    object_pid: bool = True
    """Name the leading suspect's process to journald while it lives: journald then stores its command line, where
    readers of the system journal (group systemd-journal) see it."""


class JournalOutput:
    """Must get each report before anything is awaited after the engine made it: then the state file never holds an
    engine that has told an event and an outbox that lacks it.

    On a machine without a journal it takes nothing, until one appears.
    """

    def __init__(
        self,
        *,
        store: StateStore,
        restored: object,
        already_written: Callable[[Collection[str]], set[str]],
        settings: JournalSettings | None = None,
        journal_socket: JournalSocket | None = None,
    ) -> None:
        """`restored`: the state's section `outbox` (`None` when there is none); registers that section in `store`.

        `already_written`: which of these GPUWHY_EVENT_IDs the journal has; may block and raise HistoryError.
        """
        self._store = store
        self._already_written = already_written
        self._settings = settings or JournalSettings()
        self._socket = journal_socket or JournalSocket()
        self._outbox = Outbox()
        unusable = self._outbox.restore(restored)
        if unusable:
            log.warning("%d saved journal entries are unusable and were left out", unusable)
        store.register(SECTION, self._outbox.collect)
        self._known = len(self._outbox) > 0
        self._unsaved = False
        self._asked_for_receipt = False
        self._progress = False
        self._attempts = 0
        self._reported_away = False
        self._state = "ready"
        self._wake = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._saving: asyncio.Task[bool] | None = None

    def configure(self, settings: JournalSettings) -> None:
        """From the next event on."""
        self._settings = settings

    def health(self) -> dict[str, object]:
        """`state`: `ready`, `stalled` (journald does not read), `away` (it is not running), `absent` (no journal here)."""
        return {"state": self._state, "queued": len(self._outbox), "dropped": self._outbox.dropped}

    async def publish(self, report: Report) -> None:
        """Only queues; a task of its own saves and sends, so that neither disk nor journald holds anybody up."""
        self._known = self._known or self._socket.exists()
        if not self._known:
            self._state = "absent"
            return
        for event in report.events:
            fields = entry(event, object_pid=self._settings.object_pid)
            self._outbox.add(OutboxEntry(event_id=event_id(event), kind=event.kind, fields=fields))
            self._unsaved = True
        if not self._outbox:
            self._state = "ready" if self._socket.reachable() else "away"
            return
        if self._worker is None:
            self._worker = asyncio.create_task(self._deliver(), name="journal")
        if self._worker.done():
            self._worker.result()  # raises what ended it
        self._wake.set()

    async def close(self) -> None:
        """Sends what can be sent; the rest stays in the state file for the next start."""
        if self._worker is not None:
            self._worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._worker
        if self._outbox and not self._outbox.doubtful_ids():
            await self._save()
            self._send_waiting()
            waited_seconds = 0.0
            while self._outbox.unread and waited_seconds < CLOSE_SECONDS:
                await asyncio.sleep(PROMPT_SECONDS)
                waited_seconds += PROMPT_SECONDS
                self._look_for_receipt()
        await self._save()
        self._socket.close()

    async def _deliver(self) -> None:
        delay_seconds = PROMPT_SECONDS
        while True:
            idle = not self._outbox and not self._unsaved
            # not wait_for: until Python 3.12 that loses a cancellation that comes together with what it waits for
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if idle else delay_seconds):
                    await self._wake.wait()
            self._wake.clear()
            self._progress = False
            await self._step()
            delay_seconds = PROMPT_SECONDS if self._progress else min(2 * delay_seconds, RETRY_SECONDS)

    async def _step(self) -> None:
        if self._unsaved:
            await self._save()
        if self._outbox.doubtful_ids() and not await self._end_doubt():
            return
        self._look_for_receipt()
        if not self._outbox.doubtful_ids():
            self._send_waiting()

    async def _end_doubt(self) -> bool:
        """False: not yet.

        The queue of journald's socket is first in, first out, so once journald has read a datagram sent now, it has
        also written what an earlier life of this process left in that queue. Only then the journal is asked.
        """
        if not self._asked_for_receipt:
            self._asked_for_receipt = self._note(self._socket.send(()))
            return False
        receipt = self._socket.receipt()
        if receipt is not Receipt.READ:
            self._asked_for_receipt = receipt is Receipt.UNREAD
            return False
        self._asked_for_receipt = False
        asked = self._outbox.doubtful_ids()
        try:
            written = await asyncio.to_thread(self._already_written, asked)
        except HistoryError as error:
            written = set()
            log.warning("%d events may stand in the journal twice, it cannot be read: %s", len(asked), error)
        self._outbox.doubt_is_over(asked, written)
        self._unsaved = True
        return True

    def _send_waiting(self) -> None:
        while (first := self._outbox.first()) is not None:
            sent = self._socket.send(first.fields)
            if sent is Sent.REFUSED:
                log.warning("An event is given up, the journal does not take it: %s", self._socket.reason)
                self._outbox.first_is_hopeless()
                self._unsaved = True
                continue
            if not self._note(sent):
                return
            self._outbox.first_is_sent()

    def _look_for_receipt(self) -> None:
        if not self._outbox.unread:
            return
        match self._socket.receipt():
            case Receipt.READ:
                self._outbox.sent_are_read()
                self._unsaved = True
                self._progress = True
            case Receipt.LOST:
                self._note(Sent.AWAY)
            case Receipt.UNREAD:
                pass

    def _note(self, sent: Sent) -> bool:
        """Keeps the state, tells its changes; whether it was taken."""
        if sent is Sent.TAKEN:
            self._attempts = 0
            self._progress = True
            self._state = "ready"
            if self._reported_away:
                self._reported_away = False
                log.info(
                    "The journal takes events again; %d waited, %d were given up since the start",
                    len(self._outbox),
                    self._outbox.dropped,
                )
            return True
        self._outbox.forget_object_pids()
        self._state = "stalled" if sent is Sent.BUSY else "away"
        if sent is Sent.AWAY:
            self._outbox.sent_are_doubtful()
            self._asked_for_receipt = False
        self._attempts += 1
        if self._attempts == SILENT_ATTEMPTS and not self._reported_away:
            self._reported_away = True
            log.warning(
                "The journal does not take events (%s: %s); they wait", self._socket.path, self._socket.reason
            )
        return False

    async def _save(self) -> None:
        """Waits for the disk, but not for ever; a save that hangs is not joined by others."""
        if self._saving is None or self._saving.done():
            self._unsaved = False
            self._saving = asyncio.create_task(self._store.save_in_thread(), name="save state")
        await asyncio.wait({self._saving}, timeout=SAVE_SECONDS)
        if self._saving.done():
            self._saving.result()
