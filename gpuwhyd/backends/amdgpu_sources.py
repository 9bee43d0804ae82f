"""Where each quantity of an AMD card comes from, and what can be done where one is missing: for `gpuwhy doctor`."""

from pathlib import Path

from gpuwhyd.backends.amdgpu_chip import Chip, limit_of
from gpuwhyd.backends.amdgpu_fan_control import FOLDER
from gpuwhyd.backends.amdgpu_metrics import GpuMetrics
from gpuwhyd.backends.sysfs import Attributes
from gpuwhyd.model import FieldSource, Lack

_OVERDRIVE = (
    "on RDNA 3 and newer the kernel tells with overdrive on: boot with amdgpu.ppfeaturemask=0xffffffff"
)
_ADVICE = {
    Lack.NO_PERMISSION: "let gpuwhyd run as its unit does, as root, and look for what hides /sys from it",
    Lack.UNREADABLE: "the driver gives no number that can be true; `dmesg` may tell why",
}
_OF_DEVICE = {
    "utilization_percent": "gpu_busy_percent",
    "memory_utilization_percent": "mem_busy_percent",
    "memory_used_bytes": "mem_info_vram_used",
    "memory_total_bytes": "mem_info_vram_total",
    "core_clock_max_mhz": "pp_dpm_sclk",
    "memory_clock_max_mhz": "pp_dpm_mclk",
    "throttle_reasons": "gpu_metrics",
    "energy_joules": "gpu_metrics",
    "fan_control": f"{FOLDER}/fan_curve",
}
_OF_FAN = ("fan_percent", "fan_rpm", "fan_mode")
_OF_CHIP = (
    *_OF_FAN,
    "temperature_celsius",
    "hotspot_celsius",
    "memory_temperature_celsius",
    "temperature_limit_celsius",
    "power_watts",
    "power_average_watts",
    "power_limit_watts",
    "core_clock_mhz",
    "memory_clock_mhz",
)
_BOTH_VIDEO_ENGINES = ("encoder_percent", "decoder_percent")


def sources_of(
    gpu_id: str, backend: str, device: Attributes, chip: Chip | None, metrics: GpuMetrics | None
) -> tuple[FieldSource, ...]:
    """One for each quantity that amdgpu can offer; of a card that was never read all are asleep."""

    def source(quantity: str, file: str, lack: Lack | None, advice: str = "") -> FieldSource:
        told = "" if lack is None else advice or _ADVICE.get(lack, "")
        return FieldSource(
            gpu_id=gpu_id, backend=backend, quantity=quantity, source=file, lack=lack, advice=told
        )

    if not device.lacks:
        names = (*_OF_CHIP, *_OF_DEVICE, *_BOTH_VIDEO_ENGINES)
        return tuple(source(quantity, "", Lack.ASLEEP) for quantity in names)
    found = []
    for quantity in _OF_CHIP:
        name = None if chip is None else _file_of(chip, quantity)
        if chip is None or name is None:
            found.append(source(quantity, "hwmon", Lack.NO_SENSOR))
            continue
        file = f"hwmon/{Path(chip.files.directory).name}/{name}"
        if quantity in _OF_FAN and not chip.fans.are_there:
            found.append(source(quantity, file, Lack.NO_SENSOR, "the laptop's own controller has the fans"))
        else:
            found.append(source(quantity, file, chip.files.lacks.get(name, Lack.NO_SENSOR)))
    for quantity, name in _OF_DEVICE.items():
        lack, advice = device.lacks.get(name, Lack.NO_SENSOR), ""
        if (
            quantity == "energy_joules"
            and lack is None
            and (metrics is None or metrics.energy_joules is None)
        ):
            lack = Lack.NO_SENSOR
        if quantity == "fan_control" and lack is Lack.NO_SENSOR and _has_fan(chip):
            advice = _OVERDRIVE
        found.append(source(quantity, name, lack, advice))
    found += [
        source(quantity, "vcn_busy_percent", Lack.NO_SENSOR, "the card counts both video engines as one")
        for quantity in _BOTH_VIDEO_ENGINES
    ]
    return tuple(found)


def _file_of(chip: Chip, quantity: str) -> str | None:
    """The chip's file for a quantity; `None` when it has no such channel."""
    fan = chip.fans.numbers[0] if chip.fans.numbers else None
    temperature = chip.edge or chip.hotspot
    instant = chip.files.lacks.get("power1_input", Lack.NO_SENSOR) is None
    return {
        "fan_percent": f"pwm{fan}" if fan else None,
        "fan_rpm": f"fan{fan}_input" if fan else None,
        "fan_mode": f"pwm{fan}_enable" if fan else None,
        "temperature_celsius": temperature,
        "hotspot_celsius": chip.hotspot,
        "memory_temperature_celsius": chip.memory,
        "temperature_limit_celsius": temperature and limit_of(temperature),
        "power_watts": "power1_input" if instant else "power1_average",
        "power_average_watts": "power1_average",
        "power_limit_watts": "power1_cap",
        "core_clock_mhz": chip.core_clock,
        "memory_clock_mhz": chip.memory_clock,
    }[quantity]


def _has_fan(chip: Chip | None) -> bool:
    return chip is not None and chip.fans.are_there
