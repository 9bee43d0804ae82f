"""Processes with open device nodes, DRM clients, KFD and power states, as plain files below a /proc and a /sys."""

import os
import shutil
from pathlib import Path

import pytest

from gpuwhyd.model import GpuIdentity, GpuProcess, GpuReading
from gpuwhyd.processes.gpu_users import CardUsers
from tests.processes.fake_procfs import add_process

AMD = "0000:03:00.0"
INTEL = "0000:00:02.0"
OWN_PID = 99_999


def amdgpu(client: int, *, pci: str = AMD, vram_kib: int = 2048, **engines: int) -> str:
    """Nanoseconds by engine; amdgpu does not print those that never worked."""
    lines = [
        "pos:\t0",
        "flags:\t02104002",
        "pasid:\t32784",
        "drm-driver:\tamdgpu",
        f"drm-client-id:\t{client}",
    ]
    lines += [f"drm-pdev:\t{pci}", f"drm-memory-vram:\t{vram_kib} KiB", "drm-memory-gtt:\t8192 KiB"]
    lines += [f"drm-engine-{name}:\t{busy} ns" for name, busy in engines.items()]
    return "\n".join(lines) + "\n"


def xe(client: int, *, pci: str = AMD, total: int, capacity: int = 1, **cycles: int) -> str:
    lines = ["pos:\t0", "drm-driver:\txe", f"drm-client-id:\t{client}", f"drm-pdev:\t{pci}"]
    for name, count in cycles.items():
        lines += [f"drm-cycles-{name}:\t{count}", f"drm-total-cycles-{name}:\t{total}"]
        if capacity > 1:
            lines.append(f"drm-engine-capacity-{name}:\t{capacity}")
    return "\n".join(lines) + "\n"


def i915(client: int, *, pci: str = INTEL, render: int = 0, video: int = 0) -> str:
    return (
        f"pos:\t0\ndrm-driver:\ti915\ndrm-client-id:\t{client}\ndrm-pdev:\t{pci}\n"
        f"drm-total-system0:\t4 MiB\ndrm-resident-system0:\t2 MiB\ndrm-engine-render:\t{render} ns\n"
        f"drm-engine-copy:\t0 ns\ndrm-engine-video:\t{video} ns\ndrm-engine-capacity-video:\t2\n"
    )


def reading(address: str = AMD, **more: object) -> GpuReading:
    vendor = more.pop("vendor", "amd")
    gpu = GpuIdentity(
        id="pci_" + address.replace(":", "_").replace(".", "_"),
        name="card",
        vendor=str(vendor),
        pci_address=address,
        driver=str(more.pop("driver", "amdgpu")),
    )
    return GpuReading(gpu=gpu, backend="test", **more)  # type: ignore[arg-type]


def touched(monkeypatch: pytest.MonkeyPatch, gpus: "FakeGpus") -> list[str]:
    """All files below the fake /proc and /sys that are opened, listed, followed or asked for from now on."""
    seen: list[str] = []
    roots = (str(gpus.procfs), str(gpus.sysfs))
    for name in ("open", "listdir", "readlink", "stat"):
        real = getattr(os, name)

        def spy(path: object, *more: object, real: object = real, **named: object) -> object:
            if str(path).startswith(roots):
                seen.append(str(path))
            return real(path, *more, **named)  # type: ignore[operator]

        monkeypatch.setattr(os, name, spy)
    return seen


class FakeGpus:
    """`tick` is a tick of the sampler at a time that the test chooses."""

    def __init__(self, folder: Path) -> None:
        self.procfs, self.sysfs = folder / "proc", folder / "sys"
        self.procfs.mkdir()
        self.users = CardUsers(procfs=self.procfs, sysfs=self.sysfs, own_pid=OWN_PID)
        self.process(1, comm="systemd")

    def card(self, address: str = AMD, *nodes: str) -> None:
        device = self.sysfs / "bus/pci/devices" / address
        (device / "power").mkdir(parents=True)
        self.power(address, "active")
        for node in nodes or ("card0", "renderD128"):
            (self.sysfs / "class/drm" / node).mkdir(parents=True)
            (self.sysfs / "class/drm" / node / "device").symlink_to(device)

    def power(self, address: str, status: str) -> None:
        (self.sysfs / "bus/pci/devices" / address / "power/runtime_status").write_text(status + "\n")

    def nvidia(self, address: str, minor: int) -> None:
        folder = self.procfs / "driver/nvidia/gpus" / address
        folder.mkdir(parents=True)
        (folder / "information").write_text(
            f"Model: \t\t RTX\nBus Location: \t {address}\nDevice Minor: \t {minor}\n"
        )

    def process(
        self, pid: int, *, comm: str = "blender", cpu_ticks: int = 10, start_ticks: int = 100
    ) -> Path:
        process = add_process(self.procfs, pid, comm, start_ticks=start_ticks)
        fields = f"1 2 3 0 -1 4194304 10 0 0 0 {cpu_ticks} 0 0 0 20 0 1 0 {start_ticks} 1000 10 18446744073709551615 0"
        (process / "stat").write_text(f"{pid} ({comm}) S {fields}\n")
        (process / "fd").mkdir(exist_ok=True)
        (process / "fdinfo").mkdir(exist_ok=True)
        return process

    def holds(self, pid: int, number: int, node: str = "dri/renderD128", fdinfo: str = "pos:\t0\n") -> Path:
        """The process has a node open; gives the file that is its fdinfo."""
        process = self.procfs / str(pid)
        if not process.exists():
            self.process(pid)
        link = process / "fd" / str(number)
        link.unlink(missing_ok=True)
        link.symlink_to(f"/dev/{node}")
        said = process / "fdinfo" / str(number)
        said.write_text(fdinfo)
        return said

    def closes(self, pid: int, number: int) -> None:
        (self.procfs / str(pid) / "fd" / str(number)).unlink()
        (self.procfs / str(pid) / "fdinfo" / str(number)).unlink()

    def ends(self, pid: int) -> None:
        shutil.rmtree(self.procfs / str(pid))

    def tick(self, now: float, *readings: GpuReading) -> tuple[GpuReading, ...]:
        return self.users.complete(readings or (reading(),), now)

    def processes(self, now: float, *readings: GpuReading) -> dict[int, GpuProcess]:
        """Of the first card."""
        found = self.tick(now, *readings)[0].processes
        assert found is not None
        return {process.pid: process for process in found}

    # -- KFD ------------------------------------------------------------------------------------------------------

    def kfd_node(self, number: int, gpu_id: int, address: str = AMD, *, units: int = 60, **more: int) -> None:
        node = self.sysfs / "class/kfd/kfd/topology/nodes" / str(number)
        node.mkdir(parents=True)
        domain, bus, rest = address.split(":")
        device, function = rest.split(".")
        location = int(bus, 16) << 8 | int(device, 16) << 3 | int(function)
        said = {
            "simd_count": units * 2,
            "simd_per_cu": 2,
            "location_id": location,
            "domain": int(domain, 16),
            **more,
        }
        (node / "gpu_id").write_text(f"{gpu_id}\n")
        (node / "properties").write_text("".join(f"{key} {value}\n" for key, value in said.items()))

    def kfd_process(
        self, pid: int, gpu_id: int, *, vram: int = 0, queues: int = 0, occupancy: int | None = None
    ) -> None:
        process = self.sysfs / "class/kfd/kfd/proc" / str(pid)
        (process / "queues").mkdir(parents=True, exist_ok=True)
        (process / f"vram_{gpu_id}").write_text(f"{vram}\n")
        (process / f"sdma_{gpu_id}").write_text("0\n")
        for number in range(queues):
            queue = process / "queues" / f"{gpu_id}{number}"
            queue.mkdir(exist_ok=True)
            (queue / "gpuid").write_text(f"{gpu_id}\n")
        stats = process / f"stats_{gpu_id}"
        stats.mkdir(exist_ok=True)
        if occupancy is not None:
            (stats / "cu_occupancy").write_text(f"{occupancy}\n")
