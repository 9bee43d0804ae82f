"""The private environment: the running one copied to where the sandboxed daemon can reach it.

Nothing is downloaded. Below /home, /root and /tmp the unit's sandbox sees nothing, so neither the packages nor the
interpreter may be there. Compiled files come with it: the sandbox cannot write them later, and without them the
imports take half as much memory again (44 instead of 28 MiB, measured).
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path, PurePath

import gpuwhyd
from gpuwhyd.errors import InstallError
from gpuwhyd.resources import resource

OPTIONAL = ("dbus-fast",)
"""Taken along where installed: packages that gpuwhyd uses but does not require."""
RESOURCES = ("systemd", "dbus", "config", "man")
_HIDDEN = tuple(map(Path, ("/home", "/root", "/tmp", "/var/tmp", "/run")))  # noqa: S108  # unreachable in the sandbox
_EGG_LIST = "installed-files.txt"
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def system_python() -> Path:
    """An interpreter that the sandbox can reach and that loads the compiled packages of the running one.

    That is the one that runs now if it is outside the hidden folders, else a system Python of the same version and
    ABI. Raises InstallError, with what to do, when there is none.
    """
    abi = sysconfig.get_config_var("SOABI")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    base = Path(getattr(sys, "_base_executable", sys.executable))
    candidates = (
        base,
        *(Path(f"{folder}/python{version}") for folder in ("/usr/bin", "/usr/local/bin", "/bin")),
    )
    for candidate in candidates:
        path = candidate.resolve()
        if not path.exists() or any(path.is_relative_to(folder) for folder in _HIDDEN):
            continue
        probe = subprocess.run(
            [path, "-I", "-c", "import sysconfig, venv; print(sysconfig.get_config_var('SOABI'))"],
            capture_output=True,
            text=True,
            check=False,
        )
        if probe.returncode == 0 and probe.stdout.strip() == abi:
            return path
    raise InstallError(
        f"the daemon needs a Python {version} ({abi}) outside /home, /root and /tmp, where its sandbox cannot see, and "
        f"this one is {base.resolve()}: run gpuwhyd install from an environment made with the system's own python3"
    )


def packages() -> tuple[Distribution, ...]:
    """gpuwhyd, everything it requires, and the optional packages that are here.

    A requirement with a marker counts where its package is installed: pip has evaluated the marker already.
    """
    found: dict[str, Distribution] = {}
    waiting = [("gpuwhyd", True), *((name, False) for name in OPTIONAL)]
    while waiting:
        name, needed = waiting.pop()
        if _normal(name) in found:
            continue
        try:
            package = distribution(name)
        except PackageNotFoundError as error:
            if needed:
                raise InstallError(
                    f"the package {name} is not installed here: pip install gpuwhyd, in a virtual environment"
                ) from error
            continue
        found[_normal(name)] = package
        for requirement in package.requires or ():
            marker = requirement.partition(";")[2]
            match = _NAME.match(requirement)
            if match and "extra" not in marker:
                waiting.append((match[0], not marker))
    return tuple(found.values())


def build(folder: Path, final: Path) -> Path:
    """Makes the environment in `folder`, to be renamed to `final`; gives the interpreter that it uses.

    Raises InstallError or OSError.
    """
    python = system_python()
    _run(python, "-I", "-m", "venv", "--without-pip", "--symlinks", str(folder))
    for script in (folder / "bin").glob("[aA]ctivate*"):
        script.unlink()
    settings = (folder / "pyvenv.cfg").read_text().splitlines(keepends=True)
    (folder / "pyvenv.cfg").write_text("".join(line for line in settings if not line.startswith("command")))
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "lib" / version / "site-packages"
    for package in packages():
        if _normal(package.name) == "gpuwhyd":
            _copy_gpuwhyd(package, site)
            _write_commands(package, folder / "bin", final / "bin/python")
        else:
            _copy_package(package, site)
    _run(
        folder / "bin/python",
        "-I",
        "-m",
        "compileall",
        "-q",
        "-f",
        "-s",
        str(folder),
        "-p",
        str(final),
        str(site),
    )
    return python


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr or done.stdout).strip().splitlines()
        raise InstallError(
            f"{' '.join(map(str, command))} failed: {reason[-1] if reason else done.returncode}"
        )


def _copy_gpuwhyd(package: Distribution, site: Path) -> None:
    """The package and its data, whether it runs from a wheel or from a checkout."""
    source = Path(gpuwhyd.__file__).parent
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(source, site / "gpuwhyd", ignore=ignored, copy_function=_copy_file, dirs_exist_ok=True)
    for name in RESOURCES:
        target = site / "gpuwhyd/data" / name
        shutil.copytree(resource(name), target, ignore=ignored, copy_function=_copy_file, dirs_exist_ok=True)
    information = site / f"gpuwhyd-{package.version}.dist-info"
    information.mkdir()
    for name in ("METADATA", "entry_points.txt"):
        (information / name).write_text(package.read_text(name) or "")


def _copy_package(package: Distribution, site: Path) -> None:
    for file in _files(package):
        if ".." in file.parts or "__pycache__" in file.parts:
            continue  # commands of other packages; compiled anew
        source = Path(str(package.locate_file(file)))
        if not source.exists():
            raise InstallError(
                f"{source} is missing; install gpuwhyd anew with pip, then run gpuwhyd install"
            )
        target = site / file
        target.parent.mkdir(parents=True, exist_ok=True)
        _copy_file(source, target)


def _files(package: Distribution) -> tuple[PurePath, ...]:
    """The files of a package, relative to its site-packages, from the list that pip wrote as it installed them.

    A wheel's list is RECORD. pip before 23.1, without `wheel`, has setuptools install a package that has no
    pyproject.toml (systemd-python is one), and writes installed-files.txt, relative to the .egg-info folder.
    """
    files = package.files
    if files is not None and any(file.name == "RECORD" for file in files):
        return tuple(files)
    listed = package.read_text(_EGG_LIST)
    site_packages = Path(str(package.locate_file("")))
    folders = (path.parent for path in site_packages.glob(f"*.egg-info/{_EGG_LIST}"))
    folder = next((path.name for path in folders if _distribution_of(path) == _normal(package.name)), None)
    if listed is None or folder is None:
        raise InstallError(
            f"it is not known which files belong to the package {package.name}: in this virtual environment, "
            f"pip install --use-pep517 --force-reinstall --no-deps {package.name}"
        )
    return tuple(PurePath(os.path.normpath(f"{folder}/{line}")) for line in (*listed.splitlines(), _EGG_LIST))


def _distribution_of(egg_info: Path) -> str:
    """Of `systemd_python-235.egg-info`: a name has no `-` there."""
    return _normal(egg_info.stem.partition("-")[0])


def _copy_file(source: str | Path, target: str | Path) -> None:
    """The content only: the copy belongs to root, and everybody may read it."""
    shutil.copyfile(source, target)
    Path(target).chmod(0o644)


def _write_commands(package: Distribution, folder: Path, python: Path) -> None:
    """Isolated (-I): a PYTHONPATH or a module in the current folder must not get into a daemon that runs as root.

    Not compiling (-B): what is in the environment is what was installed, also after root has run a command.
    """
    for command in package.entry_points.select(group="console_scripts"):
        path = folder / command.name
        path.write_text(
            f"#!{python} -IB\nimport sys\nfrom {command.module} import {command.attr}\nsys.exit({command.attr}())\n"
        )
        path.chmod(0o755)
