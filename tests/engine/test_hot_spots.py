"""A hot spot or memory that drives the fan while the core is cool."""

import pytest

from gpuwhyd.model import Cause, FanMode
from tests.engine.rig import Rig, unit

MINER = unit("miner.service", 4242)
LOAD = {MINER: 95.0}


def up(seconds: float = 60, **reading: object) -> Rig:
    """A fan that a load has spun up."""
    return Rig().run(60, fan=0).run(seconds, LOAD, **{"fan": 60, "watts": 200, "celsius": 52, **reading})


def test_hot_memory_under_a_cool_core_is_the_cause_and_names_who_works() -> None:
    rig = up(memory_temperature_celsius=98.0)
    assert rig.answer.cause is Cause.HOTSPOT
    assert rig.evidence("memory_temperature_celsius") == 98
    assert rig.answer.sentence == (
        "GPU 0 (RTX 3070): fan at 60 % for 56 s because its memory is at 98 degC while the core is only at 52 degC;"
        " miner.service (miner, pid 4242) made 100 % of its heat. Work that uses the memory more than the core does that, and"
        " so do worn thermal pads."
    )


def test_a_hot_spot_near_its_limit_above_a_cool_core_is_the_cause() -> None:
    rig = up(hotspot_celsius=92.0)
    assert rig.answer.cause is Cause.HOTSPOT
    assert (
        "the hottest spot of its chip is at 92 degC while the core is only at 52 degC" in rig.answer.sentence
    )


@pytest.mark.parametrize(
    ("reading", "why"),
    [
        ({"celsius": 70, "memory_temperature_celsius": 104.0}, "GDDR6X under a warm core"),
        ({"celsius": 58, "hotspot_celsius": 78.0}, "20 K above the edge are usual"),
        ({"celsius": 58, "hotspot_celsius": 87.0, "memory_temperature_celsius": 89.0}, "just below both"),
        ({"celsius": 48, "hotspot_celsius": 79.0}, "31 K above, but not hot"),
        ({"celsius": 61, "hotspot_celsius": 95.0}, "the core is not cool"),
        ({"celsius": 95, "hotspot_celsius": 95.0}, "one sensor, told twice"),
        ({"celsius": None, "hotspot_celsius": 95.0}, "nobody knows the core"),
    ],
)
def test_what_is_usual_is_no_hot_spot(reading: dict[str, object], why: str) -> None:
    assert up(**reading).answer.cause is Cause.WORKLOAD, why


def test_it_has_to_last_and_a_degree_less_does_not_end_it() -> None:
    rig = up(8, celsius=55)
    rig.run(10, LOAD, fan=85, watts=200, celsius=57, memory_temperature_celsius=93.0)
    assert rig.answer.cause is Cause.WORKLOAD, "8 s"
    rig.tick(LOAD, fan=85, watts=200, celsius=57, memory_temperature_celsius=90.0)
    assert rig.answer.cause is Cause.HOTSPOT
    rig.run(20, LOAD, fan=85, watts=200, celsius=62, memory_temperature_celsius=88.0)
    assert rig.answer.cause is Cause.HOTSPOT
    rig.tick(LOAD, fan=85, watts=200, celsius=62, memory_temperature_celsius=86.0)
    assert rig.answer.cause is Cause.WORKLOAD


def test_a_hot_spot_far_above_what_this_card_has_shown_is_the_cause_also_after_a_restart() -> None:
    rig = up(700, celsius=56, hotspot_celsius=70.0)
    rig.run(40, LOAD, fan=60, watts=200, celsius=56, hotspot_celsius=81.0)
    assert rig.answer.cause is Cause.WORKLOAD, "11 K more than usual"
    rig.restart().run(40, LOAD, fan=75, watts=200, celsius=56, hotspot_celsius=84.0)
    assert rig.answer.cause is Cause.HOTSPOT
    assert rig.evidence("hotspot_usual_celsius") == pytest.approx(70, abs=1)
    assert "at 84 degC (71 degC were usual)" in rig.answer.sentence


@pytest.mark.parametrize("hot", [{"hotspot_celsius": 97.0}, {"memory_temperature_celsius": 104.0}])
def test_a_fan_as_fast_as_always_at_this_core_temperature_runs_for_the_core(hot: dict[str, float]) -> None:
    rig = up(60, celsius=56, hotspot_celsius=70.0)
    rig.restart().run(40, LOAD, fan=62, watts=200, celsius=56, **hot)
    assert rig.answer.cause is Cause.WORKLOAD
    assert rig.evidence(next(iter(hot))) == next(iter(hot.values())), "told beside it"
    rig.run(10, LOAD, fan=70, watts=200, celsius=56, **hot)
    assert rig.answer.cause is Cause.WORKLOAD, "a seventh of its rise"
    rig.run(10, LOAD, fan=76, watts=200, celsius=56, **hot)
    assert rig.answer.cause is Cause.HOTSPOT
    rig.run(10, LOAD, fan=72, watts=200, celsius=56, **hot)
    assert rig.answer.cause is Cause.HOTSPOT, "some points more or less are no other cause"


def mid_load(celsius: float, fan: float, *, rest: float = 0.0, onset: float | None = None) -> Rig:
    """Memory at 104 degC and a core at so many, on a card whose fan was never seen at such a core without that."""
    rig = Rig().run(60, fan=rest, celsius=min(40.0, celsius))
    if onset is not None:
        state = rig.engine.saved()
        state["cards"][rig.gpu.id]["thermal"]["fan"]["onset_celsius"] = onset  # type: ignore[index]
        rig.engine = type(rig.engine)(rig.engine._settings, state, boot_id="boot")
    return rig.run(60, LOAD, fan=fan, watts=200, celsius=celsius, memory_temperature_celsius=104.0)


@pytest.mark.parametrize(
    ("celsius", "fan", "rest", "onset", "cause"),
    [
        (50, 28, 0, None, Cause.HOTSPOT),  # zero-RPM fans start at 50 to 61
        (54, 40, 0, None, Cause.WORKLOAD),  # and may make this of 54
        (54, 55, 0, None, Cause.HOTSPOT),  # but not this
        (43, 42, 30, None, Cause.HOTSPOT),
        (50, 42, 30, None, Cause.WORKLOAD),  # a fan that turns at rest is up earlier
        (56, 28, 0, 60, Cause.HOTSPOT),  # this card's starts at 60
        (58, 28, 0, 60, Cause.WORKLOAD),
        (50, 28, 0, 45, Cause.HOTSPOT),  # it was hot memory too that made it rise at 45
    ],
)
def test_it_is_the_cause_only_where_the_core_alone_explains_no_such_fan(
    celsius: float, fan: float, rest: float, onset: float | None, cause: Cause
) -> None:
    rig = mid_load(celsius, fan, rest=rest, onset=onset)
    assert rig.answer.cause is cause
    assert rig.evidence("memory_temperature_celsius") == 104
    assert rig.answer.confidence == (0.9 if cause is Cause.HOTSPOT else 0.97)


def test_where_the_core_is_too_cool_for_this_card_s_fan_what_it_did_after_a_load_proves_nothing() -> None:
    rig = mid_load(50, 40, onset=60)
    cool = {"watts": 15.0, "celsius": 50, "memory_temperature_celsius": 60.0}
    rig.run(30, fan=40, **cool).run(120, fan=0, celsius=40)
    rig.run(60, LOAD, fan=40, watts=200, celsius=50, memory_temperature_celsius=104.0)
    assert rig.answer.cause is Cause.HOTSPOT


def test_a_fan_that_was_as_fast_at_a_colder_core_runs_for_the_core() -> None:
    rig = up(60, celsius=54, fan=60, hotspot_celsius=70.0)
    rig.run(30, LOAD, fan=40, watts=200, celsius=56, hotspot_celsius=70.0)
    rig.run(40, LOAD, fan=60, watts=200, celsius=56, hotspot_celsius=97.0)
    assert rig.answer.cause is Cause.WORKLOAD


def test_a_fan_that_is_still_up_for_a_core_that_was_warm_runs_for_the_core() -> None:
    rig = up(60, celsius=66, fan=55)
    rig.restart().run(30, LOAD, fan=52, watts=150, celsius=50, memory_temperature_celsius=104.0)
    assert rig.answer.cause is Cause.WORKLOAD, "it falls as slowly as it can"
    rig.run(300, LOAD, fan=33, watts=150, celsius=49, memory_temperature_celsius=104.0)
    assert rig.answer.cause is Cause.WORKLOAD, "it stops later than it starts"
    rig.run(120, fan=0).run(60, LOAD, fan=33, watts=150, celsius=49, memory_temperature_celsius=104.0)
    assert rig.answer.cause is Cause.HOTSPOT, "this time the core was never warm"


@pytest.mark.parametrize(
    ("mode", "fast_seconds", "hours_ago"), [(FanMode.MANUAL, 600, 0), (FanMode.AUTO, 30, 10)]
)
def test_a_fan_that_was_pinned_or_tried_out_once_says_nothing_of_the_card(
    mode: FanMode, fast_seconds: float, hours_ago: int
) -> None:
    cool = {"celsius": 52, "hotspot_celsius": 60.0}
    rig = Rig().run(60, fan=30, **cool).run(fast_seconds, fan=100, mode=mode, **cool)
    for _ in range(hours_ago * 360):
        rig.tick(fan=30, step=10.0, **cool)
    rig.run(60, LOAD, fan=30, watts=200, **cool)
    rig.run(60, LOAD, fan=75, watts=200, celsius=52, hotspot_celsius=97.0)
    assert rig.answer.cause is Cause.HOTSPOT


def test_nothing_is_usual_yet_on_a_card_seen_for_a_minute() -> None:
    rig = up(60, celsius=56, hotspot_celsius=62.0)
    rig.run(40, LOAD, fan=60, watts=200, celsius=56, hotspot_celsius=84.0)
    assert rig.answer.cause is Cause.WORKLOAD


def test_a_hot_spot_at_a_resting_fan_is_quiet() -> None:
    rig = Rig().run(120, fan=0, celsius=45, memory_temperature_celsius=98.0)
    assert rig.answer.cause is Cause.QUIET


def test_the_end_says_that_it_was_hot_memory_or_a_hot_spot() -> None:
    rig = up(300, memory_temperature_celsius=98.0)
    rig.run(120, fan=0)
    assert rig.spikes[-1].explanation.sentence.endswith(
        "it had been at up to 60 % because its memory or the hottest spot of its chip was hot while the core was cool;"
        " miner.service (miner, pid 4242) made 100 % of its heat."
    )


@pytest.mark.parametrize("broken", [{"5": 3}, {"5": [1]}, {"5": [1, "x"]}, {"5": [-1, 3]}, {"x": [1, 2]}])
def test_a_broken_state_is_refused(broken: object) -> None:
    rig = Rig().run(10)
    state = rig.engine.saved()
    state["cards"][rig.gpu.id]["hot_spots"] = broken  # type: ignore[index]
    with pytest.raises((TypeError, ValueError)):
        type(rig.engine)(rig.engine._settings, state, boot_id="boot")
