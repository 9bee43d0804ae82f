"""What holds whatever the cards and programs do: shares, alternation, no event without data, any gaps and holes."""

import json
import math

from hypothesis import given, settings
from hypothesis import strategies as st

from gpuwhyd.engine.engine import Engine
from gpuwhyd.engine.phases import Change, Phase, after
from gpuwhyd.engine.settings import EngineSettings
from gpuwhyd.model import BackendHealth, BackendState, FanMode, GpuState, SpikeEvent, as_plain
from tests.engine.rig import Rig, unit

PROGRAMS = [unit(f"p{number}.service", 100 + number) for number in range(6)]


def maybe(values: st.SearchStrategy[float]) -> st.SearchStrategy[float | None]:
    return st.none() | values


TICKS = st.lists(
    st.fixed_dictionaries(
        {
            "step": st.sampled_from([0.0, 0.5, 1.0, 2.0, 2.0, 2.0, 10.0, 31.0, 4000.0]),
            "fan": maybe(st.sampled_from([0.0, 5.0, 23.0, 27.0, 30.0, 41.0, 57.0, 100.0, 130.0])),
            "rpm": maybe(st.sampled_from([0.0, 29.0, 345.0, 850.0, 1100.0, 2400.0])),
            "watts": maybe(st.floats(0, 600)),
            "celsius": maybe(st.floats(20, 110)),
            "busy": maybe(st.floats(0, 100)),
            "mode": st.sampled_from(list(FanMode)),
            "state": st.sampled_from([GpuState.AWAKE] * 8 + list(GpuState)),
            "resumed": st.booleans(),
            "kind": st.sampled_from(["compute", "graphics", "holder"]),
            "can_suspend": st.sampled_from([None, True, False]),
            "performance_state": st.sampled_from([None, 0, 8]),
            "visible": st.sampled_from([True, True, True, False]),
            "programs": st.dictionaries(st.sampled_from(PROGRAMS), maybe(st.floats(0, 100)), max_size=4),
            "ended": st.lists(st.sampled_from(PROGRAMS), max_size=2, unique=True).map(tuple),
            "present": st.sampled_from([True] * 9 + [False]),
            "restart": st.sampled_from(["no"] * 12 + ["same", "boot"]),
        }
    ),
    max_size=60,
)


def replay(ticks: list[dict[str, object]]) -> list[tuple[Rig, dict[str, object], list[object]]]:
    """Every tick with the rig as it was after it, and the events it gave."""
    rig = Rig(engine=Engine(EngineSettings(), boot_id="boot"))
    rows, boots = [], 0
    for tick in ticks:
        row = dict(tick)
        restart, present = row.pop("restart"), row.pop("present")
        if restart != "no":
            boots += restart == "boot"
            rig.restart(boot_id=f"boot{boots}", settings=EngineSettings())
        before = len(rig.events)
        if present:
            rig.tick(**row)  # type: ignore[arg-type]
        else:
            rig.now += row["step"]  # type: ignore[operator]
            state = BackendState.READY if row["visible"] else BackendState.FAILING
            rig.feed(backends=(BackendHealth(name="test", state=state),))
        rows.append((rig, row | {"present": present, "restart": restart}, list(rig.events[before:])))
        check_answers(rig)
    return rows


def check_answers(rig: Rig) -> None:
    assert rig.report is not None
    for explanation in rig.report.explanations.values():
        shares = [suspect.share for suspect in explanation.suspects]
        assert all(0 <= share <= 1 for share in shares)
        assert sum(shares) + explanation.unattributed_share <= 1 + 1e-3
        assert sum(shares) <= 1
        assert 0 <= explanation.confidence <= 1
        assert explanation.sentence
        assert "\n" not in explanation.sentence
        assert "None" not in explanation.sentence
        assert "nan" not in explanation.sentence
    plain = json.dumps(as_plain(rig.report.explanations), allow_nan=False)
    assert plain


@given(TICKS)
@settings(max_examples=300)
def test_started_and_ended_alternate_per_spike_and_ids_are_unique(ticks: list[dict[str, object]]) -> None:
    replay_rows = replay(ticks)
    open_id, seen = None, set()
    for _, _, events in replay_rows:
        for event in events:
            if not isinstance(event, SpikeEvent):
                continue
            if event.kind.value == "spike-started":
                assert open_id is None
                assert event.spike.ended_usec is None
                open_id = event.spike.spike_id
            else:
                assert event.spike.spike_id == open_id
            if event.kind.value == "spike-ended":
                assert event.spike.ended_usec is not None
                assert event.spike.ended_usec >= event.spike.began_usec
                assert open_id not in seen
                seen.add(open_id)
                open_id = None


@given(TICKS)
@settings(max_examples=150)
def test_no_spike_opens_without_data(ticks: list[dict[str, object]]) -> None:
    for _, tick, events in replay(ticks):
        if any(isinstance(event, SpikeEvent) and event.kind.value == "spike-started" for event in events):
            assert tick["present"]
            assert tick["state"] is GpuState.AWAKE
            assert tick["mode"] is not FanMode.NONE
            assert tick["fan"] is not None or tick["rpm"] is not None


@given(TICKS)
@settings(max_examples=100)
def test_the_same_snapshots_give_the_same_events_and_state(ticks: list[dict[str, object]]) -> None:
    first, second = replay(ticks), replay(ticks)
    assert [events for _, _, events in first] == [events for _, _, events in second]
    if first:
        assert first[-1][0].engine.saved() == second[-1][0].engine.saved()


@given(TICKS)
@settings(max_examples=100)
def test_whatever_was_saved_can_be_restored(ticks: list[dict[str, object]]) -> None:
    rows = replay(ticks)
    if rows:
        saved = json.loads(json.dumps(rows[-1][0].engine.saved(), allow_nan=False))
        boot_id = saved["boot_id"]
        assert Engine(EngineSettings(), saved, boot_id=boot_id).saved() == saved


@given(st.lists(st.sampled_from(list(Change))))
def test_phases_know_every_change_in_every_phase(changes: list[Change]) -> None:
    phase = Phase.QUIET
    for change in changes:
        phase = after(phase, change)
        assert phase in Phase


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=20,
    )
)
def test_a_foreign_state_is_refused_or_taken_never_anything_else(state: object) -> None:
    try:
        Engine(EngineSettings(), {"boot_id": "b", "cards": {"x": state}}, boot_id="b")
    except (TypeError, ValueError, KeyError):
        return


def test_memory_stays_bounded_with_thousands_of_short_lived_programs() -> None:
    rig = Rig().run(60, fan=0)
    for number in range(3000):
        process = unit(f"job{number}.service", 10_000 + number)
        rig.tick({process: 90.0}, fan=50, watts=200, ended=(process,))
    saved = rig.engine.saved()["cards"][rig.gpu.id]  # type: ignore[index]
    assert len(saved["ledger"]["accounts"]) <= 256
    assert math.isfinite(sum(a["fast_watts"] for a in saved["ledger"]["accounts"]))
