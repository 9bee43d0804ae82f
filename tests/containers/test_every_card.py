"""A card of every kind and a laptop's shared fan in one machine, read by the daemon as its unit: one snapshot, an answer each.

Here too: what the unit's sandbox lets the backends do, which start programs, load libraries and listen to the kernel.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.backends.nvidia_smi_documents import document, gpu
from tests.containers.bench import LOUD_PERCENT, Bench
from tests.containers.harness import NOBODY, Debian, wait_for
from tests.every_card import (
    ADDRESSES,
    AMD,
    CHASSIS,
    NODES,
    NVIDIA,
    REST_RPM,
    WORK_RPM,
    XE,
    EveryCard,
)
from tests.fake_amdsmi.control import FakeRocm

pytestmark = [pytest.mark.root, pytest.mark.container]

PLACE = "/srv/every"
_DROP_IN = "/etc/systemd/system/gpuwhyd.service.d/zz-every.conf"
_ROOTS = f'[Service]\nEnvironment="GPUWHYD_OPTIONS=--path.sysfs {PLACE}/sys --path.procfs {PLACE}/proc"\n'
_PATIENCE_SECONDS = 60.0
"""Who keeps the CPU busy is looked for every ten seconds, and told by the difference of two looks."""
_FAULT = re.compile(
    r"Traceback|a fault of gpuwhyd|never retrieved|never awaited|Exception ignored|audit|seccomp"
)
RESIDENT = "ollama.service"


@dataclass
class Every:
    """The machine and the daemon on it; all files below PLACE of the container."""

    debian: Debian
    bench: Bench
    machine: EveryCard

    def configure(self, drop_in: str) -> None:
        self.debian.write(_DROP_IN, drop_in)
        self.debian.run("systemctl", "daemon-reload")

    def explanation(self, gpu_id: str) -> dict:
        return self.bench.ask("Explain", "o", f"/org/gpuwhyd1/gpus/{gpu_id}")

    def wait_for_suspect(self, gpu_id: str, cause: str, unit: str) -> dict:
        def told() -> dict | None:
            explanation = self.explanation(gpu_id)
            suspects = explanation.get("suspects") or [{"program": {}}]
            right = explanation["cause"] == cause and suspects[0]["program"].get("unit") == unit
            return explanation if right else None

        return wait_for(told, _PATIENCE_SECONDS, f"{cause} by {unit} on {gpu_id}")

    def logged(self) -> str:
        return self.debian.journal("--unit=gpuwhyd", "--output=cat")

    def xe_works_as_it_should(self) -> bool:
        """Its readings tell the work that it does: 90 % of one engine, 104 W."""
        found = self.readings()[gpu_id(XE)]
        busy, watts = found.get("utilization_percent", 0), found.get("power_watts", 0)
        return busy == pytest.approx(90, abs=8) and watts == pytest.approx(104, rel=0.3)

    def readings(self) -> dict[str, dict]:
        """The summary's GPUs by id."""
        return {gpu["id"]: gpu for gpu in self.bench.ask("GetSummary")["gpus"]}


@pytest.fixture(scope="module")
def every(installed_bench: Bench) -> Iterator[Every]:
    debian = installed_bench.debian
    debian.shell(f"rm -rf {PLACE} && mkdir -p {PLACE}")
    machine = EveryCard(debian.path(PLACE))
    here = Every(debian, installed_bench, machine)
    pid = installed_bench.run_unit(RESIDENT)
    machine.program(pid, RESIDENT, comm="ollama")
    machine.computes(pid, vram=3 << 30)
    with machine.running():
        yield here
    debian.shell(
        f"systemctl stop {RESIDENT}; rm -rf {PLACE} {_DROP_IN}; systemctl daemon-reload", check=False
    )


@pytest.fixture
def at_rest(every: Every) -> Iterator[Every]:
    """The daemon runs on the made-up machine, where nobody works."""
    every.configure(_ROOTS)
    every.bench.start()
    yield every
    every.bench.stop()


def gpu_id(address: str) -> str:
    return "pci_" + address.replace(":", "_").replace(".", "_")


# -- one snapshot ------------------------------------------------------------------------------------------------------


def test_every_card_is_listed_with_its_readings(at_rest: Every) -> None:
    debian = at_rest.debian
    wait_for(
        lambda: at_rest.readings()[gpu_id(XE)].get("power_watts"), 10, "power, by two looks at a counter"
    )
    found = at_rest.readings()
    assert set(found) == {CHASSIS, *map(gpu_id, ADDRESSES.values())}
    assert {one["state"] for one in found.values()} == {"awake"}
    assert {one["cause"] for one in found.values()} == {"quiet"}
    nvidia, amd, xe, laptop = (found[one] for one in (gpu_id(NVIDIA), gpu_id(AMD), gpu_id(XE), CHASSIS))
    assert (nvidia["vendor"], nvidia["fan_percent"], nvidia["temperature_celsius"]) == ("nvidia", 30, 35)
    assert (amd["vendor"], amd["fan_rpm"], amd["power_watts"], amd["temperature_celsius"]) == (
        "amd",
        900,
        22,
        41,
    )
    assert (xe["vendor"], xe["fan_rpm"], xe["temperature_celsius"]) == ("intel", 800, 45)
    assert xe["power_watts"] == pytest.approx(9, rel=0.5)
    assert xe["utilization_percent"] == 0
    assert "fan_percent" not in xe
    assert (laptop["vendor"], laptop["fan_rpm"], laptop["temperature_celsius"]) == ("chassis", REST_RPM, 44)
    states = at_rest.bench.ask("GetSummary")["backends"]
    assert {name: state for name, state in states.items() if state == "ready"} == dict.fromkeys(
        ("nvml", "amdgpu", "i915", "xe", "chassis"), "ready"
    )
    processes = at_rest.bench.ask("GetProcesses", "o", f"/org/gpuwhyd1/gpus/{gpu_id(AMD)}")
    assert [(one["unit"], one["memory_used_bytes"]) for one in processes] == [(RESIDENT, 3 << 30)]

    names = {one["id"]: one["name"] for one in found.values()}
    status, doctor = (debian.run("gpuwhy", command, user=NOBODY).output for command in ("status", "doctor"))
    answers = debian.run("gpuwhy", user=NOBODY).output
    short = {name: re.sub(r"^(NVIDIA|AMD|Intel) (GeForce |Radeon )?", "", name) for name in names.values()}
    for name in names.values():
        assert short[name] in status
        assert name in doctor
        assert short[name] in answers
    assert "Nothing is wrong." in doctor
    of_xe = doctor.partition(f"({gpu_id(XE)},")[2].partition("Read by")[0]
    assert not re.search(r"\butilization_percent", of_xe), "its driver does not tell it, its processes do"
    for place, address in enumerate(sorted(ADDRESSES.values())):
        assert f"GPU {place} ({short[names[gpu_id(address)]]})" in answers
        assert f"GPU {place} {names[gpu_id(address)]} ({gpu_id(address)}," in doctor
        asked = json.loads(debian.run("gpuwhy", "status", "--gpu", str(place), "--json").output)
        assert [one["id"] for one in asked["gpus"]] == [gpu_id(address)]
    assert not _FAULT.search(at_rest.logged())


def nvidia_works(here: Every, pid: int) -> None:
    here.machine.program(pid, "nvidia.service", comm="sleep")
    here.bench.work(pid)
    here.bench.fan(LOUD_PERCENT)


def amd_works(here: Every, pid: int) -> None:
    here.machine.program(pid, "amd.service", comm="sleep")
    here.machine.opens(pid, AMD)
    here.machine.work(AMD, pid)


def xe_works(here: Every, pid: int) -> None:
    here.machine.program(pid, "xe.service", comm="sleep")
    here.machine.opens(pid, XE)
    here.machine.work(XE, pid)


def cpu_works(here: Every, pid: int) -> None:
    here.machine.program(pid, "cpu.service", comm="sleep")
    here.machine.work_cpu(pid)


@dataclass(frozen=True)
class Load:
    unit: str
    gpu_id: str
    cause: str
    begin: Callable[[Every, int], None]
    rest: Callable[[Every], None]


LOADS = (
    Load("nvidia.service", gpu_id(NVIDIA), "workload", nvidia_works, lambda here: here.bench.rest()),
    Load("amd.service", gpu_id(AMD), "workload", amd_works, lambda here: here.machine.rest(AMD)),
    Load("xe.service", gpu_id(XE), "workload", xe_works, lambda here: here.machine.rest(XE)),
    Load("cpu.service", CHASSIS, "shared-cooler", cpu_works, lambda here: here.machine.rest_cpu()),
)


def test_each_card_in_turn_has_an_answer_of_its_own(at_rest: Every) -> None:
    """Of who works on it, whichever way that is known; nothing is said of those that rest."""
    bench = at_rest.bench
    for place, load in enumerate(LOADS, start=1):
        pid = bench.run_unit(load.unit)
        load.begin(at_rest, pid)
        explanation = at_rest.wait_for_suspect(load.gpu_id, load.cause, load.unit)
        assert load.unit in explanation["sentence"]
        assert explanation["suspects"][0]["pids"] == [pid]
        assert load.unit in at_rest.debian.run("gpuwhy", user=NOBODY).output
        found = at_rest.readings()
        assert {one["cause"] for name, one in found.items() if name != load.gpu_id} == {"quiet"}
        if load.gpu_id == gpu_id(XE):
            # both are differences of counters that this machine moves while it has other things to do: one look may
            # miss a step, and the engine time of a new client is known by its second look
            wait_for(at_rest.xe_works_as_it_should, 20, "90 % and 104 W")
        if load.gpu_id == CHASSIS:
            assert found[CHASSIS]["fan_rpm"] == WORK_RPM
            told = {one["quantity"]: one["value"] for one in explanation["evidence"]}
            assert told["cpu_power_watts"] == pytest.approx(46, rel=0.3)
        load.rest(at_rest)
        bench.debian.run("systemctl", "stop", load.unit)
        at_rest.machine.ends(pid)
        bench.wait_for_event("spike-ended", place)
        told_of_unit = bench.events("spike-started", "spike-updated", "spike-ended", unit=load.unit)
        assert {entry["GPUWHY_SPIKE_ID"].rpartition("-")[0] for entry in told_of_unit} == {load.gpu_id}
        assert told_of_unit[-1]["GPUWHY_EVENT"] == "spike-ended"
        assert told_of_unit[-1]["GPUWHY_SUSPECT_UNIT"] == load.unit
        assert told_of_unit[-1]["GPUWHY_CAUSE"] == load.cause
    spikes = [entry["GPUWHY_SPIKE_ID"].rpartition("-")[0] for entry in bench.events("spike-started")]
    assert spikes == [load.gpu_id for load in LOADS]
    assert bench.told("alert-raised", "alert-cleared") == ["spike-started", "spike-ended"] * len(LOADS)
    assert bench.unit("NRestarts") == "0"
    assert not _FAULT.search(at_rest.logged())


# -- what the sandbox allows -------------------------------------------------------------------------------------------


def test_nvidia_smi_runs_where_the_library_is_missing(at_rest: Every) -> None:
    debian = at_rest.debian
    told = gpu({"temperature/gpu_temp": "67 C", "fan_speed": "44 %"}, address=f"0000{NVIDIA}")
    debian.path(f"{PLACE}/document").write_bytes(document(told))
    debian.write("/usr/bin/nvidia-smi", f"#!/bin/sh\ncat {PLACE}/document\nexec sleep 3600\n")
    debian.run("chmod", "755", "/usr/bin/nvidia-smi")
    try:
        at_rest.configure(f"{_ROOTS}Environment=LD_LIBRARY_PATH={PLACE}/nothing\n")
        debian.run("systemctl", "restart", "gpuwhyd")
        at_rest.bench.wait_for_samples(2)
        wait_for(
            lambda: at_rest.readings().get(gpu_id(NVIDIA), {}).get("fan_percent") == 44,
            20,
            "nvidia-smi's reading",
        )
        assert at_rest.readings()[gpu_id(NVIDIA)]["temperature_celsius"] == 67
        states = at_rest.bench.ask("GetSummary")["backends"]
        assert (states["nvml"], states["nvidia-smi"]) == ("waiting", "ready")
        doctor = debian.run("gpuwhy", "doctor", check=False).output
        assert "libnvidia-ml.so.1" in doctor
        children = debian.shell("cat /sys/fs/cgroup/system.slice/gpuwhyd.service/cgroup.procs").output.split()
        running = {debian.shell(f"tr '\\0' ' ' </proc/{pid}/cmdline").output.strip() for pid in children}
        assert "sleep 3600" in running
        debian.run("systemctl", "stop", "gpuwhyd")
        assert debian.run("pgrep", "-f", "sleep 3600", check=False).output.split() == _others(at_rest)
        assert not _FAULT.search(at_rest.logged())
    finally:
        debian.run("rm", "-f", "/usr/bin/nvidia-smi")


def _others(here: Every) -> list[str]:
    """The processes of the units that the test itself has started."""
    return [here.debian.run("systemctl", "show", RESIDENT, "--property=MainPID", "--value").output.strip()]


def test_amds_library_is_tried_and_read(at_rest: Every, tmp_path: Path) -> None:
    """A process of its own tries it; both load it and its genuine wrapper, which ctypes must be allowed to."""
    debian = at_rest.debian
    built = FakeRocm.build(tmp_path)
    built.close()
    lib = debian.path("/opt/rocm/lib")
    lib.mkdir(parents=True)
    (lib / "libamd_smi.so").write_bytes(built.library.read_bytes())
    rocm = FakeRocm(debian.path("/opt/rocm"), built.functions, built.wrapper)
    try:
        rocm.add_card(AMD).set_energy(123_000_000)
        # the fake keeps its counts beside itself, which AMD's own library does not
        at_rest.configure(f"{_ROOTS}ReadWritePaths=/opt/rocm/lib\n")
        debian.run("systemctl", "restart", "gpuwhyd")
        at_rest.bench.wait_for_samples(2)
        wait_for(
            lambda: at_rest.bench.ask("GetSummary")["backends"]["amdsmi"] == "ready", 20, "amdsmi is ready"
        )
        at_rest.bench.wait_for_samples(2)
        metrics = {one["identity"]["id"]: one for one in at_rest.bench.ask("GetMetrics")}
        assert metrics[gpu_id(AMD)]["backend"] == "amdgpu"
        assert metrics[gpu_id(AMD)]["energy_joules"] == pytest.approx(123 * 15.259, rel=0.01)
        assert rocm.loads == 2
        assert rocm.open_sessions == 1
        debian.run("systemctl", "stop", "gpuwhyd")
        assert rocm.open_sessions == 0
        assert not _FAULT.search(at_rest.logged())
    finally:
        debian.run("systemctl", "stop", "gpuwhyd")
        rocm.close()
        debian.run("rm", "-r", "/opt/rocm")


def test_the_daemon_hears_the_kernel_and_looks_into_the_programs_of_others(at_rest: Every) -> None:
    """With the machine's own /proc and /sys: what a sandbox may forbid without anybody noticing."""
    debian, bench = at_rest.debian, at_rest.bench
    node = f"{PLACE}/dri/{NODES[AMD]}"
    debian.write(node, "")
    holder = "holder.service"
    bench.run_unit(holder, "--property=User=nobody", command=("sh", "-c", f"exec 9<{node}; exec sleep 3600"))
    at_rest.configure(f'[Service]\nEnvironment="GPUWHYD_OPTIONS=--path.sysfs {PLACE}/sys"\n')
    debian.run("systemctl", "restart", "gpuwhyd")
    bench.wait_for_samples(2)
    wait_for(
        lambda: f"the driver of GPU {AMD} does not tell who uses it" in at_rest.logged(),
        20,
        "the descriptors of another user's process are looked into",
    )
    at_rest.configure("[Service]\nEnvironment=GPUWHYD_OPTIONS=\n")
    debian.run("systemctl", "restart", "gpuwhyd")
    bench.wait_for_samples(2)
    pid = bench.unit("MainPID")
    netlink = [line.split() for line in debian.path(f"/proc/{pid}/net/netlink").read_text().splitlines()[1:]]
    kernel_events = {
        inode for _, protocol, port, groups, *_, inode in netlink if (protocol, groups) == ("15", "00000001")
    }
    sockets = debian.shell(f"ls -l /proc/{pid}/fd").output
    assert any(f"socket:[{inode}]" in sockets for inode in kernel_events)
    assert "no kernel uevents" not in at_rest.logged()
    assert not _FAULT.search(at_rest.logged())
    debian.run("systemctl", "stop", holder)


def test_the_exposure_is_as_before(at_rest: Every) -> None:
    """The backends of every kind of card ask for no more rights than NVML's did."""
    security = at_rest.debian.run("systemd-analyze", "security", "--no-pager", "gpuwhyd.service").output
    assert re.search(r"exposure level.*: 2\.1 ", security), security.splitlines()[-1]
