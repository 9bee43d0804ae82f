"""Cards of which nobody tells who works: who came with a load is the suspect, not who had sat there before."""

import pytest

from gpuwhyd.engine.sitters import SITS_SECONDS, SITTERS_PART, Sitters
from gpuwhyd.model import Cause, ProcessIdentity
from tests.engine.rig import Rig, unit

MODEL, GAME, BROWSER = unit("model.service", 10), unit("game.service", 20), unit("browser.service", 30)
HELD = {"model": 8.0, "game": 2.0}


def working(rig: Rig, seconds: float, *programs: ProcessIdentity) -> Rig:
    return rig.run(seconds, dict.fromkeys(programs), fan=60, watts=200, celsius=75, busy=98)


def idle(rig: Rig, seconds: float, *programs: ProcessIdentity) -> Rig:
    return rig.run(seconds, dict.fromkeys(programs), fan=30)


def shares(rig: Rig) -> dict[str, float]:
    return {suspect.program.name: suspect.share for suspect in rig.answer.suspects}


def test_who_came_with_the_load_has_next_to_all_of_its_heat() -> None:
    """Each of them holds the same memory."""
    rig = working(idle(Rig(), 120, MODEL), 60, MODEL, GAME)
    assert rig.answer.cause is Cause.WORKLOAD
    assert shares(rig)["game.service"] > 0.9
    assert rig.answer.confidence < 0.95, "it is still a guess"


def test_of_several_that_came_with_the_load_it_is_said_that_several_heat_the_card() -> None:
    rig = working(idle(Rig(), 120, MODEL), 60, MODEL, GAME, BROWSER)
    assert rig.answer.cause is Cause.WORKLOAD_MIXED
    assert [suspect.share > 0.4 for suspect in rig.answer.suspects] == [True, True, False]


def test_where_nobody_came_those_who_sit_there_share_it_by_memory() -> None:
    rig = working(idle(Rig(), 120, MODEL, GAME), 60, MODEL, GAME)
    assert shares(rig) == {
        "model.service": pytest.approx(0.5, abs=0.01),
        "game.service": pytest.approx(0.5, abs=0.01),
    }


def test_who_is_there_when_the_daemon_starts_in_a_load_shares_it_by_memory() -> None:
    assert len(shares(working(Rig(), 60, MODEL, GAME))) == 2
    rig = working(working(Rig(), 60, MODEL), 60, MODEL, GAME)
    assert shares(rig)["model.service"] > 0.5, "who comes into a load has no more of it than memory says"


def test_who_sat_there_still_sits_when_the_same_program_works_again_without_a_newcomer() -> None:
    rig = working(idle(Rig(), 120, MODEL), 120, MODEL, GAME)
    working(idle(rig, 600, MODEL, GAME), 120, MODEL, GAME)
    assert shares(rig)["game.service"] > 0.9


def test_a_blip_of_work_makes_nobody_a_suspect_again() -> None:
    rig = idle(Rig(), 120, MODEL)
    working(rig, 4, MODEL)
    working(idle(rig, 20, MODEL), 60, MODEL, GAME)
    assert shares(rig)["game.service"] > 0.8


def test_who_works_is_no_sitter_when_another_comes() -> None:
    rig = working(idle(Rig(), 120, MODEL), 60, MODEL)
    working(idle(rig, 10, MODEL), 10, MODEL, BROWSER)
    assert shares(rig)["model.service"] > 0.5


def test_bytes_of_sitters_count_little() -> None:
    sitters = Sitters()
    assert sitters.weigh(SITS_SECONDS, {"model": 8.0}, working=False) == {"model": 8.0}
    assert sitters.weigh(2.0, HELD, working=True) == {"model": 8.0 * SITTERS_PART, "game": 2.0}


def test_a_program_that_has_gone_comes_back_as_a_newcomer() -> None:
    sitters = Sitters()
    sitters.weigh(SITS_SECONDS, {"model": 8.0}, working=False)
    sitters.weigh(2.0, HELD, working=True)
    sitters.weigh(2.0, {"game": 2.0}, working=True)
    assert sitters.weigh(2.0, HELD, working=True) == HELD
