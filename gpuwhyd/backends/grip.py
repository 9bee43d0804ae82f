"""When a backend may hold a card, and when it lets go so that the card can suspend.

An open NVML session keeps a card's device node open, and each read of a sensor below sysfs starts the time anew after
which the kernel suspends an idle card: both keep it awake. So an idle card that may suspend is let go; then only its
power state is watched, which wakes nothing. If it stays awake all the same, something else
keeps it so; it is then read once after a pause, and again. A card that something else wakes is taken up at once.
"""

from collections.abc import Callable

IDLE_SECONDS = 60.0
"""So long nobody works on the card before it is let go."""
PAUSES_SECONDS = (60.0, 120.0)
"""Cards suspend 5 to 15 s after the last node is closed. The last pause repeats: a longer one would be too late to
see a fan spin up, and reading once in two minutes keeps no card awake."""
PAUSES_BEFORE_HOLDING = 3
HOLD_SECONDS = 1800.0
"""A card that did not sleep through that many pauses, nor ever since boot, cannot: it is held for so long at a time."""
CAN_SUSPEND_SECONDS = 30.0
"""How old the word may be that a card may suspend: a monitor is plugged in more rarely than that, and it is a glob."""


class Grip:
    """The state of one card; `now` is monotonic seconds."""

    def __init__(self) -> None:
        self._idle_since: float | None = None
        self._let_go_until: float | None = None
        self._pauses = 0

    def is_let_go(self, now: float) -> bool:
        return self._let_go_until is not None and now < self._let_go_until

    def slept(self) -> None:
        """The card is asleep: what wakes it next is worth looking at."""
        self._start_over()

    def take_up(self) -> None:
        """Something has begun on a card that was let go."""
        self._start_over()

    def should_let_go(
        self, now: float, *, idle: bool, may_suspend: Callable[[], bool], has_ever_slept: Callable[[], bool]
    ) -> bool:
        """To be asked after each read; True begins a pause. The callables read files and are asked only when needed."""
        if not idle:
            self._start_over()
            return False
        if self._let_go_until is None:
            if self._idle_since is None:
                self._idle_since = now
            if now - self._idle_since < IDLE_SECONDS:
                return False
        if not may_suspend():
            self._start_over()
            self._idle_since = now
            return False
        if self._pauses >= PAUSES_BEFORE_HOLDING and not has_ever_slept():
            self._start_over()
            self._idle_since = now + HOLD_SECONDS - IDLE_SECONDS
            return False
        self._let_go_until = now + PAUSES_SECONDS[min(self._pauses, len(PAUSES_SECONDS) - 1)]
        self._pauses += 1
        return True

    @property
    def is_first_pause(self) -> bool:
        return self._pauses == 1

    def _start_over(self) -> None:
        self._idle_since = self._let_go_until = None
        self._pauses = 0


class CanSuspend:
    """Whether a card may suspend, of which `look` reads some files. What it last said holds for half a minute."""

    def __init__(self, look: Callable[[], bool]) -> None:
        self._look = look
        self._looked_at = float("-inf")
        self.known: bool | None = None
        """As it was last seen; `None` before the first look. Looks at nothing."""

    def at(self, now: float) -> bool:
        """`now` is monotonic seconds."""
        if self.known is None or now - self._looked_at >= CAN_SUSPEND_SECONDS:
            self.known, self._looked_at = self._look(), now
        return self.known
