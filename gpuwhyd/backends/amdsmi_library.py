"""AMD's library in this process, through its genuine Python wrapper: tried elsewhere, then loaded, initialised, shut down.

A pair of library and wrapper is tried once in a short-lived process (amdsmi_trial.py): it may print, raise anything, hang
or crash there. What fails is not tried again until one of its files has changed, or ten minutes have passed.

Once loaded it stays: C++ libraries do not survive dlclose, and two copies of one in a process share their globals. When
it is replaced on disk, the old pair, which still belongs together, goes on; if it then cannot be initialised any more,
the daemon must be restarted, and the message says so.

Trying and initialising open /dev/kfd and the render node of every AMD card: only while all of them are awake.
"""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gpuwhyd.backends import amdsmi_trial
from gpuwhyd.backends.amdsmi_places import FileState, Place, find, installed_wrapper
from gpuwhyd.backends.amdsmi_surroundings import environment, quiet_stdout
from gpuwhyd.backends.amdsmi_versions import misfit
from gpuwhyd.errors import BackendUnavailableError

_log = logging.getLogger(__name__)

TRIAL_SECONDS = 4.0
"""Less than the sampler's deadline. Measured: 0.3 s, with the wrapper's source compiled anew each time."""
TRY_AGAIN_SECONDS = 600.0
_LONGEST_ERROR = 200

_NO_PERMISSION = 10
_DRIVER_NOT_LOADED = 34
_ADVICE = {
    _NO_PERMISSION: "no permission to open /dev/kfd or the cards' render nodes: run as root, or join the group render",
    _DRIVER_NOT_LOADED: "the kernel driver amdgpu is not loaded: modprobe amdgpu, or see `dmesg | grep -i amdgpu`",
}


class AmdsmiLibrary:
    """The library's state in this process; handles die with `shut_down`. `variables` are the environment's."""

    def __init__(
        self,
        *,
        variables: Mapping[str, str] = os.environ,
        system: Path = Path("/"),
        installed: Callable[[], Path | None] = installed_wrapper,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._variables = variables
        self._system = system
        self._installed = installed
        self._monotonic = monotonic
        self._package: Any = None
        self._place: Place | None = None
        self._files: tuple[FileState, ...] = ()
        self._refused: dict[tuple[FileState, ...], tuple[float, str]] = {}
        self.initialised = False

    @property
    def wrapper(self) -> Any:
        """The module of the C functions and structures; to be used while initialised."""
        return self._package.amdsmi_interface.amdsmi_wrapper

    def locate(self) -> Place:
        """Which library and wrapper there are; loads nothing. Raises BackendUnavailableError with what to do."""
        if self._place is not None:
            return self._place
        return find(self._variables, self._system, self._installed())

    def initialise(self) -> dict[str, Any]:
        """Handle by lower-case PCI address. Loads the library where needed, after a trial.

        Raises BackendUnavailableError with what to do.
        """
        if self._package is None:
            self._load(self.locate())
        try:
            with quiet_stdout():
                self._package.amdsmi_interface.amdsmi_init()
                self.initialised = True
                return self._handles()
        except Exception as error:  # the wrapper raises what it likes
            self.shut_down()
            raise BackendUnavailableError(self._advice(error)) from error

    def shut_down(self) -> None:
        """Closes the device nodes, so that idle cards may suspend. Harmless when not initialised."""
        if not self.initialised:
            return
        self.initialised = False
        try:
            with quiet_stdout():
                self._package.amdsmi_interface.amdsmi_shut_down()
        except Exception as error:  # noqa: BLE001 - as above; there is nothing more to be done
            _log.info("AMD's library did not shut down cleanly: %s", _in_short(error))

    def _handles(self) -> dict[str, Any]:
        interface, refused = self._package.amdsmi_interface, self._package.AmdSmiLibraryException
        handles: dict[str, Any] = {}
        for handle in interface.amdsmi_get_processor_handles():
            try:
                address = str(interface.amdsmi_get_gpu_device_bdf(handle)).lower()
            except refused as error:
                if error.err_code in _ADVICE:  # not this card's trouble alone
                    raise
                continue
            # Partitions of a card have handles of their own, whose addresses are on no bus.
            handles.setdefault(address, handle)
        return handles

    def _load(self, place: Place) -> None:
        files = self._states(place)
        refused_until, reason = self._refused.get(files, (0.0, ""))
        if self._monotonic() < refused_until:
            raise BackendUnavailableError(reason)
        complaint = self._trial(place)
        if complaint is None and self._states(place) != files:
            complaint = (
                f"{place.library} has just been replaced; tried again"  # rare: a package is being installed
            )
            raise BackendUnavailableError(complaint)
        if complaint is None:
            try:
                with quiet_stdout(), environment(place.variables):
                    self._package = amdsmi_trial.load_wrapper(str(place.wrapper))
            except Exception as error:  # noqa: BLE001 - as above
                complaint = f"AMD's library cannot be loaded: {_in_short(error)}"
        if complaint is not None:
            self._refused = {files: (self._monotonic() + TRY_AGAIN_SECONDS, complaint)}
            raise BackendUnavailableError(complaint)
        self._place, self._files = place, files
        _log.info("AMD's library %s is read through the wrapper in %s", place.library, place.wrapper)

    def _states(self, place: Place) -> tuple[FileState, ...]:
        try:
            return place.files()
        except OSError as error:
            raise BackendUnavailableError(
                f"AMD's library or its Python wrapper is incomplete: {error}"
            ) from error

    def _trial(self, place: Place) -> str | None:
        """What speaks against the pair; None when it works and belongs together."""
        variables = {**os.environ, **self._variables, **place.variables}
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-B", amdsmi_trial.__file__, str(place.wrapper)],
                env={name: value for name, value in variables.items() if value is not None},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",
                timeout=TRIAL_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"{place.library} does not answer within {TRIAL_SECONDS:g} s; see `dmesg | grep -i amdgpu`"
        except OSError as error:
            return f"AMD's library cannot be tried in a process of its own: {error}"
        if done.returncode != 0:
            return f"{place.library} crashes when it is loaded or initialised ({_ending(done.returncode)}); update ROCm"
        return verdict(done.stdout, place)

    def _advice(self, error: Exception) -> str:
        if self._is_replaced():
            return (
                "AMD's library was replaced and this process still has the old one: systemctl restart gpuwhyd"
            )
        code = getattr(error, "err_code", 0)
        return _ADVICE.get(code, f"AMD's library cannot be initialised: {_in_short(error)}")

    def _is_replaced(self) -> bool:
        try:
            return self._place is not None and self._place.files() != self._files
        except OSError:
            return True


def verdict(told: bytes, place: Place) -> str | None:
    """What the trial's process told, in one line; None when nothing speaks against the pair. Takes any bytes."""
    try:
        answer = json.loads(told)
        if "failed" not in answer:
            words = [int(word) for word in answer["library"]]
            complaint = misfit(_one_line(str(answer["version"])), words)
            return None if complaint is None else f"{complaint}: {_remedy(place)}"
        if answer.get("code") in _ADVICE:
            return _ADVICE[answer["code"]]
        what, error = str(answer["failed"]), _one_line(str(answer["error"]))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError):
        return f"{place.library} cannot be tried: its process said nothing sensible"
    if what == "import":
        return (
            f"the Python wrapper in {place.wrapper} does not fit {place.library} ({error}): {_remedy(place)}"
        )
    return f"AMD's library cannot be initialised: {error}"


def _remedy(place: Place) -> str:
    if place.is_rocms:
        return "both come with ROCm's amd-smi-lib, install it anew"
    return (
        f"ROCm's own wrapper belongs in {place.library.parent.parent / 'share/amd_smi'} (package amd-smi-lib)"
    )


def _ending(returncode: int) -> str:
    return f"signal {-returncode}" if returncode < 0 else f"status {returncode}"


def _in_short(error: Exception) -> str:
    return _one_line(f"{type(error).__name__}: {error}")


def _one_line(text: str) -> str:
    line = " ".join(text.split())[:_LONGEST_ERROR]
    return "".join(character if character.isprintable() else "?" for character in line)
