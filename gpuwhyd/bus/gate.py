"""Which method calls reach the service, and when.

Not too many from one peer, none that is larger or stranger than ours are, and none of a user for whom the loop has worked
a lot: theirs wait, so that others need not. A peer's first call waits until the bus has told whose peer it is.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from gpuwhyd.bus import library
from gpuwhyd.bus.callers import Callers
from gpuwhyd.bus.codec import plain
from gpuwhyd.bus.framing import Frame
from gpuwhyd.bus.header import ALLOW_INTERACTIVE_AUTHORIZATION, Header
from gpuwhyd.bus.limits import CallLimits
from gpuwhyd.bus.lines import Lines
from gpuwhyd.bus.messages import ERROR_PREFIX, MethodCall
from gpuwhyd.bus.pending import Body
from gpuwhyd.errors import BusError

# Longer than any signature in our interfaces (7), in logind's or in polkit's (16); each new one costs parsing and memory.
LONGEST_SIGNATURE = 64

WAIT_SECONDS = 0.01
"""Between looks at those who wait for time."""
_SECONDS_PER_TURN = 0.020

_TOO_MANY_REQUESTS = "org.gpuwhyd1.Error.TooManyRequests"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The error to answer with."""

    sender: str
    serial: int
    name: str
    text: str


class CallGate:
    """`serve` and `refuse` are called for what passes and for what gets an error, `mute` with a peer whose calls need not
    even be looked at for the next moment. `owes` says whether a peer has so many answers unread that it gets no more.
    `ask` is to ask the bus for a peer's credentials and to hand the answer to `told`; `later` calls back in so many
    seconds. `clock` is steady; `work_clock` gives the seconds that the event loop's thread has worked.
    """

    def __init__(
        self,
        *,
        serve: Callable[[MethodCall], None],
        refuse: Callable[[Refusal], None],
        mute: Callable[[str], None],
        owes: Callable[[str], bool],
        ask: Callable[[str], None],
        later: Callable[[float, Callable[[], None]], object],
        clock: Callable[[], float] = time.monotonic,
        work_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self.callers = Callers()
        self._lines = Lines()
        self._limits = CallLimits()
        self._serve = serve
        self._refuse = refuse
        self._mute = mute
        self._owes = owes
        self._ask = ask
        self._later = later
        self._clock = clock
        self._work_clock = work_clock
        self._at_work = False
        self._will_look = False

    def on_call(self, frame: Frame) -> None:
        sender, user = frame.header.sender, self.callers.user(frame.header.sender or "")
        if sender is None or not self._may_come(frame.header, sender, user):
            return
        if not self.callers.is_known(sender):
            self._ask_about_strangers()
            if not self._lines.add_strangers(sender, frame):
                self._turn_away(frame.header, sender, user)
        elif self._lines.waits(sender, user) or not self._has_time_for(user):
            if not self._lines.add(sender, user, frame):
                self._turn_away(frame.header, sender, user)
            self._look_later()
        else:
            self.charge(sender, lambda: self._read(frame))

    def on_discarded(self, header: Header, total_bytes: int) -> None:
        """A call that was too large to be read counts as one."""
        sender = header.sender
        if sender is not None and self._may_come(header, sender, self.callers.user(sender)):
            text = f"a message of {total_bytes} bytes is too large here"
            self._refuse_call(header, ERROR_PREFIX + "LimitsExceeded", text)

    def told(self, sender: str, answer: Body | BusError) -> None:
        """The bus's answer to what was asked."""
        self.callers.told(sender, answer)
        if isinstance(answer, BusError) and answer.name == ERROR_PREFIX + "NameHasNoOwner":
            self._lines.drop(sender)
        else:
            self._lines.identify(sender, self.callers.user(sender))
        self._ask_about_strangers()
        self._serve_those_who_wait()

    def charge(self, sender: str, work: Callable[[], None]) -> None:
        """Does `work`, such as an answer that took a while, at the cost of the sender it is for."""
        if self._at_work:
            work()  # is part of what is being charged
            return
        self._at_work = True
        began = self._work_clock()
        try:
            work()
        finally:
            self._at_work = False
            self._limits.worked(self.callers.user(sender), self._work_clock() - began, self._clock())

    def _may_come(self, header: Header, sender: str, user: int | None) -> bool:
        if not self._owes(sender) and self._limits.may_call(sender, self._clock()):
            return True
        self._turn_away(header, sender, user)
        return False

    def _turn_away(self, header: Header, sender: str, user: int | None) -> None:
        if self._limits.may_be_told(sender, user, self._clock()):
            text = "too many requests; ask less often, or follow the signals"
            self.charge(sender, lambda: self._refuse_call(header, _TOO_MANY_REQUESTS, text))
        else:
            self._mute(sender)

    def _ask_about_strangers(self) -> None:
        while (sender := self.callers.next_question()) is not None:
            self._ask(sender)

    def _has_time_for(self, user: int | None) -> bool:
        return self._limits.has_time_for(user, self._clock())

    def _look_later(self) -> None:
        if self._lines and not self._will_look:
            self._will_look = True
            self._later(WAIT_SECONDS, self._look_now)

    def _look_now(self) -> None:
        self._will_look = False
        self._serve_those_who_wait()

    def _serve_those_who_wait(self) -> None:
        deadline = self._clock() + _SECONDS_PER_TURN
        while self._clock() < deadline and (frame := self._lines.take(self._has_time_for)) is not None:
            self.charge(frame.header.sender or "", lambda frame=frame: self._read(frame))  # type: ignore[misc]  # bound now
        self._look_later()

    def _read(self, frame: Frame) -> None:
        header = frame.header
        if header.sender is None or header.path is None or header.member is None:
            return
        if len(header.signature) > LONGEST_SIGNATURE:
            text = "no method here has a signature that long"
            self._refuse_call(header, ERROR_PREFIX + "InvalidArgs", text)
            return
        try:
            body = library.unmarshal_body(header, frame.body)
        except library.MarshalError as error:
            self._refuse_call(header, ERROR_PREFIX + "InvalidArgs", str(error))
            return
        self._serve(
            MethodCall(
                sender=header.sender,
                path=header.path,
                interface=header.interface,
                member=header.member,
                signature=header.signature,
                body=tuple(plain(value) for value in body),
                serial=header.serial,
                wants_reply=header.wants_reply,
                allows_interaction=bool(header.flags & ALLOW_INTERACTIVE_AUTHORIZATION),
            )
        )

    def _refuse_call(self, header: Header, name: str, text: str) -> None:
        if header.wants_reply:
            self._refuse(Refusal(sender=header.sender or "", serial=header.serial, name=name, text=text))
