"""Which program a process counts as, and what a person calls it.

What is told here may be told to everybody, so only public things name a program: the unit, container or application
that holds the process, else the process's own short name (comm), which the kernel shows to all and cuts to 15 bytes.
The full name would have to come from the arguments or the executable's path; a script's name or a path in them can be
private, so neither is used, though `python3` then stays `python3`.
"""

import re

from gpuwhyd.model import Program, ProgramKind
from gpuwhyd.processes.cgroup import Container, Placement
from gpuwhyd.processes.procfs import printable

_NOT_A_PROGRAM = re.compile(
    r"""init\.scope                          # the manager itself
    | user@[0-9]+\.service                  # all of a user's manager
    | session-[A-Za-z0-9]+\.scope           # a whole login
    | [a-z]+-spawn-.*\.scope                # a terminal's tab: vte-spawn-, ptyxis-spawn-, tmux-spawn-
    | kitty-[0-9]+-[0-9]+\.scope
    """,
    re.VERBOSE,
)
_TERMINALS = frozenset(
    (
        "Alacritty",
        "app.devsuite.Ptyxis",
        "com.gexperts.Tilix",
        "com.mitchellh.ghostty",
        "com.raggesilver.BlackBox",
        "com.system76.CosmicTerm",
        "debian-uxterm",
        "debian-xterm",
        "dev.warp.Warp",
        "foot",
        "footclient",
        "ghostty",
        "guake",
        "io.elementary.terminal",
        "kitty",
        "lxterminal",
        "mate-terminal",
        "org.codeberg.dnkl.foot",
        "org.contourterminal.Contour",
        "org.gnome.Console",
        "org.gnome.Ptyxis",
        "org.gnome.Terminal",
        "org.kde.konsole",
        "org.kde.yakuake",
        "org.wezfurlong.wezterm",
        "org.xfce.terminal",
        "qterminal",
        "rxvt-unicode",
        "terminator",
        "urxvt",
        "xfce4-terminal",
        "xterm",
    )
)
"""Desktop ids of terminals. What runs in one shares its scope, and nobody is helped by "the terminal heats your GPU"."""


def program_of(
    place: Placement, *, pid: int, start_ticks: int, name: str, uid: int | None, user: str | None
) -> Program:
    """The container, application or unit that holds the process, in this order, else the bare process.

    Below a user's own manager the key carries that user's id, and below a service that podman lives in that service:
    both name their cgroups as they like, and must not be able to pass for somebody else's container.
    """
    kind, key, title = _kind_key_title(place, uid)
    if kind is ProgramKind.PROCESS:
        key, title = f"process:{pid}:{start_ticks}", name
    container = place.container
    return Program(
        kind=kind,
        key=key,
        name=title,
        unit=place.unit,
        user_unit=place.user_unit,
        slice=printable(place.slice) if place.slice else None,
        container=printable(f"{container.runtime}:{container.id}") if container else None,
        app=printable(place.app) if place.app and kind is ProgramKind.APP else None,
        user=user,
    )


def _kind_key_title(place: Placement, uid: int | None) -> tuple[ProgramKind, str, str]:
    owner = place.owner_uid if place.owner_uid is not None else uid
    if (container := place.container) is not None:
        key = printable(f"container:{container.runtime}:{_whose(container, place)}{container.id}")
        title = _container_title(container, place.user_unit or place.unit)
        return ProgramKind.CONTAINER, key, printable(title)
    if place.app is not None:
        if place.app in _TERMINALS:
            return ProgramKind.PROCESS, "", ""
        app = printable(place.app)
        return ProgramKind.APP, f"app:{'unknown' if owner is None else owner}:{app}", app
    if place.user_unit is not None and not _NOT_A_PROGRAM.fullmatch(place.user_unit):
        return ProgramKind.UNIT, f"user-unit:{place.owner_uid}:{place.user_unit}", place.user_unit
    if place.user_unit is None and place.unit is not None and not _NOT_A_PROGRAM.fullmatch(place.unit):
        title = f"{place.virtual_machine} (virtual machine)" if place.virtual_machine else place.unit
        return ProgramKind.UNIT, f"unit:{place.unit}", printable(title)
    return ProgramKind.PROCESS, "", ""


def _whose(container: Container, place: Placement) -> str:
    if place.owner_uid is not None:
        return f"user-{place.owner_uid}:"
    if container.runtime == "podman" and place.unit is not None and place.unit.endswith(".service"):
        return f"{place.unit}:"
    return ""


def _container_title(container: Container, unit: str | None) -> str:
    """`3f2a9c81d0e4 (docker)`, `web (lxc)`; podman in a service of its own (quadlet) is called as that service."""
    if container.runtime == "podman" and unit and unit.endswith(".service") and unit != "podman.service":
        return f"{unit} (podman)"
    return f"{container.id} ({container.runtime})"
