"""Our bus code over dbus-next and over dbus-fast, side by side in one process, so that each reads what the other wrote."""

import contextlib
import functools
import importlib.util
import os
import sys
from dataclasses import dataclass
from types import ModuleType
from unittest import mock

from gpuwhyd.bus import codec as _codec
from gpuwhyd.bus import library as _library

NAMES = ("dbus-next", "dbus-fast")


@dataclass(frozen=True, kw_only=True)
class Library:
    name: str
    library: ModuleType
    codec: ModuleType


@functools.cache
def both() -> tuple[Library, Library]:
    """Each over a copy of our modules that was loaded for it."""
    first, second = (_loaded(name) for name in NAMES)
    return first, second


def _loaded(name: str) -> Library:
    copies = {}
    with contextlib.ExitStack() as patches:
        patches.enter_context(mock.patch.dict(os.environ, {"GPUWHYD_DBUS_LIBRARY": name}))
        for module in (_library, _codec):
            spec = importlib.util.spec_from_file_location(module.__name__, module.__file__)
            assert spec is not None
            assert spec.loader is not None
            copy = importlib.util.module_from_spec(spec)
            _, _, last = module.__name__.rpartition(".")
            patches.enter_context(mock.patch.dict(sys.modules, {module.__name__: copy}))
            spec.loader.exec_module(copy)
            copies[last] = copy
    assert copies["library"].description().startswith(name)
    assert copies["codec"].Variant is copies["library"].Variant
    return Library(name=name, **copies)
