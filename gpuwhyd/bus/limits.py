"""How much one peer may ask for. Pure: time is handed in, in seconds of any steady clock."""

from collections import OrderedDict
from enum import Enum

# A widget reads everything once and then follows signals; a person's command makes some ten calls. 50 calls a second
# for ever and 200 at once is far above both, and costs at most a tenth of one core with dbus-next (1.3 ms for a large
# reply, 0.3 ms for a small one: measured).
CALLS_PER_SECOND = 50.0
CALLS_AT_ONCE = 200
REFUSALS_PER_SECOND = 2.0
REFUSALS_AT_ONCE = 5
MOST_SENDERS = 1024


class Verdict(Enum):
    SERVE = "serve"
    REFUSE = "refuse"  # answer with an error
    IGNORE = "ignore"  # even the errors would be a flood


class TokenBucket:
    """Lets `at_once` things pass, and `per_second` in the long run."""

    __slots__ = ("_at_once", "_filled_at", "_per_second", "_tokens")

    def __init__(self, per_second: float, at_once: float, now: float) -> None:
        self._per_second = per_second
        self._at_once = at_once
        self._tokens = at_once
        self._filled_at = now

    def take(self, now: float) -> bool:
        self._refill(now)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def is_full(self, now: float) -> bool:
        self._refill(now)
        return self._tokens >= self._at_once

    def _refill(self, now: float) -> None:
        elapsed = max(0.0, now - self._filled_at)
        self._tokens = min(self._at_once, self._tokens + elapsed * self._per_second)
        self._filled_at = now


class CallLimits:
    """Decides for each method call whether it is served.

    A full bucket says nothing, so it can be forgotten: memory holds only the senders of the last seconds, and never
    more than `MOST_SENDERS` of them (then the one that has been silent longest goes).
    """

    def __init__(self) -> None:
        self._senders: OrderedDict[str, tuple[TokenBucket, TokenBucket]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._senders)

    def judge(self, sender: str, now: float, *, refuse: bool = False) -> Verdict:
        """`refuse`: this call is not served whatever its sender has asked for so far."""
        calls, refusals = self._senders.get(sender) or (
            TokenBucket(CALLS_PER_SECOND, CALLS_AT_ONCE, now),
            TokenBucket(REFUSALS_PER_SECOND, REFUSALS_AT_ONCE, now),
        )
        self._senders[sender] = (calls, refusals)
        self._senders.move_to_end(sender)
        self._forget(now)
        if not refuse and calls.take(now):
            return Verdict.SERVE
        return Verdict.REFUSE if refusals.take(now) else Verdict.IGNORE

    def _forget(self, now: float) -> None:
        """The two that were silent longest, if there is nothing to remember of them: work per call stays constant."""
        for sender in list(self._oldest(2)):
            calls, refusals = self._senders[sender]
            if len(self._senders) > MOST_SENDERS or (calls.is_full(now) and refusals.is_full(now)):
                del self._senders[sender]

    def _oldest(self, count: int) -> list[str]:
        names = iter(self._senders)
        return [next(names) for _ in range(min(count, len(self._senders) - 1))]
