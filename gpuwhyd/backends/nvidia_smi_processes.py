"""Who uses a card, as nvidia-smi's document lists them. Pure."""

import re
from collections.abc import Iterator
from xml.etree import ElementTree as ET

from gpuwhyd.backends.plausible import BYTES, within
from gpuwhyd.model import GpuProcess

_MEMORY = re.compile(r"(-?[0-9]{1,15}(?:\.[0-9]{1,9})?) ?([KMG]i?B|B)")
_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}
"""Before driver 340 MiB were called MB."""
_KINDS = {"C": "compute", "G": "graphics", "C+G": "compute+graphics", "M+C": "mps", "M": "mps"}


def bytes_of(text: str) -> int | None:
    """`1024 MiB`; `None` for what is no plausible number with such a unit."""
    match = _MEMORY.fullmatch(text.strip())
    factor = _BYTES.get(match[2]) if match else None
    value = within(float(match[1]) * factor, *BYTES) if match and factor else None
    return None if value is None else int(value)


def processes_of(card: ET.Element) -> tuple[GpuProcess, ...] | None:
    """`None` unless the list is there: without permission, or in a virtual machine, a word stands in its place."""
    listing = card.find("processes")
    if listing is None or (listing.text or "").strip() not in {"", "None"}:
        return None
    kinds: dict[int, set[str]] = {}
    memory: dict[int, dict[str, dict[tuple[str, str], int]]] = {}
    for pid, kind, instance, used in _entries(listing):
        kinds.setdefault(pid, set()).add(kind)
        if used is not None:
            memory.setdefault(pid, {}).setdefault(kind, {})[instance] = used
    return tuple(
        GpuProcess(
            pid=pid,
            kind=_kind(kinds[pid]),
            # kinds overlap, so the largest counts; within one a process may use several MIG instances
            memory_used_bytes=max(
                (sum(parts.values()) for parts in memory.get(pid, {}).values()), default=None
            ),
        )
        for pid in sorted(kinds)
    )


def _entries(listing: ET.Element) -> Iterator[tuple[int, str, tuple[str, str], int | None]]:
    for entry in listing.iter("process_info"):
        pid = _word(entry, "pid")
        # the kernel's PID_MAX_LIMIT
        if not (pid.isascii() and pid.isdigit() and 0 < int(pid[:12]) < 1 << 22):
            continue
        instance = (_word(entry, "gpu_instance_id"), _word(entry, "compute_instance_id"))
        yield int(pid[:12]), _word(entry, "type"), instance, bytes_of(entry.findtext("used_memory") or "")


def _kind(types: set[str]) -> str:
    kinds = {_KINDS.get(kind, "") for kind in types}
    if "mps" in kinds:
        return "mps"
    words = {word for kind in kinds for word in kind.split("+")}
    return "+".join(word for word in ("compute", "graphics") if word in words) or "unknown"


def _word(entry: ET.Element, name: str) -> str:
    return (entry.findtext(name) or "").strip()
