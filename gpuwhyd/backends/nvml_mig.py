"""The MIG devices of a partitioned card: compute instances that NVML treats as cards of their own, with restrictions.

In MIG mode NVML tells no utilisation, neither of the card nor of an instance nor of a process (nvml.h). What is left
is who uses which instance and how much memory. The lists of the whole card are for the privileged only; those of an
instance are for whoever may use it.
"""

import ctypes
from typing import Any

from gpuwhyd.backends import nvml_library as codes
from gpuwhyd.backends.nvml_library import NvmlLibrary
from gpuwhyd.backends.nvml_questions import Questions

_ENABLED = 1  # NVML_DEVICE_MIG_ENABLE
_MOST_PLACES = 64
"""No card has more than 7 (NVIDIA's MIG user guide); each is asked for, and a broken driver may say four billion."""


def mig_devices(
    library: NvmlLibrary, handle: Any, questions: Questions
) -> tuple[tuple[int, Any], ...] | None:
    """(index, handle) of each MIG device; None when the card is not partitioned.

    Asked anew each tick: a handle dies with its instance, and may then stand for another one.
    """
    nvml, ask = library.nvml, questions.ask
    mode = ask("nvmlDeviceGetMigMode", nvml.nvmlDeviceGetMigMode, handle)
    if mode is None or mode[0] != _ENABLED:
        return None
    places = ask("nvmlDeviceGetMaxMigDeviceCount", nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0
    places = min(places, _MOST_PLACES)
    name = "nvmlDeviceGetMigDeviceHandleByIndex"
    devices = ((index, ask(name, _device_at, library, handle, index)) for index in range(places))
    return tuple((index, device) for index, device in devices if device)


def _device_at(library: NvmlLibrary, handle: Any, index: int) -> Any:
    """Its handle; a null one where there is none: most cards have fewer instances than places."""
    device = library.nvml.c_nvmlDevice_t()
    function = library.function("nvmlDeviceGetMigDeviceHandleByIndex")
    code = function(handle, ctypes.c_uint(index), ctypes.byref(device))
    if code not in (0, codes.NOT_FOUND):
        raise library.nvml.NVMLError(code)
    return device
