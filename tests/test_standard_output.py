"""Output that cannot be written is one line and status 2, never a traceback: 1 would mean that a fan is up."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.recording.rows import a_recording

BIN = Path(sys.executable).parent
COMMANDS = (
    "gpuwhyd --check-config",
    "gpuwhyd check --root {folder}",
    "gpuwhyd replay {recording}",
    "gpuwhy --bus unix:path={folder}/bus report",
)
FULL, CLOSED = ">/dev/full", ">&-"


@pytest.mark.parametrize("redirection", [FULL, CLOSED])
@pytest.mark.parametrize("command", COMMANDS)
def test_output_that_cannot_be_written_is_one_line_and_an_error(
    tmp_path: Path, command: str, redirection: str
) -> None:
    done = run(tmp_path, command, redirection)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith(f"{command.split(maxsplit=1)[0]}: standard output ")
    assert ("No space left on device" in line) == (redirection == FULL)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_reader_that_has_gone_away_is_no_fault(tmp_path: Path, command: str) -> None:
    done = run(tmp_path, command, "| true; exit ${PIPESTATUS[0]}")
    assert done.stderr == ""
    assert done.returncode == (1 if "check --root" in command else 0)


def run(folder: Path, command: str, after: str) -> subprocess.CompletedProcess[str]:
    recording = folder / "card.jsonl"
    recording.write_text(a_recording())
    words = command.format(folder=shlex.quote(str(folder)), recording=shlex.quote(str(recording)))
    return subprocess.run(
        ["bash", "-c", f"{BIN}/{words} {after}"], stderr=subprocess.PIPE, text=True, check=False
    )
