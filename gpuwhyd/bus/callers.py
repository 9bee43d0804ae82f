"""Who calls us, as the bus knows from the kernel. Pure."""

from collections import OrderedDict

from gpuwhyd.bus.messages import PeerCredentials, count
from gpuwhyd.errors import BusError

# As many as a system bus has connections.
MOST_KNOWN = 2048

# Questions to the bus that are not answered yet.
MOST_ASKED = 16


class Callers:
    """Credentials by unique name. A bus never uses such a name twice, so what is kept stays true."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, PeerCredentials | None] = OrderedDict()
        self._to_ask: OrderedDict[str, None] = OrderedDict()
        self._asked: set[str] = set()

    def credentials(self, sender: str) -> PeerCredentials | None:
        """None: not known (yet)."""
        return self._known.get(sender)

    def user(self, sender: str) -> int | None:
        """None: not known (yet)."""
        peer = self._known.get(sender)
        return None if peer is None else peer.uid

    def is_known(self, sender: str) -> bool:
        """Whether the bus has told, be it that it does not know; else it is to be asked."""
        if sender in self._known:
            self._known.move_to_end(sender)
            return True
        if sender not in self._asked:
            self._to_ask[sender] = None
            if len(self._to_ask) > MOST_KNOWN:
                self._to_ask.popitem(last=False)  # has gone, most likely
        return False

    def next_question(self) -> str | None:
        """Whom to ask the bus about now, so few at a time that its answers to others are not held up."""
        if len(self._asked) >= MOST_ASKED or not self._to_ask:
            return None
        sender, _ = self._to_ask.popitem(last=False)
        self._asked.add(sender)
        return sender

    def told(self, sender: str, answer: tuple[object, ...] | BusError) -> None:
        """What the bus answered to that question."""
        self._asked.discard(sender)
        try:
            self.learn(sender, answer)
        except BusError:
            self._keep(sender, None)

    def learn(self, sender: str, answer: tuple[object, ...] | BusError) -> PeerCredentials:
        """From an answer to GetConnectionCredentials. BusError when it does not say which user this is."""
        if isinstance(answer, BusError):
            raise answer
        known = answer[0] if answer else None
        uid = count(known.get("UnixUserID")) if isinstance(known, dict) else None
        pid = count(known.get("ProcessID")) if isinstance(known, dict) else None
        if uid is None:
            raise BusError(f"the bus does not know the user of {sender}")
        peer = PeerCredentials(uid=uid, pid=pid)
        self._keep(sender, peer)
        return peer

    def _keep(self, sender: str, peer: PeerCredentials | None) -> None:
        self._known[sender] = peer
        self._known.move_to_end(sender)
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
