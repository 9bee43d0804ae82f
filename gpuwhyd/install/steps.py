"""Install and uninstall. Installing again is the upgrade."""

import errno
import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gpuwhyd import __version__
from gpuwhyd.errors import InstallError
from gpuwhyd.install import environment, machine
from gpuwhyd.install.layout import (
    COMMANDS,
    CONFIGURATION,
    ENVIRONMENT,
    STATE,
    UNIT_NAME,
    SystemFile,
    inside,
    system_files,
)
from gpuwhyd.install.manifest import MANIFEST, Manifest, checksum, inventory, read_manifest, write_manifest
from gpuwhyd.resources import resource

_HERE = Path("/")


def install(root: Path = _HERE) -> list[str]:
    """Installs, or upgrades, below `root`; gives a line for each thing a person should know.

    The environment is built beside the old one and renamed into place; a configuration that the user changed stays.
    With `root` "/" systemd and D-Bus are told and a running daemon is restarted (it goes on with its open spikes);
    any other tree is only written to. Raises InstallError: not root, read-only, no systemd, no usable Python.
    """
    live = _begin(root, "install")
    try:
        with _umask(0o022), _exclusive(root) as directories:
            lines = _install(root, directories)
    except FileNotFoundError as error:
        raise InstallError(str(error)) from error
    except OSError as error:
        raise InstallError(f"cannot install: {error.filename}: {error.strerror}") from error
    if not live:
        return lines
    lines += machine.tell_system()
    if machine.unit_properties("ActiveState").get("ActiveState") in {"active", "reloading", "activating"}:
        worked, output = machine.command("systemctl", "restart", UNIT_NAME)
        lines.append(
            "the running daemon was restarted" if worked else f"the daemon did not start again: {output}"
        )
    else:
        lines.append(
            f"start it, now and at every boot: systemctl enable --now {UNIT_NAME.removesuffix('.service')}"
        )
    return lines


def uninstall(root: Path = _HERE, *, purge: bool = False) -> list[str]:
    """Stops and disables the daemon and removes what `install` put below `root`, by its manifest, and nothing else.

    A changed configuration and the state stay, unless `purge`; that also takes what an earlier uninstall left.
    Raises InstallError.
    """
    live = _begin(root, "uninstall")
    try:
        manifest = read_manifest(root)
        if manifest is None:
            lines = _remove_kept(root) if purge else []
            if not lines:
                raise InstallError(f"nothing to uninstall: there is no {inside(root, MANIFEST)}")
            return lines
        with _exclusive(root):
            if live:
                machine.command("systemctl", "disable", "--now", UNIT_NAME)
            lines = _remove_files(root, manifest, purge=purge)
    except OSError as error:
        raise InstallError(f"cannot uninstall: {error.filename}: {error.strerror}") from error
    if live:
        lines += machine.tell_system()
        machine.command("systemctl", "reset-failed", UNIT_NAME)
    return lines


def _begin(root: Path, verb: str) -> bool:
    """Whether `root` is the running system; InstallError when the work is impossible from the outset."""
    if not root.is_absolute():
        raise InstallError(f"--root must be an absolute path, not {root}")
    if root.resolve() != _HERE:
        return False
    if os.geteuid() != 0:
        raise InstallError(f"this needs root: sudo {Path(sys.argv[0]).absolute()} {verb}")
    if not machine.runs_systemd():
        raise InstallError(
            f"systemd does not run here; fill a tree for another machine with gpuwhyd {verb} --root DIR"
        )
    return True


@contextmanager
def _exclusive(root: Path) -> Iterator[list[str]]:
    """One at a time: a lock on the folder that the environment is renamed in. Gives what was made to have it."""
    made: list[str] = []
    _make_parents(root, ENVIRONMENT, made)
    descriptor = os.open(inside(root, ENVIRONMENT.parent), os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InstallError("another gpuwhyd install or uninstall is at work; wait for it") from error
        yield made
    finally:
        os.close(descriptor)


@contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def _install(root: Path, directories: list[str]) -> list[str]:
    files = system_files()
    previous = read_manifest(root)
    final = inside(root, ENVIRONMENT)
    if previous is None and final.exists():
        raise InstallError(f"{final} exists and is not an installation of gpuwhyd; move it away")
    lines = []
    directories += previous.directories if previous else ()
    new = Path(tempfile.mkdtemp(prefix=".gpuwhyd-new-", dir=final.parent))
    try:
        new.chmod(0o755)
        python = environment.build(new, ENVIRONMENT)
        in_environment = inventory(new, ENVIRONMENT)
        kept, left_out = _write_files(root, files, directories)
        lines += left_out
        links, left_alone = _link_commands(root, directories)
        lines += left_alone
        configuration, told = _write_configuration(root, previous, directories)
        lines += told
        manifest = Manifest(
            version=__version__,
            python=str(python),
            files=in_environment[0] | kept,
            links=in_environment[1] | links,
            configuration=configuration,
            directories=directories,
        )
        write_manifest(new / MANIFEST.name, manifest)
        _swap(new, final)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    if previous:
        _remove_stale(root, previous, manifest)
    if previous is None:
        verb = "installed"
    elif previous.version == __version__:
        verb = "installed anew"
    else:
        verb = f"upgraded {previous.version} to"
    return [f"{verb} gpuwhyd {__version__} in {final} with {python}", *lines]


def _swap(new: Path, final: Path) -> None:
    """Renames `new` to `final`; should that fail, the old one is there as before."""
    old = final.with_name(f"{new.name}-old")
    if final.exists():
        final.rename(old)
    try:
        new.rename(final)
    except OSError:
        if old.exists():
            old.rename(final)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _write_files(
    root: Path, files: tuple[SystemFile, ...], directories: list[str]
) -> tuple[dict[str, str], list[str]]:
    """Checksums of what was written, and a line for each optional file that a read-only file system refused."""
    written: dict[str, str] = {}
    lines = []
    for file in files:
        try:
            _write(root, file.target, file.source.read_bytes(), directories)
        except OSError as error:
            if error.errno != errno.EROFS or file.without_it is None:
                raise
            lines.append(f"{file.target} is on a read-only file system; left out: {file.without_it}")
        else:
            written[str(file.target)] = checksum(inside(root, file.target))
    return written, lines


def _write(root: Path, path: Path, content: bytes, directories: list[str]) -> None:
    """Atomically, readable by all; notes the directories that had to be made."""
    target = inside(root, path)
    _make_parents(root, path, directories)
    temporary = target.with_name(f".{target.name}.gpuwhyd-new")
    try:
        temporary.write_bytes(content)
        temporary.chmod(0o644)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _make_parents(root: Path, path: Path, directories: list[str]) -> None:
    for parent in reversed(path.parents):
        folder = inside(root, parent)
        if not folder.exists():
            folder.mkdir()
            directories.append(str(parent))


def _link_commands(root: Path, directories: list[str]) -> tuple[dict[str, str], list[str]]:
    links: dict[str, str] = {}
    lines = []
    for name in ("gpuwhyd", "gpuwhy"):
        path, target = COMMANDS / name, ENVIRONMENT / "bin" / name
        place = inside(root, path)
        _make_parents(root, path, directories)
        if place.is_symlink() and place.readlink() == target:
            links[str(path)] = str(target)
        elif place.exists() or place.is_symlink():
            lines.append(f"{path} is not from gpuwhyd install; left alone: the command is {target}")
        else:
            place.symlink_to(target)
            links[str(path)] = str(target)
    return links, lines


def _write_configuration(
    root: Path, previous: Manifest | None, directories: list[str]
) -> tuple[dict[str, str], list[str]]:
    """The shipped configuration, beside the user's own where that was changed."""
    source = resource("config/gpuwhyd.toml")
    shipped = checksum(source)
    place = inside(root, CONFIGURATION)
    beside = CONFIGURATION.with_name(f"{CONFIGURATION.name}.new")
    before = previous.configuration.get(str(CONFIGURATION)) if previous else None
    current = checksum(place) if place.exists() else None
    if current in {None, before, shipped}:
        if current != shipped:
            _write(root, CONFIGURATION, source.read_bytes(), directories)
        inside(root, beside).unlink(missing_ok=True)
        return {str(CONFIGURATION): shipped}, []
    if before == shipped:
        return {str(CONFIGURATION): shipped}, []  # the user's changes are to this very version
    _write(root, beside, source.read_bytes(), directories)
    return {str(CONFIGURATION): shipped, str(beside): shipped}, [
        f"{CONFIGURATION} has your changes and stays; the new one is {beside}"
    ]


def _remove_stale(root: Path, previous: Manifest, manifest: Manifest) -> None:
    """Files of the old version, outside the environment, that the new one does not have."""
    for path in (
        (previous.files.keys() | previous.links.keys()) - manifest.files.keys() - manifest.links.keys()
    ):
        if not Path(path).is_relative_to(ENVIRONMENT):
            inside(root, Path(path)).unlink(missing_ok=True)


def _remove_files(root: Path, manifest: Manifest, *, purge: bool) -> list[str]:
    lines = []
    for path in (*manifest.links, *manifest.files):
        place = inside(root, Path(path))
        if not Path(path).is_relative_to(ENVIRONMENT) and (path not in manifest.links or place.is_symlink()):
            place.unlink(missing_ok=True)
    for path, shipped in manifest.configuration.items():
        place = inside(root, Path(path))
        if place.exists() and checksum(place) != shipped and not purge:
            lines.append(f"{path} has your changes and stays; --purge removes it")
        else:
            place.unlink(missing_ok=True)
    if purge:
        lines += _remove_kept(root)
    elif inside(root, STATE).exists():
        lines.append(f"{STATE} holds what was learned of your cards and stays; --purge removes it")
    shutil.rmtree(inside(root, ENVIRONMENT))
    for path in reversed(manifest.directories):
        place = inside(root, Path(path))
        if place.is_dir() and not any(place.iterdir()):
            place.rmdir()
    return [f"removed gpuwhyd {manifest.version} from {inside(root, ENVIRONMENT)}", *lines]


def _remove_kept(root: Path) -> list[str]:
    """The configuration and the state, whoever made them; a line for each that was there."""
    kept = [inside(root, path) for path in (STATE, CONFIGURATION.parent)]
    lines = []
    for folder in kept:
        if folder.is_symlink():
            folder.unlink()
            lines.append(f"removed {folder}, a link; what it led to stays")
        elif folder.is_dir():
            shutil.rmtree(folder)
            lines.append(f"removed {folder}")
    return lines
