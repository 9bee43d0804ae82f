"""The state file, damaged: it is taken or refused as documented, and what is taken cannot harm the daemon later."""

import json
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from gpuwhyd.engine.engine import Engine
from gpuwhyd.engine.settings import EngineSettings
from gpuwhyd.model import as_plain
from gpuwhyd.outputs.journal_entries import DETAIL_LIMIT, entry, event_id
from gpuwhyd.outputs.journal_outbox import BYTES_LIMIT, Outbox, OutboxEntry
from gpuwhyd.outputs.journal_socket import encode
from gpuwhyd.outputs.state import StateStore
from tests.engine.rig import Rig, unit
from tests.fuzz.mutation import damaged_bytes, damaged_tree, examples, nested

OLLAMA = unit("ollama.service", 100, user="ollama")


def story() -> tuple[list[dict[str, object]], list[OutboxEntry]]:
    """What the daemon saves before, in and after a spike with alerts, and the journal entries of it."""
    rig = Rig(engine=Engine(EngineSettings(), boot_id="boot"))
    states = []
    for seconds, programs, card in (
        (60, {}, {"fan": 0.0, "busy": 0.0}),
        (60, {OLLAMA: 95.0}, {"fan": 57.0, "rpm": 1500.0, "watts": 210.0, "celsius": 84.0, "busy": 98.0}),
        (20, {}, {"fan": 40.0, "watts": 20.0, "busy": 0.0}),
        (100, {}, {"fan": 0.0, "busy": 0.0}),
    ):
        rig.run(seconds, programs, **card)
        states.append(json.loads(json.dumps(rig.engine.saved())))
    entries = [
        OutboxEntry(event_id=event_id(event), kind=event.kind, fields=entry(event, object_pid=True))
        for event in rig.events
    ]
    assert len(entries) > 2
    return states, entries


STATES, ENTRIES = story()


def outbox_of(entries: list[OutboxEntry]) -> list[dict[str, object]]:
    outbox = Outbox()
    for one in entries:
        outbox.add(one)
    return outbox.collect()


FILES = [
    json.dumps({"version": 1, "sections": {"engine": state, "outbox": outbox_of(ENTRIES)}}).encode()
    for state in STATES
]


def restored(state: object, boot_id: str) -> Engine | None:
    """None: refused, in the documented way."""
    try:
        return Engine(EngineSettings(), state, boot_id=boot_id)  # type: ignore[arg-type]
    except (TypeError, ValueError, KeyError):
        return None


def lives_on(engine: Engine, boot_id: str) -> None:
    """A quiet moment, a load, an after-run: answers that make sense, entries that fit, a state that can be saved."""
    rig = Rig(engine=engine, now=5000.0)
    quiet, loud = {"fan": 0.0, "busy": 0.0}, {"fan": 60.0, "watts": 200.0, "busy": 99.0}
    for programs, card in (({}, quiet), *[({OLLAMA: 95.0}, loud)] * 3, ({}, {"fan": 20.0, "busy": 0.0})):
        report = rig.tick(programs, **card)
        json.dumps(as_plain(report.explanations), allow_nan=False)
        for explanation in report.explanations.values():
            shares = [suspect.share for suspect in explanation.suspects]
            assert all(0 <= share <= 1 for share in shares)
            assert sum(shares) + explanation.unattributed_share <= 1 + 1e-3
            assert not {"nan", "inf", "None"} & set(explanation.sentence.split())
    for event in rig.events:
        fields = entry(event, object_pid=True)
        assert len(dict(fields)["GPUWHY_DETAIL"]) <= DETAIL_LIMIT
        encode(fields)
    saved = json.loads(json.dumps(engine.saved(), allow_nan=False))
    assert Engine(EngineSettings(), saved, boot_id=boot_id).saved() == saved


@examples(900)
@given(damaged_tree(STATES, most=2), st.sampled_from(["boot", "another"]))
def test_a_damaged_engine_state_is_refused_or_harmless(state: object, boot_id: str) -> None:
    engine = restored(state, boot_id)
    if engine is not None:
        lives_on(engine, boot_id)


def test_a_value_nested_as_deep_as_json_reads_it_is_refused() -> None:
    state = json.loads(json.dumps(STATES[1]))
    for depth in (100, 500, 900):
        state["cards"]["pci_0000_01_00_0"]["gpu"] = nested(depth)
        assert restored(state, "boot") is None
        state["cards"]["pci_0000_01_00_0"]["gpu"] = {"id": nested(depth)}
        assert restored(state, "boot") is None


@examples(240)
@given(
    damaged_bytes(
        FILES, pieces=[b"[" * 5000, b"9" * 5000, b"1e999", b"NaN", b"\xff\xfe", b'"\\ud800"', b"null"]
    )
)
def test_a_damaged_file_gives_sections_or_is_moved_aside(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "state.json"
        path.write_bytes(data)
        sections = StateStore(path).load()
        assert path.exists() != path.with_name("state.json.corrupt").exists()
        assert path.exists() or sections == {}
        if not path.exists():
            assert path.with_name("state.json.corrupt").read_bytes() == data
    state = sections.get("engine")
    if isinstance(state, dict):
        engine = restored(state, "boot")
        if engine is not None:
            json.dumps(engine.saved(), allow_nan=False)
    Outbox().restore(sections.get("outbox"))


@examples(300)
@given(damaged_tree([outbox_of(ENTRIES)]))
def test_a_damaged_outbox_gives_entries_that_can_be_sent(collected: object) -> None:
    outbox = Outbox()
    unusable = outbox.restore(collected)
    taken = outbox.collect()

    assert unusable + len(taken) == (
        len(collected) if isinstance(collected, list) else int(collected is not None)
    )
    again = Outbox()
    assert again.restore(taken) == 0
    assert again.collect() == taken
    assert sum(one.size_bytes for one in _drained(outbox)) <= BYTES_LIMIT


def _drained(outbox: Outbox) -> list[OutboxEntry]:
    entries = []
    while (first := outbox.first()) is not None:
        encode(first.fields)
        assert all(name != "OBJECT_PID" for name, _ in first.fields)
        entries.append(first)
        outbox.first_is_sent()
    return entries
