"""A card that nobody uses and that does not rest: something watches it, or its clocks stay up."""

from collections.abc import Mapping

import pytest

from gpuwhyd.engine.sentences import redacted
from gpuwhyd.model import (
    Cause,
    FanMode,
    GpuProcess,
    GpuState,
    ProcessIdentity,
    Program,
    ProgramKind,
)
from tests.engine.rig import Rig, unit

GAME = unit("game.service", 4242)
OLLAMA = unit("ollama.service", 4300)
LOAD: Mapping[ProcessIdentity, float | None] = {GAME: 95.0}


def process(name: str, pid: int = 77, user: str = "anna") -> ProcessIdentity:
    program = Program(kind=ProgramKind.PROCESS, key=f"process:{pid}:1", name=name, user=user)
    return ProcessIdentity(pid=pid, start_ticks=1, name=name[:15], program=program)


NVTOP = process("nvtop")
AGENT = process("some-agent", pid=78)
XORG = process("Xorg", pid=79, user="root")
AWAKE = {"can_suspend": True, "watts": 12.0}
LAPTOP = {**AWAKE, "mode": FanMode.NONE}


# -- monitor ------------------------------------------------------------------------------------------------------


def test_a_laptops_card_that_a_watcher_keeps_awake_is_told_so_after_two_minutes() -> None:
    rig = Rig().run(120, {NVTOP: 0.0}, **LAPTOP)
    assert rig.answer.cause is Cause.QUIET, "118 s is one step before"
    rig.tick({NVTOP: 0.0}, **LAPTOP)
    assert rig.answer.cause is Cause.MONITOR
    assert rig.answer.sentence == (
        "GPU 0 (RTX 3070): no fan of its own; 12 W; nobody works on it, but nvtop (pid 77, user anna) watches it and"
        " keeps it awake for 2 min."
    )
    assert rig.evidence("kept_awake_by") == "nvtop"
    assert rig.answer.suspects[0].program.name == "nvtop"
    assert rig.answer.suspects[0].share == 0


def test_a_holder_of_any_name_is_a_watcher() -> None:
    rig = Rig().run(130, {AGENT: 0.0}, kind="holder", **LAPTOP)
    assert rig.answer.cause is Cause.MONITOR


def test_a_holder_whose_engine_time_nobody_tells_made_no_heat() -> None:
    rig = Rig().run(60, fan=0)
    rig.run(60, {AGENT: None}, kind="holder", fan=50, watts=200, busy=95)
    assert rig.answer.cause is Cause.HIDDEN_WORKLOAD
    assert rig.answer.suspects == ()


def test_the_fan_of_a_card_rests_so_it_stays_quiet_and_says_who_keeps_it_awake() -> None:
    rig = Rig().run(130, {NVTOP: 0.0}, fan=0, **AWAKE)
    assert rig.answer.cause is Cause.QUIET
    assert rig.evidence("kept_awake_by") == "nvtop"
    assert "the fan stands still; it could sleep, but nvtop keeps it awake." in rig.answer.sentence


def test_a_fan_that_is_up_on_a_card_kept_awake_has_the_watcher_as_its_reason() -> None:
    rig = Rig().run(60, fan=0, **AWAKE).run(130, {NVTOP: 0.0}, fan=35, **AWAKE)
    assert rig.answer.cause is Cause.MONITOR
    assert "fan at 35 % for 2 min; nobody works on it, but nvtop" in rig.answer.sentence


def test_several_watchers_are_named_together() -> None:
    rig = Rig().run(130, {NVTOP: 0.0, process("telegraf", pid=90): 0.0}, **LAPTOP)
    assert "nvtop (pid 77, user anna) and telegraf (pid 90, user anna) watch it and keep it awake" in (
        rig.answer.sentence
    )


@pytest.mark.parametrize(
    ("programs", "kind", "reading", "why"),
    [
        ({NVTOP: 0.0}, "compute", {"can_suspend": False}, "a display keeps it awake"),
        ({NVTOP: 0.0}, "compute", {"can_suspend": None}, "whether it may sleep is not known"),
        ({NVTOP: 0.0, OLLAMA: 0.0}, "compute", {}, "a program has a context on it, too"),
        ({XORG: 0.0}, "graphics", {}, "a desktop that draws nothing lets a card sleep"),
        ({NVTOP: 0.0, GAME: 2.0}, "compute", {}, "somebody works, if little"),
        ({NVTOP: 0.0}, "compute", {"processes": None}, "nobody can tell who else is on it"),
    ],
)
def test_what_is_not_a_card_that_is_only_watched(
    programs: Mapping[ProcessIdentity, float | None], kind: str, reading: dict[str, object], why: str
) -> None:
    visible = "processes" not in reading
    reading = {key: value for key, value in reading.items() if key != "processes"}
    rig = Rig().run(300, programs, kind=kind, visible=visible, **{**LAPTOP, "busy": 0.0, **reading})
    assert rig.answer.cause is Cause.QUIET, why
    assert rig.evidence("kept_awake_by") is None, why


def test_a_process_that_nobody_could_identify_may_be_anybody() -> None:
    rig = Rig()
    for _ in range(100):
        rig.now += 2
        stranger = (GpuProcess(pid=5, kind="compute", engine_percent=0.0),)
        rig.feed(readings=(rig.reading(busy=0, processes=stranger, **LAPTOP),))
    assert rig.answer.cause is Cause.QUIET


def test_gpuwhyd_says_so_when_nobody_else_keeps_the_card_awake() -> None:
    rig = Rig().run(130, **LAPTOP)
    assert rig.answer.cause is Cause.MONITOR
    assert rig.answer.confidence < 0.5
    assert "gpuwhyd itself" in rig.answer.sentence
    resting = Rig().run(130, fan=0, **AWAKE)
    assert resting.answer.cause is Cause.QUIET
    assert "gpuwhyd itself, which reads it, may keep it awake" in resting.answer.sentence


def test_gpuwhyd_does_not_accuse_itself_of_what_it_has_disproved() -> None:
    """It let the card alone, and the card stayed awake."""
    rig = Rig().run(60, **LAPTOP).run(40, state=GpuState.UNKNOWN, can_suspend=True).run(130, **LAPTOP)
    assert rig.answer.cause is Cause.QUIET
    rig.run(2, state=GpuState.ASLEEP).run(130, **LAPTOP)
    assert rig.answer.cause is Cause.MONITOR


def test_a_card_that_gpuwhyd_has_let_go_is_still_kept_awake_by_the_watcher() -> None:
    rig = Rig().run(60, {NVTOP: 0.0}, **LAPTOP).run(70, state=GpuState.UNKNOWN, can_suspend=True)
    assert rig.answer.cause is Cause.MONITOR
    assert "nvtop" in rig.answer.sentence
    rig.tick(state=GpuState.ASLEEP)
    assert rig.answer.cause is Cause.QUIET
    assert rig.answer.sentence == "GPU 0 (RTX 3070): asleep."


def test_a_watcher_that_goes_is_not_named_any_more() -> None:
    rig = Rig().run(140, {NVTOP: 0.0, AGENT: 0.0}, kind="holder", **LAPTOP)
    rig.tick({AGENT: 0.0}, kind="holder", **LAPTOP)
    assert "nvtop" not in rig.answer.sentence
    assert "some-agent" in rig.answer.sentence


def test_a_card_that_only_a_watcher_keeps_busy_is_not_hidden_work() -> None:
    """Asking an idle card without persistence wakes it: 100 % use on an idle L40S."""
    rig = Rig().run(60, watts=15, mode=FanMode.NONE)
    rig.run(30, {process("nvidia-smi"): 0.0}, watts=40, busy=100, mode=FanMode.NONE)
    assert rig.answer.cause is Cause.MONITOR
    assert "watches it and keeps it busy" in rig.answer.sentence


@pytest.mark.parametrize(("watts", "why"), [(200, "no watcher draws so much")])
def test_a_hidden_load_beside_a_watcher_stays_hidden(watts: float, why: str) -> None:
    rig = Rig().run(60, watts=15, mode=FanMode.NONE)
    rig.run(60, {NVTOP: 0.0}, watts=watts, busy=100, mode=FanMode.NONE)
    assert rig.answer.cause is Cause.HIDDEN_WORKLOAD, why


def test_a_watcher_that_came_after_the_card_was_busy_only_looks_at_it() -> None:
    rig = Rig().run(60, watts=15, mode=FanMode.NONE).run(60, watts=40, busy=30, mode=FanMode.NONE)
    rig.run(60, {NVTOP: 0.0}, watts=40, busy=30, mode=FanMode.NONE)
    assert rig.answer.cause is Cause.HIDDEN_WORKLOAD


def test_the_heat_of_a_load_comes_before_a_watcher() -> None:
    rig = Rig().run(60, fan=0, **AWAKE).run(300, LOAD, fan=57, watts=200, can_suspend=True)
    rig.run(150, {NVTOP: 0.0}, fan=45, **AWAKE)
    assert rig.answer.cause is Cause.RESIDUAL_HEAT


def test_where_names_are_hidden_a_watcher_is_a_program() -> None:
    resting = Rig().run(130, {NVTOP: 0.0, process("telegraf", pid=90): 0.0}, fan=0, **AWAKE)
    for answer in (Rig().run(130, {NVTOP: 0.0}, **LAPTOP).answer, resting.answer):
        public = redacted(answer)
        assert "nvtop" not in repr(public)
        assert "a program" in public.sentence


def test_the_end_names_the_watcher() -> None:
    rig = Rig().run(60, fan=0, **AWAKE).run(130, {NVTOP: 0.0}, fan=35, **AWAKE).run(100, fan=0, **AWAKE)
    assert rig.kinds[-1] == "ended"
    rig2 = Rig().run(200, {NVTOP: 0.0}, fan=0, **AWAKE).run(20, {NVTOP: 0.0}, fan=35, **AWAKE)
    told = rig2.run(100, {NVTOP: 0.0}, fan=0, **AWAKE).spikes[-1].explanation
    assert told.cause is Cause.MONITOR
    assert "because nvtop (pid 77, user anna) watched the card" in told.sentence


# -- idle-clocks --------------------------------------------------------------------------------------------------

STUCK = {
    "watts": 62.0,
    "busy": 0.0,
    "performance_state": 0,
    "memory_clock_mhz": 9501.0,
    "memory_clock_max_mhz": 9501.0,
}


def seen_at_rest() -> Rig:
    return Rig().run(60, fan=0, watts=15, performance_state=8)


def test_clocks_that_stay_up_without_a_load_are_the_cause_after_a_minute() -> None:
    rig = seen_at_rest().run(60, fan=40, **STUCK)
    assert rig.answer.cause is not Cause.IDLE_CLOCKS, "58 s is one step before"
    rig.run(10, fan=40, **STUCK)
    assert rig.answer.cause is Cause.IDLE_CLOCKS
    assert rig.evidence("performance_state") == "P0"
    assert rig.evidence("memory_clock_mhz") == 9501
    assert rig.evidence("idle_power_needed_watts") == pytest.approx(15)
    assert (
        "nobody uses the card, but it draws 62 W where 15 W are enough with its clocks up (P0, memory at 9501"
        in (rig.answer.sentence)
    )
    assert "monitors" in rig.answer.sentence
    assert rig.answer.suspects == ()


@pytest.mark.parametrize(
    ("reading", "is_cause"),
    [
        ({"performance_state": 2, "memory_clock_mhz": None}, True),
        ({"performance_state": 3, "memory_clock_mhz": None}, False),
        ({"performance_state": None, "memory_clock_mhz": 7601.0}, True),
        ({"performance_state": None, "memory_clock_mhz": 7599.0}, False),
        ({"performance_state": None, "memory_clock_mhz": 9501.0, "memory_clock_max_mhz": None}, False),
        (
            {
                "performance_state": None,
                "memory_clock_mhz": None,
                "core_clock_mhz": 1260.0,
                "core_clock_max_mhz": 2100.0,
            },
            True,
        ),
        (
            {
                "performance_state": None,
                "memory_clock_mhz": None,
                "core_clock_mhz": 1250.0,
                "core_clock_max_mhz": 2100.0,
            },
            False,
        ),
        ({"busy": 5.0}, True),
        ({"busy": 6.0}, False),
        ({"busy": None}, False),
        ({"encoder_percent": 20.0}, False),
        ({"memory_utilization_percent": 23.0}, True),
        ({"watts": 27.0}, False),
    ],
)
def test_each_condition_of_clocks_that_stay_up(reading: dict[str, object], is_cause: bool) -> None:
    rig = seen_at_rest().run(120, fan=40, **{**STUCK, **reading})
    assert (rig.answer.cause is Cause.IDLE_CLOCKS) is is_cause


def test_a_program_with_engine_time_is_a_load() -> None:
    rig = seen_at_rest().run(120, {GAME: 30.0}, fan=40, **STUCK)
    assert rig.answer.cause is Cause.WORKLOAD


def test_a_card_that_was_never_seen_with_less_is_judged_by_its_limit() -> None:
    rig = (
        Rig()
        .run(60, fan=0, watts=32, performance_state=8, busy=0.0)
        .run(120, fan=40, **{**STUCK, "watts": 32.0})
    )
    assert rig.answer.cause is not Cause.IDLE_CLOCKS, "15 % of 220 W is 33 W"
    rig = Rig().run(60, fan=0, **STUCK).run(120, fan=40, **STUCK)
    assert rig.answer.cause is Cause.IDLE_CLOCKS
    assert rig.evidence("idle_power_never_seen_lower") == 1
    assert "are enough" not in rig.answer.sentence


def test_stuck_clocks_do_not_become_what_a_card_needs_unnoticed() -> None:
    rig = seen_at_rest().run(120, fan=40, **STUCK)
    rig.run(3600, fan=40, **STUCK)
    assert rig.spikes[-1].spike.ended_by == "new-rest"
    assert rig.answer.cause is Cause.QUIET
    assert "it draws 62 W where 15 W are enough with its clocks up" in rig.answer.sentence
    rig.restart().run(80, fan=60, **STUCK)
    assert rig.answer.cause is Cause.IDLE_CLOCKS
    assert rig.evidence("idle_power_needed_watts") == pytest.approx(15)


def test_a_card_without_a_fan_has_idle_clocks_too() -> None:
    rig = Rig().run(60, mode=FanMode.NONE, watts=15).run(80, mode=FanMode.NONE, **STUCK)
    assert rig.answer.cause is Cause.IDLE_CLOCKS
    assert rig.answer.sentence.startswith("GPU 0 (RTX 3070): no fan of its own; 62 W: nobody uses the card")


def test_heat_that_a_load_has_left_comes_before_the_clocks_that_it_left_up() -> None:
    rig = seen_at_rest().run(600, LOAD, fan=57, watts=200, celsius=75)
    rig.run(70, fan=50, **{**STUCK, "watts": 30.0})
    assert rig.answer.cause is Cause.RESIDUAL_HEAT
    rig.run(900, fan=40, **STUCK)
    assert rig.answer.cause in {Cause.IDLE_CLOCKS, Cause.QUIET}
    assert rig.evidence("idle_power_watts") is not None


def test_the_end_of_idle_clocks_blames_no_program() -> None:
    rig = seen_at_rest().run(120, {OLLAMA: 0.0}, fan=40, **STUCK).run(100, fan=0, watts=15)
    assert rig.spikes[-1].explanation.cause is Cause.IDLE_CLOCKS
    assert "its clocks stayed up though nobody used the card" in rig.spikes[-1].explanation.sentence
    assert "because of" not in rig.answer.sentence
