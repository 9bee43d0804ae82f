"""When an open spike is told anew: its cause or leading suspect have changed, for a while, and not too often."""

from collections import Counter
from dataclasses import dataclass, field

from gpuwhyd.model import Cause

STABLE_SECONDS = 10.0
UPDATE_SECONDS = 30.0
MOST_DOUBLINGS = 5
"""An answer that comes again and again, as with a load in bursts, is told again after 1, 2, 4, 8 and at most 16 minutes."""
MOST_ANSWERS = 64


@dataclass(slots=True)
class _Steady:
    """One part of the answer: since when it has been something else than what was told, and the same."""

    value: Cause | str | None = None
    since: float | None = None

    def differs_for(self, now: float, value: Cause | str, told: Cause | str | None) -> float:
        """For how many seconds it has had this value; 0 while that is what was told."""
        if value == told:
            self.since = None
            return 0.0
        if self.since is None or value != self.value:
            self.value, self.since = value, now
        return now - self.since


@dataclass(slots=True)
class Telling:
    answer: tuple[Cause, str] | None = None
    """Cause and leading program's key, as last told."""
    _told_at: float | None = None
    _times: Counter[tuple[Cause, str]] = field(default_factory=Counter)
    """How often each answer was told in this spike."""
    _cause: _Steady = field(default_factory=_Steady)
    _leader: _Steady = field(default_factory=_Steady)

    def told(self, now: float, cause: Cause, leader: str, *, started: bool) -> None:
        """An event with this cause and leading program was just made; `started` begins a spike."""
        self.answer, self._told_at = (cause, leader), now
        if started or len(self._times) >= MOST_ANSWERS:
            self._times.clear()
        self._times[self.answer] += 1
        self._cause.since = self._leader.since = None

    def is_due(self, now: float, cause: Cause, leader: str) -> bool:
        """Whether cause or leader have been others than the told ones, the same for 10 s, and the last event is 30 s old,
        or older where the answer is one that was told before in this spike.

        Leaders that change faster, a row of short jobs, are not told one by one.
        """
        told_cause, told_leader = self.answer or (None, None)
        steady = max(
            self._cause.differs_for(now, cause, told_cause),
            self._leader.differs_for(now, leader, told_leader),
        )
        if steady < STABLE_SECONDS:
            return False
        times = self._times[cause, leader]
        wait_seconds = UPDATE_SECONDS * 2 ** min(times, MOST_DOUBLINGS)
        return self._told_at is None or now - self._told_at >= wait_seconds

    def saved(self) -> list[str] | None:
        return None if self.answer is None else [self.answer[0].value, self.answer[1]]

    @classmethod
    def restored(cls, saved: object) -> "Telling":
        """Raises TypeError or ValueError when the saved form is not ours."""
        if saved is None:
            return cls()
        if not isinstance(saved, list) or len(saved) != 2:
            raise TypeError("cause and program were expected in the saved state")
        return cls(answer=(Cause(saved[0]), str(saved[1])))
