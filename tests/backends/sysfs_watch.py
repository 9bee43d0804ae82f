"""What of a tree is opened and listed, and files that refuse to be read: the boundary to the kernel, for the tests."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_listeners: list[tuple[str, list[str]]] = []
"""What the paths begin with, and where they are put without it."""


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if not (_listeners and arguments and event in {"open", "os.listdir", "os.scandir"}):
        return
    path = os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes | os.PathLike) else ""
    for prefix, paths in _listeners:
        if path.startswith(prefix):
            paths.append(path.removeprefix(prefix))


sys.addaudithook(_note)  # for good: Python takes none back


@contextmanager
def touched(root: Path | None = None) -> Iterator[list[str]]:
    """The paths below `root` that are opened or listed meanwhile, relative to it, in order; without one all, as they are."""
    listener: tuple[str, list[str]] = ("" if root is None else f"{root}/", [])
    _listeners.append(listener)
    try:
        yield listener[1]
    finally:
        _listeners[:] = [one for one in _listeners if one is not listener]


class Refusals:
    """Files whose opening fails, as the kernel's reads fail. `by_suffix`: end of the path -> errno."""

    def __init__(self, monkeypatch: object) -> None:
        self.by_suffix: dict[str, int] = {}
        self.calls = 0
        self.when_called = lambda: None
        really_open = os.open

        def guarded(path, *arguments, **keywords):
            for suffix, code in self.by_suffix.items():
                if str(path).endswith(suffix):
                    self.calls += 1
                    self.when_called()
                    raise OSError(code, os.strerror(code), path)
            return really_open(path, *arguments, **keywords)

        monkeypatch.setattr(os, "open", guarded)

    def all_sensors(self, code: int = errno.EPERM) -> None:
        """What amdgpu does while the card is suspended (Linux 6.15 and newer) or being reset."""
        for name in ("_input", "_average", "pwm1", "_enable", "_cap", "busy_percent", "gpu_metrics", "pp_dpm_sclk",
                     "pp_dpm_mclk", "_max", "fan_curve"):  # fmt: skip
            self.by_suffix[name] = code
