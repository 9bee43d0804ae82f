"""A fault in the engine: with snapshots and rules that no reader and no configuration would let through."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gpuwhyd.engine.engine import Engine
from gpuwhyd.engine.settings import EngineSettings, Rule
from gpuwhyd.guarded_engine import TRIES, GuardedEngine
from gpuwhyd.model import EventKind, Report
from gpuwhyd.outputs.state import StateStore
from tests.engine.rig import QUIET_ENGINE, Rig, second_gpu, unit

FAULTY = EngineSettings(rules=(Rule(name="x", metric="no_such_metric", above=1.0),))
LOAD = {unit("game.service", 5): 95.0}


class Here(Rig):
    """A rig whose engine is guarded, and keeps its state in a file."""

    def __init__(
        self, path: Path, settings: EngineSettings = QUIET_ENGINE, *, faulty_state: bool = False
    ) -> None:
        super().__init__()
        self.path = path
        self.settings = settings
        self.faulty_state = faulty_state
        self.store = StateStore(path)
        self.guarded = GuardedEngine(self.build, self.store, self.store.load().get("engine"))
        self.engine = self.guarded

    def build(self, saved: object) -> Engine:
        settings = FAULTY if self.faulty_state and saved is not None else self.settings
        return Engine(settings, saved, boot_id="boot")

    def feed_broken(self) -> Report:
        """Two cards of which the engine has dealt with the first when the second one upsets it."""
        self.now += self.step
        good = self.reading(fan=57, watts=210, busy=95)
        broken = replace(self.reading(), gpu=second_gpu(self), fans=(None,))
        return self.feed(readings=(good, broken))

    @property
    def state(self) -> object:
        """As it is in the file."""
        assert self.store.save()
        return json.loads(self.path.read_bytes())["sections"]["engine"]


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path / "state.json")


def test_a_snapshot_that_upsets_the_engine_is_left_out_and_the_next_one_is_answered(here: Here) -> None:
    here.run(120, fan=30)
    before = here.state
    report = here.feed_broken()
    assert (report.events, report.explanations) == ((), {})
    assert report.snapshot.readings[0].fan_percent == 57
    assert "fault" in report.headline
    assert here.guarded.fault is not None
    assert here.state == before
    here.run(10, LOAD, fan=57, watts=210)
    assert here.guarded.fault is None
    assert here.kinds == ["started"]
    assert here.spikes[0].spike.rest_percent == 30
    assert here.state != before


def test_nothing_is_told_twice_after_a_fault(here: Here) -> None:
    here.run(120, fan=30).run(10, LOAD, fan=57, watts=210)
    assert here.state
    here.feed_broken()
    here.run(10, LOAD, fan=57, watts=210)
    assert here.kinds == ["started"]
    assert len(here.of(EventKind.GPU_ADDED)) == 1


def test_a_fault_with_each_sample_is_told_once_and_keeps_the_state(
    here: Here, caplog: pytest.LogCaptureFixture
) -> None:
    here.run(120, fan=30)
    before = here.state
    for _ in range(3 * TRIES):
        here.feed_broken()
    assert here.state == before
    [line] = caplog.records
    assert line.exc_info is not None
    assert "please report" in line.getMessage()
    assert "AttributeError" in (here.guarded.fault or "")


def test_a_state_that_upsets_the_engine_with_each_sample_is_given_up_after_some(here: Here) -> None:
    here.run(120, fan=30)
    before = here.state
    again = Here(here.path, faulty_state=True)
    again.now = here.now
    for _ in range(TRIES):
        assert again.tick(fan=30).explanations == {}
        assert again.state == before
    again.tick(fan=30)
    assert again.guarded.fault is None
    assert again.state != before


def test_a_state_of_before_a_fault_is_not_lost_to_a_daemon_that_ends(here: Here) -> None:
    here.run(120, fan=30)
    before = here.state
    again = Here(here.path, FAULTY)
    again.now = here.now
    again.tick(fan=30)
    assert again.state == before


def test_without_a_state_file_it_begins_anew(tmp_path: Path) -> None:
    here = Here(tmp_path / "state.json")
    here.store = StateStore(None)
    guarded = GuardedEngine(here.build, here.store, None)
    here.engine = guarded
    here.run(10, fan=30)
    here.feed_broken()
    here.run(10, fan=30)
    assert guarded.fault is None
    assert here.answer.fan_percent == 30
