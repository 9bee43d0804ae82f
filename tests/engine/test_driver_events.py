"""A fan that spins up without any load, because the machine, the card or the driver has just started."""

import pytest

from gpuwhyd.model import Cause, GpuState
from tests.engine.rig import Rig, unit

GAME = unit("game.service", 4242)


def after_boot(**first: object) -> Rig:
    """A card that is known from before a reboot, and its first readings 20 s after it."""
    rig = Rig().run(60, fan=30).restart(boot_id="next")
    rig.now = 20.0
    return rig.run(10, **{"fan": 100, "celsius": 35, **first})


def test_a_fan_at_full_speed_after_the_boot_is_the_drivers_doing() -> None:
    rig = after_boot()
    assert rig.kinds[-1] == "started"
    assert rig.answer.cause is Cause.DRIVER_EVENT
    assert rig.evidence("driver_event") == "boot"
    assert rig.answer.suspects == ()
    assert rig.answer.sentence == (
        "GPU 0 (RTX 3070): fan at 100 % for 6 s because the machine has just started, and fans run fast until the card's"
        " driver governs them: no work is behind it, and it should be over within a minute or two."
    )
    rig.run(120, fan=30)
    assert "at up to 100 % because the machine or the card had just started, without any work" in (
        rig.spikes[-1].explanation.sentence
    )


def test_a_card_that_works_after_the_boot_is_a_workload() -> None:
    rig = after_boot()
    rig.run(30, {GAME: 95.0}, fan=100, watts=200, celsius=60)
    assert rig.answer.cause is Cause.WORKLOAD


def test_a_fan_that_holds_its_speed_after_it_has_another_reason() -> None:
    rig = after_boot(fan=50).run(70, fan=50)
    assert rig.answer.cause is Cause.UNKNOWN


def test_a_fan_that_comes_down_slowly_after_it_has_no_other_reason_for_five_minutes() -> None:
    rig = after_boot()
    for fan in range(98, 33, -1):
        rig.run(4, fan=fan)
    assert rig.answer.cause is Cause.DRIVER_EVENT
    rig.run(20, fan=45).run(20, fan=48)
    assert rig.answer.cause is Cause.UNKNOWN


def test_a_fan_that_spins_up_as_the_machine_wakes_up() -> None:
    rig = Rig().run(60, fan=0)
    rig.tick(step=3600, resumed=True, fan=60)
    rig.run(10, fan=60)
    assert rig.answer.cause is Cause.DRIVER_EVENT
    assert "because the machine has just woken up" in rig.answer.sentence


def test_a_card_that_wakes_up_with_its_fan_running() -> None:
    rig = Rig().run(60, fan=0).run(60, state=GpuState.ASLEEP).run(10, fan=45)
    assert rig.evidence("driver_event") == "wake"


@pytest.mark.parametrize("how", ["lost", "not listed"])
def test_a_fan_that_spins_up_at_a_reset(how: str) -> None:
    rig = Rig().run(60, fan=30)
    for _ in range(4):
        if how == "lost":
            rig.tick(state=GpuState.LOST)
        else:
            rig.now += 2
            rig.feed(readings=())
    rig.run(10, fan=80)
    assert rig.answer.cause is Cause.DRIVER_EVENT
    assert rig.evidence("driver_event") == "reset"


def test_a_single_reading_that_failed_is_no_reset() -> None:
    rig = Rig().run(60, fan=30)
    rig.now += 1
    rig.feed(readings=())
    rig.step = 1.0
    rig.run(10, fan=80)
    assert rig.answer.cause is Cause.UNKNOWN


def test_a_fan_that_rises_long_after_the_event_has_another_reason() -> None:
    rig = Rig().run(60, fan=0)
    rig.tick(step=3600, resumed=True, fan=0)
    rig.run(40, fan=0).run(20, fan=60)
    assert rig.answer.cause is Cause.UNKNOWN


def test_heat_of_before_the_event_comes_first() -> None:
    rig = Rig().run(60, fan=0).run(300, {GAME: 95.0}, fan=60, watts=200, celsius=75)
    for _ in range(4):
        rig.tick(state=GpuState.LOST)
    rig.run(10, fan=60, celsius=70)
    assert rig.answer.cause is Cause.RESIDUAL_HEAT


def test_a_restart_of_the_daemon_alone_is_no_event() -> None:
    rig = Rig().run(60, fan=30).restart().run(20, fan=60)
    assert rig.answer.cause is Cause.UNKNOWN


def test_a_driver_that_is_loaded_while_the_daemon_runs() -> None:
    rig = Rig()
    rig.feed(readings=())
    rig.run(6, fan=30).run(10, fan=90)
    assert rig.evidence("driver_event") == "load"


def test_a_short_load_just_after_it_is_what_the_fan_runs_for() -> None:
    """Its heat is soon less than what a fan needs, and it was work all the same."""
    rig = Rig().run(60, fan=30)
    rig.tick(resumed=True, fan=30.0)
    rig.run(6, fan=30).run(4, {GAME: 95.0}, fan=62, watts=212, celsius=74)
    rig.tick(ended=(GAME,), fan=62.0, celsius=70.0)
    rig.run(16, fan=60, celsius=60)
    assert rig.answer.cause is Cause.RESIDUAL_HEAT
    assert rig.answer.suspects[0].program.name == "game.service"
