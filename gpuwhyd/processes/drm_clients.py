"""Counters of DRM clients -> what each process made a card do since the last reading.

A client is one opened device node. It shows on every descriptor that was made from it: by dup, by fork, by passing it to
another process (logind opens a card for the compositor and keeps the descriptor). Its work is counted once, for the
process that used most of the processor's time while the card worked; a driver does not tell who gave it the work.
"""

import errno
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gpuwhyd.processes import fdinfo
from gpuwhyd.processes.engine_time import UNUSED, busy_percent, larger
from gpuwhyd.processes.fdinfo import (
    COMPUTE_ENGINES,
    DECODER_ENGINES,
    ENCODER_ENGINES,
    GRAPHICS_ENGINES,
    MAIN_ENGINES,
    Engine,
    FdInfo,
)
from gpuwhyd.processes.held_nodes import Descriptor

_log = logging.getLogger(__name__)

_Key = tuple[object, ...]
_NO_CLIENT: _Key = ()
_REFUSALS = frozenset((errno.EACCES, errno.EPERM))


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one process made a card do since the last reading, by all its clients. Percentages of one engine's time."""

    engine_percent: float | None = None
    """None: its driver does not count, or this is the first that is seen of it."""
    encoder_percent: float | None = None
    decoder_percent: float | None = None
    memory_used_bytes: int | None = None
    graphics: bool = False
    compute: bool = False
    is_idler: bool = False
    """None of its clients has ever made any engine work."""


@dataclass(slots=True, kw_only=True)
class _Client:
    raw: bytes
    info: FdInfo
    engines: Mapping[str, Engine]
    """With the larger of each counter that was seen: drivers may go back a little, and catch up later."""
    read_at_seconds: float
    busy: Mapping[str, float] = field(default_factory=dict)
    """Percent, by engine; an engine whose work cannot be told yet is not in it."""
    owner: int = 0
    cpu_ticks: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Card:
    clients: dict[_Key, _Client] = field(default_factory=dict)
    keys: dict[Descriptor, _Key | None] = field(default_factory=dict)
    """Which client each descriptor has, _NO_CLIENT included; None: nothing is said of it."""
    driver_tells: bool = False
    """It has told of a client of this card: then it tells of all."""
    read_at_seconds: float | None = None
    clock_hertz: dict[str, float] = field(default_factory=dict)
    """How fast each engine's total cycles run; measured."""


class DrmClients:
    """The clients of all cards, between two ticks. The callables are asked rarely.

    `read_fdinfo(pid, number)` raises OSError; `is_still_open` tells whether a descriptor leads to its node yet;
    `cpu_ticks` and `started_at_seconds` (CLOCK_BOOTTIME) of a pid are None when it is gone.
    """

    def __init__(
        self,
        *,
        read_fdinfo: Callable[[int, int], bytes],
        is_still_open: Callable[[Descriptor], bool],
        cpu_ticks: Callable[[int], int | None],
        started_at_seconds: Callable[[int], float | None],
    ) -> None:
        self._read_fdinfo = read_fdinfo
        self._is_still_open = is_still_open
        self._cpu_ticks = cpu_ticks
        self._started_at_seconds = started_at_seconds
        self._cards: dict[str, _Card] = {}
        self._told: set[str] = set()
        """Cards of which the log says that their driver does not tell."""

    def read(
        self, address: str, descriptors: Sequence[Descriptor], now: float, *, idle_until_seconds: float
    ) -> dict[int, Work] | None:
        """By pid; None when the card's driver does not tell, or not us. The card must be awake: reading may wake it.

        `idle_until_seconds`: the card slept then, so that whatever was done was done later. Of the descriptors of a
        client one is read.

        Anybody may call a file of theirs `dri/renderD128`, and nothing but the driver's silence tells it from a node
        (asking for its type could hang, where it is on a network's or a user's own file system). A driver tells of all
        its clients or of none. So who is silent beside one that is told of, now or earlier, is no client. While nobody
        has ever been told of, such a file and a driver that tells nothing look the same, and an empty list might be
        wrong: None. The first real client ends that.
        """
        card = self._cards.setdefault(address, _Card())
        known = card.keys
        card.keys = {descriptor: known[descriptor] for descriptor in descriptors if descriptor in known}
        fresh: dict[_Key, tuple[bytes, FdInfo]] = {}
        for descriptor in descriptors:
            if descriptor not in known and not self._meet(address, card, descriptor, fresh):
                return None
        if not card.driver_tells and None in card.keys.values():
            self._tell_silence(address)
            return None
        holders: dict[_Key, list[Descriptor]] = {}
        for descriptor, key in card.keys.items():
            if key:
                holders.setdefault(key, []).append(descriptor)
        before, card.clients = card.clients, {}
        for key, held in holders.items():
            client = before.get(key)
            said = fresh.get(key) or self._said(address, card, key, held, client)
            if said is not None:
                begin = self._begin(client, held, card.read_at_seconds, idle_until_seconds)
                client = _advanced(card, client, *said, now, begin)
                client.owner = self._owner(client, {descriptor.pid for descriptor in held})
                card.clients[key] = client
        card.read_at_seconds = now
        return _by_pid(card.clients.values())

    def forget_all_but(self, addresses: Iterable[str | None]) -> None:
        """Cards that are not there any more. Those that sleep go on counting where they were."""
        kept = set(addresses)
        for address in self._cards.keys() - kept:
            del self._cards[address]

    def _meet(
        self, address: str, card: _Card, descriptor: Descriptor, fresh: dict[_Key, tuple[bytes, FdInfo]]
    ) -> bool:
        """A descriptor that was not looked at yet. False: it may not be looked at, so that nothing can be told."""
        try:
            raw = self._read_fdinfo(descriptor.pid, descriptor.number)
        except OSError as error:
            return error.errno not in _REFUSALS  # else it is closed, or its process has ended
        info = fdinfo.parse(raw)
        if info is None:
            if fdinfo.is_path_only(raw):
                card.keys[descriptor] = _NO_CLIENT
            elif self._is_still_open(descriptor):
                card.keys[descriptor] = None
        elif info.pci_address in (None, address):
            card.keys[descriptor] = key = _key(descriptor, info)
            card.driver_tells = True
            fresh.setdefault(key, (raw, info))
        return True

    def _tell_silence(self, address: str) -> None:
        if address not in self._told:
            _log.info("the driver of GPU %s does not tell who uses it", address)
        self._told.add(address)

    def _said(
        self, address: str, card: _Card, key: _Key, held: Sequence[Descriptor], client: _Client | None
    ) -> tuple[bytes, FdInfo] | None:
        """What the first of a client's descriptors says that still has it; its owner's first, because it stays longest.

        A number that has another client now is met anew with the next tick.
        """
        for descriptor in sorted(held, key=lambda one: client is None or one.pid != client.owner):
            try:
                raw = self._read_fdinfo(descriptor.pid, descriptor.number)
            except OSError:  # closed; also when rights were lost: the index will notice and say so
                del card.keys[descriptor]
                continue
            if client is not None and raw == client.raw:  # most clients do nothing most of the time
                return raw, client.info
            info = fdinfo.parse(raw)
            if info is not None and info.pci_address in (None, address) and _key(descriptor, info) == key:
                return raw, info
            del card.keys[descriptor]
        return None

    def _begin(
        self,
        client: _Client | None,
        held: Sequence[Descriptor],
        last_read_at_seconds: float | None,
        idle_until_seconds: float,
    ) -> float | None:
        """Since when its work is to be counted; None: it may have worked before anybody looked, so from now on."""
        if client is not None:
            return max(client.read_at_seconds, idle_until_seconds)
        if any(one.absent_at_seconds is None for one in held):
            return None
        absent_at = min(one.absent_at_seconds or 0.0 for one in held)
        begin = max(absent_at, self._started_at_seconds(held[0].pid) or absent_at)
        if last_read_at_seconds is not None:
            begin = min(begin, last_read_at_seconds)
        return max(begin, idle_until_seconds)

    def _owner(self, client: _Client, pids: set[int]) -> int:
        if len(pids) == 1:
            return next(iter(pids))
        if client.owner in pids and not any(client.busy.values()):
            return client.owner
        before, first = client.cpu_ticks, not client.cpu_ticks
        client.cpu_ticks = {pid: ticks for pid in pids if (ticks := self._cpu_ticks(pid)) is not None}
        used = {
            pid: ticks - before.get(pid, 0 if first else ticks) for pid, ticks in client.cpu_ticks.items()
        }
        return max(pids, key=lambda pid: (used.get(pid, -1), pid == client.owner, pid))


def _key(descriptor: Descriptor, info: FdInfo) -> _Key:
    if info.client_id is None:
        return (descriptor.pid, descriptor.number, info.driver)
    return (info.driver, info.client_id)


def _advanced(
    card: _Card, before: _Client | None, raw: bytes, info: FdInfo, now: float, begin: float | None
) -> _Client:
    """The client as of now. Without any time in between nothing can be said anew."""
    if before is not None and begin is not None and begin >= now:
        return before
    seconds = None if begin is None else now - begin
    earlier = before.engines if before is not None else {}
    otherwise = UNUSED if before is None or info.leaves_out_idle_engines else None
    engines: dict[str, Engine] = {}
    busy: dict[str, float] = {}
    for name, said in info.engines.items():
        engines[name] = engine = larger(said, earlier.get(name))
        percent = busy_percent(engine, earlier.get(name, otherwise), seconds, card.clock_hertz.get(name))
        if percent is not None:
            busy[name] = percent
    if before is not None and begin == before.read_at_seconds and seconds:
        _measure_clocks(card, engines, earlier, seconds)
    return _Client(
        raw=raw,
        info=info,
        engines=engines,
        read_at_seconds=now,
        busy=busy,
        owner=before.owner if before is not None else 0,
        cpu_ticks=before.cpu_ticks if before is not None else {},
    )


def _measure_clocks(
    card: _Card, engines: Mapping[str, Engine], earlier: Mapping[str, Engine], seconds: float
) -> None:
    for name, engine in engines.items():
        was = earlier.get(name)
        if was is not None and engine.total_cycles is not None and was.total_cycles is not None:
            card.clock_hertz[name] = (engine.total_cycles - was.total_cycles) / seconds


def _by_pid(clients: Iterable[_Client]) -> dict[int, Work]:
    by_pid: dict[int, list[_Client]] = {}
    for client in clients:
        by_pid.setdefault(client.owner, []).append(client)
    return {pid: _work(own) for pid, own in by_pid.items()}


def _work(clients: Sequence[_Client]) -> Work:
    sizes = [size for client in clients if (size := client.info.memory_used_bytes) is not None]
    worked = {name for client in clients for name, engine in client.engines.items() if engine.has_worked}
    return Work(
        engine_percent=_together(clients, MAIN_ENGINES),
        encoder_percent=_together(clients, ENCODER_ENGINES),
        decoder_percent=_together(clients, DECODER_ENGINES),
        memory_used_bytes=sum(sizes) if sizes else None,
        graphics=not worked.isdisjoint(GRAPHICS_ENGINES),
        compute=not worked.isdisjoint(COMPUTE_ENGINES),
        is_idler=not worked and all(client.info.tells_engines for client in clients),
    )


def _together(clients: Sequence[_Client], engines: frozenset[str]) -> float | None:
    """Clients and engines may work side by side: together they count as one that works all the time, at most."""
    total = 0.0
    for client in clients:
        names = engines & client.engines.keys()
        if not names and not client.info.leaves_out_idle_engines:
            return None
        for name in names:
            if name not in client.busy:
                return None
            total += client.busy[name]
    return min(100.0, total)
