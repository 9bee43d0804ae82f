"""Which interpreter the installed daemon gets: one that its sandbox can reach."""

import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

import pytest

from gpuwhyd.errors import InstallError
from gpuwhyd.install.environment import system_python


def test_an_interpreter_in_a_hidden_folder_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with pyenv or uv, whose interpreters are in the user's home."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        mine = shutil.copy2(Path(sys.executable).resolve(), folder)
        monkeypatch.setattr(sys, "_base_executable", str(mine))
        chosen = system_python()
    assert chosen.is_absolute()
    assert not any(chosen.is_relative_to(folder) for folder in ("/tmp", "/home", "/root"))


def test_where_no_interpreter_fits_it_says_which_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_config_var", lambda _name: "cpython-399-none")
    with pytest.raises(InstallError, match=r"cpython-399-none.*made with the system's own python3") as caught:
        system_python()
    assert "\n" not in str(caught.value)
