"""The project keeps its own rules: layers, style, types, sizes, and what an installed package holds."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import gpuwhyd

ROOT = Path(__file__).parents[1]
TOOLS = Path(sys.executable).parent
MOST_LINES = 400
SCRIPTS = (
    *sorted(path for path in (ROOT / "script").iterdir() if path.is_file() and not path.suffix),
    ROOT / ".ci/run",
)


def passes(*command: str | Path) -> None:
    done = subprocess.run(
        [str(part) for part in command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command[0]}:\n{done.stdout}{done.stderr}"


def test_imports_go_one_way() -> None:
    passes(TOOLS / "lint-imports", "--no-cache")


def test_ruff_finds_nothing() -> None:
    passes(TOOLS / "ruff", "check", "--no-cache", ".")


def test_the_code_is_formatted() -> None:
    passes(TOOLS / "ruff", "format", "--no-cache", "--check", ".")


def test_the_types_hold() -> None:
    passes(TOOLS / "mypy")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_sound(script: Path) -> None:
    assert script.stat().st_mode & 0o111, f"{script} must be executable"
    first_line = script.read_text().splitlines()[0]
    if "python" in first_line:
        return  # ruff looks at those
    assert "set -euo pipefail" in script.read_text()
    passes("bash", "-n", script)
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    passes("shellcheck", "--external-sources", script)


@pytest.mark.parametrize("script", SCRIPTS[:-1], ids=lambda path: path.name)
def test_help_is_the_scripts_heading_and_sets_nothing_up(script: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "GPUWHYD_VENV": str(tmp_path / "venv"), "PYTHON": "/bin/false"}
    done = subprocess.run(
        [script, "--help"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    heading = list(script.read_text().partition("\nset -")[0].splitlines()[1:])
    assert done.stdout.splitlines() == [line.removeprefix("#").removeprefix(" ") for line in heading]
    assert (done.returncode, done.stderr, list(tmp_path.iterdir())) == (0, "", [])


def test_modules_stay_small() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in (ROOT / "gpuwhyd").rglob("*.py")}
    too_long = {str(path.relative_to(ROOT)): lines for path, lines in lengths.items() if lines > MOST_LINES}
    assert not too_long, f"at most {MOST_LINES} lines; split: {too_long}"


def test_the_version_is_the_same_everywhere() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == gpuwhyd.__version__
    assert f"## [{gpuwhyd.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_a_wheel_holds_the_files_that_the_daemon_needs(tmp_path: Path) -> None:
    passes(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", tmp_path)
    (wheel,) = tmp_path.glob("gpuwhyd-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
        commands = archive.read(entry_points).decode()
    assert "gpuwhyd = gpuwhyd.cli:main" in commands
    assert "gpuwhy = gpuwhyd.client.cli:main" in commands
    assert "gpuwhyd/py.typed" in names
    for folder in ("systemd", "dbus", "config", "man"):
        shipped = [path for path in (ROOT / folder).rglob("*") if path.is_file() and path.name != ".keep"]
        assert shipped, folder
        assert {f"gpuwhyd/data/{path.relative_to(ROOT)}" for path in shipped} <= names
    assert not [name for name in names if name.startswith("tests/")]
