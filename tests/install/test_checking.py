"""What `gpuwhyd check` makes of what systemd and D-Bus say; whole machines are in tests/containers/test_install.py."""

from pathlib import Path

import pytest

from gpuwhyd.install import checking
from gpuwhyd.install.layout import UNIT
from tests.bus.buses import private_bus


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes a systemctl that says these properties of the unit."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def says(**properties: str) -> None:
        program = tmp_path / "systemctl"
        lines = "\n".join(f"{name}={value}" for name, value in properties.items())
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{lines}\nEND\n")
        program.chmod(0o755)

    return says


def test_a_bus_that_is_down_is_to_be_started_and_not_the_daemon(
    tmp_path: Path, systemctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    systemctl(ActiveState="active", MainPID="1")
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/bus")
    _, [fault] = checking._check_bus()
    assert fault.startswith("the system bus does not answer (")
    assert "systemctl start dbus" in fault
    with private_bus() as bus:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.address)
        _, [fault] = checking._check_bus()
    assert fault.startswith("nobody owns org.gpuwhyd1 on the system bus (")
    assert "systemctl restart gpuwhyd.service" in fault


@pytest.mark.parametrize(
    ("state", "told"), [("failed", "the daemon has failed: "), ("activating", "the daemon is activating: ")]
)
def test_a_daemon_that_is_not_active_is_told_with_its_state(state: str, told: str) -> None:
    unit = {
        "LoadState": "loaded",
        "FragmentPath": str(UNIT),
        "NeedDaemonReload": "no",
        "UnitFileState": "enabled",
        "ActiveState": state,
    }
    _, [fault] = checking._judge(unit)
    assert fault.startswith(told)
