"""Where a load leads to is told only when it is known, and no more once the card is there."""

from collections.abc import Iterator

import pytest

from gpuwhyd.backends.simulated import SimulatedBackend, SimulatedProcesses
from gpuwhyd.backends.simulated_scenario import parse_scenario
from gpuwhyd.engine.thermal.forecast import Peak
from gpuwhyd.engine.thermal.height import FLAT_SECONDS, Height
from gpuwhyd.model import GpuReading, GpuUse
from tests.engine.rig import Rig

STEADY_LOADS = """
[[card]]
name = "card"
[card.fan]
[[program]]
name = "a"
load = [["0s", 90]]
start = "20s"
exit = "8min"
[[program]]
name = "b"
load = [["0s", 40]]
start = "30s"
exit = "14min"
"""


def risen(seconds: float, *, watts: float = 200.0) -> Height:
    """A card that got louder and hotter all the time, and was looked at once."""
    height = Height()
    for tick in range(round(seconds)):
        height.feed(tick, 1.0, 30 + tick / 10, 50 + tick / 20, watts)
    height.look(seconds, peak(60), watts, known=True)
    return height


def peak(percent: float) -> Peak:
    return Peak(fan_percent=percent, celsius=70.0)


def test_one_look_is_not_enough_to_tell_and_two_that_differ_tell_nothing() -> None:
    height = risen(100)
    assert height.told is None
    height.look(120, peak(70), 200, known=True)
    assert height.told is None
    height.look(140, peak(68), 200, known=True)
    assert height.told == peak(68)


def test_a_card_of_which_too_little_was_seen_is_told_no_height() -> None:
    height = risen(100)
    height.look(120, peak(60), 200, known=False)
    assert height.told is None


def test_a_card_that_has_not_moved_for_a_minute_is_where_it_goes() -> None:
    height = risen(100)
    height.look(101, peak(60), 200, known=True)
    assert height.told is not None
    for tick in range(round(FLAT_SECONDS) + 2):
        height.feed(102 + tick, 1.0, 50, 65, 200)
    assert height.told is None
    height.look(170, peak(60), 200, known=True)
    assert height.told is None


def test_a_fan_that_is_as_fast_as_was_told_is_told_no_more() -> None:
    height = risen(100)
    height.look(101, peak(60), 200, known=True)
    height.feed(102, 1.0, 60, 65, 200)
    assert height.told is None


def test_another_load_makes_what_was_told_void() -> None:
    height = risen(100)
    height.look(101, peak(60), 200, known=True)
    changed = [height.feed(102 + tick, 1.0, 50, 65, 100) for tick in range(20)]
    assert changed.count(True) == 1
    assert height.told is None


def test_a_burst_is_no_other_load() -> None:
    height = risen(100)
    height.look(101, peak(60), 200, known=True)
    changed = [height.feed(102 + tick, 1.0, 50, 65, 260 if tick % 4 < 2 else 140) for tick in range(40)]
    assert not any(changed)
    assert height.told is not None


def simulated(toml: str, seconds: float) -> Iterator[tuple[Rig, GpuReading]]:
    """The engine on the card of a scenario, a tick a second."""
    scenario = parse_scenario(toml, "test")
    rig = Rig(now=3600.0)
    backend = SimulatedBackend(scenario, lambda: rig.now)
    processes = SimulatedProcesses(scenario, lambda: rig.now)
    for _ in range(round(seconds)):
        rig.now += 1.0
        (reading,) = backend.read().readings
        who = {use: processes.identify(use.pid) for use in reading.processes or ()}
        uses = tuple(
            GpuUse(gpu_id=reading.gpu.id, process=process, use=use) for use, process in who.items() if process
        )
        rig.feed(readings=(reading,), uses=uses, exits=processes.exits(rig.now))
        yield rig, reading


@pytest.fixture(scope="module")
def told() -> list[tuple[float, float, float | None, str, str]]:
    """Seconds, fan, told height, trend and sentence, where the fan is up, with a load that becomes another one after 8 min."""
    rows = []
    for rig, reading in simulated(STEADY_LOADS, 830):
        (answer,) = rig.report.explanations.values() if rig.report is not None else ()
        if answer.for_seconds is not None:
            outlook = answer.outlook
            rows.append(
                (
                    rig.now - 3600,
                    reading.fan_percent or 0.0,
                    outlook.peak_fan_percent,
                    outlook.trend,
                    answer.sentence,
                )
            )
    return rows


def test_a_cooler_that_the_model_does_not_fit_is_told_no_wrong_height(
    told: list[tuple[float, float, float | None, str, str]],
) -> None:
    settled = {seconds: 61.0 if seconds < 480 else 34.0 for seconds, *_ in told}
    assert [row for row in told if row[2] is not None and abs(row[2] - settled[row[0]]) > 5] == []
    assert [row for row in told if 240 < row[0] < 480 and "settle" in row[4]] == []


def test_no_height_is_told_on_the_way_down(
    told: list[tuple[float, float, float | None, str, str]],
) -> None:
    falling = [row for row in told if row[3] == "falling"]
    assert falling
    assert all(row[2] is None for row in falling)
