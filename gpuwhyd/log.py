"""The daemon's own log stays readable whatever others do: nothing fills it."""

import logging
import time
from collections import deque
from collections.abc import Callable, Hashable

LINES_PER_MINUTE = 10
"""From everything that has to do with the bus, where any user may provoke what they like."""
LINES_PER_PLACE_AND_MINUTE = 30
"""From any other place in the code: eight GPUs may have much to say when they come."""
_MINUTE_SECONDS = 60.0
_ON_THE_BUS = ("gpuwhyd.bus.", "gpuwhyd.outputs.dbus_")


class _Recent:
    """When the last lines of one kind were written."""

    __slots__ = ("left_out", "times")

    def __init__(self, most: int) -> None:
        self.times: deque[float] = deque(maxlen=most)
        self.left_out = 0

    def has_room(self, now: float) -> bool:
        return len(self.times) < (self.times.maxlen or 0) or now - self.times[0] >= _MINUTE_SECONDS


class LineLimit(logging.Filter):
    """For a handler. Lets so many lines a minute pass, counts the others, and shows one traceback for each place.

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
        on_the_bus = record.name.startswith(_ON_THE_BUS)
        most = LINES_PER_MINUTE if on_the_bus else LINES_PER_PLACE_AND_MINUTE
        recent = self._recent.setdefault("bus" if on_the_bus else place, _Recent(most))
        now = self._clock()
        if not recent.has_room(now):
            recent.left_out += 1
            return False
        recent.times.append(now)
        if record.exc_info and place in self._traced:
            record.msg, record.args = f"{record.getMessage()}: {record.exc_info[1]!r}", ()
            record.exc_info = record.exc_text = None
        elif record.exc_info:
            self._traced.add(place)
        if recent.left_out:
            record.msg, record.args = f"{record.getMessage()} (left out before: {recent.left_out} lines)", ()
            recent.left_out = 0
        return True
