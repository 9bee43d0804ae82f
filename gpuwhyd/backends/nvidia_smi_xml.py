"""What `nvidia-smi -q -x` writes -> readings with the values and units that NVML gives, and where they stood. Pure.

Elements come, go and change their names from driver to driver (nvsmi_device_v10.dtd to _v13.dtd), so each quantity has
the places where it has been, the newest first, and what is in none of them is `None`. So is every text that is no
number with its unit: `N/A`, `[N/A]`, `[Unknown Error]`, `Requested functionality has been deprecated`, ...
"""

import re
from collections.abc import Mapping
from xml.etree import ElementTree as ET

from gpuwhyd.backends.nvidia_smi_processes import bytes_of, processes_of
from gpuwhyd.backends.nvidia_smi_stream import DOCUMENT_LIMIT_BYTES, DocumentError
from gpuwhyd.backends.pci import gpu_id
from gpuwhyd.backends.plausible import (
    CELSIUS,
    FAN_PERCENT,
    LIMIT_CELSIUS,
    MEGAHERTZ,
    PERCENT,
    WATTS,
    within,
)
from gpuwhyd.backends.program_answer import Told
from gpuwhyd.model import PCI_ADDRESS, FanMode, FanReading, GpuIdentity, GpuReading, GpuState

BACKEND_NAME = "nvidia-smi"
_PROLOG = re.compile(r"<\?xml[^>]*\?>|<!DOCTYPE[^>\[]*>")
_QUANTITY = re.compile(r"(-?[0-9]{1,15}(?:\.[0-9]{1,9})?) ?(%|C|W|MHz)")
_PSTATE = re.compile(r"P([0-9]{1,2})")

NOT_OFFERED = frozenset({"N/A", "Not Supported"})
"""In brackets or not."""

_NUMBERS: dict[str, tuple[str, ...]] = {
    "temperature_celsius": ("temperature/gpu_temp",),
    "memory_temperature_celsius": ("temperature/memory_temp",),
    "power_watts": (
        "gpu_power_readings/instant_power_draw",
        "gpu_power_readings/power_draw",
        "power_readings/power_draw",
        "gpu_power_readings/average_power_draw",
    ),
    "power_average_watts": ("gpu_power_readings/average_power_draw",),
    "power_limit_watts": (
        "gpu_power_readings/current_power_limit",
        "gpu_power_readings/enforced_power_limit",
        "power_readings/enforced_power_limit",
    ),
    "utilization_percent": ("utilization/gpu_util",),
    "memory_utilization_percent": ("utilization/memory_util",),
    "encoder_percent": ("utilization/encoder_util",),
    "decoder_percent": ("utilization/decoder_util",),
    "core_clock_mhz": ("clocks/graphics_clock",),
    "core_clock_max_mhz": ("max_clocks/graphics_clock",),
    "memory_clock_mhz": ("clocks/mem_clock",),
    "memory_clock_max_mhz": ("max_clocks/mem_clock",),
}
_SLOW_THRESHOLD, _MARGIN_TO_LIMIT = "temperature/gpu_temp_slow_threshold", "temperature/gpu_temp_tlimit"
PLACES: dict[str, tuple[str, ...]] = {
    **_NUMBERS,
    "fan_percent": ("fan_speed",),
    "temperature_limit_celsius": (_SLOW_THRESHOLD, _MARGIN_TO_LIMIT),
    "memory_used_bytes": ("fb_memory_usage/used",),
    "memory_total_bytes": ("fb_memory_usage/total",),
    "performance_state": ("performance_state",),
    "throttle_reasons": ("clocks_event_reasons", "clocks_throttle_reasons"),
    "processes": ("processes",),
}
"""Quantity -> the paths of its elements, the better one first."""
_PATHS = tuple(dict.fromkeys(path for paths in PLACES.values() for path in paths))

_UNITS = {
    "celsius": ("C", CELSIUS),
    "watts": ("W", WATTS),
    "percent": ("%", PERCENT),
    "mhz": ("MHz", MEGAHERTZ),
}
"""By the last word of a quantity's name: its unit in the document, and what is plausible."""

_REASONS = {
    "gpu_idle": "",  # that the card is idle holds no clock down
    "applications_clocks_setting": "app-clocks",
    "user_defined_clocks": "app-clocks",
    "sw_power_cap": "power-cap",
    "hw_slowdown": "hw-slowdown",
    "sync_boost": "sync-boost",
    "sw_thermal_slowdown": "sw-thermal",
    "hw_thermal_slowdown": "hw-thermal",
    "hw_power_brake_slowdown": "power-brake",
    "display_clocks_setting": "display-clocks",
    "board_limit": "board-limit",
    "reliability": "reliability",
}
"""Element after its prefix -> the name and, by its place, the order in which nvml_card.py gives it."""
_REASON = re.compile(r"clocks_(?:event|throttle)_reason_(\w+)")


def cards(document: bytes) -> tuple[Told, ...]:
    """Each card in a document, or in a piece of one that is whole in itself. Raises DocumentError.

    Fans are as they are told: whether 0 % is a fan at all is judged by who knows the card for longer.
    """
    if len(document) > DOCUMENT_LIMIT_BYTES:
        raise DocumentError(f"a document has {len(document)} bytes")
    # Decoded here, so that no declaration chooses an encoding; without its prolog, so that nothing can be declared:
    # a document type with entities of its own is a syntax error then.
    text = _PROLOG.sub("", document.decode("utf-8", "replace"))
    try:
        root = ET.fromstring(f"<pieces>{text}</pieces>")  # noqa: S314 - no declarations, bounded
    except ET.ParseError as error:
        raise DocumentError(f"no XML: {error}") from error
    driver = _text(root, ".//driver_version")
    found = (_card(element, driver) for element in list(root.iter("gpu")) or [root])
    return tuple(card for card in found if card is not None)


def place_of(texts: Mapping[str, str], quantity: str) -> str | None:
    """The path of the element that a quantity comes from; `None` when the document has none of its elements."""
    paths = [path for path in PLACES[quantity] if path in texts]
    if not paths:
        return None
    unit, plausible = _UNITS.get(quantity.rpartition("_")[2], ("", PERCENT))
    if quantity == "temperature_limit_celsius":
        threshold = within(_number(texts, _SLOW_THRESHOLD, unit), *LIMIT_CELSIUS)
        return paths[-1] if threshold is None else _SLOW_THRESHOLD
    good = (path for path in paths if within(_number(texts, path, unit), *plausible) is not None)
    return next(good, paths[0])


def normal_address(text: str) -> str | None:
    """`00000000:0C:00.0` -> `0000:0c:00.0`, as the kernel writes it."""
    if not PCI_ADDRESS.fullmatch(text):
        return None
    domain, _, rest = text.partition(":")
    return f"{int(domain, 16):04x}:{rest}".lower()


def _card(card: ET.Element, driver: str | None) -> Told | None:
    address = normal_address(card.get("id") or _text(card, "pci/pci_bus_id") or "")
    if address is None:
        return None
    gpu = GpuIdentity(
        id=gpu_id(address),
        name=_text(card, "product_name") or "NVIDIA GPU",
        vendor="nvidia",
        pci_address=address,
        uuid=_text(card, "uuid"),
        driver=f"nvidia {driver}" if driver else None,
        vbios_version=_text(card, "vbios_version"),
    )
    texts = {path: text.strip() for path in _PATHS if (text := card.findtext(path)) is not None}
    if _is_lost(texts):
        return Told(GpuReading(gpu=gpu, backend=BACKEND_NAME, state=GpuState.LOST), texts)
    return Told(_reading(gpu, card, texts), texts)


def _reading(gpu: GpuIdentity, card: ET.Element, texts: Mapping[str, str]) -> GpuReading:
    fan_mode, fans = _fans(texts)
    used, total = _memory(texts)
    pstate = _PSTATE.fullmatch(texts.get("performance_state", ""))
    told = {name: _quantity(texts, name) for name in _NUMBERS}
    return GpuReading(
        gpu=gpu,
        backend=BACKEND_NAME,
        fan_mode=fan_mode,
        fans=fans,
        temperature_limit_celsius=_limit(texts, told["temperature_celsius"]),
        temperature_celsius=told["temperature_celsius"],
        memory_temperature_celsius=told["memory_temperature_celsius"],
        power_watts=told["power_watts"],
        power_average_watts=told["power_average_watts"],
        power_limit_watts=told["power_limit_watts"],
        utilization_percent=told["utilization_percent"],
        memory_utilization_percent=told["memory_utilization_percent"],
        encoder_percent=told["encoder_percent"],
        decoder_percent=told["decoder_percent"],
        core_clock_mhz=told["core_clock_mhz"],
        core_clock_max_mhz=told["core_clock_max_mhz"],
        memory_clock_mhz=told["memory_clock_mhz"],
        memory_clock_max_mhz=told["memory_clock_max_mhz"],
        memory_used_bytes=used,
        memory_total_bytes=total,
        performance_state=int(pstate[1]) if pstate and int(pstate[1]) < 16 else None,
        throttle_reasons=_throttle_reasons(card),
        processes=processes_of(card),
    )


def _raw(card: ET.Element, path: str) -> str:
    return (card.findtext(path) or "").strip()


def _text(card: ET.Element, path: str) -> str | None:
    """A word of the card's; `None` for what stands in place of one."""
    text = " ".join(_raw(card, path).split())
    is_told = text and text.strip("[]") not in {"N/A", "Not Supported", "Unknown Error", "None"}
    return text if is_told and text.isprintable() and len(text) <= 120 else None


def _number(texts: Mapping[str, str], path: str, unit: str) -> float | None:
    match = _QUANTITY.fullmatch(texts.get(path, ""))
    return float(match[1]) if match and match[2] == unit else None


def _quantity(texts: Mapping[str, str], name: str) -> float | None:
    unit, plausible = _UNITS[name.rpartition("_")[2]]
    values = (within(_number(texts, path, unit), *plausible) for path in _NUMBERS[name])
    return next((value for value in values if value is not None), None)


def _memory(texts: Mapping[str, str]) -> tuple[int | None, int | None]:
    """(used, total). Used leaves out what is reserved, on drivers that tell it apart."""
    used = bytes_of(texts.get("fb_memory_usage/used", ""))
    total = bytes_of(texts.get("fb_memory_usage/total", ""))
    if used is None or total is None or not used <= total or total == 0:
        return None, None
    return used, total


def _limit(texts: Mapping[str, str], temperature: float | None) -> float | None:
    """Where the card begins to slow down: since Ada only the margin to it is told."""
    limit = within(_number(texts, _SLOW_THRESHOLD, "C"), *LIMIT_CELSIUS)
    if limit is not None:
        return limit
    margin = _number(texts, _MARGIN_TO_LIMIT, "C")
    if margin is None or temperature is None:
        return None
    return within(temperature + margin, *LIMIT_CELSIUS)


def _fans(texts: Mapping[str, str]) -> tuple[FanMode, tuple[FanReading, ...]]:
    """The first fan only: nvidia-smi knows no other one. `N/A` is how a card says that it has none."""
    percent = within(_number(texts, "fan_speed", "%"), *FAN_PERCENT)
    if percent is not None:
        return FanMode.UNKNOWN, (FanReading(index=0, percent=percent),)
    has_none = texts.get("fan_speed", "").strip("[]") in NOT_OFFERED
    return (FanMode.NONE if has_none else FanMode.UNKNOWN), ()


def _throttle_reasons(card: ET.Element) -> tuple[str, ...] | None:
    names, is_known = set(), False
    for reasons in (*card.findall("clocks_event_reasons"), *card.findall("clocks_throttle_reasons")):
        for element in reasons:
            match = _REASON.fullmatch(str(element.tag))
            state = (element.text or "").strip()
            if match and state in {"Active", "Not Active"}:
                is_known = True
                if state == "Active" and (name := _REASONS.get(match[1], match[1].replace("_", "-"))):
                    names.add(name)
    order = [name for name in dict.fromkeys(_REASONS.values()) if name in names]
    return (*order, *sorted(names.difference(order))) if is_known else None


def _is_lost(texts: Mapping[str, str]) -> bool:
    """Then the same words stand in every place."""
    words = (texts.get(path, "") for path in ("temperature/gpu_temp", "performance_state"))
    return any(word.strip("[]").lower().startswith(("gpu is lost", "gpu requires reset")) for word in words)
