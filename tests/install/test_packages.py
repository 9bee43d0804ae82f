"""Which packages get into the private environment, however pip has put them where they are."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import invalidate_caches
from importlib.metadata import distribution
from pathlib import Path

import pytest

from gpuwhyd.errors import InstallError
from gpuwhyd.install import install

MODULE = "systemd"
FOLDER = "systemd_python-235.egg-info"


@pytest.fixture
def egg_info(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """systemd-python as pip 23.0 without `wheel` leaves it: an .egg-info folder, and no RECORD."""
    installed = Path(str(distribution("systemd-python").locate_file("")))
    shutil.copytree(installed / MODULE, tmp_path / "site" / MODULE)
    folder = tmp_path / "site" / FOLDER
    folder.mkdir()
    (folder / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: systemd-python\nVersion: 235\n")
    (folder / "top_level.txt").write_text("systemd\n")
    # What the source held, and not what was installed: importlib.metadata takes it for the list of files.
    (folder / "SOURCES.txt").write_text("Makefile\nREADME.md\nsetup.py\nsystemd/__init__.py\n")
    files = sorted(path for path in (tmp_path / "site" / MODULE).rglob("*") if path.is_file())
    lines = [f"../{path.relative_to(tmp_path / 'site')}" for path in files]
    listed = [*lines, "../../../bin/a-command", "PKG-INFO", "SOURCES.txt", "top_level.txt"]
    (folder / "installed-files.txt").write_text("\n".join(listed) + "\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    invalidate_caches()
    yield folder
    invalidate_caches()


def test_a_package_that_setuptools_installed_is_taken_along(egg_info: Path, tmp_path: Path) -> None:
    assert Path(str(distribution("systemd-python").locate_file(""))) == egg_info.parent
    install(tmp_path / "tree")
    site = (
        tmp_path
        / f"tree/opt/gpuwhyd/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    )
    names = {path.name for path in (egg_info.parent / MODULE).iterdir() if path.is_file()}
    assert names <= {path.name for path in (site / MODULE).iterdir()}
    assert not (site / "Makefile").exists()
    # The installed command must find the package and its files too, to install again.
    again = "from importlib.metadata import distribution as d; print(d('systemd-python').version)"
    done = subprocess.run(
        [tmp_path / "tree/opt/gpuwhyd/bin/python", "-I", "-c", f"import systemd.journal; {again}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "235\n"
    assert (site / FOLDER / "installed-files.txt").exists()


def test_a_package_without_any_list_of_its_files_is_told_with_the_remedy(
    egg_info: Path, tmp_path: Path
) -> None:
    (egg_info / "installed-files.txt").unlink()
    with pytest.raises(
        InstallError, match=r"pip install --use-pep517 --force-reinstall --no-deps systemd-python"
    ):
        install(tmp_path / "tree")
