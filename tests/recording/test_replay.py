"""`gpuwhyd replay`: a recording leads to what the daemon said when it was made, and always to the same."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gpuwhyd.cli import main
from gpuwhyd.engine.engine import Engine
from gpuwhyd.model import SpikeEvent
from tests.engine.rig import QUIET_ENGINE
from tests.recording.rows import a_recording, story


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "card.jsonl"
    path.write_text(a_recording())
    return path


def test_it_tells_what_the_engine_told_when_it_was_recorded(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rig, row = story()
    start = row[0].boottime_seconds
    assert main(["replay", str(recording), "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    spikes = [event for event in rig.events if isinstance(event, SpikeEvent)]
    assert [(t["event"], t["t"], t["sentence"]) for t in told if "spike_id" in t] == [
        (event.kind.value, round(event.boottime_seconds - start, 3), event.explanation.sentence)
        for event in spikes
    ]
    first = next(t for t in told if t["event"] == "spike-started")
    assert first["cause"] == "workload"
    assert first["gpu"] == rig.gpu.id
    [suspect] = first["suspects"]
    assert suspect == {
        "name": "game.service",
        "unit": "game.service",
        "pids": [5],
        "share": suspect["share"],
        "alive": True,
    }
    assert told[-1]["event"] == "spike-ended"


def test_the_same_file_gives_the_same_bytes(recording: Path) -> None:
    command = [sys.executable, "-m", "gpuwhyd", "replay", str(recording), "--json"]
    outputs = {
        subprocess.run(
            command, capture_output=True, check=True, env=os.environ | {"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2", "3")
    }
    [output] = outputs
    assert output


def test_for_a_person_it_is_a_line_an_event(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(recording)]) == 0
    assert "spike-started" in (text := capsys.readouterr().out)
    assert "because game.service" in text


@pytest.mark.parametrize("form", [(), ("--json",)])
@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_a_name_that_the_output_has_no_letters_for_ends_nothing(
    recording: Path, form: tuple[str, ...], encoding: str
) -> None:
    text = recording.read_text()
    recording.write_text(text.replace("game.service", "gr\\u00fcn\\udce9.service"))
    command = [sys.executable, "-m", "gpuwhyd", "replay", str(recording), *form]
    done = subprocess.run(
        command, capture_output=True, check=False, env=os.environ | {"PYTHONIOENCODING": encoding}
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"spike-ended" in done.stdout


def test_a_recording_in_which_nothing_happens_says_so(recording: Path) -> None:
    recording.write_text("".join(recording.read_text().splitlines(keepends=True)[:4]))
    done = subprocess.run(
        [sys.executable, "-m", "gpuwhyd", "replay", str(recording)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "spike" not in done.stdout
    assert "no spike and no alert in its 3 samples" in done.stderr


def test_it_reads_standard_input_as_record_writes_standard_output(recording: Path) -> None:
    command = [sys.executable, "-m", "gpuwhyd", "replay"]
    outputs = [
        subprocess.run([*command, name], input=recording.read_bytes(), capture_output=True, check=True).stdout
        for name in (str(recording), "-")
    ]
    assert outputs[0] == outputs[1] != b""
    for text in (b"nonsense", b"\xff"):
        done = subprocess.run([*command, "-"], input=text, capture_output=True, check=False)
        assert done.returncode == 2
        assert done.stderr.startswith(b"gpuwhyd: standard input: ")


def test_a_file_that_is_none_is_one_line_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path, complaint in ((tmp_path / "none", "cannot be read"), (Path(__file__), "not JSON")):
        assert main(["replay", str(path)]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert complaint in line


def test_a_reader_that_goes_away_is_no_fault(recording: Path) -> None:
    for reader in ("true", "head -n 1"):
        command = f"{sys.executable} -m gpuwhyd replay {recording} | {reader}; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
        assert done.stderr == ""
        assert done.stdout.splitlines()[-1] == "0"


def test_who_calls_it_keeps_its_signals(recording: Path) -> None:
    """A SIGPIPE that is not ignored ends a Python process, silently, when a thread speaks to a loop that has just closed."""
    assert main(["replay", str(recording)]) == 0
    assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN


def test_it_makes_no_difference_to_events_whether_somebody_asks_at_every_moment() -> None:
    """The daemon asks for an answer at each snapshot, a replay at events only."""
    _, row = story()
    asked, not_asked = (Engine(QUIET_ENGINE, boot_id="b") for _ in range(2))
    for snapshot in row:
        assert asked.feed(snapshot).events == not_asked.follow(snapshot)
    assert asked.explanations == not_asked.explanations
