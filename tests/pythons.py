"""The Pythons of this machine that gpuwhyd has to run on besides the one that runs the tests."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

LATER = ("3.12", "3.13", "3.14", "3.15")


def found() -> dict[str, str]:
    """By version, those that start: on the PATH, else among pyenv's, whose own commands start only a chosen one."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    pythons = {}
    for version in LATER:
        name = f"python{version}"
        candidates = [shutil.which(name), *map(str, sorted(pyenv.glob(f"{version}.*/bin/{name}")))]
        working = [python for python in candidates if python is not None and _is(python, version)]
        if working and version != f"{sys.version_info.major}.{sys.version_info.minor}":
            pythons[version] = working[0]
    return pythons


def _is(python: str, version: str) -> bool:
    """Whether it starts and is one; a free-threaded or unfinished build may not be what it is called."""
    program = "import ssl, venv, sys; print(*sys.version_info[:2], sep='.')"
    said = subprocess.run([python, "-c", program], capture_output=True, text=True, check=False)
    return said.stdout.strip() == version
