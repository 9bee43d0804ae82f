"""Cards that are removed, come back, or give way to another one: told once, nothing left open, nothing grows."""

import gc
from dataclasses import replace
from types import FrameType

import pytest

from gpuwhyd.engine.engine import MOST_REMEMBERED_CARDS, REMOVED_SECONDS, Engine
from gpuwhyd.engine.settings import EngineSettings, Rule
from gpuwhyd.model import AlertEvent, BackendHealth, BackendState, EventKind, GpuEvent, GpuState, Report
from tests.engine.rig import GPU, Rig, second_gpu, unit

LOAD = {unit("ollama.service", 4242): 95.0}
READY = BackendHealth(name="test", state=BackendState.READY)
NO_CARD = BackendHealth(name="test", state=BackendState.WAITING, message="no card", has_no_card=True)
NO_DRIVER = BackendHealth(name="test", state=BackendState.WAITING, message="no driver")
FAILING = BackendHealth(name="test", state=BackendState.FAILING)
ASLEEP = BackendHealth(name="test", state=BackendState.ASLEEP)
HOT = Rule(name="hot", metric="temperature_celsius", above=80.0, clear=70.0, for_seconds=10.0)


def without_the_card(rig: Rig, seconds: float, health: BackendHealth, **snapshot: object) -> Rig:
    for _ in range(round(seconds / rig.step)):
        rig.now += rig.step
        rig.feed(backends=(health,), **snapshot)
    return rig


def told(rig: Rig) -> list[str]:
    return [event.kind.value for event in rig.events if isinstance(event, GpuEvent | AlertEvent)]


def shown(report: Report | None) -> list[tuple[str, GpuState]]:
    assert report is not None
    return [(reading.gpu.id, reading.state) for reading in report.snapshot.readings]


@pytest.mark.parametrize("health", [READY, NO_CARD, ASLEEP])
def test_a_card_is_removed_after_half_a_minute_when_its_backend_has_looked(health: BackendHealth) -> None:
    """Also when it was the only one, and when those that are left sleep."""
    rig = without_the_card(Rig().run(10), REMOVED_SECONDS, health)
    assert told(rig) == ["gpu-added"]
    assert shown(rig.report) == [(GPU.id, GpuState.UNKNOWN)]
    without_the_card(rig, 4, health)
    assert told(rig) == ["gpu-added", "gpu-removed"]
    assert shown(rig.report) == []
    without_the_card(rig, 120, health)
    assert told(rig) == ["gpu-added", "gpu-removed"]


@pytest.mark.parametrize("health", [NO_DRIVER, FAILING])
def test_a_card_whose_backend_cannot_tell_is_never_removed(health: BackendHealth) -> None:
    rig = without_the_card(Rig().run(10), 3600, health)
    assert told(rig) == ["gpu-added"]
    assert shown(rig.report) == [(GPU.id, GpuState.UNKNOWN)]


def test_the_half_minute_begins_when_the_backend_looks() -> None:
    rig = without_the_card(Rig().run(10), 60, FAILING)
    without_the_card(rig, REMOVED_SECONDS - 4, NO_CARD)
    assert told(rig) == ["gpu-added"]


@pytest.mark.parametrize("health", [NO_CARD, READY])
def test_the_reload_of_a_driver_removes_and_adds_nothing(health: BackendHealth) -> None:
    rig = Rig().run(60).run(60, LOAD, fan=57, watts=200)
    spike_id = rig.answer.spike_id
    for _ in range(3):
        without_the_card(rig, 20, health).run(20, LOAD, fan=57, watts=200)
    assert told(rig) == ["gpu-added"]
    assert rig.kinds == ["started"]
    assert rig.answer.spike_id == spike_id


def watching_hot() -> Rig:
    rig = Rig(engine=Engine(EngineSettings(rules=(HOT,)), boot_id="boot"))
    return rig.run(40, celsius=85)


def test_the_alert_of_a_removed_card_is_cleared_once_and_before_the_removal() -> None:
    rig = without_the_card(watching_hot(), 120, NO_CARD)
    assert told(rig) == ["gpu-added", "alert-raised", "alert-cleared", "gpu-removed"]
    cleared = next(event for event in rig.events if event.kind is EventKind.ALERT_CLEARED)
    assert isinstance(cleared, AlertEvent)
    assert (cleared.rule, cleared.value, cleared.threshold) == ("hot", 85.0, 80.0)
    assert cleared.for_seconds == pytest.approx(38), "until it was last seen"
    assert cleared.sentence == "GPU 0 (RTX 3070): hot is over: the card has gone."


def test_the_alert_of_a_removed_card_is_explained_by_the_spike_that_was_open() -> None:
    """The spike ends with the removal as well, but what the alert tells is from before that."""
    rig = Rig(engine=Engine(EngineSettings(rules=(HOT,)), boot_id="boot")).run(60)
    rig.run(60, LOAD, fan=57, watts=200, celsius=85)
    without_the_card(rig, 120, NO_CARD)
    cleared = next(event for event in rig.events if event.kind is EventKind.ALERT_CLEARED)
    assert isinstance(cleared, AlertEvent)
    assert cleared.explanation.for_seconds is not None
    assert "last_spike_seconds_ago" not in {item.quantity for item in cleared.explanation.evidence}


def test_a_card_that_comes_back_hot_is_told_hot_again() -> None:
    rig = without_the_card(watching_hot(), 120, NO_CARD)
    rig.run(120, celsius=85)
    assert told(rig)[-2:] == ["gpu-added", "alert-raised"]


def test_the_alert_of_a_removed_card_is_cleared_also_after_a_restart_with_what_was_read_before() -> None:
    rig = watching_hot().restart(settings=EngineSettings(rules=(HOT,)))
    rig.tick(state=GpuState.ASLEEP)
    without_the_card(rig, 60, NO_CARD)
    assert told(rig)[-2:] == ["alert-cleared", "gpu-removed"]
    assert [event.value for event in rig.events if isinstance(event, AlertEvent)] == [85.0, 85.0]


@pytest.mark.parametrize("change", [{"uuid": "GPU-b"}, {"pci_id": "10de:2231"}])
@pytest.mark.parametrize("away_seconds", [0, 120])
def test_another_card_at_the_same_address_begins_with_nothing(
    change: dict[str, str], away_seconds: float
) -> None:
    rig = Rig(gpu=replace(GPU, uuid="GPU-a", pci_id="10de:2484")).run(120, fan=40)
    assert rig.report is not None
    without_the_card(rig, away_seconds, NO_CARD)
    rig.gpu = replace(rig.gpu, **change)
    rig.run(4, fan=0)
    assert told(rig) == ["gpu-added", "gpu-removed", "gpu-added"]
    rest = next((e.value for e in rig.answer.evidence if e.quantity == "fan_rest_percent"), None)
    assert rest in {None, 0.0}, "40 % was the rest of the other card"


def test_another_card_ends_the_spike_and_the_alert_of_the_one_before() -> None:
    rig = Rig(gpu=replace(GPU, uuid="GPU-a"), engine=Engine(EngineSettings(rules=(HOT,)), boot_id="boot"))
    rig.run(60).run(60, LOAD, fan=57, watts=200, celsius=85)
    rig.gpu = replace(rig.gpu, uuid="GPU-b")
    rig.tick(fan=0)
    assert told(rig) == ["gpu-added", "alert-raised", "alert-cleared", "gpu-removed", "gpu-added"]
    assert rig.kinds == ["started", "ended"]
    assert rig.spikes[-1].spike.ended_by == "removed"


@pytest.mark.parametrize(
    "change", [{"uuid": None}, {"pci_id": None}, {"name": "AMD Radeon RX 6600"}, {"driver": "nvidia 560"}]
)
def test_the_same_card_that_is_told_of_otherwise_stays_the_same(change: dict[str, str | None]) -> None:
    rig = Rig(gpu=replace(GPU, uuid="GPU-a", pci_id="10de:2484", driver="nvidia 550")).run(20)
    before, rig.gpu = rig.gpu, replace(rig.gpu, **change)  # type: ignore[arg-type]
    rig.run(20)
    rig.gpu = before
    rig.run(20)
    assert told(rig) == ["gpu-added"]


def test_another_card_after_a_restart_is_told_as_new() -> None:
    rig = Rig(gpu=replace(GPU, pci_id="10de:2484")).run(120, fan=40)
    rig.restart()
    rig.gpu = replace(rig.gpu, pci_id="10de:2231")
    rig.run(4, fan=0)
    assert told(rig) == ["gpu-added", "gpu-added"]


def test_cards_at_ever_other_addresses_do_not_fill_the_memory() -> None:
    rig = Rig()
    for number in range(3 * MOST_REMEMBERED_CARDS):
        rig.gpu = replace(GPU, id=f"pci_{number}", pci_address=f"{number:04x}:01:00.0")
        rig.tick()
        without_the_card(rig, REMOVED_SECONDS + 4, NO_CARD)
    assert len(rig.engine._dormant) == len(rig.engine._removed) == MOST_REMEMBERED_CARDS
    assert len(rig.of(EventKind.GPU_REMOVED)) == 3 * MOST_REMEMBERED_CARDS
    assert list(rig.engine.saved()["cards"])[-1] == rig.gpu.id  # type: ignore[call-overload]


def test_a_card_that_has_gone_keeps_no_snapshot() -> None:
    """Up to 32 of them are remembered, and a snapshot holds all that was read in a tick, of every card."""
    rig = without_the_card(Rig().run(10), REMOVED_SECONDS, NO_CARD)
    snapshots = []
    while told(rig) == ["gpu-added"]:
        without_the_card(rig, rig.step, NO_CARD)
        assert rig.report is not None
        snapshots.append(rig.report.snapshot)
    without_the_card(rig, rig.step, NO_CARD)
    last = snapshots.pop()
    assert not [type(holder) for holder in gc.get_referrers(last) if type(holder) is not FrameType]


def test_labels_follow_the_cards_that_are_there() -> None:
    rig = Rig()
    other = second_gpu(rig)
    first, second = rig.reading(), replace(rig.reading(), gpu=other)
    rig.feed(readings=(first, second))
    assert rig.report is not None
    assert rig.report.explanations[other.id].gpu_label.startswith("GPU 1 ")
    for _ in range(20):
        rig.now += 2
        rig.feed(readings=(second,))
    assert rig.report.explanations[other.id].gpu_label.startswith("GPU 0 ")
