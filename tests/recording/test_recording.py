"""What is recorded comes back as it was; a recording of others is taken by meaning; a wrong one is told by its line."""

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from gpuwhyd.errors import RecordingError
from gpuwhyd.model import FanMode, GpuReading, GpuUse, Snapshot
from gpuwhyd.recording.reader import snapshots
from gpuwhyd.recording.writer import RecordingWriter
from tests.engine.rig import unit
from tests.recording.rows import AFTER, ALICE, CARD, FULL, SECRETS, WORK, story

DOCUMENT = Path(__file__).parents[2] / "docs/recording.md"
HEADER = '{"gpuwhyd_recording": 1}\n'
GPU_LINE = {"gpus": [{"id": "a", "name": "Card", "vendor": "amd"}]}


def lines(*row: Snapshot, anonymous: bool = False) -> list[str]:
    writer = RecordingWriter(anonymous=anonymous)
    return [writer.header(row[0].wall_usec), *(writer.line(snapshot) for snapshot in row)]


def read(*tables: object) -> list[Snapshot]:
    return list(snapshots([HEADER, *(json.dumps(table) + "\n" for table in tables)], "r.jsonl"))


def mistake(*texts: str) -> str:
    with pytest.raises(RecordingError) as raised:
        list(snapshots(texts, "r.jsonl"))
    return str(raised.value)


def test_every_field_comes_back_as_it_was() -> None:
    for field in fields(GpuReading):
        assert getattr(FULL.readings[0], field.name) is not None, f"{field.name}: the test must set it"
    assert list(snapshots(lines(FULL, AFTER), "r")) == [FULL, AFTER]


def test_a_whole_story_comes_back_as_it_was() -> None:
    _, row = story()
    assert list(snapshots(lines(*row), "r")) == row


def test_bytes_that_are_no_text_come_back_out_of_a_file_as_they_were(tmp_path: Path) -> None:
    strange = replace(
        ALICE, executable="/opt/caf\udce9/grün", command_line=("play", "caf\udce9.mp4", "\udcff")
    )
    row = [replace(FULL, uses=(GpuUse(gpu_id=CARD.id, process=strange, use=WORK),), host=None, host_uses=())]
    path = tmp_path / "r.jsonl"
    path.write_text("".join(lines(*row)), encoding="utf-8")
    assert path.read_bytes().isascii()
    with path.open(encoding="utf-8") as file:
        assert list(snapshots(file, "r")) == row


def test_who_somebody_is_stands_in_the_file_once() -> None:
    _, first, second = lines(FULL, replace(FULL, boottime_seconds=502.25))
    assert "hunter2" in first
    assert "hunter2" not in second
    assert CARD.name in first
    assert CARD.name not in second


def test_a_pid_that_is_given_to_another_process_is_another_process() -> None:
    other = unit("other.service", 77, start=900)
    row = [
        FULL,
        replace(FULL, uses=(GpuUse(gpu_id=CARD.id, process=other, use=WORK),), host=None, host_uses=()),
    ]
    assert list(snapshots(lines(*row), "r")) == row


def test_a_process_that_can_not_be_identified_any_more_is_not_taken_for_the_old_one() -> None:
    row = [FULL, replace(FULL, uses=(), host=None, host_uses=())]
    assert list(snapshots(lines(*row), "r")) == row


def test_who_uses_a_card_is_read_anew_when_cards_or_processes_change() -> None:
    """What a line has in common with the one before is made once; what it has not must not be taken from there."""
    use = {"pid": 5, "kind": "compute", "engine_percent": 40}
    who = {"pid": 5, "start_ticks": 1, "name": "a", "program": {"kind": "unit", "key": "unit:a", "name": "a"}}
    other = who | {"start_ticks": 2, "name": "b", "program": {"kind": "unit", "key": "unit:b", "name": "b"}}
    gpus = [{"id": name, "name": name, "vendor": "nvidia"} for name in ("one", "two")]

    def of(*names: str, **more: object) -> dict[str, object]:
        readings = [{"gpu": name, "processes": [use]} for name in names]
        return {"readings": readings} | more

    row = (
        of("one", "two", gpus=gpus, processes=[who]),
        of("one", "two"),
        of("two", "one"),
        of("two"),
        of("one"),
        of("two", "one", processes=[other]),
        of("two", "one", exits=[{"pid": 5, "boottime_seconds": 4.5}]),
        of("two", "one"),
    )
    found = read(*({"boottime_seconds": float(at)} | item for at, item in enumerate(row)))
    assert [[(told.gpu_id, told.process.name) for told in snapshot.uses] for snapshot in found] == [
        [("one", "a"), ("two", "a")],
        [("one", "a"), ("two", "a")],
        [("two", "a"), ("one", "a")],
        [("two", "a")],
        [("one", "a")],
        [("two", "b"), ("one", "b")],
        [("two", "b"), ("one", "b")],
        [],
    ]


def test_a_card_that_is_introduced_anew_is_another_one_though_it_says_the_same() -> None:
    gpu = {"id": "one", "name": "GeForce", "vendor": "nvidia"}
    readings = [{"gpu": "one", "power_watts": 12.5}]
    first = {"boottime_seconds": 1.0, "gpus": [gpu], "readings": readings}
    again = {"boottime_seconds": 2.0, "readings": readings}
    other = {"boottime_seconds": 3.0, "gpus": [gpu | {"name": "Quadro"}], "readings": readings}
    names = [snapshot.readings[0].gpu.name for snapshot in read(first, again, other)]
    assert names == ["GeForce", "GeForce", "Quadro"]


def test_an_anonymous_recording_names_nobody_and_leads_to_the_same_cause() -> None:
    text = "".join(lines(FULL, AFTER, anonymous=True)).lower()
    assert not [secret for secret in SECRETS if secret in text]
    back, _ = snapshots(lines(FULL, AFTER, anonymous=True), "r")
    assert back.readings[0] == replace(FULL.readings[0], gpu=replace(CARD, uuid=None))
    [use] = back.uses
    assert (use.process.pid, use.process.program.kind) == (ALICE.pid, ALICE.program.kind)


def test_what_others_write_may_be_short() -> None:
    [first, second] = read(
        {
            "boottime_seconds": 10,
            **GPU_LINE,
            "readings": [{"gpu": "a", "fans": [{"index": 0, "percent": 30}]}],
        },
        {"boottime_seconds": 12.5, "readings": [{"gpu": "a", "fan_mode": "none", "power_watts": 12}]},
    )
    assert first.readings[0].fan_percent == 30
    assert first.readings[0].processes is None
    assert first.backends[0].name == first.readings[0].backend == "recording"
    assert second.wall_usec - first.wall_usec == 2_500_000
    assert second.readings[0].fan_mode is FanMode.NONE


@pytest.mark.parametrize(
    ("reading", "complaint"),
    [
        ({"gpu": "b"}, "readings: gpu: 'b' was not introduced in `gpus`, here or in a line above"),
        ({"gpu": "a", "power_watts": "30 W"}, "readings: power_watts: must be a number, not '30 W'"),
        ({"gpu": "a", "power_watts": 1e300}, "readings: power_watts: must be a number, not 1e+300"),
        ({"gpu": "a", "fans": {}}, "readings: fans: must be an array, not a table"),
        ({"gpu": "a", "fans": [{}]}, "readings: fans: index is missing"),
        (
            {"gpu": "a", "processes": [{"pid": 1.5}]},
            "readings: processes: pid: must be a whole number, not 1.5",
        ),
        ({"gpu": "a", "processes": [[]]}, "readings: processes: must be a table, not an array"),
        (
            {"gpu": "a", "state": "dead"},
            "readings: state: must be one of awake, asleep, lost, unknown, not 'dead'",
        ),
    ],
)
def test_a_wrong_reading_is_told_by_line_and_field(reading: object, complaint: str) -> None:
    line = json.dumps({"boottime_seconds": 1, **GPU_LINE, "readings": [reading]})
    assert mistake(HEADER, line + "\n") == f"r.jsonl: line 2: {complaint}"


@pytest.mark.parametrize(
    ("texts", "complaint"),
    [
        ([], 'r.jsonl: is empty; a recording begins with a line {"gpuwhyd_recording": 1}'),
        (["[]\n"], 'r.jsonl: line 1: not a recording: it must begin with a line {"gpuwhyd_recording": 1}'),
        (
            ['{"gpuwhyd_recording": 9}\n'],
            "r.jsonl: line 1: format 9 is not known, only 1; a newer gpuwhyd may read it",
        ),
        ([HEADER, "{}\n"], "r.jsonl: line 2: boottime_seconds is missing"),
        (
            [HEADER, '{"boottime_seconds": NaN}\n'],
            "r.jsonl: line 2: not JSON: NaN is no JSON number; leave out what is not known",
        ),
        (
            [HEADER, '{"boottime_seconds": 5}\n', '{"boottime_seconds": 4}\n'],
            "r.jsonl: line 3: boottime_seconds: must not run back: 4 comes after 5",
        ),
        (
            [HEADER, '{"boottime_seconds": 5, "exits": [{"pid": 4, "boottime_seconds": 5}]}\n'],
            "r.jsonl: line 2: exits: pid 4 was not introduced in `processes`, or has ended before",
        ),
    ],
)
def test_a_wrong_file_is_told_by_line(texts: list[str], complaint: str) -> None:
    assert mistake(*texts) == complaint


def test_a_recorder_that_was_killed_leaves_a_good_recording() -> None:
    whole = lines(FULL, AFTER)
    assert list(snapshots([*whole[:2], whole[2][:40]], "r")) == [FULL]
    assert "not JSON" in mistake(*whole[:2], whole[2][:40] + "\n", whole[2])


def test_the_document_tells_every_field() -> None:
    """docs/recording.md is for those who write such files."""
    document = DOCUMENT.read_text()
    told = {name for table in _fields(json.loads(lines(FULL)[1])) for name in table}
    missing = {name for name in told | {"exits", "nameless"} if f"`{name}`" not in document}
    assert not missing


def _fields(value: object) -> list[dict[str, object]]:
    if isinstance(value, dict):
        return [value, *(table for item in value.values() for table in _fields(item))]
    if isinstance(value, list):
        return [table for item in value for table in _fields(item)]
    return []
