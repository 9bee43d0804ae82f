"""`gpuwhyd record`: a file that replay takes, from the moment it is there, and never over another one."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuwhyd.cli import main
from gpuwhyd.recording.reader import snapshots

RECORD = (sys.executable, "-m", "gpuwhyd", "--simulate", "demo", "record")
ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def recorder(*arguments: str, **options: object) -> Iterator[subprocess.Popen[str]]:
    command = (*RECORD, *arguments)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, **options) as process:  # type: ignore[call-overload]
        yield process
        process.kill()


def wait_for_lines(path: Path, number: int) -> None:
    deadline = time.monotonic() + 30
    while not path.exists() or path.read_text().count("\n") < number:
        assert time.monotonic() < deadline, "no lines are written"
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_is_recorded_until_it_is_stopped_can_be_replayed(tmp_path: Path, number: int) -> None:
    path = tmp_path / "card.jsonl"
    with recorder(str(path)) as process:
        wait_for_lines(path, 4)
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
        assert (process.returncode, "Traceback" in errors) == (0, False)
    row = list(snapshots(path.read_text().splitlines(keepends=True), "r"))
    assert len(row) >= 3
    assert row[0].readings[0].gpu.vendor == "simulated"
    assert main(["replay", str(path)]) == 0


def test_it_says_what_it_records_where_to_and_how_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "card.jsonl"
    with recorder(str(path)) as process:
        wait_for_lines(path, 3)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    [line] = [line for line in errors.splitlines() if "recording" in line]
    assert str(path) in line
    assert "RTX" in line
    assert "Ctrl-C ends it" in line


def test_anonymous(tmp_path: Path) -> None:
    path = tmp_path / "card.jsonl"
    with recorder("--anonymous", str(path)) as process:
        wait_for_lines(path, 8)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=20)
    assert json.loads(path.read_text().splitlines()[0])["anonymous"] is True
    assert "ollama" not in path.read_text()


def test_a_file_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "card.jsonl"
    path.write_text("mine")
    done = subprocess.run([*RECORD, str(path)], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, path.read_text()) == (2, "mine")
    [line] = done.stderr.splitlines()
    assert line.endswith(f"{path}: is there already; name another file, or remove it")


def test_a_reader_of_standard_output_may_leave() -> None:
    command = " ".join(RECORD) + " - | head -n 2; echo ${PIPESTATUS[0]}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, check=True, env=os.environ
    )
    header, _, status = done.stdout.splitlines()
    assert json.loads(header)["gpuwhyd_recording"] == 1
    assert (status, "Traceback" in done.stderr, "rror" in done.stderr) == ("0", False, False)
