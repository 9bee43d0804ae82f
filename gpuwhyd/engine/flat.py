"""For how long a value has not moved: a fan that is held, a power that is steady."""

from dataclasses import dataclass


@dataclass(slots=True)
class Flat:
    """Since when a value has stayed within a band."""

    since: float | None = None
    low: float = 0.0
    high: float = 0.0

    def feed(self, now: float, value: float | None, allowed: float) -> None:
        """One sample; `None` ends it, and so does a value that makes the band wider than `allowed`."""
        if value is None:
            self.since = None
            return
        low = min(self.low, value)
        high = max(self.high, value)
        if self.since is None or high - low > allowed:
            self.since, self.low, self.high = now, value, value
        else:
            self.low, self.high = low, high

    def seconds(self, now: float) -> float:
        """How long; 0 while there is no value."""
        return 0.0 if self.since is None else now - self.since
