"""Who uses an NVIDIA card and how much: NVML's process lists, and its samples of what each process made it work."""

import ctypes
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpuwhyd.backends import nvml_library as codes
from gpuwhyd.backends.nvml_library import NvmlLibrary
from gpuwhyd.backends.nvml_mig import mig_devices
from gpuwhyd.backends.nvml_mps import CLIENT, MpsServers, work_of_clients
from gpuwhyd.backends.nvml_questions import Questions
from gpuwhyd.backends.nvml_samples import Busy, Sample, SampleWindow
from gpuwhyd.model import GpuProcess

_INFO = struct.Struct("=I4xQII")  # nvmlProcessInfo_v2_t, which is also _v3
_INFO_V1 = struct.Struct("=I4xQ")  # nvmlProcessInfo_v1_t
_LIST_VERSIONS = (("_v3", _INFO), ("_v2", _INFO), ("", _INFO_V1))
"""Newest first: drivers before 510 lack _v3, those before 450 also _v2."""
_LISTS = ("Compute", "Graphics", "MPSCompute")
_SAMPLE = struct.Struct("=I4xQIIII")  # nvmlProcessUtilizationSample_t
_Entry = tuple[int, int, int, int]
_MEMORY_NOT_AVAILABLE = 0xFFFF_FFFF_FFFF_FFFF
_GROWING_LIST_TRIES = 3
_IDLE = Busy()


@dataclass(slots=True)
class _Use:
    kinds: set[str] = field(default_factory=set)
    memory: dict[tuple[str, bool], dict[tuple[int, int, str], int]] = field(default_factory=dict)
    """By list, and whether it is of the whole card; then by MIG instance."""

    def kind(self) -> str:
        if "MPSCompute" in self.kinds:
            return CLIENT
        return "+".join(kind.lower() for kind in ("Compute", "Graphics") if kind in self.kinds)

    def memory_bytes(self) -> int | None:
        """The lists overlap, so the largest counts; within one, a process may use several MIG instances."""
        return max((sum(instances.values()) for instances in self.memory.values()), default=None)


class ProcessReader:
    """The processes of one card. Keeps what it needs between ticks: previous list, last sample, buffers."""

    def __init__(self, procfs: Path) -> None:
        self._mps = MpsServers(procfs)
        self._is_partitioned = False
        self._previous: dict[int, str] = {}
        self._window = SampleWindow()
        self._list_buffer = ctypes.create_string_buffer(64 * _INFO.size)
        self._sample_buffer = ctypes.create_string_buffer(128 * _SAMPLE.size)

    def restart(self) -> None:
        """After a gap: what was sampled meanwhile belongs to no tick."""
        self._previous.clear()
        self._window.restart()

    def read(
        self, library: NvmlLibrary, handle: Any, questions: Questions, *, own_pid: int, wall_usec: int
    ) -> tuple[GpuProcess, ...] | None:
        """All processes but our own, by pid; None when someone may use the card whom the driver does not list."""
        uses = self._lists(library, handle, questions)
        if uses is None:
            self._previous.clear()
            return None
        uses.pop(own_pid, None)
        known = {**self._previous, **{pid: use.kind() for pid, use in uses.items()}}
        self._previous = {pid: known[pid] for pid in uses}
        servers = self._mps.among(known)
        name = "nvmlDeviceGetProcessUtilization"
        samples = questions.ask(name, self._samples, library, handle, wall_usec)
        if samples is None:
            work = dict.fromkeys(uses.keys() - servers)
        else:
            work = work_of_clients(self._window.weigh(samples, known, wall_usec), known, servers)
        return tuple(
            _process(pid, known[pid], uses.get(pid), work.get(pid, _IDLE))
            for pid in sorted(uses.keys() | (work.keys() & known.keys()))
        )

    def _lists(self, library: NvmlLibrary, handle: Any, questions: Questions) -> dict[int, _Use] | None:
        """Whoever uses the card or one of its MIG devices; None when that may not be all."""
        uses: dict[int, _Use] = {}
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
        self, uses: dict[int, _Use], library: NvmlLibrary, handle: Any, questions: Questions, part: str
    ) -> bool:
        """Adds the processes of a card, or of a part of it; False when there may be others."""
        answered, forbidden = False, False
        for which in _LISTS:
            entries = self._list(library, handle, questions, which, part)
            if entries is None:
                forbidden |= any(
                    questions.is_forbidden(_name(which, version) + part) for version, _ in _LIST_VERSIONS
                )
                continue
            answered = True
            for pid, memory, gpu_instance, compute_instance in entries:
                use = uses.setdefault(pid, _Use())
                use.kinds.add(which)
                if memory != _MEMORY_NOT_AVAILABLE:
                    instances = use.memory.setdefault((which, not part), {})
                    instances[gpu_instance, compute_instance, part] = memory
        return answered and not forbidden

    def _list(
        self, library: NvmlLibrary, handle: Any, questions: Questions, which: str, part: str
    ) -> list[_Entry] | None:
        for version, layout in _LIST_VERSIONS:
            name = _name(which, version)
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
            room = count.value * 2 + 5
            self._list_buffer = ctypes.create_string_buffer(room * _INFO.size)
        if code != 0:
            raise library.nvml.NVMLError(code)
        entries = layout.iter_unpack(memoryview(self._list_buffer)[: count.value * layout.size])
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
            if code != codes.INSUFFICIENT_SIZE:
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


def _name(which: str, version: str) -> str:
    return f"nvmlDeviceGet{which}RunningProcesses{version}"


def _process(pid: int, kind: str, use: _Use | None, busy: Busy | None) -> GpuProcess:
    """`use` None: it was in the last list and has ended since; `busy` None: the card does not sample processes."""
    return GpuProcess(
        pid=pid,
        kind=kind,
        memory_used_bytes=use.memory_bytes() if use else None,
        engine_percent=busy.engine if busy else None,
        memory_utilization_percent=busy.memory if busy else None,
        encoder_percent=busy.encoder if busy else None,
        decoder_percent=busy.decoder if busy else None,
    )
