"""Which signals are heard, and from whom. Pure.

Anyone may send us a signal of any name (the stock policy of the system bus lets unicast signals pass), so its interface
says nothing about its author: a signal counts only when its sender owns the name that it was subscribed from.
"""

from collections.abc import Callable
from dataclasses import dataclass

from gpuwhyd.bus.header import Header
from gpuwhyd.bus.messages import BUS_NAME, SignalMatch

SignalCallback = Callable[[str, tuple[object, ...]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subscription:
    match: SignalMatch
    callback: SignalCallback


class SignalRouter:
    """Subscriptions, and who owns the names they are from."""

    def __init__(self) -> None:
        self._subscriptions: list[_Subscription] = []
        self._owners: dict[str, str] = {}

    def add(self, match: SignalMatch, callback: SignalCallback) -> None:
        self._subscriptions.append(_Subscription(match=match, callback=callback))

    def must_track(self, name: str) -> bool:
        """Whether the bus has yet to be asked who owns `name`, and to tell when that changes."""
        return name != BUS_NAME and not name.startswith(":") and name not in self._owners

    def owner_is(self, name: str, unique_name: str) -> None:
        """`unique_name` owns `name` from now on; empty: nobody does."""
        self._owners[name] = unique_name

    def owner_changed(self, name: str, unique_name: str) -> None:
        """As `owner_is`, of whatever name: only those are kept that signals are wanted from."""
        if name in self._owners:
            self._owners[name] = unique_name

    def callbacks(self, header: Header) -> list[SignalCallback]:
        """Who wants this signal; empty for one that nobody subscribed to or that its author only pretends to be."""
        return [
            subscription.callback
            for subscription in self._subscriptions
            if _matches(subscription.match, header)
            and header.sender == self._owner(subscription.match.sender)
        ]

    def _owner(self, name: str) -> str | None:
        if name == BUS_NAME or name.startswith(":"):
            return name
        return self._owners.get(name)


def is_owner_change(header: Header) -> bool:
    """NameOwnerChanged from the bus itself; nobody else can have its sender name."""
    return (
        header.sender == BUS_NAME
        and header.interface == BUS_NAME
        and header.member == "NameOwnerChanged"
        and header.signature == "sss"
    )


def owner_change_match(name: str) -> str:
    """The AddMatch rule for changes of who owns `name`."""
    return f"type='signal',sender='{BUS_NAME}',interface='{BUS_NAME}',member='NameOwnerChanged',arg0='{name}'"


def _matches(match: SignalMatch, header: Header) -> bool:
    return (
        header.interface == match.interface
        and header.member == match.member
        and (match.path is None or header.path == match.path)
    )
