"""When an open spike is told anew: its cause or leading suspect have changed, for a while, and not too often."""

from dataclasses import dataclass

from gpuwhyd.model import Cause, Explanation

STABLE_SECONDS = 10.0
UPDATE_SECONDS = 30.0


@dataclass(slots=True)
class Telling:
    answer: tuple[Cause, str] | None = None
    """Cause and leading program's key, as last told."""
    _told_at: float | None = None
    _differs_since: float | None = None

    def told(self, now: float, explanation: Explanation | None) -> None:
        """An event with this explanation was just made."""
        self.answer, self._told_at, self._differs_since = _answer(explanation), now, None

    def is_due(self, now: float, explanation: Explanation | None) -> bool:
        """Whether the answer has differed from the told one for 10 s, and the last event is 30 s old."""
        if _answer(explanation) == self.answer:
            self._differs_since = None
            return False
        if self._differs_since is None:
            self._differs_since = now
        fresh = self._told_at is not None and now - self._told_at < UPDATE_SECONDS
        return now - self._differs_since >= STABLE_SECONDS and not fresh

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


def _answer(explanation: Explanation | None) -> tuple[Cause, str] | None:
    if explanation is None:
        return None
    return explanation.cause, explanation.suspects[0].program.key if explanation.suspects else ""
