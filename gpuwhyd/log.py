"""The daemon's own log stays readable whatever others do: nothing fills it."""

import logging
import time
from collections import deque
from collections.abc import Callable, Hashable

LINES_PER_MINUTE = 10
"""From all together in which any user may provoke what they like: see `_OPEN_TO_ANYONE`."""
LINES_PER_PLACE_AND_MINUTE = 30
"""From any other place in the code: eight GPUs may have much to say when they come."""
_MINUTE_SECONDS = 60.0
_OPEN_TO_ANYONE = (
    "gpuwhyd.bus.",
    "gpuwhyd.outputs.dbus_",
    "gpuwhyd.outputs.history",  # read when somebody asks for it
    "gpuwhyd.processes.",  # a process is named, and comes and goes, as its user likes
    "gpuwhyd.who",
    "asyncio",  # tells of tasks that failed, which a request may have begun
)

_FORMATTER = logging.Formatter()


class _Recent:
    """When the last lines of one kind were written."""

    __slots__ = ("left_out", "times")

    def __init__(self, most: int) -> None:
        self.times: deque[float] = deque(maxlen=most)
        self.left_out = 0

    def has_room(self, now: float) -> bool:
        return len(self.times) < (self.times.maxlen or 0) or now - self.times[0] >= _MINUTE_SECONDS


class LineLimit(logging.Filter):
    """For a handler. Lets so many lines a minute pass, counts the others, and shows one traceback for each place. What
    begins while there is room is written to its end, and all its lines count.

    Debugging is not limited: who asks for it wants to see all.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._recent: dict[Hashable, _Recent] = {}
        self._traced: set[tuple[str, int]] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno <= logging.DEBUG:
            return True
        place = (record.name, record.lineno)
        is_open = record.name.startswith(_OPEN_TO_ANYONE)
        most = LINES_PER_MINUTE if is_open else LINES_PER_PLACE_AND_MINUTE
        recent = self._recent.setdefault("anyone" if is_open else place, _Recent(most))
        now = self._clock()
        if not recent.has_room(now):
            recent.left_out += 1
            return False
        if record.exc_info and place in self._traced:
            record.msg, record.args = f"{record.getMessage()}: {record.exc_info[1]!r}", ()
            record.exc_info = record.exc_text = None
        elif record.exc_info:
            self._traced.add(place)
            record.exc_text = _FORMATTER.formatException(record.exc_info)
        if recent.left_out:
            record.msg, record.args = f"{record.getMessage()} (left out before: {recent.left_out} lines)", ()
            recent.left_out = 0
        # not getMessage: where arguments do not fit, it is the handler that may raise
        lines = len(f"{record.msg}\n{record.exc_text or ''}".splitlines())
        recent.times.extend([now] * lines)
        return True
