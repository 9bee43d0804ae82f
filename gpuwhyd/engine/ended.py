"""What a spike that is over is told with: the answer of its hottest moment."""

from dataclasses import dataclass, replace

from gpuwhyd.engine.answer import Answer
from gpuwhyd.engine.ledger import Ledger
from gpuwhyd.engine.sentences import compose
from gpuwhyd.engine.suspects import leading_suspects
from gpuwhyd.model import Cause, Evidence, Explanation, Outlook, Spike, Suspect

_UNNAMED = frozenset(
    {
        Cause.HIDDEN_WORKLOAD,
        Cause.MANUAL_FAN,
        Cause.FAN_FAULT,
        Cause.IDLE_CLOCKS,
        Cause.DRIVER_EVENT,
        Cause.UNKNOWN,
    }
)
"""Causes that are not the suspects' doing, whatever little they did."""


HOTTER = 1.02
"""Under a load heat rises at every moment, at last by next to nothing: shares do not change by more than two points in that."""


@dataclass(slots=True)
class Hottest:
    """The answer of the moment in a spike at which the cooler held the most heat; any answer rather than none."""

    answer: Answer | None = None
    heat_watts: float = 0.0

    def is_now(self, cause: Cause, heat_watts: float, *, started: bool) -> bool:
        """Whether this moment in a spike tells more than those before; `started`: it is the first."""
        told = self.answer
        better = told is not None and told.cause is Cause.UNKNOWN and cause is not Cause.UNKNOWN
        return started or heat_watts > HOTTER * self.heat_watts or better

    def last_told(self, cause: Cause, ledger: Ledger, now: float) -> None:
        """What is known of an open spike after a restart, until a reading tells more."""
        self.answer = Answer(
            cause=cause,
            confidence=0.5,
            suspects=leading_suspects(ledger, now),
            unattributed_share=round(ledger.share(ledger.unattributed), 4),
        )

    @property
    def program(self) -> str | None:
        """The program to blame, where there is one."""
        basis = self.answer
        blamed = basis is not None and basis.suspects and basis.cause not in _UNNAMED
        return basis.suspects[0].program.name if basis is not None and blamed else None


def told_at_the_end(spike: Spike, hottest: Answer, now: Explanation, ledger: Ledger) -> Explanation:
    """Cause and suspects of the hottest moment, with the readings of now, for a spike that has ended."""
    until = (
        spike.began_boottime_seconds if spike.ended_boottime_seconds is None else spike.ended_boottime_seconds
    )
    lasted = until - spike.began_boottime_seconds
    evidence = [
        Evidence(quantity="ended_after_seconds", value=lasted, unit="s", since_usec=spike.began_usec),
        Evidence(quantity="ended_by", value=spike.ended_by or "rest"),
    ]
    if spike.peak_fan_percent is not None:
        evidence.append(Evidence(quantity="peak_fan_percent", value=spike.peak_fan_percent, unit="%"))
    ended = replace(
        now,
        cause=hottest.cause,
        confidence=hottest.confidence,
        suspects=tuple(_as_of_now(suspect, ledger) for suspect in hottest.suspects),
        unattributed_share=hottest.unattributed_share,
        evidence=tuple(evidence),
        outlook=Outlook(),
        for_seconds=lasted,
        spike_id=spike.spike_id,
    )
    return replace(ended, sentence=compose(ended))


def _as_of_now(suspect: Suspect, ledger: Ledger) -> Suspect:
    """Without the pids that have ended since: another process may have them by now."""
    account = ledger.accounts.get(suspect.program.key)
    if account is None:  # its heat is gone, or the machine was restarted
        return replace(suspect, pids=(), alive=False)
    return replace(suspect, pids=tuple(sorted(account.pids)), alive=account.alive)
