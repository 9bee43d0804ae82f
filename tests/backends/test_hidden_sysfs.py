"""A /sys that a sandbox hides from the daemon: whoever looks says so, and nothing is taken for a fault of gpuwhyd."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gpuwhyd.backends.base import Backend, Probe
from gpuwhyd.backends.catalog import BACKENDS, Entry, Roots
from gpuwhyd.backends.cpu_temperature import CpuTemperature
from gpuwhyd.errors import BackendError


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Roots:
    """Every directory is there and none may be listed, for root neither."""
    sysfs = tmp_path / "sys"
    (sysfs / "class/hwmon").mkdir(parents=True)

    def forbid(name: str) -> None:
        real: Callable[[str | Path], object] = getattr(os, name)

        def hiding(path: str | Path) -> object:
            if Path(path).is_relative_to(sysfs):
                raise PermissionError(13, "Permission denied", path)
            return real(path)

        monkeypatch.setattr(os, name, hiding)

    forbid("listdir")
    forbid("scandir")
    return Roots(sysfs=sysfs, procfs=tmp_path / "proc")


def assert_it_says_who_must_act(backend: Backend) -> None:
    found = backend.probe()
    assert (found.answer, found.no_card) == (Probe.LATER, False)
    assert found.message.endswith("cannot be listed (Permission denied): look for what hides it from gpuwhyd")


@pytest.mark.parametrize("entry", BACKENDS, ids=lambda entry: entry.name)
def test_a_backend_waits_and_says_who_must_act(entry: Entry, roots: Roots) -> None:
    assert_it_says_who_must_act(entry.backend(roots))


@pytest.mark.parametrize("entry", BACKENDS, ids=lambda entry: entry.name)
def test_so_it_does_when_it_is_hidden_later(entry: Entry, roots: Roots) -> None:
    backend = entry.make(roots)
    assert_it_says_who_must_act(backend)
    with pytest.raises(BackendError, match="Permission denied"):
        backend.read()


def test_hidden_sensors_leave_the_cpus_temperature_unknown(roots: Roots) -> None:
    assert CpuTemperature(roots.sysfs).read(0.0) is None
