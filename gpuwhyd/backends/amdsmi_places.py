"""Where AMD's management library is on this machine, and which Python wrapper goes with it. Nothing is loaded here."""

import importlib.machinery
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gpuwhyd.errors import BackendUnavailableError

LIBRARY = "libamd_smi.so"
"""By this name all versions of the wrapper load it; the soname has a number, which they do not use."""
_CACHED = re.compile(rb"(/[^\0]*/libamd_smi\.so)\0")
_ROCMS_WRAPPER = "share/amd_smi/amdsmi"
_WRAPPER_FILES = ("__init__.py", "amdsmi_interface.py", "amdsmi_wrapper.py")

FileState = tuple[str, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A library and the wrapper to be used with it."""

    library: Path
    wrapper: Path
    """The folder of the Python package `amdsmi`."""
    is_rocms: bool
    """The wrapper came with the library, in the same ROCm; else it is the one that is installed beside gpuwhyd."""

    @property
    def variables(self) -> dict[str, str | None]:
        """Environment variables that make every version of the wrapper load this library and no other."""
        if self.library.parent.name != "lib":  # found by the loader, as the wrapper will then find it
            return {"ROCM_HOME": None, "ROCM_PATH": None, "AMDSMI_LIB_OVERRIDE": str(self.library)}
        prefix = str(self.library.parent.parent)
        return {"ROCM_HOME": prefix, "ROCM_PATH": prefix, "AMDSMI_LIB_OVERRIDE": str(self.library)}

    def files(self) -> tuple[FileState, ...]:
        """Changes when the library or the wrapper is replaced. Raises OSError when one is gone."""
        return tuple(
            _state(path) for path in (self.library, *(self.wrapper / name for name in _WRAPPER_FILES))
        )


def installed_wrapper() -> Path | None:
    """The folder of the `amdsmi` that pip installed beside gpuwhyd; it is not imported."""
    spec = importlib.machinery.PathFinder.find_spec("amdsmi")
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None


def find(environment: Mapping[str, str], system: Path, installed: Path | None) -> Place:
    """The first library in the wrapper's own order of search. `system` is the root of the file system.

    Raises BackendUnavailableError with what to do. A library that others than root could replace is not loaded into a
    daemon that runs as root.
    """
    library = next((path for path in _candidates(environment, system, installed) if path.is_file()), None)
    if library is None:
        raise BackendUnavailableError(
            f"AMD's library {LIBRARY} is not installed (ROCm's package amd-smi-lib); sysfs is read without it"
        )
    if not is_trustworthy(library):
        raise BackendUnavailableError(
            f"{library} is not loaded, because others than root can change it: chown root, chmod go-w, its folders too"
        )
    for prefix in (library.parent.parent, library.resolve().parent.parent):
        wrapper = prefix / _ROCMS_WRAPPER
        if all((wrapper / name).is_file() and is_trustworthy(wrapper / name) for name in _WRAPPER_FILES):
            return Place(library=library, wrapper=wrapper, is_rocms=True)
    if installed is None:
        raise BackendUnavailableError(
            f"{library} is there, but no Python wrapper for it: install ROCm's amd-smi-lib, or pip install amdsmi"
        )
    return Place(library=library, wrapper=installed, is_rocms=False)


def is_trustworthy(path: Path) -> bool:
    """Whether only root, or who runs this, can change the file that a path leads to: see to each folder on the way."""
    try:
        real = path.resolve(strict=True)
        return all(_is_ours_alone(place) for place in {real, *real.parents, *path.absolute().parents})
    except OSError:
        return False


def _is_ours_alone(path: Path) -> bool:
    status = path.stat()
    if status.st_uid not in {0, os.geteuid()}:
        return False
    is_shared_folder = (
        stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    )  # as /tmp: entries are their owners'
    return not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or bool(is_shared_folder)


def _candidates(environment: Mapping[str, str], system: Path, installed: Path | None) -> Iterator[Path]:
    """As find_smi_library of amdsmi_wrapper.py 7.0.2 searches, and AMDSMI_LIB_OVERRIDE of ROCm 7.14."""
    if override := environment.get("AMDSMI_LIB_OVERRIDE"):
        yield Path(override)
    if rocm := environment.get("ROCM_HOME") or environment.get("ROCM_PATH"):
        yield Path(rocm) / "lib" / LIBRARY
    for folder in environment.get("LD_LIBRARY_PATH", "").split(":"):
        if folder:
            yield Path(folder) / LIBRARY
    yield from _of_loader_cache(system / "etc/ld.so.cache")
    if installed is not None:
        yield installed / LIBRARY
    yield system / "opt/rocm/lib" / LIBRARY
    yield from sorted(system.glob(f"opt/rocm-*/lib/{LIBRARY}"), key=_release, reverse=True)


def _of_loader_cache(cache: Path) -> Iterator[Path]:
    """What dlopen("libamd_smi.so") would find; the cache (ldconfig(8)) has the paths as plain strings."""
    try:
        content = cache.read_bytes()
    except OSError:  # there need not be one
        return
    for match in _CACHED.finditer(content):
        yield Path(os.fsdecode(match[1]))


def _release(library: Path) -> list[int]:
    """`/opt/rocm-10.0.0/lib/...` is newer than rocm-7.0.2."""
    return [int(number) for number in re.findall(r"\d+", library.parent.parent.name)]


def _state(path: Path) -> FileState:
    status = path.stat()
    return (str(path), status.st_ino, status.st_size, status.st_mtime_ns)
