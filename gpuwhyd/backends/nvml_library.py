"""The genuine nvidia-ml-py and, through it, the driver's libnvidia-ml.so.1: load, initialise, shut down, reload."""

import ctypes
import importlib
import logging
from pathlib import Path
from typing import Any

from gpuwhyd.errors import BackendError, BackendUnavailableError

_log = logging.getLogger(__name__)

UNINITIALIZED = 1
INVALID_ARGUMENT = 2
NOT_SUPPORTED = 3
NO_PERMISSION = 4
NOT_FOUND = 6
INSUFFICIENT_SIZE = 7
DRIVER_NOT_LOADED = 9
LIBRARY_NOT_FOUND = 12
FUNCTION_NOT_FOUND = 13
GPU_IS_LOST = 15
RESET_REQUIRED = 16
VERSION_MISMATCH = 18
ARGUMENT_VERSION_MISMATCH = 25
DEPRECATED = 26
GPU_NOT_FOUND = 28

NO_ATTACH = 2
"""NVML_INIT_FLAG_NO_ATTACH: initialise without attaching any card; each is attached when its handle is asked for."""


class BindingMissingError(BackendUnavailableError):
    """nvidia-ml-py is not installed: this will not change while the daemon runs."""


def load_binding() -> Any:
    """The module pynvml. Raises BindingMissingError. Does not load the driver's library yet."""
    try:
        return importlib.import_module("pynvml")
    except ImportError as error:
        raise BindingMissingError(
            "the Python package nvidia-ml-py is missing: pip install nvidia-ml-py"
        ) from error


def describe(nvml: Any, code: int) -> str:
    """An NVML error in words, without asking the library."""
    return str(nvml.NVMLError._errcode_to_string.get(code, f"NVML error {code}"))  # noqa: SLF001 - str(error) asks the library, which may not be there


class NvmlLibrary:
    """The library's state in this process. Initialised at most once at a time; handles die with `shut_down`."""

    def __init__(self, nvml: Any) -> None:
        self.nvml = nvml
        self._sessions = 0
        self.initialised = False

    def initialise(self, *, flags: int, kernel_version: str | None) -> None:
        """Loads the library where needed and initialises it.

        Raises BackendUnavailableError with what to do. After the driver was replaced while the daemon ran, the old
        library that is still mapped is dropped and the new one loaded.
        """
        code = self._try(flags)
        if code == VERSION_MISMATCH:
            self._forget_library()
            code = self._try(flags)
        if code == 0:
            self._sessions += 1
            self.initialised = True
            return
        raise BackendUnavailableError(self._advice(code, kernel_version))

    def _try(self, flags: int) -> int:
        try:
            self.nvml.nvmlInitWithFlags(flags)
        except self.nvml.NVMLError as error:
            return int(error.value)
        return 0

    def shut_down(self) -> None:
        """Closes the device nodes, so that idle cards may suspend. Harmless when not initialised."""
        self.initialised = False
        while self._sessions:  # NVML counts initialisations; one whose shutdown failed is given back later
            try:
                self.nvml.nvmlShutdown()
            except self.nvml.NVMLError as error:
                if error.value == UNINITIALIZED:
                    self._sessions = 0
                _log.info("NVML did not shut down cleanly: %s", describe(self.nvml, error.value))
                return
            self._sessions -= 1

    def function(self, name: str) -> Any:
        """A C function of the library, for calls that nvidia-ml-py's own wrapper gets wrong or makes slowly.

        Raises NVMLError FUNCTION_NOT_FOUND when the driver is too old to have it.
        """
        return self.nvml._nvmlGetFunctionPointer(name)  # noqa: SLF001 - the one way to symbols that the wrapper has no function for

    def _forget_library(self) -> None:
        """Unmaps the library, so that the next initialisation loads the file that is on disk now.

        nvidia-ml-py keeps the handle and the functions in module globals and has no call for this. A handle that
        someone else in this process holds keeps the old library mapped; then the second attempt fails as the first.
        """
        nvml = self.nvml
        with nvml.libLoadLock:
            library, nvml.nvmlLib = nvml.nvmlLib, None
            nvml._nvmlGetFunctionPointer_cache.clear()  # noqa: SLF001 - its functions point into the old library
        self._sessions = 0
        if library is not None:
            _dlclose(library._handle)  # noqa: SLF001 - ctypes gives the handle no other name

    def _advice(self, code: int, kernel_version: str | None) -> str:
        if code == LIBRARY_NOT_FOUND:
            return (
                "install the NVIDIA driver's libnvidia-ml.so.1 (Debian: libnvidia-ml1): it cannot be loaded"
            )
        if code == DRIVER_NOT_LOADED:
            return "the NVIDIA kernel module is not loaded: modprobe nvidia, or see `dmesg | grep -i nvrm`"
        if code == NO_PERMISSION:
            return (
                "no permission to talk to the NVIDIA driver: check the mode of /dev/nvidiactl, or run as root"
            )
        if code == VERSION_MISMATCH:
            kernel = (
                f"the loaded kernel module is {kernel_version}"
                if kernel_version
                else "the kernel module differs"
            )
            if _library_is_mapped():
                return (
                    "the NVIDIA driver was replaced and this process still has its old library; "
                    f"{kernel}: systemctl restart gpuwhyd"
                )
            return (
                f"libnvidia-ml.so.1 does not fit the running driver ({kernel}): reboot, or reload the module"
            )
        return f"NVML cannot be initialised: {describe(self.nvml, code)}"


def _dlclose(handle: int) -> None:
    close = ctypes.CDLL(None).dlclose
    close.argtypes = [ctypes.c_void_p]
    close(handle)


def _library_is_mapped() -> bool:
    """Whether an old file of the library, since replaced on disk, is still in this process."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return False
    return any("libnvidia-ml.so" in line and line.endswith("(deleted)") for line in lines)


class SessionLostError(BackendError):
    """NVML as a whole stopped to work: driver unloaded or replaced."""


class CardLostError(BackendError):
    """One card fell off the bus or needs a reset; the others may go on."""


class CardRefusedError(BackendError):
    """One card cannot be opened; the others may go on."""
