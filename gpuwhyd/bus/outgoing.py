"""What waits to be written to the bus: bounded, per connection and per peer.

The bus daemon takes what we write and keeps it for slow readers, so this queue is empty nearly always. It fills when the
bus stops reading. Then broadcasts go first (whoever missed one asks again), then answers to the peer that has most of
them waiting; nothing waits without bound, and no peer's appetite costs another its answer.
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass
from enum import Enum

CONNECTION_BYTES = 8 << 20
PEER_BYTES = 4 << 20
BROADCAST_BYTES = 2 << 20

# Small messages are written together, as many as go into this: each write to a sleeping bus wakes it.
TOGETHER_BYTES = 64 << 10


class Rank(Enum):
    """What a message is worth when not all can be kept."""

    CALL = "call"  # ours: somebody here waits for the answer
    REPLY = "reply"
    SIGNAL = "signal"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiting:
    rank: Rank
    peer: str
    data: bytes


class Outgoing:
    """First in, first out. The message at the head may be partly written and is never dropped."""

    def __init__(self) -> None:
        # Ordered, because finding the first of a plain dict passes over all that were removed: 0.25 s for 20,000 signals.
        self._queue: OrderedDict[int, _Waiting] = OrderedDict()
        self._next_key = 0
        self._written_bytes = 0
        self._peer_bytes: Counter[tuple[Rank, str]] = Counter()
        self.waiting_bytes = 0
        self.dropped = 0

    def __bool__(self) -> bool:
        return bool(self._queue)

    def add(self, rank: Rank, peer: str, data: bytes) -> bool:
        """Puts a message at the end. False, and counted in `dropped`, when it is too much."""
        limit = BROADCAST_BYTES if rank is Rank.SIGNAL and not peer else PEER_BYTES
        fits = self._peer_bytes[rank, peer] + len(data) <= limit and self._make_room(rank, peer, len(data))
        if not fits:
            self.dropped += 1
            self._tidy(rank, peer)
            return False
        self._queue[self._next_key] = _Waiting(rank=rank, peer=peer, data=data)
        self._next_key += 1
        self._peer_bytes[rank, peer] += len(data)
        self.waiting_bytes += len(data)
        return True

    def head(self) -> memoryview:
        """What is to be written next: one message, or as many as are small together; empty when nothing waits."""
        pieces: list[memoryview] = []
        length = 0
        for waiting in self._queue.values():
            if pieces and length + len(waiting.data) > TOGETHER_BYTES:
                break
            pieces.append(memoryview(waiting.data)[0 if pieces else self._written_bytes :])
            length += len(waiting.data)
        return pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))

    def written(self, count: int) -> None:
        """`count` bytes of the head were written."""
        self._written_bytes += count
        while self._queue:
            key, waiting = next(iter(self._queue.items()))
            if self._written_bytes < len(waiting.data):
                break
            self._written_bytes -= len(waiting.data)
            self._remove(key)

    def clear(self) -> None:
        self._queue.clear()
        self._peer_bytes.clear()
        self.waiting_bytes = 0
        self._written_bytes = 0

    def _make_room(self, rank: Rank, peer: str, length: int) -> bool:
        if self.waiting_bytes + length <= CONNECTION_BYTES:
            return True
        if rank is Rank.SIGNAL:
            return False
        self._drop(Rank.SIGNAL, None, length)
        while self.waiting_bytes + length > CONNECTION_BYTES:
            replies = {name: size for (kind, name), size in self._peer_bytes.items() if kind is Rank.REPLY}
            greediest = max(replies, key=replies.__getitem__, default=None)
            if greediest is None or (
                rank is Rank.REPLY and replies[greediest] <= self._peer_bytes[rank, peer] + length
            ):
                return False
            if not self._drop(Rank.REPLY, greediest, length):
                return False
        return True

    def _drop(self, rank: Rank, peer: str | None, length: int) -> int:
        """Drops the oldest of `rank` (to `peer`) until `length` fits; gives how many it dropped."""
        dropped = 0
        for key in list(self._queue)[1 if self._written_bytes else 0 :]:
            if self.waiting_bytes + length <= CONNECTION_BYTES:
                break
            waiting = self._queue[key]
            if waiting.rank is rank and peer in (None, waiting.peer):
                self._remove(key)
                dropped += 1
        self.dropped += dropped
        return dropped

    def _remove(self, key: int) -> None:
        waiting = self._queue.pop(key)
        self.waiting_bytes -= len(waiting.data)
        self._peer_bytes[waiting.rank, waiting.peer] -= len(waiting.data)
        self._tidy(waiting.rank, waiting.peer)

    def _tidy(self, rank: Rank, peer: str) -> None:
        if self._peer_bytes[rank, peer] <= 0:
            del self._peer_bytes[rank, peer]
