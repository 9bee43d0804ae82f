"""Which file tells what of an Intel card, and why something is not told. Pure."""

from collections.abc import Mapping

from gpuwhyd.backends.intel_layout import Layout
from gpuwhyd.model import FieldSource, Lack

_FANS_SINCE = {"i915": "6.12", "xe": "6.16"}
"""The first Linux whose driver shows the fans of a discrete card (Documentation/ABI/testing/sysfs-driver-intel-*-hwmon)."""
_NEVER_TOLD = ("fan_percent", "utilization_percent", "memory_used_bytes", "memory_total_bytes")
"""By neither driver; who uses a card, and how much, is told by DRM's fdinfo of each process."""


def sources_of(
    layout: Layout,
    lacks: Mapping[str, Lack | None],
    *,
    gpu_id: str,
    driver: str,
    energy: str | None,
    has_fan: bool | None,
) -> tuple[FieldSource, ...]:
    """`energy`: the counter that power is drawn from; `has_fan` None: the driver is too old to tell."""
    render = layout.gts[0] if layout.gts else None
    energies = (energy,) if energy is not None else layout.energies
    files: dict[str, tuple[str, ...]] = {
        "fan_rpm": tuple(file for _, file in layout.fans),
        "temperature_celsius": _one(layout.temperature),
        "memory_temperature_celsius": _one(layout.memory_temperature),
        "temperature_limit_celsius": layout.temperature_limits,
        "power_watts": energies,
        "energy_joules": energies,
        "power_limit_watts": layout.power_limits,
        "core_clock_mhz": _one(render.clock if render else None),
        "core_clock_max_mhz": _one(render.clock_maximum if render else None),
        "throttle_reasons": _one(render.is_throttled if render else None),
        **dict.fromkeys(_NEVER_TOLD, ()),
    }
    sources = []
    for quantity, choice in files.items():
        asked = [file for file in choice if file in lacks]
        file = next((file for file in asked if lacks[file] is None), asked[0] if asked else "")
        lack, advice = lacks.get(file, Lack.NO_SENSOR), ""
        if quantity == "fan_rpm" and has_fan is None:
            lack = Lack.OLD_DRIVER
            advice = f"{driver} shows fans since Linux {_FANS_SINCE[driver]}: use a newer kernel"
        sources.append(
            FieldSource(
                gpu_id=gpu_id, backend=driver, quantity=quantity, source=file, lack=lack, advice=advice
            )
        )
    return tuple(sources)


def _one(file: str | None) -> tuple[str, ...]:
    return () if file is None else (file,)
