"""Cases that are easy to get wrong, each with the line that says why. A case stays here for ever.

Others of the kind stand where what they are about stands: a program that exits 90 s before the fan starts, one that only holds
memory beside one that works, two cards of which one is hot, a reused pid (`test_answers.py`); a fan pinned by hand under load,
chatter, a suspend in mid-spike (`test_spikes.py`, `test_answers.py`); a reset of an idle card (`test_driver_events.py`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest

from gpuwhyd.model import Cause, EventKind, GpuState
from tests.engine.rig import Rig, unit

GAME = unit("game.service", 4242)
LOAD = {GAME: 95.0}
HOT = {"fan": 57, "watts": 200, "celsius": 75}


@dataclass(frozen=True, kw_only=True)
class Case:
    why: str
    happens: Callable[[Rig], None]
    kinds: list[str]
    """Events of spikes in order, updates left out."""
    causes: set[Cause]
    """Of all answers from the first rise on, while the fan is up."""
    leader: str | None = "game.service"


def around_the_threshold(rig: Rig) -> None:
    """Three minutes up and half a minute down, for an hour, under a load that never changes."""
    for _ in range(17):
        rig.run(180, {GAME: 40.0}, fan=30, watts=90, celsius=56)
        rig.run(30, {GAME: 40.0}, fan=0, watts=90, celsius=53)
    rig.run(120, fan=0, celsius=45)


def a_long_rest_between(rig: Rig) -> None:
    for _ in range(3):
        rig.run(180, {GAME: 40.0}, fan=30, watts=90, celsius=56)
        rig.run(80, {GAME: 40.0}, fan=0, watts=90, celsius=53)


def reset_in_mid_load(rig: Rig) -> None:
    rig.run(180, LOAD, **HOT)
    rig.tick(state=GpuState.LOST, ended=(GAME,))
    for _ in range(4):
        rig.tick(state=GpuState.LOST)
    rig.run(30, fan=100, celsius=60)
    rig.run(200, fan=0, celsius=45)


def gap_in_mid_load(rig: Rig) -> None:
    rig.run(60, LOAD, **HOT)
    rig.tick(LOAD, step=30, **HOT)
    rig.run(60, LOAD, **HOT)
    rig.run(120, fan=0, celsius=45)


def gap_over_the_end_of_the_load(rig: Rig) -> None:
    rig.run(180, LOAD, **HOT)
    rig.tick({}, step=30, ended=(GAME,), fan=50, celsius=65)
    rig.run(60, fan=40, celsius=58)
    rig.run(120, fan=0, celsius=45)


CASES = {
    "around the threshold": Case(
        why="a zero-RPM card whose fan stops for half a minute between two bursts is one noise for an hour, not seventeen",
        happens=around_the_threshold,
        kinds=["started", "ended"],
        causes={Cause.WORKLOAD},
    ),
    "long rests": Case(
        why="with more than a minute of silence in between it is heard as several",
        happens=a_long_rest_between,
        kinds=["started", "ended"] * 3,
        causes={Cause.WORKLOAD},
    ),
    "reset in mid-load": Case(
        why="the reset spins the fan up, but the heat of the program that it killed is there: that program is the reason",
        happens=reset_in_mid_load,
        kinds=["started", "ended"],
        causes={Cause.WORKLOAD, Cause.RESIDUAL_HEAT, Cause.UNKNOWN},
    ),
    "gap in mid-load": Case(
        why="30 s without samples are neither an end nor a rise",
        happens=gap_in_mid_load,
        kinds=["started", "ended"],
        causes={Cause.WORKLOAD},
    ),
    "gap over the end of the load": Case(
        why="a load that ended unseen is over, and was whose it was",
        happens=gap_over_the_end_of_the_load,
        kinds=["started", "ended"],
        causes={Cause.WORKLOAD, Cause.RESIDUAL_HEAT},
    ),
}


def answers(case: Case) -> Iterator[tuple[Rig, set[Cause]]]:
    rig, causes = Rig().run(60, fan=0), set()
    feed = rig.engine.feed

    def watch(snapshot):  # type: ignore[no-untyped-def]
        report = feed(snapshot)
        answer = report.explanations[rig.gpu.id]
        if answer.for_seconds is not None:
            causes.add(answer.cause)
        return report

    rig.engine.feed = watch  # type: ignore[method-assign]
    case.happens(rig)
    yield rig, causes


@pytest.mark.parametrize("name", CASES)
def test_hard_case(name: str) -> None:
    case = CASES[name]
    ((rig, causes),) = answers(case)
    assert [kind for kind in rig.kinds if kind != "updated"] == case.kinds, case.why
    assert causes == case.causes, case.why
    for event in rig.spikes:
        if event.explanation.cause is not Cause.UNKNOWN:
            assert event.explanation.suspects[0].program.name == case.leader, case.why


@pytest.mark.parametrize("hours", [-3, 3])
def test_a_wall_clock_that_is_set_in_mid_spike_changes_no_duration(hours: int) -> None:
    """Wall time only labels: who installed the daemon before the clock was right gets the same answers."""
    rig = Rig().run(60, fan=0).run(60, LOAD, **HOT)
    feed = rig.engine.feed
    offset = hours * 3600 * 1_000_000
    rig.engine.feed = lambda snapshot: feed(  # type: ignore[method-assign]
        replace(snapshot, wall_usec=snapshot.wall_usec + offset)
    )
    rig.run(60, LOAD, **HOT)
    assert rig.answer.cause is Cause.WORKLOAD
    assert rig.answer.for_seconds == 116
    assert "200 W on average over 2 min" in rig.answer.sentence
    rig.run(120, fan=0)
    ended = rig.spikes[-1]
    assert ended.kind is EventKind.SPIKE_ENDED
    assert ended.explanation.for_seconds == 118
    assert ended.spike.ended_usec is not None
    assert ended.spike.ended_usec >= ended.spike.began_usec
    assert rig.evidence("last_spike_seconds_ago") == pytest.approx(118, abs=4)
