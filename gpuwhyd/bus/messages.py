"""What crosses the bus connection, in plain Python."""

from dataclasses import dataclass

BUS_NAME = "org.freedesktop.DBus"
BUS_PATH = "/org/freedesktop/DBus"
ERROR_PREFIX = "org.freedesktop.DBus.Error."


def count(value: object) -> int | None:
    """The value if it is a number from 0 up. A D-Bus boolean is none, although it is a number to Python: as a user id,
    false would be root's.
    """
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodCall:
    """Somebody calls us. `sender` is the unique name, which only the bus can give; `body` holds plain values."""

    sender: str
    path: str
    interface: str | None
    member: str
    signature: str
    body: tuple[object, ...]
    serial: int
    wants_reply: bool
    allows_interaction: bool = False
    """The caller waits while a person is asked for a password (specification: ALLOW_INTERACTIVE_AUTHORIZATION)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalMatch:
    """Signals to hear. `sender` is a well-known or unique name; `path` None means any."""

    interface: str
    member: str
    path: str | None
    sender: str

    @property
    def rule(self) -> str:
        """As AddMatch wants it."""
        parts = [
            "type='signal'",
            f"sender='{self.sender}'",
            f"interface='{self.interface}'",
            f"member='{self.member}'",
        ]
        if self.path is not None:
            parts.append(f"path='{self.path}'")
        return ",".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerCredentials:
    """Who a peer is, as the kernel told the bus. `pid` is None where the bus does not know it."""

    uid: int
    pid: int | None
