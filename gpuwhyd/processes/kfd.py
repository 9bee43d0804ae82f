"""Compute processes of AMD cards (ROCm, HIP), as the kernel's KFD lists them below class/kfd: DRM fdinfo has none of
their work. The list is of the whole machine and open to everybody, and reading it wakes nothing; the one register that is
read (CU occupancy) is read of awake cards only. The files are those of kfd_process.c and kfd_topology.c; `sdma_*` is
left alone, because the kernel looks into the process's memory to answer it.
"""

import os
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from gpuwhyd.kernel_files import read_whole_number
from gpuwhyd.processes.procfs import read_file

_PROPERTY = re.compile(rb"^([a-z_]+) ([0-9]{1,20})$", re.MULTILINE)
_PROPERTIES_LIMIT_BYTES = 4096
_MEMORY_PREFIX = "vram_"

WORKING_PERCENT = 20.0
"""A card that is utilized less may well be so by nobody in particular."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KfdUse:
    """What one process has of one card."""

    memory_used_bytes: int = 0
    queues: int | None = None
    """None: the kernel does not list them."""
    occupancy_percent: float | None = None
    """How many of the card's compute units work for it at this moment; None where the kernel cannot count them."""


@dataclass(frozen=True, slots=True)
class _Node:
    """A GPU of KFD's: a card, or a part of one."""

    address: str
    compute_units: int


class Kfd:
    """`read` once a tick. KFD may appear and go at any time: without it nobody uses it."""

    def __init__(self, sysfs: Path, *, own_pid: int) -> None:
        self._processes = f"{sysfs}/class/kfd/kfd/proc"
        self._topology = f"{sysfs}/class/kfd/kfd/topology/nodes"
        self._own_pid = own_pid
        self._nodes: dict[str, _Node] = {}
        self._strangers: set[str] = set()
        """GPU ids that are in no topology; looked for once each."""

    def read(self, *, awake: Collection[str], let_go: Collection[str] = ()) -> dict[str, dict[int, KfdUse]]:
        """By card and pid, of these PCI addresses: who has memory or queues on them. Of those let go, no occupancy."""
        found: dict[str, dict[int, KfdUse]] = {}
        for name in _names(self._processes):
            if not (name.isascii() and name.isdigit()) or int(name) == self._own_pid:
                continue
            for address, use in self._uses(f"{self._processes}/{name}", awake, let_go).items():
                found.setdefault(address, {})[int(name)] = use
        return found

    def only_card(self) -> str | None:
        """The PCI address of the card behind /dev/kfd, when there is but one."""
        if not self._nodes:
            self._nodes = self._read_nodes()
        addresses = {node.address for node in self._nodes.values()}
        return addresses.pop() if len(addresses) == 1 else None

    def forget(self) -> None:
        """Cards may have come or gone: what GPU ids mean is looked up anew."""
        self._nodes, self._strangers = {}, set()

    def _uses(self, process: str, awake: Collection[str], let_go: Collection[str]) -> dict[str, KfdUse]:
        uses: dict[str, KfdUse] = {}
        queues = _queues(f"{process}/queues")
        for name in _names(process):
            gpu_id = name.removeprefix(_MEMORY_PREFIX)
            if gpu_id == name or (node := self._node(gpu_id)) is None:
                continue
            if node.address not in awake and node.address not in let_go:
                continue
            memory = read_whole_number(f"{process}/{name}") or 0
            count = None if queues is None else queues[gpu_id]
            if not memory and not count:
                continue  # every process that has /dev/kfd open is listed with every card
            occupancy = None
            if count == 0:
                occupancy = 0.0
            elif node.address in awake and node.compute_units:
                units = read_whole_number(f"{process}/stats_{gpu_id}/cu_occupancy")
                occupancy = None if units is None else min(100.0, 100 * units / node.compute_units)
            use = KfdUse(memory_used_bytes=memory, queues=count, occupancy_percent=occupancy)
            earlier = uses.get(node.address)
            uses[node.address] = use if earlier is None else _both(earlier, use)
        return uses

    def _node(self, gpu_id: str) -> _Node | None:
        node = self._nodes.get(gpu_id)
        if node is None and gpu_id not in self._strangers:
            self._nodes = self._read_nodes()
            node = self._nodes.get(gpu_id)
            if node is None:
                self._strangers.add(gpu_id)
        return node

    def _read_nodes(self) -> dict[str, _Node]:
        """location_id is bus << 8 | device and function, with the number of a partition in its highest bits; simd_count /
        simd_per_cu are the compute units. CPUs have the id 0.
        """
        nodes: dict[str, _Node] = {}
        for name in _names(self._topology):
            gpu_id = read_whole_number(f"{self._topology}/{name}/gpu_id")
            if not gpu_id:
                continue
            try:
                text = read_file(f"{self._topology}/{name}/properties", _PROPERTIES_LIMIT_BYTES)
            except OSError:  # a device cgroup may forbid it, or the card is just going away
                continue
            said = {key.decode(): int(value) for key, value in _PROPERTY.findall(text)}
            location, domain = said.get("location_id"), said.get("domain", 0)
            if location is None or domain > 0xFFFF_FFFF:
                continue
            address = f"{domain:04x}:{location >> 8 & 0xFF:02x}:{location >> 3 & 0x1F:02x}.{location & 7}"
            per_unit = said.get("simd_per_cu", 0)
            units = said.get("simd_count", 0) // per_unit if per_unit else 0
            nodes[str(gpu_id)] = _Node(address, units)
        return _as_whole_cards(nodes)


def engine_percents(
    uses: Mapping[int, KfdUse], *, utilization_percent: float | None, explained_percent: float
) -> dict[int, float | None]:
    """How much of the card's time each process took, by pid; None where the kernel counts no compute units for it.

    Occupancy counts the compute units that are full at one instant: a kernel that fills a quarter of them keeps the
    whole card at work, and between two kernels there are none. So the processes share what the card itself says it
    worked, but for `explained_percent` that others did, and each gets no less than its occupancy. They share it by
    occupancy; when nobody was caught at work, those with queues share it by memory.
    """
    told = {pid: use.occupancy_percent for pid, use in uses.items()}
    if None in told.values():
        return told
    left = (utilization_percent or 0.0) - explained_percent
    weights = {pid: percent or 0.0 for pid, percent in told.items()}
    if not any(weights.values()) and left >= WORKING_PERCENT:
        weights = {pid: float(use.memory_used_bytes or 1) if use.queues else 0.0 for pid, use in uses.items()}
    whole = sum(weights.values())
    if whole <= 0 or left <= sum(percent or 0.0 for percent in told.values()):
        return told
    return {pid: min(100.0, max(told[pid] or 0.0, left * weight / whole)) for pid, weight in weights.items()}


def _both(one: KfdUse, other: KfdUse) -> KfdUse:
    """One process on two parts of a card."""
    halves = (one.occupancy_percent, other.occupancy_percent)
    counts = (one.queues, other.queues)
    return KfdUse(
        memory_used_bytes=one.memory_used_bytes + other.memory_used_bytes,
        queues=None if None in counts else sum(count or 0 for count in counts),
        occupancy_percent=None if None in halves else min(100.0, sum(half or 0.0 for half in halves)),
    )


def _as_whole_cards(nodes: Mapping[str, _Node]) -> dict[str, _Node]:
    """Partitions of one card share its address, and each counts its own units: all of them are the card's."""
    units: Counter[str] = Counter()
    for node in nodes.values():
        units[node.address] += node.compute_units
    return {gpu_id: replace(node, compute_units=units[node.address]) for gpu_id, node in nodes.items()}


def _queues(directory: str) -> Counter[str] | None:
    """How many queues a process has on each GPU id."""
    try:
        names = os.listdir(directory)  # noqa: PTH208
    except OSError:  # before Linux 5.9, or it has just ended
        return None
    return Counter(str(read_whole_number(f"{directory}/{name}/gpuid")) for name in names)


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)  # noqa: PTH208
    except OSError:  # no KFD, or the process has ended
        return []
