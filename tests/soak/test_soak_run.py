"""script/soak itself, for some seconds: everything runs and is counted. What grows in so short a time is no matter."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GREW = re.compile(r"grew by|more descriptors|rose by")


@pytest.mark.root
@pytest.mark.parametrize("mode", [[], ["--real-time"]], ids=["simulated", "real time"])
def test_a_soak_runs(mode: list[str], tmp_path: Path) -> None:
    series = tmp_path / "series.csv"
    done = subprocess.run(
        [sys.executable, "-m", "script.soak_run", "--seconds", "6", "--series", str(series), *mode],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert "\nVerdict: " in done.stdout, done.stderr
    faults = [line for line in done.stdout.splitlines() if line.startswith("FAULT: ")]
    assert [fault for fault in faults if not GREW.search(fault)] == []
    assert done.returncode == (1 if faults else 0)
    last = dict(zip(*(series.read_text().splitlines()[row].split(",") for row in (0, -1)), strict=True))
    for counter in ("samples", "processes", "journal_entries", "answers", "changes", "cpu_seconds"):
        assert float(last[counter]) > 0, counter
