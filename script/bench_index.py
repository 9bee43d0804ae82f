"""Measures what it costs to know who uses a GPU without NVML, against the number of processes and descriptors.

Real processes with real descriptors; ten of them have a file open that is called like a GPU's node, and what the kernel
tells of it is made up to that of a DRM client. Two minutes of ticks run without waiting for their time, with the caches of
the processor emptied in between, as other programs do it. See docs/cost.md.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gpuwhyd.model import GpuIdentity, GpuReading
from gpuwhyd.processes.gpu_index import node_of
from gpuwhyd.processes.gpu_users import CardUsers
from gpuwhyd.sampler import SamplingSettings
from script.bench_gpus import sleepers

CROWDS = ((100, 600), (500, 3_000), (4_000, 25_000), (16_000, 100_000))
"""(processes, descriptors of all of them together)"""
GPU_PROCESSES = 10
SECONDS = 120.0
PLAIN_TICKS = 3
ADDRESS = "0000:03:00.0"
_CACHES_BYTES = 32 << 20
_START_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexCost:
    processes: int
    descriptors: int
    first_milliseconds: float
    """Until everything is known at the start."""
    mean_milliseconds: float
    """A tick, on average over two minutes."""
    longest_milliseconds: float
    """The tick that took longest, as the wall's clock sees it."""
    plain_milliseconds: float
    """A tick that looks at every descriptor."""

    def percent(self, milliseconds: float, interval_seconds: float) -> float:
        return milliseconds / 10 / interval_seconds


def main() -> int:
    interval = SamplingSettings().interval_seconds
    print(
        f"who uses a GPU without NVML: CPU with a tick every {interval:g} s, {GPU_PROCESSES} processes on the GPU"
    )
    print(
        "| processes, descriptors | % of a core | ms a tick | longest tick ms | first look ms | plain: % of a core |"
    )
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        for processes, descriptors in CROWDS:
            cost = measure(Path(name), processes, descriptors, interval_seconds=interval)
            print(
                f"| {cost.processes:,}, {cost.descriptors:,} | {cost.percent(cost.mean_milliseconds, interval):.3f} "
                f"| {cost.mean_milliseconds:.2f} | {cost.longest_milliseconds:.0f} | {cost.first_milliseconds:.0f} "
                f"| {cost.percent(cost.plain_milliseconds, interval):.2f} |",
                flush=True,
            )
    return 0


def measure(folder: Path, processes: int, descriptors: int, *, interval_seconds: float) -> IndexCost:
    """With so many processes more than there are."""
    node = folder / "dri/renderD128"
    node.parent.mkdir(exist_ok=True)
    node.touch()
    every = max(1, processes // GPU_PROCESSES)
    with sleepers(folder, processes, descriptors=descriptors, node=node, every=every) as pids:
        _wait_until_they_hold(pids, descriptors)
        there, opened, _ = _look_at_all()
        users = CardUsers(
            procfs=Path("/proc"), sysfs=_sysfs(folder), own_pid=os.getpid(), read_fdinfo=_as_drm_client
        )
        reading = GpuReading(
            gpu=GpuIdentity(id="pci_0000_03_00_0", name="card", vendor="amd", pci_address=ADDRESS),
            backend="bench",
            utilization_percent=10.0,
        )
        now, first = 1000.0, 0.0
        while True:
            with _timed() as spent:
                (done,) = users.complete((reading,), now)
            first += spent.cpu_seconds
            now += interval_seconds
            if done.processes is not None:
                break
            if now > 2000:
                raise RuntimeError("the index does not get complete: run as root")
        used: list[_Spent] = []
        for _ in range(round(SECONDS / interval_seconds)):
            _empty_caches()
            with _timed() as spent:
                (done,) = users.complete((reading,), now)
            used.append(spent)
            now += interval_seconds
        on_gpu = len(done.processes or ())
        if on_gpu != min(processes, GPU_PROCESSES):
            raise RuntimeError(f"{on_gpu} processes found on the GPU instead of {GPU_PROCESSES}")
        plain: list[_Spent] = []
        for _ in range(PLAIN_TICKS):
            _empty_caches()
            with _timed() as spent:
                _look_at_all()
            plain.append(spent)
    return IndexCost(
        processes=there,
        descriptors=opened,
        first_milliseconds=1000 * first,
        mean_milliseconds=1000 * sum(one.cpu_seconds for one in used) / len(used),
        longest_milliseconds=1000 * max(one.wall_seconds for one in used),
        plain_milliseconds=1000 * sum(one.cpu_seconds for one in plain) / len(plain),
    )


@dataclass(slots=True)
class _Spent:
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0


@contextmanager
def _timed() -> Iterator[_Spent]:
    spent = _Spent()
    cpu, wall = time.thread_time(), time.monotonic()
    yield spent
    spent.cpu_seconds, spent.wall_seconds = time.thread_time() - cpu, time.monotonic() - wall


def _look_at_all() -> tuple[int, int, int]:
    """The plain way: every descriptor of every process, and fdinfo of those on a GPU. How many there were of each."""
    processes = descriptors = clients = 0
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        processes += 1
        try:
            numbers = os.listdir(f"/proc/{name}/fd")
        except OSError:  # it has ended
            continue
        for number in numbers:
            try:
                link = os.readlink(f"/proc/{name}/fd/{number}")
            except OSError:  # closed; or nobody may look
                continue
            descriptors += 1
            if node_of(link) is not None:
                _as_drm_client(int(name), int(number))
                clients += 1
    return processes, descriptors, clients


def _as_drm_client(pid: int, number: int) -> bytes:
    """The real file, and below it what amdgpu would write of a client that works a tenth of the time."""
    with open(f"/proc/{pid}/fdinfo/{number}", "rb", buffering=0) as file:
        said = file.read()
    busy = time.monotonic_ns() // 10
    return (
        said
        + (
            f"drm-driver:\tamdgpu\ndrm-client-id:\t{pid}\ndrm-pdev:\t{ADDRESS}\npasid:\t{pid}\n"
            "drm-total-vram:\t2068 KiB\ndrm-shared-vram:\t0\ndrm-resident-vram:\t2068 KiB\ndrm-memory-vram:\t2068 KiB\n"
            "drm-total-gtt:\t8192 KiB\ndrm-shared-gtt:\t0\ndrm-resident-gtt:\t8192 KiB\ndrm-memory-gtt:\t8192 KiB\n"
            f"amd-evicted-vram:\t0 KiB\ndrm-engine-gfx:\t{busy} ns\ndrm-engine-compute:\t12345 ns\n"
        ).encode()
    )


def _sysfs(folder: Path) -> Path:
    card = folder / "sys/class/drm/renderD128"
    if not card.exists():
        card.mkdir(parents=True)
        (card / "device").symlink_to(f"../../../{ADDRESS}")
    return folder / "sys"


def _wait_until_they_hold(pids: tuple[int, ...], descriptors: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while (held := sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)) < descriptors:
        if time.monotonic() > deadline:
            raise RuntimeError(f"the machine allows only {held:,} descriptors of {descriptors:,}")
        time.sleep(0.2)


def _empty_caches() -> None:
    bytes(bytearray(_CACHES_BYTES))


if __name__ == "__main__":
    raise SystemExit(main())
