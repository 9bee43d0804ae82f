"""How much of what we sent still waits, unread, in the bus daemon. Pure: time is handed in.

dbus-daemon keeps what a peer does not read and charges it to the sender: at 127 MiB (max_incoming_bytes) it reads nothing
more from us, so that a few clients that ask and never read would silence us for everyone (reproduced with six of them).
It also tells how much waits for a connection (Debug.Stats.GetConnectionStats, OutgoingBytes; root may ask). So the bytes
sent to each peer are counted, the bus is asked when they become many, and who does not read is not served until it does.
What waits for subscribers of our broadcasts counts as well (one that does not read takes 128 MiB of them, some hours' worth,
to silence us; reproduced). Who they are cannot be asked, only how much it is (IncomingBytes of our own connection): then a new
connection, which owes nothing, is the cure. dbus-broker has no such statistics and no such fault: it charges the reader.
"""

from dataclasses import dataclass

from gpuwhyd.bus.messages import ERROR_PREFIX, count
from gpuwhyd.errors import BusError

STATISTICS = "org.freedesktop.DBus.Debug.Stats"

ASK_AFTER_BYTES = 512 << 10
PEER_BYTES = 8 << 20
"""A peer with more than this unread is not served."""

ALL_BYTES = 32 << 20
"""With more than this unread by all peers together only small answers are sent, and to nobody who has many waiting."""

SMALL_BYTES = 64 << 10

HELD_BYTES = 96 << 20
"""With more than this of what we sent unread, answers and signals, the bus is close to reading nothing more of ours."""

# The system bus has at most 2048 connections; what is counted beyond this many peers is of those that have gone.
_ASK_ABOVE_PEERS = 1024
_MOST_PEERS = 4096

_ASK_AGAIN_SECONDS = 1.0


@dataclass(slots=True)
class _Account:
    waiting: int = 0
    unconfirmed: int = 0
    asked_at: float | None = None

    @property
    def total(self) -> int:
        return self.waiting + self.unconfirmed


class Backlog:
    """When to ask how much of what we sent the bus holds."""

    def __init__(self) -> None:
        self._sent_since = 0
        self._asking = False

    def sent(self, length: int) -> bool:
        """Whether to ask now."""
        self._sent_since += length
        if self._asking or self._sent_since < ASK_AFTER_BYTES:
            return False
        self._asking = True
        return True

    def answered(self, held_bytes: int) -> bool:
        """Whether that is too much."""
        self._sent_since = 0
        self._asking = False
        return held_bytes > HELD_BYTES

    def give_up(self) -> None:
        """The bus does not tell."""
        self._asking = True


class Unread:
    """What is not known to be read counts as unread. `given_up` when the bus does not tell: then nobody is refused."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}
        self._asking: str | None = None
        self._unconfirmed_at_question = 0
        self.total = 0
        self.given_up = False

    def __len__(self) -> int:
        return len(self._accounts)

    def sent(self, peer: str, length: int) -> None:
        if self.given_up or not peer:
            return
        self._accounts.setdefault(peer, _Account()).unconfirmed += length
        self.total += length
        if len(self._accounts) > _MOST_PEERS:
            self._forget(min(self._accounts, key=lambda name: self._accounts[name].total))

    def owes(self, peer: str) -> bool:
        """Whether `peer` must read before it is served again."""
        account = self._accounts.get(peer)
        if account is None:
            return False
        return account.total > (SMALL_BYTES if self.total > ALL_BYTES else PEER_BYTES)

    def has_room_for(self, length: int) -> bool:
        """Whether an answer of `length` bytes may be sent to a peer that does not owe."""
        return length <= SMALL_BYTES or self.total + length <= ALL_BYTES

    def question(self, peer: str, now: float) -> str | None:
        """Whom to ask the bus about now, when `peer` was sent something or refused. One question at a time."""
        if self.given_up or self._asking is not None:
            return None
        asked = self._most_worth_asking(peer, now)
        if asked is not None:
            account = self._accounts[asked]
            account.asked_at = now
            self._asking = asked
            self._unconfirmed_at_question = account.unconfirmed
        return asked

    def answered(self, unread_bytes: int | None) -> None:
        """What the bus said to the question: so many bytes, or None: this peer has gone."""
        peer, self._asking = self._asking, None
        account = self._accounts.get(peer or "")
        if peer is None or account is None:
            return
        self.total -= account.total
        account.unconfirmed -= self._unconfirmed_at_question
        account.waiting = unread_bytes or 0
        self.total += account.total
        if unread_bytes is None or account.total == 0:
            self._forget(peer)

    def give_up(self) -> None:
        self.given_up = True
        self._accounts.clear()
        self.total = 0

    def _most_worth_asking(self, peer: str, now: float) -> str | None:
        worth = [name for name, account in self._crowd() if account.unconfirmed or _is_due(account, now)]
        if worth:
            return max(worth, key=lambda name: self._accounts[name].total) if self._is_pressed else worth[0]
        account = self._accounts.get(peer)
        if account is None:
            return None
        owes = self.owes(peer) and _is_due(account, now)
        return peer if owes or account.unconfirmed > ASK_AFTER_BYTES else None

    @property
    def _is_pressed(self) -> bool:
        return self.total > ALL_BYTES // 2

    def _crowd(self) -> list[tuple[str, _Account]]:
        """Everyone, oldest first, when it is time to find out who has gone or has read."""
        many = len(self._accounts) > _ASK_ABOVE_PEERS
        return list(self._accounts.items()) if many or self._is_pressed else []

    def _forget(self, peer: str) -> None:
        self.total -= self._accounts.pop(peer).total


def _is_due(account: _Account, now: float) -> bool:
    return account.asked_at is None or now - account.asked_at > _ASK_AGAIN_SECONDS


def unread_bytes(answer: tuple[object, ...] | BusError) -> int | None:
    """What a peer has not read, from the answer to GetConnectionStats; None: it has gone. BusError when the bus has no
    such figures.
    """
    if isinstance(answer, BusError):
        if answer.name == ERROR_PREFIX + "NameHasNoOwner":
            return None
        raise answer
    return _figure(answer, "OutgoingBytes")


def held_bytes(answer: tuple[object, ...] | BusError) -> int:
    """What the bus holds of ours, from the answer about our own connection. BusError as unread_bytes."""
    if isinstance(answer, BusError):
        raise answer
    return _figure(answer, "IncomingBytes")


def _figure(answer: tuple[object, ...], name: str) -> int:
    figures = answer[0] if answer else None
    value = count(figures.get(name)) if isinstance(figures, dict) else None
    if value is None:
        raise BusError(f"its statistics have no {name}")
    return value
