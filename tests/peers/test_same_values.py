"""nvitop, gpustat and nvidia-ml-py's own example, unchanged, tell on the fake driver what gpuwhyd tells.

Where they differ by nature, the rule is in the name of a test.
"""

import contextlib
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gpuwhyd.model import FanMode, GpuProcess, GpuReading, ProcessIdentity
from gpuwhyd.processes.table import ProcessTable
from tests.backends.nvml_rig import NvmlRig, in_process_library
from tests.fake_nvml.control import FakeInstance, FakeProcess
from tests.peers import peers

MIB = 1 << 20
DESKTOP, PASSIVE, PARTITIONED = range(3)


@dataclass(frozen=True)
class Told:
    """One state of the machine as each of them told it; cards in the order of the bus."""

    gpuwhyd: tuple[GpuReading, ...]
    programs: dict[int, ProcessIdentity]
    gpustat: list[dict[str, Any]]
    nvitop: list[dict[str, Any]]
    table: str
    example: ET.Element
    pids: dict[str, int]

    def process(self, card: int, name: str) -> GpuProcess:
        (found,) = [p for p in self.gpuwhyd[card].processes or () if p.pid == self.pids[name]]
        return found


@contextlib.contextmanager
def running(*names: str) -> Iterator[dict[str, int]]:
    """Real processes, which wait to be told to end."""
    processes = {name: subprocess.Popen(["cat"], stdin=subprocess.PIPE) for name in names}
    try:
        yield {name: process.pid for name, process in processes.items()}
    finally:
        for process in processes.values():
            process.communicate()


def set_up(rig: NvmlRig, pids: dict[str, int]) -> None:
    desktop = rig.add_card(
        "0000:01:00.0",
        name="NVIDIA GeForce RTX 4080",
        temperature=71,
        power_usage_mw=212_400,
        power_average_mw=212_400,
        power_instant_mw=230_100,
        power_limit_mw=320_000,
        utilization=87,
        memory_utilization=35,
        encoder=12,
        decoder=3,
        memory_total=16 << 30,
        memory_reserved=300 * MIB,
        memory_used=6267 * MIB,
        core_clock=2610,
        memory_clock=11201,
        pstate=2,
        number_of_fans=2,
    )
    desktop.set_fan(0, percent=57, rpm=1900)
    desktop.set_fan(1, percent=62, rpm=2050)
    desktop.set_processes(
        FakeProcess(pid=pids["trainer"], memory_bytes=4096 * MIB, sm=70, mem=30),
        FakeProcess(
            pid=pids["game"], kind="compute+graphics", memory_bytes=1500 * MIB, sm=14, mem=4, enc=12, dec=3
        ),
        FakeProcess(pid=pids["desktop"], kind="graphics", memory_bytes=301 * MIB),
    )
    passive = rig.add_card(
        "0000:41:00.0",
        name="Tesla T4",
        temperature=33,
        power_usage_mw=9_900,
        power_average_mw=None,
        power_instant_mw=None,
        power_limit_mw=70_000,
        encoder=None,
        decoder=None,
        number_of_fans=None,
    )
    passive.set_processes(
        FakeProcess(pid=pids["model"], memory_bytes=None, sm=20, mem=2),
        FakeProcess(pid=pids["client"], kind="mps", memory_bytes=100 * MIB, sm=1),
    )
    partitioned = rig.add_card(
        "0000:81:00.0",
        name="NVIDIA H100 80GB HBM3",
        temperature=52,
        power_limit_mw=700_000,
        number_of_fans=None,
    )
    partitioned.partition(
        FakeInstance(gpu_instance=2, memory_total_bytes=40448 * MIB, memory_used_bytes=2322 * MIB),
        FakeInstance(gpu_instance=9),
    )
    partitioned.set_processes(FakeProcess(pid=pids["tenant"], memory_bytes=2296 * MIB, instance=0))


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    folder = in_process_library().parent
    names = ("trainer", "game", "desktop", "model", "client", "tenant")
    with running(*names) as pids, NvmlRig(tmp_path_factory.mktemp("peers")) as rig:
        set_up(rig, pids)
        readings = rig.read(0).readings
        programs = ProcessTable(Path("/proc"))
        identities = {pid: programs.identify(pid) for pid in pids.values()}
        programs.close()
        yield Told(
            gpuwhyd=readings,
            programs={pid: found for pid, found in identities.items() if found},
            gpustat=peers.gpustat(folder)["gpus"],
            nvitop=peers.nvitop(folder),
            table=peers.nvitop_once(folder),
            example=ET.fromstring(f"<example>{peers.example(folder)}</example>"),
            pids=pids,
        )


Get = Callable[[GpuReading], object]


def whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def mib(value: int | None) -> int | None:
    return None if value is None else value // MIB


GPUSTAT: dict[str, Get] = {
    "name": lambda gpu: gpu.gpu.name,
    "uuid": lambda gpu: gpu.gpu.uuid,
    "temperature.gpu": lambda gpu: gpu.temperature_celsius,
    "utilization.gpu": lambda gpu: gpu.utilization_percent,
    "utilization.enc": lambda gpu: gpu.encoder_percent,
    "utilization.dec": lambda gpu: gpu.decoder_percent,
    "enforced.power.limit": lambda gpu: whole(gpu.power_limit_watts),
    "memory.used": lambda gpu: mib(gpu.memory_used_bytes),
    "memory.total": lambda gpu: mib(gpu.memory_total_bytes),
}
NVITOP: dict[str, Get] = {
    "name": lambda gpu: gpu.gpu.name,
    "uuid": lambda gpu: gpu.gpu.uuid,
    "bus_id": lambda gpu: f"0000{gpu.gpu.pci_address}".upper(),
    "temperature": lambda gpu: gpu.temperature_celsius,
    "gpu_utilization": lambda gpu: gpu.utilization_percent,
    "memory_utilization": lambda gpu: gpu.memory_utilization_percent,
    "encoder_utilization": lambda gpu: gpu.encoder_percent,
    "decoder_utilization": lambda gpu: gpu.decoder_percent,
    "power_limit": lambda gpu: None if gpu.power_limit_watts is None else gpu.power_limit_watts * 1000,
    "memory_used": lambda gpu: gpu.memory_used_bytes,
    "memory_total": lambda gpu: gpu.memory_total_bytes,
    "sm_clock": lambda gpu: gpu.core_clock_mhz,
    "memory_clock": lambda gpu: gpu.memory_clock_mhz,
    "performance_state": lambda gpu: f"P{gpu.performance_state}",
}


@pytest.mark.parametrize("card", [DESKTOP, PASSIVE, PARTITIONED])
@pytest.mark.parametrize("key", GPUSTAT)
def test_gpustat_tells_the_same(told: Told, card: int, key: str) -> None:
    assert told.gpustat[card][key] == GPUSTAT[key](told.gpuwhyd[card])


@pytest.mark.parametrize("card", [DESKTOP, PASSIVE, PARTITIONED])
@pytest.mark.parametrize("key", NVITOP)
def test_nvitop_tells_the_same(told: Told, card: int, key: str) -> None:
    assert told.nvitop[card][key] == NVITOP[key](told.gpuwhyd[card])


def test_all_know_the_same_cards(told: Told) -> None:
    assert len(told.gpuwhyd) == len(told.gpustat) == len(told.nvitop) == len(told.example.findall("gpu")) == 3


def test_peers_show_the_first_fan_and_gpuwhyd_the_fastest(told: Told) -> None:
    for card, gpu in enumerate(told.gpuwhyd):
        first = gpu.fans[0].percent if gpu.fans else None
        assert told.gpustat[card]["fan.speed"] == told.nvitop[card]["fan_speed"] == first
    assert [fan.percent for fan in told.gpuwhyd[DESKTOP].fans] == [57.0, 62.0]
    assert told.gpuwhyd[DESKTOP].fan_percent == 62.0
    assert [gpu.fan_mode for gpu in told.gpuwhyd[1:]] == [FanMode.NONE, FanMode.NONE]


def test_peers_show_the_average_power_and_gpuwhyd_has_the_instant_too(told: Told) -> None:
    desktop, passive = told.gpuwhyd[DESKTOP], told.gpuwhyd[PASSIVE]
    assert (desktop.power_average_watts, desktop.power_watts) == (212.4, 230.1)
    assert told.nvitop[DESKTOP]["power_usage"] == 212_400
    assert told.gpustat[DESKTOP]["power.draw"] == 212
    assert (passive.power_average_watts, passive.power_watts) == (None, 9.9), "an old card has one power only"
    assert told.nvitop[PASSIVE]["power_usage"] == 9_900


@pytest.mark.parametrize("name", ["trainer", "game", "desktop"])
def test_processes_have_the_same_use_of_a_card(told: Told, name: str) -> None:
    ours, theirs = told.process(DESKTOP, name), told.nvitop[DESKTOP]["processes"][str(told.pids[name])]
    assert theirs["gpu_memory"] == ours.memory_used_bytes
    assert [theirs[key] for key in ("sm", "memory", "encoder", "decoder")] == [
        pytest.approx(percent, abs=0.01)
        for percent in (
            ours.engine_percent,
            ours.memory_utilization_percent,
            ours.encoder_percent,
            ours.decoder_percent,
        )
    ]
    assert theirs["type"] == {"compute": "C", "graphics": "G", "compute+graphics": "C+G"}[ours.kind]


@pytest.mark.parametrize("card", [DESKTOP, PASSIVE, PARTITIONED])
def test_processes_are_the_same_but_for_mps_clients_whom_peers_do_not_ask_for(told: Told, card: int) -> None:
    ours = {
        use.pid: mib(use.memory_used_bytes) for use in told.gpuwhyd[card].processes or () if use.kind != "mps"
    }
    assert {use["pid"]: use["gpu_memory_usage"] for use in told.gpustat[card]["processes"]} == ours
    theirs = {int(pid): mib(use["gpu_memory"]) for pid, use in told.nvitop[card]["processes"].items()}
    assert theirs == ours


def test_gpuwhyd_knows_the_mps_client(told: Told) -> None:
    client = told.process(PASSIVE, "client")
    assert (client.kind, client.memory_used_bytes) == ("mps", 100 * MIB)
    assert client.engine_percent == pytest.approx(1, abs=0.01)


def test_processes_have_the_same_name_and_user(told: Told) -> None:
    for card in (DESKTOP, PASSIVE, PARTITIONED):
        for use in told.gpustat[card]["processes"]:
            ours, theirs = told.programs[use["pid"]], told.nvitop[card]["processes"][str(use["pid"])]
            assert (ours.name, ours.user) == (use["command"], use["username"])
            assert (ours.name, ours.user) == (theirs["name"], theirs["username"])


def test_a_process_whose_memory_is_not_known_has_none_for_all(told: Told) -> None:
    pid = told.pids["model"]
    assert told.process(PASSIVE, "model").memory_used_bytes is None
    assert [use["gpu_memory_usage"] for use in told.gpustat[PASSIVE]["processes"] if use["pid"] == pid] == [
        None
    ]
    assert told.nvitop[PASSIVE]["processes"][str(pid)]["gpu_memory"] is None


def test_mig_devices_have_the_processes_that_the_card_has(told: Told) -> None:
    devices = told.nvitop[PARTITIONED]["mig_devices"]
    assert [device["memory_used"] for device in devices] == [2322 * MIB, 9 * MIB]
    assert [device["gpu_utilization"] for device in devices] == [None, None]
    (pid,) = {pid for device in devices for pid in device["processes"]}
    tenant = told.process(PARTITIONED, "tenant")
    assert (int(pid), devices[0]["processes"][pid]["gpu_memory"]) == (tenant.pid, tenant.memory_used_bytes)


def test_nvitop_shows_no_work_on_mig_devices_where_gpuwhyd_says_that_nobody_knows(told: Told) -> None:
    pid = str(told.pids["tenant"])
    assert told.nvitop[PARTITIONED]["mig_devices"][0]["processes"][pid]["sm"] == 0
    assert told.process(PARTITIONED, "tenant").engine_percent is None


def test_nvitops_table_shows_the_same(told: Told) -> None:
    gpu, trainer = told.gpuwhyd[DESKTOP], told.process(DESKTOP, "trainer")
    words = told.table.split()
    assert f"{gpu.fans[0].percent:.0f}%" in words
    assert f"{gpu.temperature_celsius:.0f}C" in words
    assert f"{gpu.power_average_watts:.0f}W" in words
    row = next(line.split() for line in told.table.splitlines() if f" {trainer.pid} " in line)
    assert row[1:8] == ["0", str(trainer.pid), "C", told.programs[trainer.pid].user, "4096MiB", "70", "30"]


def test_the_example_of_nvidia_ml_py_names_the_same_cards(told: Told) -> None:
    for gpu, theirs in zip(told.gpuwhyd, told.example.findall("gpu"), strict=True):
        assert theirs.get("id", "").lower() == f"0000{gpu.gpu.pci_address}"
        assert theirs.findtext("product_name") == gpu.gpu.name
        assert theirs.findtext("uuid") == gpu.gpu.uuid
        assert gpu.gpu.driver == f"nvidia {told.example.findtext('driver_version')}"
        assert "Function Not Found" not in {item.text for item in theirs.iter()}
