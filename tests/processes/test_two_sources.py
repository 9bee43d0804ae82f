"""One process on one card, told by a vendor's library and by the kernel: it counts once, with the better value of each field.

The whole path: drivers, files of /proc and /sys, the sampler, and the shares that the engine makes of it.
"""

import asyncio
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from gpuwhyd.backends.amdgpu_card import amdgpu_backend
from gpuwhyd.backends.base import Backend
from gpuwhyd.backends.intel_card import IntelCard
from gpuwhyd.backends.sysfs_backend import SysfsBackend
from gpuwhyd.engine.engine import Engine
from gpuwhyd.engine.settings import EngineSettings
from gpuwhyd.model import Cause, Explanation, GpuProcess, Snapshot
from gpuwhyd.processes.table import ProcessTable
from gpuwhyd.sampler import Sampler, SamplingSettings
from tests.backends import amdgpu_rig, intel_rig
from tests.backends.amdsmi_rig import AmdsmiRig
from tests.backends.nvml_rig import ADDRESS as NVIDIA
from tests.backends.nvml_rig import NvmlRig
from tests.fake_amdsmi.control import FakeProcess
from tests.fake_nvml.control import UNKNOWN, FakeSample
from tests.fake_nvml.control import FakeProcess as NvidiaProcess
from tests.processes.fake_gpus import AMD, INTEL, FakeGpus, amdgpu, i915

SECOND = 1_000_000_000
GIB = 1 << 30
TRAIN, OLLAMA, GAME, NEW = 41, 42, 43, 44
LIST = "amdsmi_get_gpu_process_list"


class Machine:
    """A sampler over backends and a fake /proc, and an engine; each tick is two seconds."""

    def __init__(self, folder: Path, backends: tuple[Backend, ...], later: Callable[[float], None]) -> None:
        self.gpus = FakeGpus(folder)
        self.now = 1000.0
        self._later = later
        self._engine = Engine(EngineSettings(rules=()), boot_id="boot")
        self._sampler = Sampler(
            backends=backends,
            processes=ProcessTable(self.gpus.procfs),
            clock=self,
            settings=SamplingSettings(deadline_seconds=10),
            gpu_users=self.gpus.users,
            monotonic_seconds=self.boottime_seconds,
        )
        self._snapshots = aiter(self._sampler.snapshots())
        self._loop = asyncio.Runner()
        self.snapshot: Snapshot | None = None
        self.answer: Explanation | None = None
        """Of the card that is not Intel's."""

    def boottime_seconds(self) -> float:
        return self.now

    def wall_usec(self) -> int:
        return round((1_700_000_000 + self.now) * 1e6)

    def real_duration(self, _seconds: float) -> float:
        return 0.0

    def tick(self) -> dict[int, GpuProcess]:
        """The processes of that card."""
        self.now += 2.0
        self._later(2.0)
        self.snapshot = self._loop.run(self._next())
        report = self._engine.feed(self.snapshot)
        reading = next(r for r in self.snapshot.readings if r.gpu.vendor != "intel")
        self.answer = report.explanations[reading.gpu.id]
        found = reading.processes or ()
        by_pid = {process.pid: process for process in found}
        assert len(found) == len(by_pid), "a process is told twice"
        uses = [use.process.pid for use in self.snapshot.uses if use.gpu_id == reading.gpu.id]
        assert sorted(uses) == sorted(by_pid), "and counted as often as it is told"
        return by_pid

    async def _next(self) -> Snapshot:
        return await anext(self._snapshots)

    def shares(self) -> dict[str, float]:
        """By the pid that makes a bare process a program of its own."""
        assert self.answer is not None
        return {one.program.key.split(":")[1]: one.share for one in self.answer.suspects}

    def close(self) -> None:
        self._loop.run(self._sampler.close())
        self._loop.close()


class AmdMachine:
    """An AMD card that sysfs, AMD's library, KFD and DRM clients tell of."""

    def __init__(self, folder: Path, amdsmi: AmdsmiRig) -> None:
        self.amdsmi = amdsmi
        self.sysfs_card = amdgpu_rig.Card(amdsmi.sysfs.root, AMD)
        self.sysfs_card.set(**{"class": "0x030000", "power/runtime_status": "active", "power/control": "on"})
        self.works(15, 0)
        self.card = amdsmi.rocm.add_card(AMD)
        backends = (
            amdgpu_backend(amdsmi.sysfs.root, procfs=folder / "proc", run=folder, share=folder),
            amdsmi.backend,
        )
        self.machine = Machine(folder, backends, self._later)
        self.gpus = self.machine.gpus
        for node in ("card0", "renderD128"):
            (self.gpus.sysfs / "class/drm" / node).mkdir(parents=True)
            (self.gpus.sysfs / "class/drm" / node / "device").symlink_to(self.sysfs_card.device)
        self.gpus.kfd_node(1, 77)
        for pid in (TRAIN, OLLAMA, GAME):
            self.gpus.process(pid, comm=f"p{pid}")

    def _later(self, seconds: float) -> None:
        self.amdsmi.monotonic += seconds

    def works(self, watts: int, busy: int, *, fan: int = 0) -> None:
        self.sysfs_card.set(gpu_busy_percent=f"{busy}\n")
        self.sysfs_card.set_chip(
            power1_average=f"{watts}000000", pwm1=str(fan), fan1_input=str(fan * 12), temp1_input="70000"
        )

    def kfd(self, pid: int, *, vram: int = GIB, queues: int = 1, units: int | None = None) -> None:
        self.gpus.kfd_process(pid, 77, vram=vram, queues=queues, occupancy=units)


@pytest.fixture
def amd(tmp_path: Path) -> Iterator[AmdMachine]:
    with AmdsmiRig(tmp_path) as rig:
        machine = AmdMachine(tmp_path, rig)
        yield machine
        machine.machine.close()


@pytest.fixture
def nvidia(tmp_path: Path) -> Iterator[tuple[NvmlRig, Machine]]:
    with NvmlRig(tmp_path) as rig:
        intel = SysfsBackend(
            "i915",
            sysfs=tmp_path / "sys",
            make_card=partial(IntelCard, "i915", procfs=tmp_path / "proc"),
            monotonic=lambda: rig.monotonic,
        )
        machine = Machine(tmp_path, (rig.backend, intel), rig.later)
        yield rig, machine
        machine.close()


# -- AMD: the library, KFD and DRM clients --------------------------------------------------------------------------------


def test_one_process_that_three_sources_tell_is_one_with_the_better_value_of_each(amd: AmdMachine) -> None:
    """KFD counts compute, the DRM client graphics; the library has half of it, and no memory."""
    amd.gpus.holds(TRAIN, 7, fdinfo=amdgpu(1, pci=AMD, vram_kib=1024))
    amd.kfd(TRAIN, vram=3 * GIB, units=30)
    amd.card.set_processes(FakeProcess(pid=TRAIN, occupied_units=30))
    amd.machine.tick()
    amd.gpus.holds(TRAIN, 7, fdinfo=amdgpu(1, pci=AMD, vram_kib=1024, gfx=SECOND // 2))
    amd.card.set_processes(FakeProcess(pid=TRAIN, occupied_units=30, graphics_ns=SECOND // 2))
    assert amd.machine.tick() == {
        TRAIN: GpuProcess(
            pid=TRAIN,
            kind="compute+graphics",
            memory_used_bytes=3 * GIB,
            engine_percent=75.0,
            encoder_percent=0.0,
            decoder_percent=0.0,
        )
    }


def test_a_kernel_that_counts_no_compute_leaves_it_unknown_whatever_the_library_says_of_graphics(
    amd: AmdMachine,
) -> None:
    """5 % of graphics, taken for all that it does, would leave a card at work with nobody who works."""
    amd.gpus.holds(TRAIN, 7, fdinfo=amdgpu(1, pci=AMD))
    amd.kfd(TRAIN)
    for count in range(3):
        amd.card.set_processes(FakeProcess(pid=TRAIN, graphics_ns=SECOND // 10 * count))
        found = amd.machine.tick()
    assert found[TRAIN].engine_percent is None


def test_engine_time_of_a_client_that_is_met_for_the_first_time_is_the_librarys(
    amd: AmdMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library watches it while /proc may not be looked into; the kernel's counters then have nothing to begin with."""
    real, refused = os.listdir, True

    def listdir(path: str) -> list[str]:
        if refused and str(path).endswith("/fd"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "listdir", listdir)
    told = []
    for count in range(40):
        amd.gpus.holds(GAME, 7, fdinfo=amdgpu(1, pci=AMD, gfx=(50 + count) * SECOND))
        amd.card.set_processes(FakeProcess(pid=GAME, graphics_ns=(50 + count) * SECOND))
        told.append(amd.machine.tick()[GAME])
        refused = count < 1
    assert [process.engine_percent for process in told[1:]] == [50.0] * 39
    assert told[1].memory_used_bytes is None
    assert told[-1].memory_used_bytes is not None, "/proc was looked into in the end"


def test_who_works_is_told_by_the_library_until_a_sweep_finds_it(amd: AmdMachine) -> None:
    amd.machine.tick()
    amd.card.set_processes(FakeProcess(pid=NEW))
    amd.gpus.holds(NEW, 7, fdinfo=amdgpu(1, pci=AMD))
    amd.machine.tick()
    told = []
    for count in range(1, 21):
        amd.card.set_processes(FakeProcess(pid=NEW, graphics_ns=SECOND * count))
        amd.gpus.holds(NEW, 7, fdinfo=amdgpu(1, pci=AMD, gfx=SECOND * count))
        told.append(amd.machine.tick())
    assert [set(processes) for processes in told] == [{NEW}] * 20
    assert [processes[NEW].engine_percent for processes in told] == [pytest.approx(50, abs=10)] * 20
    assert told[0][NEW].memory_used_bytes is None
    assert told[-1][NEW].memory_used_bytes is not None, "a sweep has found it"


def test_who_rests_for_the_library_and_is_unknown_to_the_kernel_uses_another_card(amd: AmdMachine) -> None:
    amd.card.set_processes(FakeProcess(pid=OLLAMA, occupied_units=None))
    assert amd.machine.tick() == {}
    assert amd.machine.tick() == {}


def test_a_client_that_two_processes_share_is_counted_once(amd: AmdMachine) -> None:
    """The library counts its work for each of them."""
    for pid in (TRAIN, GAME):
        amd.gpus.holds(pid, 7, fdinfo=amdgpu(1, pci=AMD))
    for count in range(4):
        for pid in (TRAIN, GAME):
            amd.gpus.holds(pid, 7, fdinfo=amdgpu(1, pci=AMD, gfx=SECOND * count))
        amd.card.set_processes(*(FakeProcess(pid=pid, graphics_ns=SECOND * count) for pid in (TRAIN, GAME)))
        found = amd.machine.tick()
    assert sum(process.engine_percent or 0 for process in found.values()) == pytest.approx(50, abs=5)


def load(amd: AmdMachine, count: int, *, readable: bool = True) -> None:
    """One tick of training at 95 %, beside a program that holds four times the memory and does nothing. The library is
    one of before ROCm 6.4, that knows neither's compute.
    """
    amd.works(215, 95, fan=120)
    amd.kfd(TRAIN, vram=2 * GIB, units=57)
    amd.kfd(OLLAMA, vram=8 * GIB, units=0)
    amd.card.set_processes(FakeProcess(pid=TRAIN), FakeProcess(pid=OLLAMA))
    for pid in (TRAIN, OLLAMA):
        text = amdgpu(pid, pci=AMD) if readable else "pos:\t0\nflags:\t02100002\n"
        if not readable:
            amd.gpus.holds(pid, 8 + count, fdinfo=text)
        amd.gpus.holds(pid, 7, fdinfo=text)
    amd.machine.tick()


def test_shares_do_not_jump_when_clients_cannot_be_read_now_and_then(amd: AmdMachine) -> None:
    for _ in range(60):
        amd.machine.tick()
    seen = []
    for count in range(60):
        load(amd, count, readable=count % 10 < 5)
        seen.append(amd.machine.shares())
    assert {tuple(shares) for shares in seen[3:]} == {(str(TRAIN),)}
    assert min(shares[str(TRAIN)] for shares in seen[3:]) >= 0.97


def test_without_the_librarys_list_the_kernels_alone_gives_the_same(amd: AmdMachine) -> None:
    for _ in range(60):
        amd.machine.tick()
    both = []
    for count in range(30):
        amd.card.fail(LIST, 0 if count < 15 else 2)
        load(amd, count)
        both.append(amd.machine.shares())
    assert min(shares[str(TRAIN)] for shares in both[3:]) >= 0.97


# -- NVIDIA: NVML, and whatever its descriptors say -----------------------------------------------------------------------


def sample(rig: NvmlRig, percent: int) -> FakeSample:
    """What the driver has sampled at the next tick."""
    return FakeSample(pid=TRAIN, time_stamp=rig.wall_us + 2_000_000, sm=percent)


def test_nvmls_list_holds_whatever_a_client_of_the_card_says(nvidia: tuple[NvmlRig, Machine]) -> None:
    """No driver of NVIDIA's counts in fdinfo so far; one that did would be a second word for the same work."""
    rig, machine = nvidia
    card = rig.add_card()
    card.set_processes(NvidiaProcess(pid=TRAIN, sm=80, memory_bytes=2 * GIB))
    for node in ("card1", "renderD129"):
        (machine.gpus.sysfs / "class/drm" / node).mkdir(parents=True)
        (machine.gpus.sysfs / "class/drm" / node / "device").symlink_to(
            machine.gpus.sysfs / "bus/pci/devices" / NVIDIA
        )
    card.set_sample_period(None)
    for count in range(4):
        card.set_samples(sample(rig, 80))
        for pid in (TRAIN, GAME):
            text = amdgpu(pid, pci=NVIDIA, vram_kib=64, gfx=SECOND * count).replace("amdgpu", "nvidia-drm")
            machine.gpus.holds(pid, 7, "dri/renderD129", text)
        found = machine.tick()
    assert set(found) == {TRAIN}
    assert found[TRAIN].memory_used_bytes == 2 * GIB
    assert found[TRAIN].engine_percent == 80.0


def test_a_process_on_two_cards_is_one_use_of_each(nvidia: tuple[NvmlRig, Machine]) -> None:
    """A hybrid laptop: it renders on NVIDIA's card, and shows it through Intel's."""
    rig, machine = nvidia
    card, gpus = rig.add_card(), machine.gpus
    card.set_processes(NvidiaProcess(pid=TRAIN))
    card.set_sample_period(None)
    intel_rig.plug(gpus.sysfs, "i915", INTEL, intel_rig.I915_FILES, product="0x9a49")
    (gpus.sysfs / "class/drm/renderD128").mkdir(parents=True)
    (gpus.sysfs / "class/drm/renderD128/device").symlink_to(gpus.sysfs / "bus/pci/devices" / INTEL)
    for count in range(4):
        card.set_samples(sample(rig, 80))
        gpus.holds(TRAIN, 7, "dri/renderD128", i915(1, render=SECOND // 5 * count))
        machine.tick()
    assert machine.snapshot is not None
    told = {
        (reading.gpu.vendor, process.pid): process.engine_percent
        for reading in machine.snapshot.readings
        for process in reading.processes or ()
    }
    assert told == {("nvidia", TRAIN): 80.0, ("intel", TRAIN): pytest.approx(10, abs=1)}


def test_shares_do_not_jump_when_nvml_tells_no_engine_time_now_and_then(
    nvidia: tuple[NvmlRig, Machine],
) -> None:
    rig, machine = nvidia
    card = rig.add_card(power_usage_mw=15_000, power_limit_mw=250_000, utilization=0)
    for pid in (TRAIN, OLLAMA):
        machine.gpus.process(pid)
    holder = NvidiaProcess(pid=OLLAMA, memory_bytes=8 * GIB)
    card.set_processes(holder)
    card.set_fan(0, percent=0)
    for _ in range(60):
        machine.tick()
    card.set_processes(holder, NvidiaProcess(pid=TRAIN, sm=95, memory_bytes=2 * GIB))
    card.set(power_usage_mw=215_000, power_instant_mw=215_000, power_average_mw=215_000, utilization=95)
    card.set(temperature=70)
    card.set_fan(0, percent=60)
    card.set_sample_period(None)
    seen = []
    for count in range(60):
        card.set_samples(sample(rig, 95))
        card.fail("nvmlDeviceGetProcessUtilization", UNKNOWN if count % 3 == 2 else 0)
        machine.tick()
        seen.append(machine.shares())
        assert machine.answer is not None
        if count > 10:
            assert machine.answer.cause is Cause.WORKLOAD
    assert min(shares[str(TRAIN)] for shares in seen[3:]) >= 0.97
    assert max(shares.get(str(OLLAMA), 0.0) for shares in seen[3:]) <= 0.02
    card.fail("nvmlDeviceGetProcessUtilization", UNKNOWN)
    for _ in range(20):
        machine.tick()
    marks = {evidence.quantity for evidence in machine.answer.evidence}
    assert "engine_times_unknown" in marks, "what was known is not true for ever"
