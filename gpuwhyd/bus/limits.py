"""How much one peer, and one user with all their peers, may ask for. Pure: time is handed in, in seconds of any steady clock."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

# A widget reads everything once and then follows signals; a person's command makes some ten calls. What is beyond this
# is refused.
CALLS_PER_SECOND = 50.0
CALLS_AT_ONCE = 200
REFUSALS_PER_SECOND = 2.0
REFUSALS_AT_ONCE = 5
USERS_REFUSALS_PER_SECOND = 10.0
USERS_REFUSALS_AT_ONCE = 20

# How long the event loop works for one user. With dbus-next a small answer costs 0.3 ms, the objects of 8 GPUs 7 ms, the
# longest history 45 ms (measured). Calls beyond this are answered later, so at once may be little: so long, others wait.
# Behind thirty connections of one user, all with calls, others waited up to 290 ms with 30 ms at once, on slow cores.
USERS_SECONDS_PER_SECOND = 0.2
USERS_SECONDS_AT_ONCE = 0.01

# The system bus has at most 2048 connections.
MOST_ACCOUNTS = 2048


class TokenBucket:
    """Lets `at_once` things pass, and `per_second` in the long run."""

    __slots__ = ("_at_once", "_filled_at", "_per_second", "_tokens")

    def __init__(self, per_second: float, at_once: float, now: float) -> None:
        self._per_second = per_second
        self._at_once = at_once
        self._tokens = at_once
        self._filled_at = now

    def holds(self, amount: float, now: float) -> bool:
        self._refill(now)
        return self._tokens >= amount

    def take(self, amount: float) -> None:
        """What has been used; may be more than there was."""
        self._tokens -= amount

    def is_full(self, now: float) -> bool:
        return self.holds(self._at_once, now)

    def _refill(self, now: float) -> None:
        elapsed = max(0.0, now - self._filled_at)
        self._tokens = min(self._at_once, self._tokens + elapsed * self._per_second)
        self._filled_at = now


K = TypeVar("K", bound=Hashable)


class _Accounts(Generic[K]):
    """Two buckets for each key.

    Full ones say nothing and can be forgotten: memory holds only those who called in the last seconds, and never more
    than `MOST_ACCOUNTS` of them (then the one that has been silent longest goes).
    """

    def __init__(self, make: Callable[[float], tuple[TokenBucket, TokenBucket]]) -> None:
        self._make = make
        self._accounts: OrderedDict[K, tuple[TokenBucket, TokenBucket]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._accounts)

    def of(self, key: K, now: float) -> tuple[TokenBucket, TokenBucket]:
        account = self._accounts.get(key) or self._make(now)
        self._accounts[key] = account
        self._accounts.move_to_end(key)
        self._forget(now)
        return account

    def _forget(self, now: float) -> None:
        """The two that were silent longest, if there is nothing to remember of them: work per call stays constant."""
        names = iter(self._accounts)
        for key in [next(names) for _ in range(min(2, len(self._accounts) - 1))]:
            if len(self._accounts) > MOST_ACCOUNTS or all(
                bucket.is_full(now) for bucket in self._accounts[key]
            ):
                del self._accounts[key]


class CallLimits:
    """Decides for each method call whether it is served, and for each user whether there is time for them now."""

    def __init__(self) -> None:
        self._peers: _Accounts[str] = _Accounts(
            lambda now: (
                TokenBucket(CALLS_PER_SECOND, CALLS_AT_ONCE, now),
                TokenBucket(REFUSALS_PER_SECOND, REFUSALS_AT_ONCE, now),
            )
        )
        self._users: _Accounts[int | None] = _Accounts(
            lambda now: (
                TokenBucket(USERS_SECONDS_PER_SECOND, USERS_SECONDS_AT_ONCE, now),
                TokenBucket(USERS_REFUSALS_PER_SECOND, USERS_REFUSALS_AT_ONCE, now),
            )
        )

    def __len__(self) -> int:
        return len(self._peers) + len(self._users)

    def may_call(self, sender: str, now: float) -> bool:
        """Whether one more call is to be served; if so, it is counted."""
        calls, _ = self._peers.of(sender, now)
        if not calls.holds(1, now):
            return False
        calls.take(1)
        return True

    def may_be_told(self, sender: str, user: int | None, now: float) -> bool:
        """Whether a call that is not served is answered with an error; else even the errors would be a flood."""
        _, refusals = self._peers.of(sender, now)
        _, users_refusals = self._users.of(user, now)
        if not (refusals.holds(1, now) and users_refusals.holds(1, now)):
            return False
        refusals.take(1)
        users_refusals.take(1)
        return True

    def has_time_for(self, user: int | None, now: float) -> bool:
        return self._users.of(user, now)[0].holds(0, now)

    def worked(self, user: int | None, seconds: float, now: float) -> None:
        """So long the event loop was busy with a call of this user."""
        self._users.of(user, now)[0].take(seconds)
