"""Who uses an NVIDIA card and how much: NVML's process lists, and its samples of what each process made it work."""

import ctypes
import struct
from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

from gpuwhyd.backends import nvml_library as codes
from gpuwhyd.backends.nvml_library import NvmlLibrary
from gpuwhyd.backends.nvml_mig import mig_devices
from gpuwhyd.backends.nvml_mps import CLIENT, MpsServers, work_of_clients
from gpuwhyd.backends.nvml_questions import Questions
from gpuwhyd.backends.nvml_samples import Busy, Sample, SampleWindow
from gpuwhyd.backends.plausible import BYTES
from gpuwhyd.model import GpuProcess

_INFO = struct.Struct("=I4xQII")  # nvmlProcessInfo_v2_t, which is also _v3
_INFO_V1 = struct.Struct("=I4xQ")  # nvmlProcessInfo_v1_t
_VERSIONS = (("_v3", _INFO), ("_v2", _INFO), ("", _INFO_V1))
"""Newest first: drivers before 510 lack _v3, those before 450 also _v2."""
_LISTS = tuple(
    (
        which,
        tuple((f"nvmlDeviceGet{which}RunningProcesses{version}", layout) for version, layout in _VERSIONS),
    )
    for which in ("Compute", "Graphics", "MPSCompute")
)
"""Each list's name and its functions."""
_SAMPLE = struct.Struct("=I4xQIIII")  # nvmlProcessUtilizationSample_t
_Entry = tuple[int, int, int, int]
_MEMORY_NOT_AVAILABLE = 0xFFFF_FFFF_FFFF_FFFF
_GROWING_LIST_TRIES = 3
_MOST_ENTRIES = 1 << 16
"""A driver that speaks of more speaks nonsense: Linux has 32,768 processes unless told otherwise (kernel.pid_max), and the
driver's buffer holds some hundred samples. Room is made for as many as it speaks of."""
_IDLE = Busy()

_Mention = tuple[str, str, _Entry]
"""One entry of a process: which list, of which part of the card, and what it says."""


class _Use:
    """One process on one card. Kept while its entries stay the same: most processes hold memory and do little."""

    __slots__ = ("_memory_bytes", "_pid", "busy", "kind", "mentions", "process")

    def __init__(self, pid: int, mentions: tuple[_Mention, ...]) -> None:
        self.mentions = mentions
        self.kind = _kind(mentions)
        self._pid = pid
        self._memory_bytes = _memory_bytes(mentions)
        self.busy: Busy | None = _IDLE
        self.process = _process(pid, self.kind, self._memory_bytes, _IDLE)
        """As it was `busy` last."""

    def worked(self, busy: Busy | None) -> GpuProcess:
        """`busy` None: the card does not sample processes."""
        if busy != self.busy:
            self.process = _process(self._pid, self.kind, self._memory_bytes, busy)
        self.busy = busy
        return self.process


_kind_of = attrgetter("kind")


class ProcessReader:
    """The processes of one card. Keeps what it needs between ticks: previous list, last sample, buffers."""

    def __init__(self, procfs: Path) -> None:
        self._mps = MpsServers(procfs)
        self._is_partitioned = False
        self._uses: dict[int, _Use] = {}
        self._window = SampleWindow()
        self._list_buffer = ctypes.create_string_buffer(64 * _INFO.size)
        self._sample_buffer = ctypes.create_string_buffer(128 * _SAMPLE.size)

    def restart(self) -> None:
        """After a gap: what was sampled meanwhile belongs to no tick."""
        self._uses = {}
        self._window.restart()

    def read(
        self, library: NvmlLibrary, handle: Any, questions: Questions, *, own_pid: int, wall_usec: int
    ) -> tuple[GpuProcess, ...] | None:
        """All processes but our own, by pid; None when someone may use the card whom the driver does not list."""
        mentions = self._lists(library, handle, questions)
        if mentions is None:
            self._uses = {}
            return None
        mentions.pop(own_pid, None)
        before, uses = self._uses, {}
        for pid, said in mentions.items():
            use = before.get(pid)
            uses[pid] = use if use is not None and use.mentions == said else _Use(pid, said)
        self._uses = uses
        recent = uses if uses.keys() == before.keys() else before | uses
        samples = questions.ask("nvmlDeviceGetProcessUtilization", self._samples, library, handle, wall_usec)
        work = self._work(recent, samples, wall_usec)
        processes = {
            pid: use.process if (busy := work.get(pid, _IDLE)) is use.busy else use.worked(busy)
            for pid, use in uses.items()
        }
        if recent is not uses and samples is not None:
            for pid in work.keys() & before.keys() - uses.keys():  # those that have ended since the last list
                processes[pid] = _process(pid, before[pid].kind, None, work[pid])
        return tuple([processes[pid] for pid in sorted(processes)])

    def _work(
        self, recent: Mapping[int, _Use], samples: list[Sample] | None, wall_usec: int
    ) -> Mapping[int, Busy | None]:
        """What those that worked did, by pid; None for one of whom nobody can tell. `recent`: in this or the last list."""
        shared = CLIENT in map(_kind_of, recent.values())  # seldom
        kinds = {pid: use.kind for pid, use in recent.items()} if shared else {}
        servers = self._mps.among(kinds)
        if samples is None:
            return dict.fromkeys(recent.keys() - servers)
        work = self._window.weigh(samples, recent, wall_usec)
        return work_of_clients(work, kinds, servers) if servers else work

    def _lists(
        self, library: NvmlLibrary, handle: Any, questions: Questions
    ) -> dict[int, tuple[_Mention, ...]] | None:
        """Whoever uses the card or one of its MIG devices; None when that may not be all."""
        uses: dict[int, tuple[_Mention, ...]] = {}
        failures = questions.failures
        devices = mig_devices(library, handle, questions)
        if self._is_partitioned is not (devices is not None):
            self._is_partitioned = devices is not None
            questions.forget()  # MIG mode decides what a card declines
        whole = self._add(uses, library, handle, questions, "")
        parts = [
            self._add(uses, library, device, questions, f" of MIG device {index}")
            for index, device in devices or ()
        ]
        if questions.failures > failures:
            return None  # half a list would say that processes have ended which have not
        return uses if whole or (parts and all(parts)) else None

    def _add(
        self,
        uses: dict[int, tuple[_Mention, ...]],
        library: NvmlLibrary,
        handle: Any,
        questions: Questions,
        part: str,
    ) -> bool:
        """Adds the processes of a card, or of a part of it; False when there may be others."""
        answered, forbidden = False, False
        for which, functions in _LISTS:
            entries = self._list(library, handle, questions, functions, part)
            if entries is None:
                forbidden |= any(questions.is_forbidden(name + part) for name, _ in functions)
                continue
            answered = True
            for entry in entries:
                pid, mention = entry[0], (which, part, entry)
                uses[pid] = (*uses[pid], mention) if pid in uses else (mention,)
        return answered and not forbidden

    def _list(
        self,
        library: NvmlLibrary,
        handle: Any,
        questions: Questions,
        functions: tuple[tuple[str, struct.Struct], ...],
        part: str,
    ) -> list[_Entry] | None:
        for name, layout in functions:
            if questions.is_declined(name + part):
                continue
            entries = questions.ask(name + part, self._call_list, library, handle, name, layout)
            if entries is not None or not questions.is_declined(name + part):
                return entries
        return None

    def _call_list(self, library: NvmlLibrary, handle: Any, name: str, layout: struct.Struct) -> list[_Entry]:
        """nvidia-ml-py's own functions make an object for each field of each process: ten times as slow."""
        function = library.function(name)
        count = ctypes.c_uint()
        code = codes.INSUFFICIENT_SIZE
        for _ in range(_GROWING_LIST_TRIES):
            count.value = len(self._list_buffer) // layout.size
            code = function(handle, ctypes.byref(count), self._list_buffer)
            if code != codes.INSUFFICIENT_SIZE:
                break
            if count.value > _MOST_ENTRIES:
                break
            room = count.value * 2 + 5
            self._list_buffer = ctypes.create_string_buffer(room * _INFO.size)
        if code != 0:
            raise library.nvml.NVMLError(code)
        listed = min(count.value, len(self._list_buffer) // layout.size)
        entries = layout.iter_unpack(memoryview(self._list_buffer)[: listed * layout.size])
        if layout is _INFO_V1:
            return [(pid, memory, 0, 0) for pid, memory in entries]
        return list(entries)

    def _samples(self, library: NvmlLibrary, handle: Any, wall_usec: int) -> list[Sample]:
        """(pid, stamp, sm, memory, encoder, decoder) after the last one seen; empty when nobody worked.

        nvidia-ml-py takes SUCCESS on the sizing call for an error and makes an object for each of up to 4096
        samples. Its protocol is kept: ask for the size with no buffer, then fetch.
        """
        function = library.function("nvmlDeviceGetProcessUtilization")
        after = ctypes.c_ulonglong(self._window.begin(wall_usec))
        count = ctypes.c_uint(0)
        code = function(handle, None, ctypes.byref(count), after)
        if code == 0:
            return []
        for _ in range(_GROWING_LIST_TRIES):
            if code != codes.INSUFFICIENT_SIZE or count.value > _MOST_ENTRIES:
                break
            room = max(count.value, len(self._sample_buffer) // _SAMPLE.size)
            if room * _SAMPLE.size > len(self._sample_buffer):
                self._sample_buffer = ctypes.create_string_buffer(room * _SAMPLE.size)
            count.value = room
            code = function(handle, self._sample_buffer, ctypes.byref(count), after)
        if code == codes.NOT_FOUND:
            return []
        if code != 0:
            raise library.nvml.NVMLError(code)
        return list(_SAMPLE.iter_unpack(memoryview(self._sample_buffer)[: count.value * _SAMPLE.size]))


def _kind(mentions: tuple[_Mention, ...]) -> str:
    lists = {which for which, _, _ in mentions}
    if "MPSCompute" in lists:
        return CLIENT
    return "+".join(which.lower() for which in ("Compute", "Graphics") if which in lists)


def _memory_bytes(mentions: tuple[_Mention, ...]) -> int | None:
    """The lists overlap, so the largest counts; within one, a process may use several MIG instances."""
    by_list: dict[tuple[str, bool], dict[tuple[str, int, int], int]] = {}
    for which, part, (_, memory, gpu_instance, compute_instance) in mentions:
        if memory != _MEMORY_NOT_AVAILABLE:
            by_list.setdefault((which, not part), {})[part, gpu_instance, compute_instance] = memory
    totals = (sum(instances.values()) for instances in by_list.values())
    return max((total for total in totals if total <= BYTES[1]), default=None)


def _process(pid: int, kind: str, memory_bytes: int | None, busy: Busy | None) -> GpuProcess:
    return GpuProcess(
        pid=pid,
        kind=kind,
        memory_used_bytes=memory_bytes,
        engine_percent=busy.engine if busy else None,
        memory_utilization_percent=busy.memory if busy else None,
        encoder_percent=busy.encoder if busy else None,
        decoder_percent=busy.decoder if busy else None,
    )
