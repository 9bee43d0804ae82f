"""Which method calls reach the service: not too many from one sender, none that is larger or stranger than ours are."""

from dataclasses import dataclass

from gpuwhyd.bus import library
from gpuwhyd.bus.codec import plain
from gpuwhyd.bus.framing import Frame
from gpuwhyd.bus.header import ALLOW_INTERACTIVE_AUTHORIZATION, Header
from gpuwhyd.bus.limits import CallLimits, Verdict
from gpuwhyd.bus.messages import ERROR_PREFIX, MethodCall

# Longer than any signature in our interfaces (7), in logind's or in polkit's (16); each new one costs parsing and memory.
LONGEST_SIGNATURE = 64

_TOO_MANY_REQUESTS = "org.gpuwhyd1.Error.TooManyRequests"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The error to answer with."""

    sender: str
    serial: int
    name: str
    text: str


class CallGate:
    """Knows how much each sender has asked for lately. `now` is in seconds of any steady clock."""

    def __init__(self) -> None:
        self._limits = CallLimits()

    def admit(self, frame: Frame, now: float, *, owes: bool = False) -> MethodCall | Refusal | None:
        """The call to serve, the error to send, or None when nothing is to be done.

        `owes`: the sender has so many answers unread that it gets no more.
        """
        header = frame.header
        if header.sender is None or header.path is None or header.member is None:
            return None
        verdict = self._limits.judge(header.sender, now, refuse=owes)
        if verdict is Verdict.IGNORE:
            return None
        if verdict is Verdict.REFUSE:
            return _refusal(
                header, _TOO_MANY_REQUESTS, "too many requests; ask less often, or follow the signals"
            )
        if len(header.signature) > LONGEST_SIGNATURE:
            return _refusal(header, ERROR_PREFIX + "InvalidArgs", "no method here has a signature that long")
        try:
            body = library.unmarshal_body(header, frame.body)
        except library.MarshalError as error:
            return _refusal(header, ERROR_PREFIX + "InvalidArgs", str(error))
        return MethodCall(
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

    def refuse_discarded(self, header: Header, total_bytes: int, now: float) -> Refusal | None:
        """What to answer to a call that was too large to be read. It counts as a call."""
        if header.sender is None or self._limits.judge(header.sender, now) is Verdict.IGNORE:
            return None
        return _refusal(
            header, ERROR_PREFIX + "LimitsExceeded", f"a message of {total_bytes} bytes is too large here"
        )


def _refusal(header: Header, name: str, text: str) -> Refusal | None:
    if not header.wants_reply:
        return None
    return Refusal(sender=header.sender or "", serial=header.serial, name=name, text=text)
