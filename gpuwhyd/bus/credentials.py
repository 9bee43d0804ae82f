"""Who our peers are, as the bus knows from the kernel."""

from collections import OrderedDict

from gpuwhyd.bus.messages import PeerCredentials
from gpuwhyd.errors import BusError

_MOST_KEPT = 256


class KnownPeers:
    """Credentials by unique name. A bus never uses such a name twice, so what is kept stays true."""

    def __init__(self) -> None:
        self._peers: OrderedDict[str, PeerCredentials] = OrderedDict()

    def get(self, unique_name: str) -> PeerCredentials | None:
        return self._peers.get(unique_name)

    def learn(self, unique_name: str, answer: tuple[object, ...]) -> PeerCredentials:
        """From the answer to GetConnectionCredentials. BusError when it does not say which user this is."""
        known = answer[0] if answer else None
        uid = known.get("UnixUserID") if isinstance(known, dict) else None
        pid = known.get("ProcessID") if isinstance(known, dict) else None
        if not isinstance(uid, int):
            raise BusError(f"the bus does not know the user of {unique_name}")
        peer = PeerCredentials(uid=uid, pid=pid if isinstance(pid, int) else None)
        self._peers[unique_name] = peer
        if len(self._peers) > _MOST_KEPT:
            self._peers.popitem(last=False)
        return peer
