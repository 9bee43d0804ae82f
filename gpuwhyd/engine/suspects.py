"""The heat ledger -> the suspects that an explanation names."""

from gpuwhyd.engine.ledger import FORGET_WATTS, Account, Ledger
from gpuwhyd.model import Program, Suspect

SMALLEST_SHARE = 0.02
VISIBLE_SHARE = 0.5
"""With less of the heat the programs that can be seen are not the answer."""
MOST_SUSPECTS = 10
PAUSED_SECONDS = 5.0
"""A program counts as stopped when it has not worked for so long; engine times come in samples of up to 1 s."""


def leading_suspects(ledger: Ledger, now: float) -> tuple[Suspect, ...]:
    """Most heat first; their shares sum to at most 1, because each is rounded down."""
    if ledger.heat_watts <= FORGET_WATTS:
        return ()
    total_watts = ledger.heat_watts
    least_watts = SMALLEST_SHARE * total_watts
    if ledger.share(ledger.unattributed) < VISIBLE_SHARE:  # of a row of short jobs each has little
        leader_watts = max((account.heat_watts for account in ledger.accounts.values()), default=0.0)
        least_watts = min(least_watts, leader_watts / 2)
    warm = ledger.ranked(least_watts)
    suspects = []
    for account in warm[:MOST_SUSPECTS]:
        share = int(min(1.0, account.heat_watts / total_watts) * 10_000) / 10_000
        if account.program is not None and share > 0:
            suspects.append(_suspect(account, account.program, share, now))
    return tuple(suspects)


def _suspect(account: Account, program: Program, share: float, now: float) -> Suspect:
    stopped, pids = account.stopped_at if not account.alive else None, account.pids
    if stopped is None and account.last_worked is not None and now - account.last_worked > PAUSED_SECONDS:
        stopped = account.last_worked
    return Suspect(
        program=program,
        share=share,
        process_name=account.process_name,
        power_watts=round(account.fast_watts, 1),
        pids=tuple(pids if len(pids) == 1 else sorted(pids)),
        alive=account.alive,
        stopped_seconds_ago=None if stopped is None else max(0.0, now - stopped),
        memory_used_bytes=account.memory_used_bytes,
        engine_percent=account.engine_percent,
    )
