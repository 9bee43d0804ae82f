"""One AMD card's true state, rendered as the files of its kernel driver, for AMD's library, and as rocm-smi's answer."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gpuwhyd.backends.rocm_smi_json import cards
from gpuwhyd.model import GpuReading
from tests.backends.amdgpu_metrics_tables import table
from tests.backends.amdgpu_rig import ADDRESS, CHIP, Rig
from tests.backends.amdsmi_rig import AmdsmiRig
from tests.fake_amdsmi.control import ENERGY_UNIT

_JOULES_A_COUNT = 2.0**-16
_STEPS = 2000
"""Of the firmware's control between two readings."""
_COUNTERS = {"power-cap": "ppt", "sw-thermal": "hbm_thm", "hw-thermal": "vr_thm"}
"""Generic name -> a counter that is called so."""


@dataclass(frozen=True, kw_only=True)
class AmdTruth:
    """A card as it is, in the model's units. None: it has no such thing."""

    vendor: str = "amd"
    vbios_version: str = "113-TEST-01"
    fan_rpm: float | None = 1530.0
    fan_level: int | None = 102
    """Of 255."""
    temperature_celsius: float | None = 61.0
    hotspot_celsius: float = 78.0
    memory_temperature_celsius: float | None = 70.0
    limit_celsius: float = 100.0
    power_watts: float = 203.4
    power_average_watts: float | None = 203.4
    power_limit_watts: float = 250.0
    utilization_percent: float = 97.0
    memory_utilization_percent: float | None = 41.0
    memory_used_bytes: int = 5_368_709_120
    memory_total_bytes: int = 17_163_091_968
    core_clock_mhz: float = 2100.0
    memory_clock_mhz: float = 1000.0
    energy_joules: float | None = None
    throttle_reasons: tuple[str, ...] | None = None
    """Of a card that counts violations; None: it does not."""
    left_out: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Way -> what it does not tell of this card."""

    @property
    def fan_percent(self) -> float | None:
        return None if self.fan_level is None else self.fan_level / 255 * 100

    @property
    def has_fan(self) -> bool:
        return self.fan_level is not None


_WITHOUT_COUNTERS = frozenset({"energy_joules", "throttle_reasons"})
_EDGELESS = frozenset({"temperature_celsius"})
"""The kernel's driver alone shows the hotspot as the temperature of a card that has no other."""
AMD_TRUTHS = {
    "Instinct at work": AmdTruth(
        fan_rpm=None,
        fan_level=None,
        temperature_celsius=None,
        hotspot_celsius=84.0,
        memory_temperature_celsius=77.0,
        power_watts=612.0,
        power_average_watts=None,
        power_limit_watts=750.0,
        energy_joules=123_456.0,
        throttle_reasons=("power-cap", "sw-thermal", "hw-thermal"),
        left_out=dict.fromkeys(("amdgpu", "amdsmi", "rocm-smi"), _EDGELESS),
    ),
    "Instinct at rest": AmdTruth(
        fan_rpm=None,
        fan_level=None,
        temperature_celsius=None,
        hotspot_celsius=41.0,
        memory_temperature_celsius=38.0,
        power_watts=131.0,
        power_average_watts=None,
        power_limit_watts=750.0,
        utilization_percent=0.0,
        memory_utilization_percent=0.0,
        energy_joules=1000.5,
        throttle_reasons=(),
        left_out=dict.fromkeys(("amdgpu", "amdsmi", "rocm-smi"), _EDGELESS),
    ),
    "Radeon at work": AmdTruth(
        left_out={
            "amdgpu": _WITHOUT_COUNTERS,
            "amdsmi": _WITHOUT_COUNTERS,
        }
    ),
    "Radeon whose fan stands still": AmdTruth(
        fan_rpm=0.0,
        fan_level=0,
        temperature_celsius=38.0,
        hotspot_celsius=41.0,
        power_watts=6.0,
        power_average_watts=6.0,
        utilization_percent=0.0,
        memory_utilization_percent=None,
        core_clock_mhz=0.0,
        left_out={
            "amdgpu": _WITHOUT_COUNTERS,
            "amdsmi": _WITHOUT_COUNTERS,
            "rocm-smi": frozenset({"fan_percent", "fan_rpm"}),
        },
    ),
}


def _metrics(truth: AmdTruth, steps: int) -> dict[str, int]:
    """The violation counters after so many steps, by their names in the kernel's table, without `_residency_acc`.

    Limits that held nothing were touched in one step of two hundred.
    """
    held = {_COUNTERS[reason] for reason in truth.throttle_reasons or ()}
    names = ("prochot", "ppt", "socket_thm", "vr_thm", "hbm_thm")
    return {name: 1000 + steps // (2 if name in held else 200) for name in names}


def read_by_amdgpu(truth: AmdTruth, folder: Path) -> GpuReading:
    return read_tree(truth, Rig(folder))


def read_tree(truth: AmdTruth, rig: Rig) -> GpuReading:
    """Makes the card's files what is true, and reads them."""
    average, edge, fan = truth.power_average_watts, truth.temperature_celsius, truth.fan_level

    def milli(celsius: float | None) -> str | None:
        return None if celsius is None else str(round(celsius * 1000))

    chip = {
        "temp1_label": None if edge is None else "edge",
        "temp1_input": milli(edge),
        "temp1_crit": None if edge is None else milli(truth.limit_celsius),
        "temp2_input": milli(truth.hotspot_celsius),
        "temp2_crit": milli(truth.limit_celsius),
        "temp3_input": milli(truth.memory_temperature_celsius),
        "power1_average": None if average is None else str(round(average * 1e6)),
        "power1_cap": str(round(truth.power_limit_watts * 1e6)),
        "freq1_input": str(round(truth.core_clock_mhz * 1e6)),
        "freq2_input": str(round(truth.memory_clock_mhz * 1e6)),
        "fan1_input": None if truth.fan_rpm is None else f"{truth.fan_rpm:.0f}",
        "pwm1": None if fan is None else str(fan),
    }
    chip |= dict.fromkeys(("fan1_max", "pwm1_max", "pwm1_enable")) if fan is None else {}
    if average is None:
        rig.card.set_chip(power1_input=str(round(truth.power_watts * 1e6)))
    assert chip.keys() <= CHIP.keys()
    rig.card.set_chip(**chip)
    memory_busy = truth.memory_utilization_percent
    rig.card.set(
        vbios_version=truth.vbios_version,
        gpu_busy_percent=f"{truth.utilization_percent:.0f}",
        mem_busy_percent=None if memory_busy is None else f"{memory_busy:.0f}",
        pp_dpm_sclk=f"0: 500Mhz\n1: {truth.core_clock_mhz:.0f}Mhz *\n2: 2500Mhz",
        pp_dpm_mclk=f"0: 96Mhz\n1: {truth.memory_clock_mhz:.0f}Mhz *",
        mem_info_vram_used=str(truth.memory_used_bytes),
        mem_info_vram_total=str(truth.memory_total_bytes),
    )
    if truth.energy_joules is None:
        return rig.reading()
    for steps in (0, _STEPS):  # what held the clocks is told by two readings
        rig.card.set(
            gpu_metrics=table(
                *(1, 7),
                energy_accumulator=round(truth.energy_joules / _JOULES_A_COUNT),
                accumulation_counter=5000 + steps,
                **{f"{name}_residency_acc": count for name, count in _metrics(truth, steps).items()},
            )
        )
        reading = rig.reading()
    return reading


def read_by_amdsmi(truth: AmdTruth, folder: Path) -> GpuReading:
    def whole(celsius: float | None) -> int | None:
        return None if celsius is None else round(celsius)

    with AmdsmiRig(folder) as rig:
        card = rig.add_card(
            ADDRESS,
            edge=whole(truth.temperature_celsius),
            hotspot=whole(truth.hotspot_celsius),
            memory=whole(truth.memory_temperature_celsius),
            activity=round(truth.utilization_percent),
        )
        card.set_energy(round((truth.energy_joules or 0.0) / (ENERGY_UNIT * 1e-6)))
        if truth.throttle_reasons is None:
            return rig.reading()
        for steps in (0, _STEPS):
            card.set_counters(accumulation_counter=5000 + steps, **_metrics(truth, steps))
            reading = rig.reading()
        return reading


def read_by_rocm_smi(truth: AmdTruth, folder: Path) -> GpuReading:
    def told(value: float | None, digits: int = 1) -> str:
        return "N/A" if value is None else f"{value:.{digits}f}"

    card = {
        "VBIOS version": truth.vbios_version,
        "Temperature (Sensor edge) (C)": told(truth.temperature_celsius),
        "Temperature (Sensor junction) (C)": told(truth.hotspot_celsius),
        "Temperature (Sensor memory) (C)": told(truth.memory_temperature_celsius),
        "Max Graphics Package Power (W)": told(truth.power_limit_watts),
        "GPU use (%)": told(truth.utilization_percent, 0),
        "GPU Memory Read/Write Activity (%)": told(truth.memory_utilization_percent, 0),
        "VRAM Total Memory (B)": str(truth.memory_total_bytes),
        "VRAM Total Used Memory (B)": str(truth.memory_used_bytes),
        "sclk clock speed:": f"({truth.core_clock_mhz:.0f}Mhz)",
        "mclk clock speed:": f"({truth.memory_clock_mhz:.0f}Mhz)",
        "PCI Bus": ADDRESS.upper(),
    }
    if truth.power_average_watts is None:
        card["Current Socket Graphics Package Power (W)"] = told(truth.power_watts)
    else:
        card["Average Graphics Package Power (W)"] = told(truth.power_average_watts)
    if truth.fan_level:  # a fan at 0 is left out
        card |= {
            "Fan speed (level)": str(truth.fan_level),
            "Fan speed (%)": told(truth.fan_percent, 0),
            "Fan RPM": told(truth.fan_rpm, 0),
        }
    (told,) = cards(json.dumps({"card0": card, "system": {"Driver version": "6.3.6"}}).encode())
    return told.reading
