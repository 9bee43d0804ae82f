"""`monitor`: something that only watches an idle card keeps it awake or busy, gpuwhyd included."""

from gpuwhyd.engine.causes.facts import Facts, Finding, held_for
from gpuwhyd.engine.suspects import VISIBLE_SHARE
from gpuwhyd.engine.watchers import Watched
from gpuwhyd.model import Cause, Evidence, ProcessIdentity, Suspect

MOST_NAMED = 3


def monitor(facts: Facts) -> Finding | None:
    """It does, and there is something to hear of it; at a fan that rests the answer stays `quiet`."""
    watched = facts.watched
    if watched is None or not facts.is_heard or facts.asleep:
        return None
    if facts.warm and facts.visible_share >= VISIBLE_SHARE:
        return None  # programs' heat is what there is to hear
    if watched.busy:
        confidence = 0.6
    elif not watched.by:
        confidence = 0.4
    else:
        confidence = 0.7 if facts.has_fan else 0.8
    return Finding(
        cause=Cause.MONITOR,
        confidence=confidence,
        evidence=(*watched_evidence(facts, watched), held_for(watched.for_seconds)),
        suspects=_suspects(watched.by),
    )


def watched_evidence(facts: Facts, watched: Watched) -> tuple[Evidence, ...]:
    """Also for a card whose fan rests."""
    since_usec = facts.since(watched.for_seconds)
    if not watched.by:
        return (Evidence(quantity="kept_awake_by_gpuwhyd", value=1.0, since_usec=since_usec),)
    quantity = "kept_busy_by" if watched.busy else "kept_awake_by"
    names = dict.fromkeys(process.program.name for process in watched.by)
    return tuple(
        Evidence(quantity=quantity, value=name, since_usec=since_usec) for name in list(names)[:MOST_NAMED]
    )


def _suspects(by: tuple[ProcessIdentity, ...]) -> tuple[Suspect, ...]:
    """They made no heat of which anybody knows."""
    pids: dict[str, list[ProcessIdentity]] = {}
    for process in by:
        pids.setdefault(process.program.key, []).append(process)
    return tuple(
        Suspect(
            program=same[0].program,
            share=0.0,
            process_name=same[0].name,
            pids=tuple(sorted(process.pid for process in same)),
        )
        for same in list(pids.values())[:MOST_NAMED]
    )
