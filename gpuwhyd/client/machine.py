"""What `gpuwhy report` tells of this machine, and what it knows of it that must not be told."""

import os
import platform
import pwd
from dataclasses import dataclass
from pathlib import Path

from gpuwhyd.bus import library


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    python: str
    bus_library: str
    kernel: str
    """Release and architecture: `6.12.5-amd64 x86_64`."""
    distribution: str | None = None
    """`Debian GNU/Linux 12 (bookworm)`; `None` where there is no os-release."""
    private: frozenset[str] = frozenset()
    """Names of the host and of whoever asks, their home, the machine id."""


def this_machine() -> Machine:
    kernel = os.uname()
    return Machine(
        python=platform.python_version(),
        bus_library=library.description(),
        kernel=f"{kernel.release} {kernel.machine}",
        distribution=_distribution(),
        private=frozenset(filter(None, (kernel.nodename, kernel.nodename.split(".")[0], *_of_the_user()))),
    )


def _distribution() -> str | None:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        return None


def _of_the_user() -> tuple[str, ...]:
    names = tuple(os.environ.get(name, "") for name in ("USER", "LOGNAME", "SUDO_USER", "HOME"))
    try:
        machine_id = Path("/etc/machine-id").read_text("ascii").strip()
    except (OSError, ValueError):  # none here: then nobody can tell it
        machine_id = ""
    try:
        user = pwd.getpwuid(os.getuid())
    except KeyError:  # a uid without a name
        return (*names, machine_id)
    return (*names, machine_id, user.pw_name, user.pw_gecos.split(",")[0], user.pw_dir)
