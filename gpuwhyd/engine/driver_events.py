"""What makes a fan spin up without any load: the machine boots or wakes up, a card wakes up, a driver is loaded or reset."""

from dataclasses import dataclass

from gpuwhyd.model import GpuState

BOOT_SECONDS = 180.0
"""A card that is read for the first time within so long of the machine's start is read as part of that."""
GONE_SECONDS = 3.0
"""A card that was not there for so long was reset or got its driver anew; a log shows 4.6 s around a reset."""
RISE_SECONDS = 30.0
"""A fan that such an event spins up does so within this time: fans run full until the driver takes over."""
LASTS_SECONDS = 300.0
FLAT_SECONDS = 60.0
"""It comes down again: within the first, and one that holds its speed for the second has another reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverEvent:
    kind: str
    """`boot`, `resume` (of the machine), `wake` (of the card), `load` or `reset` (of the driver)."""
    seconds_ago: float


@dataclass(slots=True)
class DriverEvents:
    """Feed it every reading of a card, before anything else is made of it."""

    _kind: str = ""
    _at: float | None = None
    _state: GpuState | None = None

    def feed(
        self, now: float, state: GpuState, *, resumed: bool, missing_since: float | None, is_new: bool
    ) -> None:
        """`missing_since`: not listed since then until now. `is_new`: it has come after the engine's first snapshot."""
        before, self._state = self._state, state
        if state is GpuState.LOST:
            return
        kind = None
        if resumed:
            kind = "resume"
        elif before is GpuState.LOST or (missing_since is not None and now - missing_since >= GONE_SECONDS):
            kind = "reset"
        elif before is GpuState.ASLEEP and state is GpuState.AWAKE:
            kind = "wake"
        elif before is None and state is GpuState.AWAKE:
            kind = "boot" if now < BOOT_SECONDS else "load" if is_new else None
        if kind is not None:
            self._kind, self._at = kind, now

    def event(self, now: float, rose_at: float, flat_seconds: float) -> DriverEvent | None:
        """The event that spun up a fan that rose at `rose_at`, if there was one just before.

        `flat_seconds`: for how long the fan has not moved.
        """
        if self._at is None or now - self._at > LASTS_SECONDS or rose_at - self._at > RISE_SECONDS:
            return None
        if flat_seconds > FLAT_SECONDS:
            return None
        return DriverEvent(kind=self._kind, seconds_ago=now - self._at)
