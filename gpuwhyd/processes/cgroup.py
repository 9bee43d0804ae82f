"""Where a process belongs, from the text of its /proc/PID/cgroup alone.

Units are read as systemd itself reads them (cgroup-util.c: leading slices, then one unit, then below user@UID.service
once more), so that `unit` is what `journalctl -u` takes. Only the part that systemd made is trusted for it: users and
services may name the cgroups below their own as they like. For a container's name the cgroups below an engine's service
are trusted too. Those below a user's manager are that user's (see program.py), those below other services say nothing.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]+\.(?:service|scope|socket|mount|swap)")
"""Unit types that hold processes; the letters that systemd.unit(5) allows."""
_UNIT_LENGTH_LIMIT = 255
_USER_MANAGER = re.compile(r"user@([0-9]{1,10})\.service")
_ESCAPES = re.compile(r"(?:\\x[0-9a-fA-F]{2})+")

_OCI = re.compile(
    r"(?:.*:)?(?:(docker|libpod|libpod-payload|cri-containerd|crio|nerdctl)[-:])?([0-9a-f]{64})(?:\.scope)?"
)
"""`docker-ID.scope`, `libpod-payload-ID`, `PARENT.slice:cri-containerd:ID`, `ID`. The monitor of podman and CRI-O lives
in `libpod-conmon-ID.scope` and `crio-conmon-ID.scope`, which this does not match."""
_ENGINES = {
    "docker": "docker",
    "libpod": "podman",
    "libpod-payload": "podman",
    "cri-containerd": "containerd",
    "crio": "cri-o",
    "nerdctl": "containerd",
}
_ENGINE_SERVICE = re.compile(
    r"""(?: docker | containerd | crio | podman
          | kubelet | k3s(?:-agent)? | rke2-(?:server|agent) | k0s(?:controller|worker)
          | lxc(?:@.+)? | lxd | incus
          | snap\.(?:docker|lxd|microk8s|k8s)\..+
        )\.service""",
    re.VERBOSE,
)
"""What makes containers, as root, in cgroups below its own: with the cgroupfs driver and a relative parent
(`containerd.service/kubepods-PODUID.slice:cri-containerd:ID`), and LXC with `lxc.cgroup.relative`."""
_PODMAN_PAYLOAD = "libpod-payload-"
"""A service that is one container of podman (quadlet, `podman run --cgroups=split`) has it in this cgroup below its own."""
_SHORT_ID_LENGTH = 12
"""As `docker ps`, `podman ps` and `crictl ps` show it."""

_NSPAWN = re.compile(r"systemd-nspawn@(.+)\.service")
_MACHINE = re.compile(r"machine-(.+)\.scope")
_LIBVIRT = re.compile(r"(qemu|lxc)-(?:[0-9]+-)?(.+)", re.DOTALL)

_SNAP = re.compile(
    r"snap\.([^.]+)\.(?:hook\.)?([^.]+?)[-.][0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\.scope"
)
"""`snap.firefox.firefox-UUID.scope`; a dot before the UUID until snapd 2.60."""
_BUS_ACTIVATED = re.compile(r"dbus-:[0-9]+\.[0-9]+-(.+)@[^@]*\.service")
"""dbus-broker's name for what a session bus started."""
_APP = re.compile(r"app-([^@]+)(@[^@]*)?\.(service|scope)")
_LAUNCHERS = ("gnome", "flatpak", "kde", "KDE", "cosmic", "plasma", "niri", "sway", "Hyprland", "uwsm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    runtime: str
    """`docker`, `podman`, `containerd`, `cri-o`, `kubernetes`, `lxc`, `nspawn`; `container` where only the id is told."""
    id: str
    """Its name, or the first twelve digits of its id. Names of docker's containers only docker itself tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    unit: str | None = None
    """The system manager's unit, escaped as systemd writes it; `user@1000.service` for all of a user's manager."""
    slice: str | None = None
    user_unit: str | None = None
    owner_uid: int | None = None
    """Whose manager `user_unit` belongs to."""
    container: Container | None = None
    """The outermost one, which the machine's owner can see and stop."""
    app: str | None = None
    virtual_machine: str | None = None
    """The name of a libvirt machine; its `unit` is a scope of its own."""


NOWHERE = Placement()


def placement(cgroup: str) -> Placement:
    """The most telling of the process's cgroup paths; NOWHERE when none says anything. Never raises.

    With cgroup v1 and v2 side by side a manager may keep only one of `name=systemd` and `0::` in order, so the more
    specific of both is taken: a container before an app, before a unit, then the longer path. Other v1 hierarchies
    count only for containers: without systemd an engine may leave the first two alone.
    """
    placements: list[tuple[int, int, Placement]] = []
    for line in cgroup.split("\n"):
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not path.startswith("/"):
            continue
        is_systemd = controllers == "name=systemd" or (hierarchy == "0" and not controllers)
        parts = tuple(part for part in path.removesuffix(" (deleted)").split("/") if part)
        found = _of_path(parts)
        if is_systemd or found.container is not None:
            placements.append(
                (_specificity(found), len(parts), found if is_systemd else _only_container(found))
            )
    return max(placements, key=lambda item: item[:2])[2] if placements else NOWHERE


def _specificity(found: Placement) -> int:
    telling = (found.unit, found.user_unit, found.app, found.container)
    return max((rank for rank, value in enumerate(telling, 1) if value is not None), default=0)


def _only_container(found: Placement) -> Placement:
    return Placement(container=found.container)


def _of_path(parts: Sequence[str]) -> Placement:
    slice_, unit, below = _unit(parts)
    made_by_systemd = len(parts) - len(below)
    user_unit = owner_uid = None
    if unit is not None and (manager := _USER_MANAGER.fullmatch(unit)):
        owner_uid = int(manager[1])
        _, user_unit, _ = _unit(below)
    return Placement(
        unit=unit,
        slice=slice_,
        user_unit=user_unit,
        owner_uid=owner_uid,
        container=_container(parts, made_by_systemd, unit),
        app=_app(user_unit or unit or "", of_user=user_unit is not None),
        virtual_machine=_virtual_machine(unit or ""),
    )


def _unit(parts: Sequence[str]) -> tuple[str | None, str | None, Sequence[str]]:
    """The innermost of the leading slices, the unit after them, and what lies below that unit."""
    slice_ = None
    for index, part in enumerate(parts):
        name = part.removeprefix("_")  # systemd's escape for names that the kernel could take for its own
        if name.endswith(".slice"):
            slice_ = name
            continue
        if _UNIT.fullmatch(name) and len(name) <= _UNIT_LENGTH_LIMIT:
            return slice_, name, parts[index + 1 :]
        break
    return slice_, None, ()


def _container(parts: Sequence[str], made_by_systemd: int, unit: str | None) -> Container | None:
    """Below a service that makes no containers only podman's payload counts: any other name is that service's invention,
    and what it heats must not be booked to the container that it names.
    """
    names_hold = (
        unit is None
        or unit.endswith(".scope")
        or _USER_MANAGER.fullmatch(unit)
        or _ENGINE_SERVICE.fullmatch(unit)
    )
    in_kubernetes = False
    for index, part in enumerate(parts):
        if index >= made_by_systemd and not names_hold:
            if part.startswith(_PODMAN_PAYLOAD) and (found := _oci(part, "", unit)):
                return found
            continue
        above, below = parts[index - 1] if index else "", parts[index + 1 :]
        in_kubernetes = in_kubernetes or "kubepods" in part
        if found := _lxc(part, above) or _machine(part, below):
            return found
        if found := _oci(part, above, unit):
            return Container(runtime="kubernetes", id=found.id) if in_kubernetes else found
    return None


def _oci(part: str, above: str, unit: str | None) -> Container | None:
    found = _OCI.fullmatch(part)
    if found is None:
        return None
    runtime = _ENGINES.get(found[1] or above)
    if runtime is None:
        if unit is not None and _USER_MANAGER.fullmatch(unit):
            return None  # a user's own cgroup that merely looks like an id
        runtime = "container"
    return Container(runtime=runtime, id=found[2][:_SHORT_ID_LENGTH])


def _lxc(part: str, above: str) -> Container | None:
    """`lxc.payload.NAME`, `lxc.payload/NAME`, `lxc/NAME` (before LXC 4); `lxc.monitor...` is LXC's own."""
    if part.startswith("lxc.payload.") and part != "lxc.payload.":
        return Container(runtime="lxc", id=part.removeprefix("lxc.payload."))
    return Container(runtime="lxc", id=part) if above in ("lxc", "lxc.payload") else None


def _machine(part: str, below: Sequence[str]) -> Container | None:
    """A machine of systemd-nspawn or of libvirt's LXC driver; nspawn itself runs in the cgroup `supervisor`."""
    if below[:1] == ("supervisor",):
        return None
    if (service := _NSPAWN.fullmatch(part)) and below:
        return Container(runtime="nspawn", id=unescape(service[1]))
    if scope := _MACHINE.fullmatch(part):
        name = unescape(scope[1])
        libvirt = _LIBVIRT.fullmatch(name)
        if libvirt is None:
            return Container(runtime="nspawn", id=name)
        if libvirt[1] == "lxc":
            return Container(runtime="lxc", id=libvirt[2])
    return None


def _virtual_machine(unit: str) -> str | None:
    scope = _MACHINE.fullmatch(unit)
    libvirt = _LIBVIRT.fullmatch(unescape(scope[1])) if scope else None
    return libvirt[2] if libvirt and libvirt[1] == "qemu" else None


def _app(unit: str, *, of_user: bool) -> str | None:
    """The application id in a unit's name. Only snap starts applications under the system manager, for root."""
    if snap := _SNAP.fullmatch(unit):
        return snap[1] if snap[2] == snap[1] or ".hook." in unit else f"{snap[1]}.{snap[2]}"
    if not of_user:
        return None
    if activated := _BUS_ACTIVATED.fullmatch(unit):
        return unescape(activated[1])
    if app := _APP.fullmatch(unit):
        return _application_id(app[1].split("-"), is_scope=app[3] == "scope")
    return None


def _application_id(parts: list[str], *, is_scope: bool) -> str | None:
    """`[LAUNCHER-]ID-RANDOM` of a scope, `[LAUNCHER-]ID` of a service (systemd's DESKTOP_ENVIRONMENTS document).

    Hyphens inside an id are escaped there. Not everybody does it: of more parts only a known launcher is taken off.
    """
    if is_scope and len(parts) > 1:
        parts = parts[:-1]
    if len(parts) > 1 and parts[-1] == "transient":  # ghostty's `app-ghostty-transient-PID.scope`
        parts = parts[:-1]
    if len(parts) == 2 or (len(parts) > 2 and parts[0] in _LAUNCHERS):
        parts = parts[1:]
    return unescape("-".join(parts)).removesuffix(".desktop") or None


def unescape(name: str) -> str:
    r"""Undo systemd's `\x2d` and the like (systemd-escape(1))."""
    return _ESCAPES.sub(
        lambda codes: bytes.fromhex(codes[0].replace("\\x", "")).decode(errors="surrogateescape"), name
    )
