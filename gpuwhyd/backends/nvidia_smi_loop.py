"""The one child `nvidia-smi -q -x -l SECONDS`: started, listened to, and ended."""

import logging
import time
from pathlib import Path

from gpuwhyd.backends.battery import is_on_battery
from gpuwhyd.backends.nvidia_smi_stream import DocumentError, DocumentStream
from gpuwhyd.backends.nvidia_smi_xml import cards
from gpuwhyd.backends.program_answer import Told
from gpuwhyd.backends.programs import Child, first_line, found
from gpuwhyd.errors import BackendError

_log = logging.getLogger(__name__)

PROGRAM = "nvidia-smi"
INTERVAL_SECONDS = 5
INTERVAL_ON_BATTERY_SECONDS = 15
BATTERY_SECONDS = 30.0
"""How often the power supply is looked at."""
FIRST_DOCUMENT_SECONDS = 2.0
"""The read that starts the child waits so long: it mostly answers within half a second."""
START_SECONDS = 30.0
"""A driver that must first load its firmware takes its time."""
RESTART_SECONDS = (10.0, 30.0, 60.0, 300.0)
"""Before a child that failed is started anew; the last one repeats. A document starts over."""
_MOST_BYTES = 32 << 20


class SmiLoop:
    """`path`: where to look for the program, as PATH. `now` is monotonic seconds."""

    def __init__(self, *, sysfs: Path, path: str | None) -> None:
        self._sysfs = sysfs
        self._path = path
        self._child: Child | None = None
        self._stuck: Child | None = None
        self._stream = DocumentStream()
        self._interval_seconds = INTERVAL_SECONDS
        self._battery_at = float("-inf")
        self._cards: dict[str, Told] | None = None
        self._failures = 0
        self._start_at = float("-inf")
        self._complaint = ""
        self.heard_at = 0.0
        """When the newest document came; before the first one, when the child was started."""

    @property
    def cards(self) -> dict[str, Told] | None:
        """By GPU id, of the newest document; `None` before the first one."""
        return self._cards

    def listen(self, now: float) -> None:
        """Sees to it that the child runs, and takes what it has written. Raises BackendError.

        A document holds until the next one should have come twice. Then there is none, and the child is ended.
        """
        self._choose_interval(now)
        if self._child is not None:
            self._take(self._child, now)
            return
        self._child = child = self._started(now)
        self._stream, self._cards, self.heard_at = DocumentStream(), None, now
        deadline = time.monotonic() + FIRST_DOCUMENT_SECONDS
        while self.cards is None and child.wait_for_output(deadline - time.monotonic()):
            self._take(child, now)
            time.sleep(0.01)  # the rest of a document, or of a process that has closed its output

    def stop(self) -> None:
        """Nothing of the child's is open any more, unless it hangs in the driver."""
        child, self._child, self._cards = self._child, None, None
        if child is not None and not child.stop():
            _log.warning("nvidia-smi cannot be ended: it hangs in the driver; see `dmesg | grep -i nvrm`")
            self._stuck = child

    def _choose_interval(self, now: float) -> None:
        if now - self._battery_at < BATTERY_SECONDS:
            return
        self._battery_at = now
        interval = INTERVAL_ON_BATTERY_SECONDS if is_on_battery(self._sysfs) else INTERVAL_SECONDS
        if interval != self._interval_seconds:
            self._interval_seconds = interval
            self.stop()

    def _started(self, now: float) -> Child:
        if now < self._start_at:
            raise BackendError(self._complaint)
        if self._stuck is not None:
            if self._stuck.exit_code is None:
                raise BackendError("nvidia-smi hangs in the driver: see `dmesg | grep -i nvrm`")
            self._stuck.stop()
            self._stuck = None
        program = found(PROGRAM, self._path)
        if program is None:
            raise BackendError("the program nvidia-smi is gone")
        return Child([program, "-q", "-x", "-l", str(self._interval_seconds)])

    def _take(self, child: Child, now: float) -> None:
        output = child.output(_MOST_BYTES)
        try:
            document = self._stream.feed(output)
            if document is not None:
                self._cards = {card.reading.gpu.id: card for card in cards(document)}
                self.heard_at, self._failures = now, 0
        except DocumentError as error:
            raise self._failed(f"nvidia-smi is not understood: {error}", now) from error
        if not output and (code := child.exit_code) is not None:
            raise self._failed(f"nvidia-smi ended with {code}: {first_line(self._stream.rest)}", now)
        patience = START_SECONDS if self._cards is None else 2.0 * self._interval_seconds + 5.0
        if now - self.heard_at > patience:
            raise self._failed(f"nvidia-smi has been silent for more than {patience:.0f} s", now)

    def _failed(self, complaint: str, now: float) -> BackendError:
        self.stop()
        self._complaint = complaint
        self._start_at = now + RESTART_SECONDS[min(self._failures, len(RESTART_SECONDS) - 1)]
        self._failures += 1
        return BackendError(complaint)
