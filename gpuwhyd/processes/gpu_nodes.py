"""Device nodes of GPUs -> PCI addresses. Nothing here wakes a card."""

import os
import re
from pathlib import Path

from gpuwhyd.model import PCI_ADDRESS
from gpuwhyd.processes.procfs import read_file

_MINOR = re.compile(rb"^Device Minor:[ \t]*([0-9]{1,6})[ \t]*$", re.MULTILINE)
_INFORMATION_LIMIT_BYTES = 4096


class GpuNodes:
    """Remembers what it has found until `forget`: cards come and go, and a node's name is soon another card's."""

    def __init__(self, *, sysfs: Path, procfs: Path) -> None:
        self._drm = f"{sysfs}/class/drm"
        self._nvidia = f"{procfs}/driver/nvidia/gpus"
        self._known: dict[str, str | None] = {}
        self._minors: dict[str, str] | None = None

    def address(self, node: str) -> str | None:
        """`renderD128`, `card0`, `nvidia0` -> `0000:03:00.0`; None for what is on no PCI bus, or gone."""
        if node not in self._known:
            self._known[node] = self._of_nvidia(node) if node.startswith("nvidia") else self._of_drm(node)
        return self._known[node]

    def forget(self) -> None:
        self._known, self._minors = {}, None

    def _of_drm(self, node: str) -> str | None:
        """By the link to the device, which the kernel has in memory."""
        try:
            name = os.readlink(f"{self._drm}/{node}/device").rpartition("/")[2]  # noqa: PTH115
        except OSError:  # a node that was kept open while its card was unplugged
            return None
        return name.lower() if PCI_ADDRESS.fullmatch(name) else None

    def _of_nvidia(self, node: str) -> str | None:
        if self._minors is None:
            self._minors = dict(self._read_minors())
        return self._minors.get(node)

    def _read_minors(self) -> list[tuple[str, str]]:
        """From the text that NVIDIA's module keeps of each card: `Device Minor: 	 0`."""
        try:
            names = os.listdir(self._nvidia)  # noqa: PTH208
        except OSError:  # the module is not loaded
            return []
        found = []
        for name in names:
            try:
                minor = _MINOR.search(
                    read_file(f"{self._nvidia}/{name}/information", _INFORMATION_LIMIT_BYTES)
                )
            except OSError:  # just unplugged
                continue
            if minor is not None and PCI_ADDRESS.fullmatch(name):
                found.append((f"nvidia{int(minor[1])}", name.lower()))
        return found
