"""The heat ledger of one card: how much of the heat still in its cooler each program put there.

Excess power is booked to programs by their engine time and decays with the card's thermal memory, two exponentials:
the die and cold plate (tens of seconds) and heatsink and case (several minutes). Programs that have exited stay in
the ledger until their heat is gone.
"""

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from gpuwhyd.engine.saved import optional_number, restore, table
from gpuwhyd.engine.sitters import Sitters
from gpuwhyd.engine.split import Split
from gpuwhyd.model import GpuProcess, GpuUse, ProcessExit, Program, as_plain

FAST_SECONDS = 30.0
SLOW_SECONDS = 300.0
FAST_PART = 0.5
"""Two exponentials of 10-47 s and 240-480 s fit most recorded cards to 0.9-1.7 K, with about equal parts."""
LONGEST_STEP_SECONDS = 15.0
"""After a longer gap nobody knows who worked; power is booked for so long at most, decay runs for all of it."""
FORGET_WATTS = 0.05
MOST_ACCOUNTS = 256
GUESSED_PART = 0.1
"""With more of its heat than this split by a proxy, the ledger's shares are a guess."""
WHOLE_UTILIZATION_PART = 0.8
"""Processes' engine times that reach this part of the card's utilisation explain all of it: samples are coarse."""

COVERED_SECONDS = 10.0
"""Engine times and utilisation are compared over so long: utilisation is of the last sixth of a second to second, so that
with work in short pulses it says 100 or 0 where engine times say 20 % of the tick."""


BRIDGED_SECONDS = 10.0
"""An engine time that is unknown for so long at most is taken for what it was: counters go back, drivers miss a call. Split by
a proxy, each such tick would give heat to programs that only hold memory."""

HOLDER = "holder"
"""The kind of a process that has the card open, and nothing says that it works."""


@dataclass(slots=True)
class Account:
    """What one program has put into the cooler; `program` is `None` for what nobody visible explains."""

    program: Program | None
    fast_watts: float = 0.0
    slow_watts: float = 0.0
    last_worked: float | None = None
    pids: set[int] = field(default_factory=set)
    alive: bool = True
    stopped_at: float | None = None
    process_name: str | None = None
    memory_used_bytes: int | None = None
    engine_percent: float | None = None
    heat_watts: float = field(init=False)
    """Heat still in the cooler, as the steady power that would hold it there. Only `set_heat` changes it."""

    def __post_init__(self) -> None:
        self.set_heat(self.fast_watts, self.slow_watts)

    def set_heat(self, fast_watts: float, slow_watts: float) -> None:
        self.fast_watts, self.slow_watts = fast_watts, slow_watts
        self.heat_watts = FAST_PART * fast_watts + (1 - FAST_PART) * slow_watts


@dataclass(slots=True)
class Ledger:
    accounts: dict[str, Account] = field(default_factory=dict)
    unattributed: Account = field(default_factory=lambda: Account(program=None))
    guessed: Account = field(default_factory=lambda: Account(program=None))
    """Of the heat in `accounts`, what was split by a proxy, because programs' engine times were unknown."""
    _covered: tuple[float, float] | None = None
    """Mean engine time of visible programs and mean utilisation, both in percent."""
    _met: tuple[Sequence[GpuUse], dict[str, float], dict[str, float]] | None = None
    """What the last tick's uses came to; `None` when their accounts have been changed since."""
    _all_known: tuple[float, Sequence[GpuUse]] | None = None
    """When all engine times were known last, and who used the card then."""
    _sitters: Sitters = field(default_factory=Sitters)
    heat_watts: float = field(init=False)
    """All of it. Kept, because shares are asked for many times a tick; `book` sums it up anew."""

    def __post_init__(self) -> None:
        self.sum_up()

    @property
    def engine_times_known(self) -> bool:
        """False while a part of the heat that matters was split by a proxy; also after the load is over."""
        return self.guessed.heat_watts <= max(FORGET_WATTS, GUESSED_PART * self.heat_watts)

    @property
    def came_with_load(self) -> bool:
        """A split by a proxy tells those that came with the load from those that had sat there."""
        return self._sitters.are_known

    def share(self, account: Account) -> float:
        """Its part of all heat, 0 to 1; all shares and the unattributed one sum to at most 1."""
        total = self.heat_watts
        return min(1.0, account.heat_watts / total) if total > FORGET_WATTS else 0.0

    def ranked(self) -> list[Account]:
        """The programs, most heat first; of two with the same heat, the one that was met first."""
        return sorted(self.accounts.values(), key=_heat_watts, reverse=True)

    def book(
        self,
        now: float,
        dt: float,
        excess_watts: float,
        uses: Sequence[GpuUse],
        *,
        utilization_percent: float | None,
        significant_watts: float,
        processes_known: bool = True,
    ) -> None:
        """One tick of `dt` seconds in which the card drew `excess_watts` above its floor for `uses`."""
        known, unknown = self._meet(uses)
        if not unknown:
            self._all_known = (now, uses) if uses else None
        elif self._all_known is not None:
            known, unknown = self._meet(self._bridged(now, uses, self._all_known))
        if unknown or self._sitters.idle_seconds:
            unknown = self._sitters.weigh(dt, unknown, working=excess_watts > significant_watts)
        explained = self._explained(dt, sum(known.values()), utilization_percent)
        split = Split.of(excess_watts, known, unknown if processes_known else {}, explained)
        timed, engines, per_byte, rest = (
            split.timed_watts,
            split.engine_percent,
            split.watts_per_byte,
            split.rest_watts,
        )
        step = _Step.of(dt)
        fast_stays, fast_added, slow_stays, slow_added = step
        step.advance(self.guessed, split.guessed_watts)
        step.advance(self.unattributed, rest)
        worked_watts = min(significant_watts, 5.0)
        if rest >= worked_watts:
            self.unattributed.last_worked = now
        total = self.unattributed.heat_watts
        cold = []
        for key, account in self.accounts.items():
            watts = timed * (known.get(key, 0.0) / engines)
            if per_byte:
                watts += unknown.get(key, 0.0) * per_byte
            heat = account.heat_watts
            if watts or heat >= FORGET_WATTS:
                if watts >= worked_watts:
                    account.last_worked, account.stopped_at = now, None
                # as `advance` does it: without a call for each of many programs
                account.fast_watts = fast = account.fast_watts * fast_stays + watts * fast_added
                account.slow_watts = slow = account.slow_watts * slow_stays + watts * slow_added
                account.heat_watts = heat = FAST_PART * fast + (1 - FAST_PART) * slow
                total += heat
            elif heat:  # most programs hold a card's memory and seldom work
                account.set_heat(0.0, 0.0)
            if heat < FORGET_WATTS and (account.engine_percent is None or not account.alive):
                cold.append(key)
        if cold:
            self._met = None
        for key in cold:
            total -= self.accounts.pop(key).heat_watts
        self.heat_watts = total
        if len(self.accounts) > MOST_ACCOUNTS:
            self._forget_the_least()

    def exited(self, exits: Iterable[ProcessExit]) -> None:
        """Processes that ended; a program is over when the last of them has."""
        for ended in exits:
            account = self.accounts.get(ended.process.program.key)
            if account is None:
                continue
            self._met = None
            account.pids.discard(ended.process.pid)
            if not account.pids and account.alive:
                account.alive, account.stopped_at = False, ended.boottime_seconds

    def _meet(self, uses: Sequence[GpuUse]) -> tuple[Mapping[str, float], Mapping[str, float]]:
        """By program key: engine time, and of processes whose engine time is unknown the bytes they hold."""
        if self._met is not None and are_the_same(uses, self._met[0]):
            return self._met[1:]
        accounts = self.accounts
        known: dict[str, float] = {}
        unknown: dict[str, float] = {}
        busiest: dict[str, float] = {}
        for use in uses:
            process, told = use.process, use.use
            memory, engine, key = told.memory_used_bytes, told.engine_percent, process.program.key
            if engine is None or told.encoder_percent is not None or told.decoder_percent is not None:
                engine = engine_weight(told)
            account = accounts.get(key)
            if account is None:
                account = accounts[key] = Account(program=process.program)
            if (most := busiest.get(key)) is None:
                account.alive, account.engine_percent, account.memory_used_bytes = True, engine, memory
            else:  # one more process of a program
                if memory is not None:
                    account.memory_used_bytes = memory + (account.memory_used_bytes or 0)
                if engine is not None:
                    account.engine_percent = engine + (account.engine_percent or 0.0)
            account.pids.add(process.pid)
            if engine is None:
                unknown[key] = unknown.get(key, 0.0) + float(memory or 1)
                engine = 0.0
            else:
                known[key] = account.engine_percent or 0.0
            if most is None or engine >= most:
                busiest[key], account.process_name = engine, process.name
        if len(busiest) < len(accounts):
            for gone in accounts.keys() - busiest.keys():
                accounts[gone].memory_used_bytes = accounts[gone].engine_percent = None
        self._met = uses, known, unknown
        return known, unknown

    def _bridged(
        self, now: float, uses: Sequence[GpuUse], all_known: tuple[float, Sequence[GpuUse]]
    ) -> Sequence[GpuUse]:
        """The uses, with what their engine times were a moment ago where they are unknown now."""
        at, before = all_known
        if now - at > BRIDGED_SECONDS:
            self._all_known = None
            return uses
        earlier = {(use.process.pid, use.process.start_ticks): use.use for use in before}
        return [
            replace(
                use,
                use=replace(
                    use.use,
                    engine_percent=was.engine_percent,
                    encoder_percent=was.encoder_percent,
                    decoder_percent=was.decoder_percent,
                ),
            )
            if engine_weight(use.use) is None
            and (was := earlier.get((use.process.pid, use.process.start_ticks))) is not None
            else use
            for use in uses
        ]

    def _explained(self, dt: float, visible: float, utilization: float | None) -> float:
        """What part of the card's work the visible programs' engine times cover, 0 to 1."""
        if utilization is None:
            self._covered = None
            return 1.0 if visible > 0 else 0.0
        earlier_visible, earlier_utilization = self._covered or (visible, utilization)
        kept = math.exp(-dt / COVERED_SECONDS)
        mean_visible = visible + (earlier_visible - visible) * kept
        mean_utilization = utilization + (earlier_utilization - utilization) * kept
        self._covered = mean_visible, mean_utilization
        if visible <= 0:
            return 0.0
        if mean_visible >= WHOLE_UTILIZATION_PART * mean_utilization:
            return 1.0
        return mean_visible / mean_utilization

    def _forget_the_least(self) -> None:
        for account in self.ranked()[MOST_ACCOUNTS:]:
            if account.program is not None:
                self.unattributed.set_heat(
                    self.unattributed.fast_watts + account.fast_watts,
                    self.unattributed.slow_watts + account.slow_watts,
                )
                del self.accounts[account.program.key]
        self._met = None
        self.sum_up()

    def sum_up(self) -> None:
        """After accounts were changed from outside; `book` does it itself."""
        self.heat_watts = self.unattributed.heat_watts + sum(a.heat_watts for a in self.accounts.values())

    # -- over a restart -------------------------------------------------------------------------------------------

    def saved(self) -> dict[str, object]:
        warm = [a for a in self.ranked() if a.heat_watts >= FORGET_WATTS]
        return {
            "accounts": [_saved(a) for a in warm],
            "unattributed": _saved(self.unattributed),
            "guessed": _saved(self.guessed),
        }

    @classmethod
    def restored(cls, saved: Mapping[str, object]) -> "Ledger":
        """Raises TypeError, ValueError or KeyError when the saved form is not ours."""
        accounts = saved["accounts"]
        if not isinstance(accounts, list):
            raise TypeError("accounts of a saved ledger must be a list")
        restored = [_restored(item) for item in accounts]
        by_key = {account.program.key: account for account in restored if account.program is not None}
        return cls(
            accounts=by_key,
            unattributed=_restored(saved["unattributed"]),
            guessed=_restored(saved["guessed"]) if "guessed" in saved else Account(program=None),
        )

    def resume(self, now: float, uses: Sequence[GpuUse]) -> None:
        """After a restart of the daemon: a program that is on the card no more ended while nobody watched."""
        self._met = None
        present = {use.process.program.key: use.process.pid for use in uses}
        for key, account in self.accounts.items():
            if key not in present:
                account.alive = False
                account.pids.clear()
                account.stopped_at = account.last_worked if account.last_worked is not None else now
            else:
                account.pids.clear()  # met anew from the uses


_heat_watts = operator.attrgetter("heat_watts")


def are_the_same(one: Sequence[object], other: Sequence[object]) -> bool:
    """The very same objects in the same order: what was made of the ones is true of the others."""
    return len(one) == len(other) and all(map(operator.is_, one, other))


def engine_weight(use: GpuProcess) -> float | None:
    """Engine time as a weight; `None` where nobody tells. Encoders and decoders draw a fraction of what the main engine does.

    An RTX 4080 SUPER at 72 % encoder load drew 84 W of 320 W. Who only holds the card open has none.
    """
    engine, encoder, decoder = use.engine_percent, use.encoder_percent, use.decoder_percent
    if encoder is None and decoder is None:
        return 0.0 if engine is None and use.kind == HOLDER else engine
    return (engine or 0.0) + 0.3 * ((encoder or 0.0) + (decoder or 0.0))


class _Step(NamedTuple):
    """What one tick does to any account: parts of the heat that stay, and of the power that is added."""

    fast_stays: float
    fast_added: float
    slow_stays: float
    slow_added: float

    @classmethod
    def of(cls, dt: float) -> "_Step":
        heated = min(dt, LONGEST_STEP_SECONDS)
        return cls(
            math.exp(-dt / FAST_SECONDS),
            1 - math.exp(-heated / FAST_SECONDS),
            math.exp(-dt / SLOW_SECONDS),
            1 - math.exp(-heated / SLOW_SECONDS),
        )

    def advance(self, account: Account, watts: float) -> None:
        account.set_heat(
            account.fast_watts * self.fast_stays + watts * self.fast_added,
            account.slow_watts * self.slow_stays + watts * self.slow_added,
        )


def _saved(account: Account) -> dict[str, object]:
    return {
        "program": None if account.program is None else as_plain(account.program),
        "fast_watts": account.fast_watts,
        "slow_watts": account.slow_watts,
        "last_worked": account.last_worked,
        "alive": account.alive,
        "stopped_at": account.stopped_at,
        "process_name": account.process_name,
    }


def _restored(saved: object) -> Account:
    item = table(saved)
    program, name = item["program"], item.get("process_name")
    return Account(
        program=None if program is None else restore(Program, program),
        fast_watts=_restored_heat(item["fast_watts"]),
        slow_watts=_restored_heat(item["slow_watts"]),
        last_worked=optional_number(item.get("last_worked")),
        alive=bool(item.get("alive")),
        stopped_at=optional_number(item.get("stopped_at")),
        process_name=name if isinstance(name, str) else None,
    )


def _restored_heat(saved: object) -> float:
    watts = optional_number(saved) or 0.0
    if watts < 0:
        raise ValueError("a saved ledger has less than no heat")
    return watts
