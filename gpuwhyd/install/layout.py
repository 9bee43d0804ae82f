"""What goes where.

Image-based distributions keep /usr read-only and leave /etc, /opt and /usr/local to the administrator, so everything
goes there that is also read there. Two things are not: polkit before 125 reads actions from /usr/share only, and
interface descriptions are looked for in /usr/share only. Both are optional: without the first only root may reload.
"""

from dataclasses import dataclass
from pathlib import Path

from gpuwhyd.resources import resource

ENVIRONMENT = Path("/opt/gpuwhyd")
CONFIGURATION = Path("/etc/gpuwhyd/gpuwhyd.toml")
STATE = Path("/var/lib/gpuwhyd")
UNIT_NAME = "gpuwhyd.service"
UNIT = Path("/usr/local/lib/systemd/system") / UNIT_NAME
"""Not /etc/systemd/system: that is the user's, and a unit file there could not be masked."""
CATALOG = Path("/usr/local/lib/systemd/catalog/gpuwhyd.catalog")
COMMANDS = Path("/usr/local/bin")


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemFile:
    source: Path
    target: Path
    """Absolute, as the installed system sees it."""
    without_it: str | None = None
    """What is lost where the target's file system is read-only; `None`: it cannot be done without."""


def system_files() -> tuple[SystemFile, ...]:
    """Every file outside the environment, the configuration excepted.

    Raises FileNotFoundError when this installation of gpuwhyd lacks one of its own files.
    """
    interfaces = sorted(resource("dbus").glob("*.xml"))
    pages = sorted(path for path in resource("man").iterdir() if path.suffix in {".1", ".5", ".7", ".8"})
    return (
        SystemFile(source=resource("systemd/gpuwhyd.service"), target=UNIT),
        SystemFile(source=resource("systemd/gpuwhyd.catalog"), target=CATALOG),
        # dbus-daemon and dbus-broker do not read /usr/local/share/dbus-1/system.d.
        SystemFile(
            source=resource("dbus/org.gpuwhyd1.conf"), target=Path("/etc/dbus-1/system.d/org.gpuwhyd1.conf")
        ),
        SystemFile(
            source=resource("dbus/org.gpuwhyd1.policy"),
            target=Path("/usr/share/polkit-1/actions/org.gpuwhyd1.policy"),
            without_it="only root may ask the daemon to reload",
        ),
        *(
            SystemFile(
                source=path,
                target=Path("/usr/share/dbus-1/interfaces") / path.name,
                without_it="the interface description is only in gpuwhyd's own folder",
            )
            for path in interfaces
        ),
        *(
            SystemFile(source=path, target=Path(f"/usr/local/share/man/man{path.suffix[1:]}") / path.name)
            for path in pages
        ),
    )


def inside(root: Path, path: Path) -> Path:
    """`path`, absolute as the installed system sees it, below the tree `root`."""
    return root / path.relative_to("/")
