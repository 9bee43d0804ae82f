"""The running system: systemd, D-Bus and the journal, through the commands that an administrator would type."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from gpuwhyd.install.layout import UNIT_NAME

NAME = "org.gpuwhyd1"
NOBODY = 65534
_TIMEOUT_SECONDS = 60.0


def runs_systemd() -> bool:
    """As sd_booted(3) tells."""
    return Path("/run/systemd/system").is_dir()


def command(*words: str, user: int | None = None) -> tuple[bool, str]:
    """Whether it succeeded, and what it printed, stripped. `user` needs root. Never raises."""
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_TIMEOUT_SECONDS,
            user=user,
            group=user,
            extra_groups=None if user is None else (),
        )
    except (OSError, subprocess.SubprocessError) as error:
        return False, str(error)
    return done.returncode == 0, (done.stdout if done.returncode == 0 else done.stderr).strip()


def unit_properties(*names: str) -> Mapping[str, str]:
    """Properties of gpuwhyd.service; empty when systemd does not answer."""
    worked, output = command("systemctl", "show", UNIT_NAME, f"--property={','.join(names)}")
    return dict(line.partition("=")[::2] for line in output.splitlines()) if worked else {}


def tell_system(*, polite: bool = False) -> list[str]:
    """Lets systemd, D-Bus and the journal read their files again; gives what did not work (nothing when `polite`)."""
    told = (
        (("systemctl", "daemon-reload"), "systemd does not reload its units"),
        (
            bus_call("org.freedesktop.DBus", "/", "org.freedesktop.DBus", "ReloadConfig"),
            "D-Bus keeps its old policy",
        ),
        (("journalctl", "--update-catalog"), "journalctl -x does not explain gpuwhyd's events"),
    )
    lines = []
    for words, consequence in told:
        worked, output = command(*words)
        if not worked and not polite:
            lines.append(f"{consequence}: {' '.join(words)}: {output}")
    return lines


def bus_call(destination: str, path: str, interface: str, member: str, *arguments: str) -> Sequence[str]:
    return ("busctl", "--system", "--auto-start=no", "call", destination, path, interface, member, *arguments)
