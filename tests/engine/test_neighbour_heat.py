"""A card that something beside it warms: two cards in one case, or a card and the CPU."""

from dataclasses import dataclass

import pytest

from gpuwhyd.model import (
    Cause,
    EventKind,
    Explanation,
    GpuProcess,
    GpuUse,
    HostProcess,
    HostReading,
    HostUse,
    SpikeEvent,
)
from tests.engine.rig import Rig, second_gpu, unit

OLLAMA = unit("ollama.service", 4300)
GAME = unit("game.service", 4242)


@dataclass
class Case:
    """GPU 0 and, in the same case, GPU 1."""

    rig: Rig

    def run(
        self,
        seconds: float,
        *,
        hot_watts: float,
        celsius: float,
        fan: float,
        watts: float = 15.0,
        own: float = 0.0,
    ) -> "Case":
        """`hot_watts` is drawn by GPU 0; the rest is of GPU 1, where a game works `own` percent."""
        rig = self.rig
        beside = Rig(gpu=second_gpu(rig))
        for _ in range(round(seconds / rig.step)):
            rig.now += rig.step
            work = GpuProcess(pid=OLLAMA.pid, engine_percent=95.0 if hot_watts > 50 else 0.0)
            game = GpuProcess(pid=GAME.pid, engine_percent=own)
            hot = rig.reading(fan=57 if hot_watts > 50 else 0, watts=hot_watts, busy=95, processes=(work,))
            warmed = beside.reading(fan=fan, watts=watts, celsius=celsius, busy=own, processes=(game,))
            rig.feed(
                readings=(hot, warmed),
                uses=(
                    GpuUse(gpu_id=rig.gpu.id, process=OLLAMA, use=work),
                    GpuUse(gpu_id=beside.gpu.id, process=GAME, use=game),
                ),
            )
        return self

    @property
    def answer(self) -> Explanation:
        assert self.rig.report is not None
        return self.rig.report.explanations[second_gpu(self.rig).id]

    @property
    def told(self) -> list[SpikeEvent]:
        return [e for e in self.rig.spikes if e.gpu.id == second_gpu(self.rig).id]


@pytest.fixture
def case() -> Case:
    return Case(Rig()).run(60, hot_watts=15, celsius=41, fan=0)


@pytest.fixture
def beside(case: Case) -> Case:
    """GPU 0 has begun to work."""
    return case.run(60, hot_watts=200, celsius=41, fan=0)


def test_an_idle_card_that_a_working_one_warms_says_so_and_names_who_works_there(beside: Case) -> None:
    case = beside.run(120, hot_watts=200, celsius=45, fan=0).run(120, hot_watts=200, celsius=52, fan=35)
    assert case.answer.cause is Cause.NEIGHBOUR_HEAT
    assert case.answer.suspects[0].program.name == "ollama.service"
    assert case.answer.sentence == (
        "GPU 1 (RTX 3090): fan at 35 % for 2 min because GPU 0 (RTX 3070) is hot and warms it; ollama.service (ollama, pid"
        " 4300) made 99 % of the heat there. The card itself idles (15 W) and went from 41 to 52 degC."
    )
    assert case.rig.answer.cause is Cause.WORKLOAD


def test_it_stays_the_reason_while_its_fan_cools_the_card_down_again(beside: Case) -> None:
    case = beside.run(120, hot_watts=200, celsius=52, fan=35).run(20, hot_watts=200, celsius=44, fan=35)
    assert case.answer.cause is Cause.NEIGHBOUR_HEAT
    case.run(20, hot_watts=15, celsius=44, fan=30)
    assert case.answer.cause is Cause.NEIGHBOUR_HEAT, "the neighbour is still hot"


@pytest.mark.parametrize(
    ("then", "why"),
    [
        ({"hot_watts": 200.0, "celsius": 44.0}, "3 K are no rise"),
        ({"hot_watts": 200.0, "celsius": 52.0, "watts": 120.0, "own": 60.0}, "it works itself"),
    ],
)
def test_otherwise_the_neighbour_is_not_accused(beside: Case, then: dict[str, float], why: str) -> None:
    case = beside.run(200, fan=35, **then)
    assert case.answer.cause is not Cause.NEIGHBOUR_HEAT, why


def test_a_neighbour_that_does_next_to_nothing_is_not_accused(case: Case) -> None:
    case.run(120, hot_watts=45, celsius=41, fan=0).run(200, hot_watts=45, celsius=52, fan=35)
    assert case.answer.cause is Cause.UNKNOWN


def test_a_cards_own_heat_comes_first(case: Case) -> None:
    case.run(300, hot_watts=15, celsius=70, fan=60, watts=200, own=95)
    case.run(60, hot_watts=200, celsius=60, fan=50)
    case.run(20, hot_watts=200, celsius=66, fan=50)
    assert case.answer.cause is Cause.RESIDUAL_HEAT


def test_a_resting_fan_is_quiet_however_warm_its_neighbour(case: Case) -> None:
    case.run(300, hot_watts=200, celsius=52, fan=0)
    assert case.answer.cause is Cause.QUIET


def test_the_end_tells_of_the_neighbour(beside: Case) -> None:
    case = beside.run(300, hot_watts=200, celsius=52, fan=35).run(120, hot_watts=15, celsius=44, fan=0)
    ended = case.told[-1]
    assert ended.kind is EventKind.SPIKE_ENDED
    assert (
        "because something beside the card worked and warmed it; ollama.service" in ended.explanation.sentence
    )


def test_the_cpu_may_be_the_neighbour() -> None:
    rig = Rig()
    build = unit("build.service", 5000)
    for tick in range(300):
        rig.now += 2
        busy = tick > 60
        on_cpu = HostUse(process=build, use=HostProcess(pid=5000, cpu_percent=90.0 if busy else 0.0))
        host = HostReading(
            cpu_power_watts=110.0 if busy else 12.0,
            cpu_utilization_percent=90.0 if busy else 2.0,
            processes=(on_cpu.use,),
        )
        hot = tick > 150
        rig.feed(
            readings=(rig.reading(fan=35 if hot else 0, celsius=52 if hot else 41, busy=0),),
            host=host,
            host_uses=(on_cpu,),
        )
    assert rig.answer.cause is Cause.NEIGHBOUR_HEAT
    assert "because the CPU is hot and warms it; build.service (build, pid 5000) made" in rig.answer.sentence
    assert rig.answer.confidence < 0.9
