"""The engine goes on over a restart of the daemon: nothing told twice, nothing lost; a reboot closes what was open."""

import json

import pytest

from gpuwhyd.engine.engine import Engine
from gpuwhyd.model import BackendHealth, BackendState, Cause, EventKind
from tests.engine.rig import QUIET_ENGINE, Rig, unit

OLLAMA = unit("ollama.service", 4242, user="ollama")
LOAD = {OLLAMA: 95.0}


def in_mid_spike() -> Rig:
    return Rig().run(60, fan=0).run(120, LOAD, fan=57, watts=200, celsius=75)


def test_a_restart_in_mid_spike_goes_on_with_the_same_spike() -> None:
    rig = in_mid_spike()
    spike_id = rig.answer.spike_id
    rig.restart().run(60, LOAD, fan=57, watts=200, celsius=75)
    assert rig.kinds == ["started"]
    assert rig.answer.spike_id == spike_id
    rig.run(120, fan=0)
    assert rig.kinds == ["started", "ended"]
    assert rig.spikes[-1].spike.spike_id == spike_id


def test_the_ledger_survives_so_that_an_exited_program_is_still_named() -> None:
    rig = in_mid_spike()
    rig.restart().run(20, fan=45, celsius=60)
    assert rig.answer.cause is Cause.RESIDUAL_HEAT
    suspect = rig.answer.suspects[0]
    assert (suspect.program.unit, suspect.alive) == ("ollama.service", False)


def test_a_restart_while_the_spike_settles_tells_the_end_once() -> None:
    rig = in_mid_spike().run(30, fan=0).restart().run(120, fan=0)
    assert rig.kinds == ["started", "ended"]


def test_rest_level_and_idle_floor_are_kept() -> None:
    rig = Rig().run(120, fan=30).restart()
    rig.run(10, LOAD, fan=57, watts=200)
    assert rig.kinds == ["started"]
    assert not rig.spikes[0].spike.began_before_start
    assert rig.spikes[0].spike.rest_percent == 30


def test_known_cards_are_not_told_as_added_again() -> None:
    rig = in_mid_spike().restart().run(10, LOAD, fan=57, watts=200)
    assert len(rig.of(EventKind.GPU_ADDED)) == 1


def test_a_reboot_closes_the_open_spike_once() -> None:
    rig = in_mid_spike().restart(boot_id="other")
    rig.now = 30.0
    rig.run(60, fan=0)
    assert rig.kinds == ["started", "ended"]
    assert rig.spikes[-1].spike.ended_by == "reboot"
    assert "the machine was restarted while the fan was up" in rig.spikes[-1].explanation.sentence
    rig.restart(boot_id="other").run(60, fan=0)
    assert rig.kinds == ["started", "ended"]


def test_a_reboot_closes_the_spike_of_a_card_that_is_gone() -> None:
    rig = in_mid_spike().restart(boot_id="other")
    rig.now = 30.0
    rig.feed()
    rig.restart(boot_id="other").feed()
    assert rig.kinds == ["started", "ended"]


def test_a_card_that_comes_back_after_a_removal_is_known() -> None:
    rig = in_mid_spike()
    for _ in range(40):
        rig.now += 2
        rig.feed()
    rig.run(10, fan=0)
    assert len(rig.of(EventKind.GPU_REMOVED)) == 1
    assert len(rig.of(EventKind.GPU_ADDED)) == 2
    assert rig.kinds == ["started", "ended"]
    assert "last up" in rig.answer.sentence


def test_what_is_saved_is_json_and_restores_to_the_same() -> None:
    rig = in_mid_spike()
    saved = json.loads(json.dumps(rig.engine.saved()))
    assert Engine(QUIET_ENGINE, saved, boot_id="boot").saved() == saved


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("cards",), []),
        (("cards", "pci_0000_01_00_0"), None),
        (("cards", "pci_0000_01_00_0", "gpu"), {"id": 1, "name": "x", "vendor": "y"}),
        (("cards", "pci_0000_01_00_0", "gpu", "evil"), 1),
        (("cards", "pci_0000_01_00_0", "level", "rest_percent"), "no number"),
        (("cards", "pci_0000_01_00_0", "level", "rest_percent"), float("nan")),
        (("cards", "pci_0000_01_00_0", "watch", "phase"), "dancing"),
        (("cards", "pci_0000_01_00_0", "watch", "spike"), None),
        (("cards", "pci_0000_01_00_0", "watch", "spike", "cycles"), "many"),
        (("cards", "pci_0000_01_00_0", "ledger", "accounts"), {"a": 1}),
        (("cards", "pci_0000_01_00_0", "ledger", "accounts", 0, "program", "kind"), "alien"),
        (("cards", "pci_0000_01_00_0", "told"), 5),
        (("cards", "pci_0000_01_00_0", "rules"), {"x": 3}),
    ],
)
def test_a_broken_state_is_refused_with_an_error_that_the_daemon_catches(
    path: tuple[str, ...], value: object
) -> None:
    saved = json.loads(json.dumps(in_mid_spike().engine.saved()))
    place = saved
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises((TypeError, ValueError, KeyError)):
        Engine(QUIET_ENGINE, saved, boot_id="boot")


def test_a_spike_that_a_reboot_ended_ended_when_it_was_last_seen_and_names_who_it_was() -> None:
    rig = in_mid_spike()
    last_seen, began = rig.now, rig.spikes[0].spike.began_boottime_seconds
    rig.restart(boot_id="other")
    rig.now = 30.0
    rig.feed()
    spike, told = rig.spikes[-1].spike, rig.spikes[-1].explanation
    assert spike.ended_boottime_seconds == last_seen
    assert spike.ended_usec == round((1_700_000_000 + last_seen) * 1e6)
    assert told.for_seconds == last_seen - began
    assert told.cause is Cause.WORKLOAD
    assert told.sentence.startswith("GPU 0 (RTX 3070): ")
    assert "because ollama.service" in told.sentence


def test_a_stop_before_the_first_reading_after_a_reboot_still_closes_the_spike_later() -> None:
    rig = in_mid_spike().restart(boot_id="other").restart(boot_id="other")
    rig.now = 30.0
    rig.run(60, fan=0)
    assert rig.kinds == ["started", "ended"]


def test_programs_that_cannot_be_seen_just_after_a_restart_are_not_said_to_have_ended() -> None:
    rig = in_mid_spike().restart().run(4, LOAD, fan=57, watts=200, visible=False)
    assert rig.answer.suspects[0].alive
    rig.run(4, LOAD, fan=57, watts=200)
    assert rig.answer.suspects[0].alive
    assert rig.answer.suspects[0].pids == (4242,)


def test_a_card_that_was_pulled_out_while_the_daemon_was_stopped_has_its_spike_ended() -> None:
    rig = in_mid_spike().restart()
    rig.now += 60
    for _ in range(20):
        rig.now += 2
        rig.feed(readings=())
    assert rig.kinds == ["started", "ended"]
    assert rig.spikes[-1].spike.ended_by == "removed"
    assert [event.gpu.id for event in rig.of(EventKind.GPU_REMOVED)] == [rig.gpu.id]


def test_a_card_whose_backend_has_not_looked_yet_keeps_its_spike() -> None:
    rig = in_mid_spike().restart()
    waiting = (BackendHealth(name="test", state=BackendState.WAITING),)
    for _ in range(40):
        rig.now += 2
        rig.feed(readings=(), backends=waiting)
    rig.run(20, LOAD, fan=57, watts=200, celsius=75)
    assert rig.kinds == ["started"]
