"""Which file tells what of an Intel card, and why something is not told. Pure."""

import re
from collections.abc import Mapping

from gpuwhyd.backends.intel_layout import Layout
from gpuwhyd.model import FieldSource, Lack

_FANS_SINCE = {"i915": (6, 12), "xe": (6, 16)}
"""The first Linux whose driver shows the fans of a discrete card (Documentation/ABI/testing/sysfs-driver-intel-*-hwmon)."""
_VERSION = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})")
_NEVER_TOLD = ("fan_percent", "utilization_percent", "memory_used_bytes", "memory_total_bytes")
"""By neither driver; who uses a card, and how much, is told by DRM's fdinfo of each process."""


def sources_of(
    layout: Layout,
    lacks: Mapping[str, Lack | None],
    *,
    gpu_id: str,
    driver: str,
    release: str,
    energy: str | None,
    has_fan: bool | None,
) -> tuple[FieldSource, ...]:
    """`release`: of the kernel; `energy`: the counter that power is drawn from; `has_fan` None: nothing tells."""
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
        if quantity == "fan_rpm" and has_fan is None and _version(release) < _FANS_SINCE[driver]:
            lack = Lack.OLD_DRIVER
            advice = "{} shows fans since Linux {}.{}: use a newer kernel".format(
                driver, *_FANS_SINCE[driver]
            )
        sources.append(
            FieldSource(
                gpu_id=gpu_id, backend=driver, quantity=quantity, source=file, lack=lack, advice=advice
            )
        )
    return tuple(sources)


def _one(file: str | None) -> tuple[str, ...]:
    return () if file is None else (file,)


def _version(release: str) -> tuple[int, int]:
    """`6.12.41+deb13-amd64` -> (6, 12); (0, 0) of anything else."""
    match = _VERSION.match(release)
    return (int(match[1]), int(match[2])) if match else (0, 0)
