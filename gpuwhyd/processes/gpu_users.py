"""Who uses the cards whose backends cannot tell: DRM clients, KFD's compute processes, and who merely holds a node.

Cards that sleep are not touched, and of those that were let go so that they can sleep nothing but the index is asked.
While no card needs it, nothing at all is read.
"""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from gpuwhyd.kernel_files import device_sleeps, read_once
from gpuwhyd.model import GpuProcess, GpuReading, GpuState
from gpuwhyd.processes.drm_clients import DrmClients, Work
from gpuwhyd.processes.gpu_index import GpuIndex
from gpuwhyd.processes.gpu_nodes import GpuNodes
from gpuwhyd.processes.held_nodes import Descriptor
from gpuwhyd.processes.kfd import WORKING_PERCENT, Kfd, KfdUse, engine_percents
from gpuwhyd.processes.procfs import parse_stat, read_file
from gpuwhyd.processes.told_twice import as_work, told_once

IDLE_PERCENT = 5.0
"""A card that is utilized less works for nobody: refreshing a screen shows as much."""
EXPLAINED_PART = 0.5
"""When the known processes explain less of a card's utilization, somebody is looked for."""
POWER_RISE_PART, POWER_RISE_WATTS = 0.5, 5.0
"""A card that tells no utilization works when it draws so much more than the least that it was seen to draw."""
SEARCH_SECONDS = 30.0
"""So long sweeps come early."""
STAYS_AWAKE_SECONDS = 90.0
"""A backend lets go of an idle card after a minute (see backends/grip.py): who holds one that it knows all processes of
is of interest only when that did not help."""
_FDINFO_LIMIT_BYTES = 16 * 1024
_STAT_LIMIT_BYTES = 4096
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class CardUsers:
    """See sampler.GpuUsers, whose contract it fulfils. All calls come from one thread; times are CLOCK_BOOTTIME."""

    def __init__(
        self,
        *,
        procfs: Path,
        sysfs: Path,
        own_pid: int,
        read_fdinfo: Callable[[int, int], bytes] | None = None,
    ) -> None:
        """`read_fdinfo` (of a pid and a descriptor's number) takes the place of /proc/PID/fdinfo/N."""
        self._procfs = str(procfs)
        self._devices = f"{sysfs}/bus/pci/devices"
        self._own_pid = own_pid
        self._index = GpuIndex(procfs, own_pid=own_pid)
        self._nodes = GpuNodes(sysfs=sysfs, procfs=procfs)
        self._kfd = Kfd(sysfs, own_pid=own_pid)
        self._clients = DrmClients(
            read_fdinfo=read_fdinfo or self._read_fdinfo,
            is_still_open=self._index.is_still_open,
            cpu_ticks=self._cpu_ticks,
            started_at_seconds=self._started_at_seconds,
        )
        self._walks = 0
        self._rested_at: dict[str, float] = {}
        self._idle_since: dict[str, float] = {}
        self._least_watts: dict[str, float] = {}
        self._somebody_hides = False
        self._searching_since: float | None = None
        self._made: dict[tuple[str, int], GpuProcess] = {}
        """Of the last tick: equal ones stay the same objects, by which the sampler knows that nothing has changed."""

    def complete(self, readings: tuple[GpuReading, ...], boottime_seconds: float) -> tuple[GpuReading, ...]:
        """The same readings, with `processes` where it can be told, and `utilization_percent` where the card does not.

        `processes` stays None when it would not be all of them: a driver that does not tell, or processes that may not
        be looked into. Somebody who has just come is found with the next sweep of the index.
        """
        now = boottime_seconds
        self._note_rest(readings, now)
        to_read = {a for r in readings if (a := r.gpu.pci_address) and self._needs_clients(r)}
        held = {a for r in readings if (a := r.gpu.pci_address) and self._needs_holders(r, now)}
        self._clients.forget_all_but(reading.gpu.pci_address for reading in readings)
        if not to_read and not held:
            self._made = {}
            return readings
        self._index.advance(now, early=self._is_searching(now))
        if not self._index.is_complete:
            return self._by_libraries(readings, to_read)
        self._somebody_hides = False
        descriptors = self._by_address()
        uses = self._kfd.read(awake=to_read, let_go=held)
        before, self._made = self._made, {}
        completed = []
        for reading in readings:
            address = reading.gpu.pci_address
            if address in to_read:
                done = self._used(reading, descriptors.get(address, []), uses.get(address, {}), now)
                if done.processes is None:
                    done = _by_library(reading, uses.get(address, {}))
            elif address in held:
                done = self._held(reading, descriptors.get(address, []), uses.get(address, {}))
            else:
                completed.append(reading)
                continue
            completed.append(self._with_known_objects(done, before))
        return tuple(completed)

    def close(self) -> None:
        """Nothing is kept open."""

    # -- which cards ----------------------------------------------------------------------------------------------

    def _note_rest(self, readings: Sequence[GpuReading], now: float) -> None:
        for reading in readings:
            address = reading.gpu.pci_address
            if address is None:
                continue
            if reading.state is not GpuState.AWAKE:
                self._rested_at[address] = now
            if reading.state is GpuState.AWAKE and _is_idle(reading, reading.processes or ()):
                self._idle_since.setdefault(address, now)
            else:
                self._idle_since.pop(address, None)

    def _needs_clients(self, reading: GpuReading) -> bool:
        """It is awake, and nobody knows yet who uses it. NVIDIA's own driver tells nothing here.

        AMD's library lists processes too, from the same files, but without KFD's compute in their engine time and one
        DRM client of each: see told_twice.py.
        """
        if reading.state is not GpuState.AWAKE or (
            reading.processes is not None and reading.gpu.vendor != "amd"
        ):
            return False
        if reading.gpu.vendor == "nvidia" and not (reading.gpu.driver or "").startswith("nouveau"):
            return False
        return not self._has_fallen_asleep(reading)

    def _needs_holders(self, reading: GpuReading, now: float) -> bool:
        """It could sleep and does not, and nobody works on it."""
        if not reading.can_suspend:
            return False
        if reading.state is GpuState.UNKNOWN:
            return True
        idle_since = self._idle_since.get(reading.gpu.pci_address or "", now)
        return (
            reading.state is GpuState.AWAKE
            and reading.processes is not None
            and now - idle_since >= STAYS_AWAKE_SECONDS
        )

    def _has_fallen_asleep(self, reading: GpuReading) -> bool:
        """Since its backend read it. Looking at the power state wakes nothing, reading a client might."""
        if reading.can_suspend is False:
            return False
        return device_sleeps(f"{self._devices}/{reading.gpu.pci_address}/power/runtime_status")

    def _is_searching(self, now: float) -> bool:
        """Whether to look for somebody who works unknown; not for ever, because who is in another kernel (a virtual
        machine that has the card) is never found.
        """
        if not self._somebody_hides:
            self._searching_since = None
            return False
        if self._searching_since is None:
            self._searching_since = now
        return now - self._searching_since <= SEARCH_SECONDS

    def _by_address(self) -> dict[str, list[Descriptor]]:
        if self._walks != self._index.full_walks:
            self._walks = self._index.full_walks
            self._nodes.forget()
            self._kfd.forget()
        found: dict[str, list[Descriptor]] = {}
        for descriptor in self._index.descriptors:
            node = descriptor.node
            address = self._kfd.only_card() if node == "kfd" else self._nodes.address(node)
            if address is not None:
                found.setdefault(address, []).append(descriptor)
        return found

    # -- one card -------------------------------------------------------------------------------------------------

    def _used(
        self, reading: GpuReading, descriptors: Sequence[Descriptor], uses: Mapping[int, KfdUse], now: float
    ) -> GpuReading:
        """An awake card, with all who use it."""
        address = reading.gpu.pci_address or ""
        drm = [one for one in descriptors if one.node.startswith(("card", "renderD"))]
        rested_at = self._rested_at.get(address, float("-inf"))
        works = self._clients.read(address, drm, now, idle_until_seconds=rested_at)
        if works is None:
            return replace(reading, processes=None)
        processes = _merged(works, uses, reading.utilization_percent)
        self._somebody_hides |= self._works_for_strangers(address, reading, processes)
        if reading.processes:
            holding = {one.pid for one in drm}
            processes = told_once(processes, reading.processes, computing=uses, holding=holding)
        if reading.utilization_percent is None and all(p.engine_percent is not None for p in processes):
            total = sum(process.engine_percent or 0.0 for process in processes)
            reading = replace(reading, utilization_percent=min(100.0, total))
        if reading.can_suspend and _is_idle(reading, processes):
            processes += self._mere_holders(descriptors, {process.pid for process in processes})
        return replace(reading, processes=tuple(processes))

    def _by_libraries(
        self, readings: tuple[GpuReading, ...], to_read: Collection[str]
    ) -> tuple[GpuReading, ...]:
        """The readings while nobody knows all clients: as libraries tell them, and KFD."""
        listed = {r.gpu.pci_address or "" for r in readings if r.processes is not None} & set(to_read)
        if not listed:
            return readings
        uses = self._kfd.read(awake=listed)
        before, self._made = self._made, {}
        return tuple(
            self._with_known_objects(_by_library(reading, uses.get(address, {})), before)
            if (address := reading.gpu.pci_address or "") in listed
            else reading
            for reading in readings
        )

    def _held(
        self, reading: GpuReading, descriptors: Sequence[Descriptor], uses: Mapping[int, KfdUse]
    ) -> GpuReading:
        """A card that is let go; or one whose processes its backend knows, with those who hold it beside them."""
        known = list(reading.processes or ())
        listed = {process.pid for process in known}
        known += [
            GpuProcess(pid=pid, kind="holder", memory_used_bytes=use.memory_used_bytes, engine_percent=0.0)
            for pid, use in uses.items()
            if pid not in listed
        ]
        return replace(reading, processes=(*known, *self._mere_holders(descriptors, listed | uses.keys())))

    def _with_known_objects(
        self, reading: GpuReading, before: Mapping[tuple[str, int], GpuProcess]
    ) -> GpuReading:
        """By pid, and equal processes of the last tick instead of new ones."""
        if reading.processes is None:
            return reading
        kept = []
        for process in sorted(reading.processes, key=lambda one: one.pid):
            place = (reading.gpu.id, process.pid)
            same = before.get(place)
            self._made[place] = one = same if same is not None and same == process else process
            kept.append(one)
        return replace(reading, processes=tuple(kept))

    def _mere_holders(self, descriptors: Sequence[Descriptor], listed: Collection[int]) -> list[GpuProcess]:
        """Whoever has one of the card's nodes open at this moment and is not listed."""
        holders: set[int] = set()
        for descriptor in descriptors:
            pid = descriptor.pid
            if pid not in listed and pid not in holders and self._index.is_still_open(descriptor):
                holders.add(pid)
        return [GpuProcess(pid=pid, kind="holder", engine_percent=0.0) for pid in holders]

    def _works_for_strangers(
        self, address: str, reading: GpuReading, processes: Sequence[GpuProcess]
    ) -> bool:
        """The card works, and those who are known explain little of it."""
        known = sum(_busy_percent(process) for process in processes)
        if reading.utilization_percent is not None:
            utilization = reading.utilization_percent
            return utilization >= WORKING_PERCENT and known < EXPLAINED_PART * utilization
        if reading.power_watts is None:
            return False
        least = self._least_watts[address] = min(self._least_watts.get(address, 1e9), reading.power_watts)
        return (
            reading.power_watts > (1 + POWER_RISE_PART) * least + POWER_RISE_WATTS and known < WORKING_PERCENT
        )

    # -- files ----------------------------------------------------------------------------------------------------

    def _read_fdinfo(self, pid: int, number: int) -> bytes:
        return read_file(f"{self._procfs}/{pid}/fdinfo/{number}", _FDINFO_LIMIT_BYTES)

    def _stat(self, pid: int) -> bytes:
        try:
            return read_once(f"{self._procfs}/{pid}/stat", _STAT_LIMIT_BYTES)
        except OSError:  # it has ended, or descriptors are short: what it is for can do without
            return b""

    def _cpu_ticks(self, pid: int) -> int | None:
        """Fields 14 and 15 of proc(5): time in user and kernel mode, of all threads."""
        fields = self._stat(pid).rpartition(b")")[2].split()[11:13]
        if len(fields) < 2 or not all(one.isdigit() and len(one) <= 20 for one in fields):
            return None
        return sum(map(int, fields))

    def _started_at_seconds(self, pid: int) -> float | None:
        stat = parse_stat(self._stat(pid))
        return None if stat is None else stat.start_ticks / _TICKS_PER_SECOND


def _by_library(reading: GpuReading, uses: Mapping[int, KfdUse]) -> GpuReading:
    """A card whose clients cannot be told now: its library's list, where there is one, and KFD's."""
    if reading.processes is None:
        return reading
    works = as_work(reading.processes, uses.keys())
    return replace(reading, processes=tuple(_merged(works, uses, reading.utilization_percent)))


def _merged(
    works: Mapping[int, Work], uses: Mapping[int, KfdUse], utilization_percent: float | None
) -> list[GpuProcess]:
    """One entry for each pid, whichever way it uses the card."""
    drawn = [work.engine_percent for work in works.values()]
    computing = engine_percents(
        uses,
        utilization_percent=None if None in drawn else utilization_percent,
        explained_percent=sum(percent or 0.0 for percent in drawn),
    )
    processes = []
    for pid in works.keys() | uses.keys():
        work, use = works.get(pid, Work()), uses.get(pid)
        if use is None:
            engine, memory = work.engine_percent, work.memory_used_bytes
        else:
            engine = computing[pid]
            if engine is not None:
                engine = min(100.0, engine + (work.engine_percent or 0.0))
            memory = max(use.memory_used_bytes, work.memory_used_bytes or 0)
        processes.append(
            GpuProcess(
                pid=pid,
                kind=_kind(work, use),
                memory_used_bytes=memory,
                engine_percent=engine,
                encoder_percent=work.encoder_percent,
                decoder_percent=work.decoder_percent,
            )
        )
    return processes


def _kind(work: Work, use: KfdUse | None) -> str:
    kinds = [
        name
        for name, holds in (("compute", work.compute or use is not None), ("graphics", work.graphics))
        if holds
    ]
    return "+".join(kinds) or ("holder" if work.is_idler else "unknown")


def _busy_percent(process: GpuProcess) -> float:
    return (
        (process.engine_percent or 0.0) + (process.encoder_percent or 0.0) + (process.decoder_percent or 0.0)
    )


def _is_idle(reading: GpuReading, processes: Sequence[GpuProcess]) -> bool:
    return (reading.utilization_percent or 0.0) < IDLE_PERCENT and not any(map(_busy_percent, processes))
