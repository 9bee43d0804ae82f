"""The heat ledger -> the suspects that an explanation names."""

from typing import NamedTuple

from gpuwhyd.engine.ledger import FORGET_WATTS, Account, Ledger
from gpuwhyd.model import Program, Suspect

SMALLEST_SHARE = 0.02
VISIBLE_SHARE = 0.5
"""With less of the heat the programs that can be seen are not the answer."""
MOST_SUSPECTS = 10
PAUSED_SECONDS = 5.0
"""A program counts as stopped when it has not worked for so long; engine times come in samples of up to 1 s."""


class Leader(NamedTuple):
    """A program that has so much of the heat that it is worth naming."""

    account: Account
    program: Program
    share: float

    def stopped_at(self, now: float) -> float | None:
        """When it stopped, if it works no more."""
        account = self.account
        if not account.alive and account.stopped_at is not None:
            return account.stopped_at
        worked = account.last_worked
        return worked if worked is not None and now - worked > PAUSED_SECONDS else None


def leaders(ledger: Ledger, most: int = MOST_SUSPECTS) -> list[Leader]:
    """Most heat first; their shares sum to at most 1, because each is rounded down."""
    if ledger.heat_watts <= FORGET_WATTS:
        return []
    total_watts, ranked = ledger.heat_watts, ledger.ranked()
    least_watts = SMALLEST_SHARE * total_watts
    if ranked and ledger.share(ledger.unattributed) < VISIBLE_SHARE:  # of a row of short jobs each has little
        least_watts = min(least_watts, ranked[0].heat_watts / 2)
    found = []
    for account in ranked[:most]:
        if account.heat_watts < least_watts:
            break
        part = account.heat_watts / total_watts
        share = int(part * 10_000) / 10_000 if part < 1 else 1.0
        if account.program is not None and share > 0:
            found.append(Leader(account, account.program, share))
    return found


def leading_suspects(ledger: Ledger, now: float) -> tuple[Suspect, ...]:
    """The same as an explanation names them."""
    return tuple([_suspect(leader, now) for leader in leaders(ledger)])


def _suspect(leader: Leader, now: float) -> Suspect:
    account, stopped_at = leader.account, leader.stopped_at(now)
    return Suspect(
        program=leader.program,
        share=leader.share,
        process_name=account.process_name,
        power_watts=round(account.fast_watts, 1),
        pids=tuple(account.pids if len(account.pids) == 1 else sorted(account.pids)),
        alive=account.alive,
        stopped_seconds_ago=None if stopped_at is None else max(0.0, now - stopped_at),
        memory_used_bytes=account.memory_used_bytes,
        engine_percent=account.engine_percent,
    )
