"""Method calls that wait for their turn, a line for each peer; users take turns, and the peers of one user. Pure."""

from collections import OrderedDict, deque
from collections.abc import Callable

from gpuwhyd.bus.framing import Frame

# No client sends a second call before it has seen the answer to its first, except for a few that ask for several things
# at once.
PEER_CALLS = 16
PEER_BYTES = 16 << 10

# A user may have hundreds of connections.
USER_CALLS = 256

# As many as a system bus has connections.
MOST_STRANGERS = 2048

# A crowd of strangers is most likely one user's. Each call of theirs that is looked at delays everybody by some 0.1 ms
# (measured), so while so many calls wait a stranger's line is short: thirty connections cost half of what they would.
CROWD_CALLS = 128
CROWDED_PEER_CALLS = 4


class _Line:
    __slots__ = ("bytes", "frames")

    def __init__(self) -> None:
        self.frames: deque[Frame] = deque()
        self.bytes = 0

    def add(self, frame: Frame, most_calls: int = PEER_CALLS) -> bool:
        if len(self.frames) >= most_calls or self.bytes + len(frame.body) > PEER_BYTES:
            return False
        self.frames.append(frame)
        self.bytes += len(frame.body)
        return True

    def take(self) -> Frame:
        frame = self.frames.popleft()
        self.bytes -= len(frame.body)
        return frame


class _User:
    __slots__ = ("count", "lines")

    def __init__(self) -> None:
        self.lines: OrderedDict[str, _Line] = OrderedDict()
        self.count = 0


class Lines:
    """A stranger's line stands apart until it is known whose peer it is."""

    def __init__(self) -> None:
        self._strangers: OrderedDict[str, _Line] = OrderedDict()
        self._strangers_calls = 0
        self._users: OrderedDict[int | None, _User] = OrderedDict()

    def __bool__(self) -> bool:
        """Whether any but strangers wait."""
        return bool(self._users)

    def add_strangers(self, sender: str, frame: Frame) -> bool:
        """Whether there was room."""
        line = self._strangers.get(sender)
        if line is None:
            line = self._strangers[sender] = _Line()
            if len(self._strangers) > MOST_STRANGERS:
                self._take_out(next(iter(self._strangers)))  # has gone, most likely
        crowded = self._strangers_calls >= CROWD_CALLS
        if not line.add(frame, CROWDED_PEER_CALLS if crowded else PEER_CALLS):
            return False
        self._strangers_calls += 1
        return True

    def add(self, sender: str, user: int | None, frame: Frame) -> bool:
        """Whether there was room."""
        waiting = self._users.setdefault(user, _User())
        if waiting.count >= USER_CALLS or not waiting.lines.setdefault(sender, _Line()).add(frame):
            return False
        waiting.count += 1
        return True

    def waits(self, sender: str, user: int | None) -> bool:
        waiting = self._users.get(user)
        return waiting is not None and sender in waiting.lines

    def drop(self, sender: str) -> None:
        """This stranger has gone."""
        self._take_out(sender)

    def identify(self, sender: str, user: int | None) -> None:
        """What does not fit any more is lost, with nobody to blame but this user."""
        for frame in self._take_out(sender):
            self.add(sender, user, frame)

    def take(self, has_time: Callable[[int | None], bool]) -> Frame | None:
        """The next call of a user for whom there is time."""
        for user in tuple(self._users):
            if has_time(user):
                return self._take_from(user)
        return None

    def _take_out(self, stranger: str) -> tuple[Frame, ...]:
        """The calls of this stranger, who is none any more."""
        line = self._strangers.pop(stranger, None)
        if line is None:
            return ()
        self._strangers_calls -= len(line.frames)
        return tuple(line.frames)

    def _take_from(self, user: int | None) -> Frame:
        waiting = self._users[user]
        sender, line = next(iter(waiting.lines.items()))
        frame = line.take()
        waiting.count -= 1
        waiting.lines.move_to_end(sender)
        if not line.frames:
            del waiting.lines[sender]
        self._users.move_to_end(user)
        if not waiting.lines:
            del self._users[user]
        return frame
