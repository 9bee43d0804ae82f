"""Loading AMD's Python wrapper from its folder; and, run as a script, trying it and its library in a process of its own.

The wrapper binds some 180 functions of the library while it is imported, and a library that does not fit may crash in
any of them: better there than here. So this file imports nothing of gpuwhyd, and its process ends when it has told, in
one line of JSON on its standard output, how far it came. Whatever wrapper and library print goes nowhere.
"""

import ctypes
import importlib.util
import json
import os
import sys
from typing import Any

PACKAGE = "amdsmi"
VERSION_WORDS = 4


def load_wrapper(folder: str) -> Any:
    """The package in this folder, imported as `amdsmi`. Raises whatever it raises; then nothing of it is left."""
    forget_wrapper()
    spec = importlib.util.spec_from_file_location(
        PACKAGE, f"{folder}/__init__.py", submodule_search_locations=[folder]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{folder} is no Python package")
    package = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = package
    writes_bytecode = sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # the folder is ROCm's
    try:
        spec.loader.exec_module(package)
    except BaseException:  # raised anew: however loading ends, half a wrapper must not stay behind
        forget_wrapper()
        raise
    finally:
        sys.dont_write_bytecode = writes_bytecode
    return package


def forget_wrapper() -> None:
    for name in [name for name in sys.modules if name == PACKAGE or name.startswith(f"{PACKAGE}.")]:
        del sys.modules[name]


def library_version(package: Any) -> tuple[int, ...]:
    """The first numbers of the library's amdsmi_version_t; its layout is not relied on, see amdsmi_versions.

    Raises OSError with the library's status code. Until ROCm 6.x the library tells only while it is initialised.
    """
    function = package.amdsmi_interface.amdsmi_wrapper.amdsmi_get_lib_version
    buffer = (ctypes.c_uint32 * 64)()  # more than any version of the structure needs: 24 bytes
    code = function(ctypes.cast(buffer, function.argtypes[0]))
    if code != 0:
        raise OSError(code, "amdsmi_get_lib_version")
    return tuple(buffer[:VERSION_WORDS])


def _try(folder: str) -> dict[str, object]:
    try:
        package = load_wrapper(folder)
        interface = package.amdsmi_interface
    except Exception as error:  # noqa: BLE001 - KeyError, AttributeError, OSError: versions differ in what they raise
        return {"failed": "import", "error": f"{type(error).__name__}: {error}"}
    try:
        interface.amdsmi_init()
        words = library_version(package)
        interface.amdsmi_get_processor_handles()
        interface.amdsmi_shut_down()
    except Exception as error:  # noqa: BLE001 - as above
        return {
            "failed": "initialisation",
            "error": f"{type(error).__name__}: {error}",
            "code": getattr(error, "err_code", None),
        }
    return {"version": getattr(package, "__version__", ""), "library": words}


def _main() -> None:
    answer = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.write(answer, json.dumps(_try(sys.argv[1])).encode())
    os._exit(0)  # the library's destructors may hang or crash, and prove nothing


if __name__ == "__main__":
    _main()
