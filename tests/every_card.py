"""A machine that has a card of every kind and a laptop's shared fan, as a /sys and a /proc of plain files.

NVIDIA's card has no files for its sensors: what it does is the fake driver's business (tests/fake_nvml). Counters run on
while a test looks elsewhere (`running`): energy, engine time, cycles, CPU time, at the rates of whatever works. Files are
replaced, never rewritten, so that no reader sees half of one.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.backends import amdgpu_rig, intel_rig
from tests.backends.chassis_rig import ChassisRig
from tests.fake_nvml.sysfs import FakeSysfs
from tests.processes.fake_gpus import FakeGpus, amdgpu, xe

NVIDIA, AMD, XE, I915 = "0000:01:00.0", "0000:03:00.0", "0000:04:00.0", "0000:00:02.0"
ADDRESSES = {"nvidia": NVIDIA, "amdgpu": AMD, "xe": XE, "i915": I915}
NODES = {AMD: "renderD128", XE: "renderD129", I915: "renderD130"}
CHASSIS = "chassis_thinkpad"
KFD_GPU = 4711
"""As KFD calls the AMD card."""
CPUS = 8
CHIPS = {AMD: ("hwmon3",), XE: ("hwmon5",), I915: ("hwmon6", "hwmon7")}
_I915_FILES = {
    name.replace("hwmon2", "hwmon6").replace("hwmon3", "hwmon7"): text
    for name, text in intel_rig.I915_FILES.items()
}
_FDINFO = 7
"""The descriptor that each process has open on a card."""
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_XE_HERTZ = 19_200_000
_STEP_SECONDS = 0.1
REST = {
    AMD: {"fan1_input": 900, "pwm1": 76, "power1_average": 22_000_000, "temp1_input": 41_000, "temp2_input": 44_000},
    XE: {"fan1_input": 0, "fan2_input": 800, "temp2_input": 45_000, "temp3_input": 46_000},
}  # fmt: skip
WORK = {
    AMD: {"fan1_input": 2400, "pwm1": 204, "power1_average": 231_000_000, "temp1_input": 78_000, "temp2_input": 91_000},
    XE: {"fan1_input": 0, "fan2_input": 2300, "temp2_input": 81_000, "temp3_input": 84_000},
}  # fmt: skip
REST_WATTS, WORK_WATTS = {XE: 9.0, I915: 4.0, "cpu": 7.0}, {XE: 104.0, "cpu": 46.0}
REST_RPM, WORK_RPM = 2200, 4300
"""Of the shared fan."""


class EveryCard:
    """`root` gets sys and proc. Every card is awake and at rest; or all are suspended, with `status`."""

    def __init__(self, root: Path, *, status: str = "active", control: str = "on") -> None:
        self.sysfs, self.procfs = root / "sys", root / "proc"
        self.nvidia = FakeSysfs(self.sysfs)
        self.nvidia.add(NVIDIA, status=status, control=control)
        self._programs = FakeGpus(root)
        self._unfinished = root / "unfinished"
        self._lock = threading.Lock()
        self._counted: dict[str, float] = {}
        self._rates: dict[str, float] = {}
        self._counters: dict[Path, Callable[[], object]] = {}
        """File -> its content, of what has been counted."""
        self._at = time.monotonic()
        self._laptop()
        self._plug(status, control)
        self._kernel()
        for address in (AMD, XE):
            self.rest(address)
        self.rest_cpu()
        self._advance()

    # -- what it is made of ---------------------------------------------------------------------------------------

    def _plug(self, status: str, control: str) -> None:
        amd = amdgpu_rig.Card(self.sysfs, AMD)
        amd.set(**{"class": "0x030000", "power/runtime_status": status, "power/control": control})
        intel_rig.plug(self.sysfs, "xe", XE, intel_rig.XE_FILES, product="0xe20b", status=status, control=control)  # fmt: skip
        intel_rig.plug(self.sysfs, "i915", I915, _I915_FILES, product="0x9a49", status=status, control=control)  # fmt: skip
        for address, node in NODES.items():
            for name in (node, node.replace("renderD12", "card").replace("renderD13", "card1")):
                _link(self.sysfs / "class/drm" / name / "device", self.device(address))
            for chip in CHIPS[address]:
                _link(self.sysfs / "class/hwmon" / chip, self.device(address) / "hwmon" / chip)
        self._programs.kfd_node(1, KFD_GPU, AMD)
        for address, chip in ((XE, "hwmon5/energy2_input"), (I915, "hwmon6/energy1_input")):
            energy = f"{address} energy"
            self._counters[self.device(address) / "hwmon" / chip] = partial(self._count, energy)
            self._rates[energy] = 1e6 * REST_WATTS[address]
        for gt in (0, 1):
            residency = self.device(XE) / f"tile0/gt{gt}/gtidle/idle_residency_ms"
            self._counters[residency] = partial(self._count, f"{XE} rest")

    def _laptop(self) -> None:
        laptop = ChassisRig(self.sysfs)
        laptop.dmi(product_name="20QNS00X00", product_version="ThinkPad P53", vendor="LENOVO")
        self._fan = laptop.chip("thinkpad", number=0, fan1_input=REST_RPM, pwm1_enable=2)
        self._cpu = laptop.chip("coretemp", number=1, temp1_label="Package id 0", temp1_input=44_000)
        package = self.sysfs / "class/powercap/intel-rapl:0"
        self.put(package / "name", "package-0")
        self.put(package / "max_energy_range_uj", 262_143_328_850)
        self._counters[package / "energy_uj"] = partial(self._count, "cpu energy")

    def _kernel(self) -> None:
        self.put(self.procfs / "sys/kernel/osrelease", "6.12.0-every")
        self.put(self.procfs / "sys/kernel/random/boot_id", "11111111-2222-4333-8444-555555555555")
        self._counters[self.procfs / "stat"] = lambda: (
            f"cpu  {self._count('cpu busy')} 0 0 {self._count('cpu idle')} 0 0 0 0 0 0"
        )

    def device(self, address: str) -> Path:
        return self.sysfs / "bus/pci/devices" / address

    def set_status(self, address: str, status: str) -> None:
        """What the kernel says of the card's power: `active`, `suspended`."""
        self.put(self.device(address) / "power/runtime_status", status)

    # -- time -----------------------------------------------------------------------------------------------------

    @contextmanager
    def running(self) -> Iterator[None]:
        """Meanwhile the counters count, in real time."""
        end = threading.Event()

        def run() -> None:
            while not end.wait(_STEP_SECONDS):
                self._advance()

        self._at = time.monotonic()
        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            end.set()
            thread.join()

    def _advance(self) -> None:
        with self._lock:
            now = time.monotonic()
            seconds, self._at = now - self._at, now
            for name, rate in self._rates.items():
                self._counted[name] = self._counted.get(name, 0.0) + rate * seconds
            for path, content in self._counters.items():
                self._put(path, content())

    def _count(self, name: str) -> int:
        return int(self._counted.setdefault(name, 1e9))

    def put(self, path: Path, content: object) -> None:
        with self._lock:
            self._put(path, content)

    def _put(self, path: Path, content: object) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._unfinished.write_text(f"{content}\n")
        if path.name == "energy_uj":
            self._unfinished.chmod(0o400)  # as the kernel's: for root alone
        self._unfinished.replace(path)

    # -- what runs on it ------------------------------------------------------------------------------------------

    def program(self, pid: int, unit: str, *, comm: str) -> Path:
        """A process of a system unit; gives its directory in /proc."""
        process = self._programs.process(pid, comm=comm)
        self.put(process / "cgroup", f"0::/system.slice/{unit}")
        self.put(process / "status", f"Name:\t{comm}\nPid:\t{pid}\nUid:\t0\t0\t0\t0")
        return process

    def ends(self, pid: int) -> None:
        with self._lock:
            for path in [path for path in self._counters if self.procfs / str(pid) in path.parents]:
                del self._counters[path]
            self._programs.ends(pid)

    def opens(self, pid: int, address: str) -> None:
        """The process has the card's render node open, and its DRM client counts as amdgpu and xe do."""
        said = self._programs.holds(pid, _FDINFO, f"dri/{NODES[address]}")
        busy, total = f"{pid} on {address}", f"{address} cycles"

        def fdinfo() -> str:
            if address == AMD:
                return amdgpu(pid, pci=AMD, vram_kib=4 << 20, gfx=self._count(busy)).rstrip()
            return xe(pid, pci=address, total=self._count(total), rcs=self._count(busy)).rstrip()

        self._rates[total] = _XE_HERTZ
        self.put(said, fdinfo())
        with self._lock:
            self._counters[said] = fdinfo

    def computes(self, pid: int, *, vram: int) -> None:
        """KFD knows the process: it has memory on the AMD card, and no queue that works."""
        self._programs.kfd_process(pid, KFD_GPU, vram=vram, occupancy=0)

    # -- what it does ---------------------------------------------------------------------------------------------

    def work(self, address: str, pid: int) -> None:
        """This process uses the AMD or the Xe card at 90 %, and the card's fan has risen."""
        self._show(address, WORK[address], busy=0.9)
        with self._lock:
            self._rates[f"{pid} on {address}"] = 0.9 * (1e9 if address == AMD else _XE_HERTZ)

    def rest(self, address: str) -> None:
        """Nobody uses the card, and its fan is back at rest."""
        self._show(address, REST[address], busy=0.0)
        with self._lock:
            for name in self._rates:
                if name.endswith(f" on {address}"):
                    self._rates[name] = 0.0

    def _show(self, address: str, sensors: dict[str, int], *, busy: float) -> None:
        chip = self.device(address) / "hwmon" / CHIPS[address][0]
        for name, value in sensors.items():
            self.put(chip / name, value)
        if address == AMD:
            self.put(self.device(AMD) / "gpu_busy_percent", int(100 * busy))
            return
        self.put(self.device(XE) / "tile0/gt0/freq0/act_freq", 2850 if busy else 400)
        with self._lock:
            self._rates[f"{XE} energy"] = 1e6 * (WORK_WATTS if busy else REST_WATTS)[XE]
            self._rates[f"{XE} rest"] = 1000 * (1 - busy)

    def work_cpu(self, pid: int) -> None:
        """This process keeps six of the eight CPUs busy, and the shared fan has risen."""
        process = self.procfs / str(pid)
        fields = (process / "stat").read_text().split()

        def stat() -> str:
            fields[13] = str(self._count(f"{pid} cpu"))
            return " ".join(fields)

        with self._lock:
            self._counters[process / "stat"] = stat
        self._cpu_does(busy=6, watts=WORK_WATTS["cpu"], celsius=88, rpm=WORK_RPM)
        with self._lock:
            self._rates[f"{pid} cpu"] = 6 * _TICKS_PER_SECOND

    def rest_cpu(self) -> None:
        with self._lock:
            for name in self._rates:
                if name.endswith(" cpu"):
                    self._rates[name] = 0.0
        self._cpu_does(busy=0.1, watts=REST_WATTS["cpu"], celsius=44, rpm=REST_RPM)

    def _cpu_does(self, *, busy: float, watts: float, celsius: int, rpm: int) -> None:
        with self._lock:
            self._rates |= {
                "cpu energy": 1e6 * watts,
                "cpu busy": busy * _TICKS_PER_SECOND,
                "cpu idle": (CPUS - busy) * _TICKS_PER_SECOND,
            }
        self.put(self._cpu / "temp1_input", celsius * 1000)
        self.put(self._fan / "fan1_input", rpm)


def _link(link: Path, target: Path) -> None:
    """A relative one, as the kernel's, so that it leads to the same place wherever the tree is mounted."""
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.relpath(target, link.parent))
