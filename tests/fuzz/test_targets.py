"""That script/fuzz would find something: its targets take what they begin with, and fail where the code does."""

import subprocess
import sys
from pathlib import Path

import pytest

from gpuwhyd.processes import procfs
from tests.fuzz import targets

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", targets.TARGETS)
def test_a_target_takes_what_it_begins_with_and_parts_of_it(name: str) -> None:
    target = targets.TARGETS[name]
    for seed in target.seeds:
        target.run(seed)
        target.run(seed[: len(seed) // 2])
    target.run(b"")


def test_a_target_fails_where_the_code_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procfs, "parse_uid", lambda _raw: 0)
    with pytest.raises(AssertionError):
        targets.proc(b"Uid:\t5\t5\t5\t5\n")


def test_the_script_lists_its_targets_without_atheris() -> None:
    script = [sys.executable, "script/fuzz_target.py"]
    run = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split() == list(targets.TARGETS)
