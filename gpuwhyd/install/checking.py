"""Whether the installation is whole and the system uses it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gpuwhyd.install import machine
from gpuwhyd.install.layout import CATALOG, ENVIRONMENT, UNIT, UNIT_NAME, inside
from gpuwhyd.install.manifest import MANIFEST, Manifest, checksum, read_manifest

_SHOWN = 10
"""Files named one by one; a folder removed would otherwise be hundreds of lines."""
_AGAIN = "run gpuwhyd install again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """One line each; a fault's line says what to do."""

    good: tuple[str, ...]
    faults: tuple[str, ...]


def check(root: Path = Path("/")) -> Findings:
    """Every installed file, and with `root` "/" also systemd, D-Bus and the journal. Raises InstallError."""
    manifest = read_manifest(root)
    if manifest is None:
        return Findings(
            good=(), faults=(f"not installed: there is no {inside(root, MANIFEST)}; run gpuwhyd install",)
        )
    good: list[str] = []
    faults = _check_files(root, manifest)
    if not faults:
        good.append(
            f"gpuwhyd {manifest.version}: {len(manifest.files) + len(manifest.links)} files, all unchanged"
        )
    if root.resolve() == Path("/"):
        for examine in (_check_environment, _check_unit, _check_bus, _check_catalog):
            one_good, one_faults = examine()
            good += one_good
            faults += one_faults
    return Findings(good=tuple(good), faults=tuple(faults))


_Lines = tuple[list[str], list[str]]
"""What is good, what is at fault."""


def _check_files(root: Path, manifest: Manifest) -> list[str]:
    wrong = []
    for path, target in manifest.links.items():
        place = inside(root, Path(path))
        if not place.is_symlink() or str(place.readlink()) != target:
            wrong.append(f"{path} is not the link to {target} any more; {_AGAIN}")
    for path, expected in manifest.files.items():
        place = inside(root, Path(path))
        if not place.is_file():
            wrong.append(f"{path} is missing; {_AGAIN}")
        elif checksum(place) != expected:
            wrong.append(f"{path} was changed; {_AGAIN}")
    more = len(wrong) - _SHOWN
    return wrong if more <= 0 else [*wrong[:_SHOWN], f"and {more} more files; {_AGAIN}"]


def _check_environment() -> _Lines:
    """The interpreter starts, finds the packages, and accepts the configuration."""
    python = ENVIRONMENT / "bin/python"
    worked, output = machine.command(str(python), "-IB", "-c", "import gpuwhyd.cli")
    if not worked:
        reason = output.splitlines()[-1] if output else "it cannot be run"
        return [], [f"{python} does not load gpuwhyd ({reason}); after an upgrade of Python, {_AGAIN}"]
    worked, output = machine.command(str(ENVIRONMENT / "bin/gpuwhyd"), "--check-config")
    return (["the configuration is valid"], []) if worked else ([], [output])


def _check_unit() -> _Lines:
    if not machine.runs_systemd():
        return [], ["systemd does not run here"]
    return _judge(
        machine.unit_properties(
            "LoadState", "FragmentPath", "NeedDaemonReload", "UnitFileState", "ActiveState"
        )
    )


def _judge(unit: Mapping[str, str]) -> _Lines:
    load, fragment = unit.get("LoadState", "unknown"), unit.get("FragmentPath", "")
    if load != "loaded":
        remedy = {"masked": f"systemctl unmask {UNIT_NAME}", "not-found": "systemctl daemon-reload"}.get(
            load, _AGAIN
        )
        return [], [f"systemd has the unit as {load}: {remedy}"]
    faults = []
    if fragment != str(UNIT):
        faults.append(f"systemd uses {fragment} instead of {UNIT}: remove it, then systemctl daemon-reload")
    if unit.get("NeedDaemonReload") == "yes":
        faults.append("systemd has not read the unit since it was changed: systemctl daemon-reload")
    enabled, state = unit.get("UnitFileState") == "enabled", unit.get("ActiveState", "unknown")
    if not enabled and state == "inactive":
        faults.append("not started, and not to be at boot: systemctl enable --now gpuwhyd")
    elif not enabled:
        faults.append(f"not started at boot: systemctl enable {UNIT_NAME}")
    if state != "active" and (enabled or state != "inactive"):
        how = "has failed" if state == "failed" else f"is {state}"
        faults.append(f"the daemon {how}: systemctl start {UNIT_NAME}; journalctl -u gpuwhyd")
    return ([] if faults else ["the unit is loaded, enabled and active"]), faults


def _check_bus() -> _Lines:
    """The name can be owned only where our policy is in force; and an ordinary user must get an answer."""
    if machine.unit_properties("ActiveState").get("ActiveState") not in {"active", "reloading"}:
        return [], []  # that it does not run is told already
    bus = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
    worked, output = machine.command(*machine.bus_call(*bus, "GetId"))
    if not worked:
        return [], [f"the system bus does not answer ({output}): systemctl start dbus; journalctl -u dbus"]
    worked, output = machine.command(*machine.bus_call(*bus, "GetConnectionUnixProcessID", "s", machine.NAME))
    if not worked:
        return [], [f"nobody owns {machine.NAME} on the system bus ({output}): systemctl restart {UNIT_NAME}"]
    owner = output.partition(" ")[2]
    main = machine.unit_properties("MainPID").get("MainPID")
    if owner != main:
        return [], [
            f"{machine.NAME} is owned by process {owner}, not by {UNIT_NAME} ({main}): stop that process"
        ]
    user = machine.NOBODY if os.geteuid() == 0 else None
    call = machine.bus_call(machine.NAME, "/org/gpuwhyd1", "org.gpuwhyd1.Manager", "GetSummary")
    worked, output = machine.command(*call, user=user)
    if not worked:
        return [], [f"an ordinary user gets no answer from {machine.NAME} ({output}); {_AGAIN}"]
    return [f"{machine.NAME} is owned, and answers an ordinary user"], []


def _check_catalog() -> _Lines:
    """Whether journalctl knows the first of our message ids."""
    try:
        text = CATALOG.read_text()
    except OSError:
        return [], []  # a missing file is told already
    first = next((line.split()[1] for line in text.splitlines() if line.startswith("-- ")), None)
    if first is None:
        return [], []
    worked, output = machine.command("journalctl", "--dump-catalog", first)
    if worked and output:
        return ["journalctl -x explains the events"], []
    return [], ["journalctl -x does not explain the events: journalctl --update-catalog"]
