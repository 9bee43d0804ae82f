"""All tests of what depends on the Python and on the D-Bus library, again with the others: in processes of their own, with warnings
as errors. Which of the two libraries is taken is decided once in a process.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import pythons

REPOSITORY = Path(__file__).parents[1]
DEPENDS_ON_THE_LIBRARY = ("tests/bus", "tests/outputs")
DEPENDS_ON_THE_PYTHON = (*DEPENDS_ON_THE_LIBRARY, "tests/engine", "tests/processes")


def run_tests(python: Path | str, library: str, *folders: str) -> None:
    run = subprocess.run(
        [str(python), "-W", "error", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *folders],
        cwd=REPOSITORY,
        env=os.environ | {"GPUWHYD_DBUS_LIBRARY": library},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]


@pytest.mark.parametrize("library", ["dbus-next", "dbus-fast"])
def test_all_that_is_sent_over_the_bus_holds_with_each_library(library):
    from gpuwhyd.bus import library as taken  # noqa: PLC0415 - what these tests run with anyway need not run again

    if not taken.description().startswith(library):
        run_tests(sys.executable, library, *DEPENDS_ON_THE_LIBRARY)


@pytest.mark.parametrize(("version", "python"), pythons.found().items())
def test_all_holds_on_each_python_of_this_machine(version, python):
    venv = REPOSITORY / ".venv/pythons" / version
    setup = subprocess.run(
        [REPOSITORY / "script/setup", "test"],
        env=os.environ | {"PYTHON": python, "GPUWHYD_VENV": str(venv)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert setup.returncode == 0, setup.stderr
    library = "dbus-next" if version == "3.12" else "dbus-fast"
    run_tests(venv / "bin/python", library, *DEPENDS_ON_THE_PYTHON)
