"""Feeds the engine, so that a fault in it costs samples, and neither the daemon nor what was learned."""

import logging
import traceback
from collections.abc import Callable

from gpuwhyd.engine.engine import Engine
from gpuwhyd.model import Report, Snapshot
from gpuwhyd.outputs.state import StateStore

log = logging.getLogger(__name__)

SECTION = "engine"
"""Its section in the state file."""
TRIES = 30
"""So many samples without an answer are no passing fault of a reading: what was saved may be its cause."""


class GuardedEngine:
    """After a fault it goes on from what was saved last, as after a restart: a snapshot that was fed by half leaves
    nothing behind, least of all in the state file, which stays as it is until a whole one has been fed.

    To end the daemon instead would help nobody. Where a steady reading or the state is the cause, it would fail with
    each start until systemd gives up; readings, processes and history would be gone with the answers.
    """

    def __init__(self, build: Callable[[object], Engine], store: StateStore, saved: object) -> None:
        """`build`: an engine from `saved`, or from nothing where that does not fit. Registers its section in `store`."""
        self._build = build
        self._store = store
        self._kept = saved
        """What stays in the state file while `_is_whole` does not hold."""
        self._is_whole = False
        self._failed_in_a_row = 0
        self._told: set[str] = set()
        self.fault: str | None = None
        """What is wrong with it now, in words that anybody may read."""
        self.engine = build(saved)
        store.register(SECTION, self._state)

    def feed(self, snapshot: Snapshot) -> Report:
        """As `Engine.feed`; without events and explanations where that raises."""
        try:
            report = self.engine.feed(snapshot)
        except Exception as error:  # noqa: BLE001 - whatever it is: see above
            self._set_back(error)
            headline = "gpuwhyd gives no answer because of a fault in it: see journalctl -u gpuwhyd."
            return Report(snapshot=snapshot, headline=headline)
        self._is_whole, self._kept = True, None
        self._failed_in_a_row, self.fault = 0, None
        return report

    def _set_back(self, error: Exception) -> None:
        innermost = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{type(error).__name__} in {innermost.name}, line {innermost.lineno}"
        if place not in self._told:  # with each sample it would fill the log
            self._told.add(place)
            log.error("a fault in the engine, please report it; this sample is left out", exc_info=error)
        self.fault = f"the engine gives no answers because of a fault in gpuwhyd, please report it: {place}"
        if self._is_whole:
            self._is_whole, self._kept = False, self._store.load().get(SECTION)
        self._failed_in_a_row += 1
        self.engine = self._build(self._kept if self._failed_in_a_row < TRIES else None)

    def _state(self) -> object:
        return self.engine.saved() if self._is_whole else self._kept
