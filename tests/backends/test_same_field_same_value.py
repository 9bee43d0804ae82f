"""Backends that serve the same field give the same value: one card's true state, rendered for each of them, read by each.

A backend joins by one `Way`: how the truth is rendered for it, what it serves, and how it rounds. Every field that two
ways to the same card both serve is compared.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from gpuwhyd.backends.nvidia_smi import nvidia_smi_backend
from gpuwhyd.model import FanMode, GpuReading
from tests.backends.amd_ways import (
    AMD_TRUTHS,
    AmdTruth,
    read_by_amdgpu,
    read_by_amdsmi,
    read_by_rocm_smi,
)
from tests.backends.fake_programs import FakeProgram
from tests.backends.nvidia_smi_documents import NA, document, gpu, process
from tests.backends.nvml_rig import NvmlRig
from tests.fake_nvml.control import FakeProcess
from tests.fake_nvml.sysfs import FakeSysfs

ADDRESS = "0000:01:00.0"
MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Truth:
    """A card as it is, in the model's units. None: it has no such thing."""

    vendor: str
    name: str
    uuid: str = "GPU-12345678-1234-4000-8000-123456789abc"
    vbios: str = "94.04.25.00.1c"
    driver: str = "550.54.14"
    fan_percent: float | None = 57.0
    temperature_celsius: float = 71.0
    memory_temperature_celsius: float | None = None
    slowdown_celsius: float | None = 95.0
    margin_celsius: float | None = None
    power_watts: float = 212.34
    power_average_watts: float | None = 208.9
    power_limit_watts: float = 220.0
    utilization_percent: float | None = 97.0
    memory_utilization_percent: float | None = 41.0
    encoder_percent: float | None = 12.0
    decoder_percent: float | None = 3.0
    memory_total_bytes: int = 8192 * MIB
    memory_reserved_bytes: int = 256 * MIB
    memory_used_bytes: int = 5121 * MIB
    core_clock_mhz: float = 1875.0
    core_clock_max_mhz: float = 2100.0
    memory_clock_mhz: float = 6801.0
    memory_clock_max_mhz: float = 7001.0
    performance_state: int = 2
    throttle_bits: int = 0
    """As nvml.h has them."""
    processes: Mapping[int, tuple[str, int | None]] = field(default_factory=dict)
    """pid -> (kind, memory in bytes)"""
    left_out: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Way -> what it does not tell of this card."""

    @property
    def limit_celsius(self) -> float:
        return self.slowdown_celsius or self.temperature_celsius + (self.margin_celsius or 0.0)

    @property
    def has_fan(self) -> bool:
        return self.fan_percent is not None and "A10G" not in self.name


TRUTHS: dict[str, Truth | AmdTruth] = {
    "desktop at work": Truth(
        vendor="nvidia",
        name="NVIDIA GeForce RTX 3070",
        throttle_bits=0x4 | 0x20,
        processes={4242: ("compute", 4096 * MIB), 17: ("graphics", 40 * MIB), 99: ("compute+graphics", None)},
    ),
    "desktop at rest": Truth(
        vendor="nvidia",
        name="NVIDIA GeForce RTX 3060",
        fan_percent=0.0,
        temperature_celsius=38.0,
        power_watts=11.63,
        power_average_watts=11.6,
        utilization_percent=0.0,
        memory_utilization_percent=0.0,
        encoder_percent=0.0,
        decoder_percent=0.0,
        performance_state=8,
        throttle_bits=0x1,
    ),
    "datacenter board with memory sensor": Truth(
        vendor="nvidia",
        name="NVIDIA H100 80GB HBM3",
        fan_percent=None,
        memory_temperature_celsius=83.0,
        slowdown_celsius=None,
        margin_celsius=16.0,
        encoder_percent=None,
        decoder_percent=None,
        throttle_bits=0x8 | 0x40 | 0x80,
        processes={7: ("mps", 512 * MIB)},
    ),
    "datacenter board that says 0 % of a fan it has not": Truth(
        vendor="nvidia", name="NVIDIA A10G", fan_percent=0.0, power_average_watts=None
    ),
    "every reason": Truth(vendor="nvidia", name="NVIDIA RTX A4000", throttle_bits=0x1FE),
    "old card": Truth(vendor="nvidia", name="Quadro P2000", power_average_watts=None, power_watts=4.61),
    **AMD_TRUTHS,
}


@dataclass(frozen=True, kw_only=True)
class Way:
    vendor: str
    read: Callable[[Any, Path], GpuReading]
    serves: frozenset[str]
    """Fields of GpuReading, and `fan_percent` and the like. What is not here may be None whatever the truth is."""
    resolution: Mapping[str, float] = field(default_factory=dict)
    """How coarse it tells a quantity, where that is not exact."""


def read_by_nvml(truth: Truth, folder: Path) -> GpuReading:
    with NvmlRig(folder) as rig:
        card = rig.add_card(ADDRESS, name=truth.name)
        card.rename(uuid=truth.uuid, vbios=truth.vbios)
        card.set(
            temperature=truth.temperature_celsius,
            memory_temperature=truth.memory_temperature_celsius,
            threshold_slowdown=truth.slowdown_celsius,
            margin_temperature=truth.margin_celsius,
            power_instant_mw=None if truth.power_average_watts is None else truth.power_watts * 1000,
            power_average_mw=None if truth.power_average_watts is None else truth.power_average_watts * 1000,
            power_usage_mw=truth.power_watts * 1000,
            power_limit_mw=truth.power_limit_watts * 1000,
            utilization=truth.utilization_percent,
            memory_utilization=truth.memory_utilization_percent,
            encoder=truth.encoder_percent,
            decoder=truth.decoder_percent,
            memory_total=truth.memory_total_bytes,
            memory_reserved=truth.memory_reserved_bytes,
            memory_used=truth.memory_used_bytes,
            core_clock=truth.core_clock_mhz,
            memory_clock=truth.memory_clock_mhz,
            max_core_clock=truth.core_clock_max_mhz,
            max_memory_clock=truth.memory_clock_max_mhz,
            pstate=truth.performance_state,
            throttle_reasons=truth.throttle_bits,
            number_of_fans=None if truth.fan_percent is None else 1,
        )
        card.set_fan(0, percent=truth.fan_percent, rpm=None, target=None, policy=None)
        card.set_processes(
            *(
                FakeProcess(pid=pid, kind=kind, memory_bytes=memory)
                for pid, (kind, memory) in truth.processes.items()
            )
        )
        return rig.reading()


REASONS = {
    0x1: "gpu_idle",
    0x2: "applications_clocks_setting",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
    0x100: "display_clocks_setting",
}
"""Bits of nvml.h -> what nvidia-smi's elements are called after their prefix, by its documentation."""
TYPES = {"compute": "C", "graphics": "G", "compute+graphics": "C+G", "mps": "M+C"}


def read_by_nvidia_smi(truth: Truth, folder: Path) -> GpuReading:
    def told(value: float | None, unit: str, digits: int = 0) -> str:
        return NA if value is None else f"{value:.{digits}f} {unit}"

    modern = truth.power_average_watts is not None
    changes: dict[str, str | None] = {
        "product_name": truth.name,
        "uuid": truth.uuid,
        "vbios_version": truth.vbios,
        "fan_speed": told(truth.fan_percent, "%"),
        "temperature/gpu_temp": told(truth.temperature_celsius, "C"),
        "temperature/memory_temp": told(truth.memory_temperature_celsius, "C"),
        "temperature/gpu_temp_slow_threshold": told(truth.slowdown_celsius, "C"),
        "temperature/gpu_temp_tlimit": told(truth.margin_celsius, "C"),
        "gpu_power_readings/instant_power_draw": told(truth.power_watts, "W", 2) if modern else None,
        "gpu_power_readings/average_power_draw": told(truth.power_average_watts, "W", 2) if modern else None,
        "gpu_power_readings/current_power_limit": told(truth.power_limit_watts, "W", 2) if modern else None,
        "power_readings/power_draw": None if modern else told(truth.power_watts, "W", 2),
        "power_readings/enforced_power_limit": None if modern else told(truth.power_limit_watts, "W", 2),
        "utilization/gpu_util": told(truth.utilization_percent, "%"),
        "utilization/memory_util": told(truth.memory_utilization_percent, "%"),
        "utilization/encoder_util": told(truth.encoder_percent, "%"),
        "utilization/decoder_util": told(truth.decoder_percent, "%"),
        "fb_memory_usage/total": told(truth.memory_total_bytes / MIB, "MiB"),
        "fb_memory_usage/reserved": told(truth.memory_reserved_bytes / MIB, "MiB"),
        "fb_memory_usage/used": told(truth.memory_used_bytes / MIB, "MiB"),
        "clocks/graphics_clock": told(truth.core_clock_mhz, "MHz"),
        "clocks/mem_clock": told(truth.memory_clock_mhz, "MHz"),
        "max_clocks/graphics_clock": told(truth.core_clock_max_mhz, "MHz"),
        "max_clocks/mem_clock": told(truth.memory_clock_max_mhz, "MHz"),
        "performance_state": f"P{truth.performance_state}",
        "processes": "".join(
            process(pid, TYPES[kind], told(None if memory is None else memory / MIB, "MiB"))
            for pid, (kind, memory) in truth.processes.items()
        ),
    }
    for bit, name in REASONS.items():
        state = "Active" if truth.throttle_bits & bit else "Not Active"
        changes[f"clocks_event_reasons/clocks_event_reason_{name}"] = state
    sysfs = FakeSysfs(folder / "sys")
    sysfs.add(ADDRESS)
    program = FakeProgram(folder / "bin", "nvidia-smi", 'exec /bin/cat "$FOLDER/document"')
    program.put("document", document(gpu(changes, address=f"0000{ADDRESS}"), driver=truth.driver))
    backend = nvidia_smi_backend(sysfs.root, procfs=folder / "proc", path=program.path)
    try:
        return backend.read().readings[0]
    finally:
        backend.close()


_OF_BOTH = frozenset(
    {
        "gpu",
        "state",
        "fan_mode",
        "fan_percent",
        "temperature_celsius",
        "memory_temperature_celsius",
        "temperature_limit_celsius",
        "power_watts",
        "power_average_watts",
        "power_limit_watts",
        "utilization_percent",
        "memory_utilization_percent",
        "encoder_percent",
        "decoder_percent",
        "memory_used_bytes",
        "memory_total_bytes",
        "core_clock_mhz",
        "memory_clock_mhz",
        "performance_state",
        "throttle_reasons",
    }
)
_TEMPERATURES = frozenset({"temperature_celsius", "hotspot_celsius", "memory_temperature_celsius"})
_COUNTED = frozenset({"energy_joules", "throttle_reasons"})
_OF_SYSFS_AND_ROCM = _TEMPERATURES | {
    "place",
    "state",
    "vbios_version",
    "fan_percent",
    "fan_rpm",
    "power_watts",
    "power_average_watts",
    "power_limit_watts",
    "utilization_percent",
    "memory_utilization_percent",
    "memory_used_bytes",
    "memory_total_bytes",
    "core_clock_mhz",
    "memory_clock_mhz",
}
WAYS = {
    "nvml": Way(
        vendor="nvidia",
        read=read_by_nvml,
        serves=_OF_BOTH
        | {"energy_joules", "core_clock_max_mhz", "memory_clock_max_mhz", "can_suspend", "processes"},
    ),
    "nvidia-smi": Way(
        vendor="nvidia",
        read=read_by_nvidia_smi,
        serves=_OF_BOTH | {"core_clock_max_mhz", "memory_clock_max_mhz", "can_suspend", "processes"},
        resolution={"power_watts": 0.005, "power_average_watts": 0.005, "power_limit_watts": 0.005},
    ),
    "amdgpu": Way(
        vendor="amd",
        read=read_by_amdgpu,
        serves=_OF_SYSFS_AND_ROCM
        | _COUNTED
        | {
            "fan_mode",
            "temperature_limit_celsius",
            "core_clock_max_mhz",
            "memory_clock_max_mhz",
            "can_suspend",
        },
        resolution={"energy_joules": 0.001},
    ),
    "amdsmi": Way(
        vendor="amd",
        read=read_by_amdsmi,
        serves=_TEMPERATURES | _COUNTED | {"place", "state", "processes"},
        resolution={"energy_joules": 1.8},  # the library's unit, 15.259 uJ, is rounded from 2^-16 J
    ),
    "rocm-smi": Way(
        vendor="amd",
        read=read_by_rocm_smi,
        serves=_OF_SYSFS_AND_ROCM,
        resolution={"power_watts": 0.05, "power_average_watts": 0.05, "power_limit_watts": 0.05},
    ),
}
PAIRS = [
    pytest.param(one, other, name, id=f"{one} and {other}: {name}")
    for one, other in combinations(WAYS, 2)
    for name, truth in TRUTHS.items()
    if WAYS[one].vendor == WAYS[other].vendor == truth.vendor
]
_IN_WORDS = frozenset({"gpu", "fan_mode"})
"""Of AMD's, names are as good as the lists at hand, and who does not know how a fan is controlled says `unknown`."""
_PROCESS_FIELDS = ("pid", "kind", "memory_used_bytes")
"""What a process made the card work is known to NVML alone."""


def comparable(reading: GpuReading, name: str) -> object:
    if name == "place":
        return reading.gpu.id, reading.gpu.vendor, reading.gpu.pci_address
    if name == "vbios_version":
        return reading.gpu.vbios_version
    value = getattr(reading, name)
    if name == "processes" and value is not None:
        return [tuple(getattr(one, key) for key in _PROCESS_FIELDS) for one in value]
    return value


@pytest.mark.parametrize(("one", "other", "name"), PAIRS)
def test_two_ways_to_one_card_tell_the_same(one: str, other: str, name: str, tmp_path: Path) -> None:
    truth, ways = TRUTHS[name], (WAYS[one], WAYS[other])
    first, second = (way.read(truth, tmp_path / str(place)) for place, way in enumerate(ways))
    shared = ways[0].serves & ways[1].serves
    for way in (one, other):
        shared -= truth.left_out.get(way, frozenset())
    assert len(shared) >= 4
    for quantity in sorted(shared):
        values = comparable(first, quantity), comparable(second, quantity)
        tolerance = max(way.resolution.get(quantity, 0.0) for way in ways)
        if tolerance and values[0] is not None:
            assert values[1] == pytest.approx(values[0], abs=tolerance), quantity
        else:
            assert values[0] == values[1], quantity


@pytest.mark.parametrize(
    ("way", "name"),
    [(way, name) for way in WAYS for name in TRUTHS if WAYS[way].vendor == TRUTHS[name].vendor],
)
def test_each_way_tells_the_truth(way: str, name: str, tmp_path: Path) -> None:
    """So that two ways are not wrong alike, and what a way serves is there."""
    truth, serves = TRUTHS[name], WAYS[way].serves
    reading = WAYS[way].read(truth, tmp_path)
    told = {one.name for one in fields(truth)} | {"fan_percent"}
    for quantity in sorted((serves & told) - truth.left_out.get(way, frozenset())):
        expected = getattr(truth, quantity)
        if quantity == "fan_percent" and not truth.has_fan:
            expected = None
        if quantity == "processes":
            expected = [(pid, *use) for pid, use in sorted(truth.processes.items())]
        elif isinstance(expected, float):
            expected = pytest.approx(expected, abs=WAYS[way].resolution.get(quantity, 0.0) + 1e-9)
        assert comparable(reading, quantity) == expected, quantity
    if "temperature_limit_celsius" in serves:
        assert reading.temperature_limit_celsius == truth.limit_celsius
    if "fan_mode" in serves:
        assert (reading.fan_mode is FanMode.NONE) is not truth.has_fan


def test_no_field_that_a_way_gives_is_left_out_of_the_comparison(tmp_path: Path) -> None:
    for place, way in enumerate(WAYS.values()):
        truth = next(truth for truth in TRUTHS.values() if truth.vendor == way.vendor)
        reading = way.read(truth, tmp_path / str(place))
        given = {one.name for one in fields(GpuReading) if getattr(reading, one.name) is not None}
        assert given - way.serves - {"backend", "fans", "processes", *_IN_WORDS} == set()
