"""What `nvidia-smi -q -x` writes -> readings with the values and units that NVML gives. Pure.

Elements come, go and change their names from driver to driver (nvsmi_device_v10.dtd to _v13.dtd), so each quantity has
the places where it has been, the newest first, and what is in none of them is `None`. So is every text that is no
number with its unit: `N/A`, `[N/A]`, `[Unknown Error]`, `Requested functionality has been deprecated`, ...
"""

import re
from collections.abc import Iterator
from xml.etree import ElementTree as ET

from gpuwhyd.backends.nvml_questions import within
from gpuwhyd.backends.pci import ADDRESS, gpu_id
from gpuwhyd.model import FanMode, FanReading, GpuIdentity, GpuProcess, GpuReading, GpuState

BACKEND_NAME = "nvidia-smi"
DOCUMENT_LIMIT_BYTES = 8 << 20
"""One card takes 10 to 50 KB, most of it its list of clocks."""

_END = b"</nvidia_smi_log>"
_PROLOG = re.compile(r"<\?xml[^>]*\?>|<!DOCTYPE[^>\[]*>")
_QUANTITY = re.compile(r"(-?[0-9]{1,15}(?:\.[0-9]{1,9})?) ?(%|C|W|MHz|[KMG]i?B|B|RPM)")
_PSTATE = re.compile(r"P([0-9]{1,2})")
_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}
"""Before driver 340 MiB were called MB."""

_PERCENT = (0.0, 100.0)
_FAN_PERCENT = (0.0, 1000.0)
_CELSIUS = (-50.0, 200.0)
_LIMIT_CELSIUS = (40.0, 150.0)
_WATTS = (0.001, 10_000.0)
_MEGAHERTZ = (0.0, 100_000.0)
"""As in nvml_card.py and nvml_fans.py, so that both refuse the same values."""
_BYTES_MAXIMUM = float(1 << 50)

_PLACES: dict[str, tuple[str, ...]] = {
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
_UNITS = {
    "celsius": ("C", _CELSIUS),
    "watts": ("W", _WATTS),
    "percent": ("%", _PERCENT),
    "mhz": ("MHz", _MEGAHERTZ),
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
_KINDS = {"C": "compute", "G": "graphics", "C+G": "compute+graphics", "M+C": "mps", "M": "mps"}


class DocumentError(ValueError):
    """No document of nvidia-smi's; says why."""


class DocumentStream:
    """Cuts the endless output of `nvidia-smi -l` into documents. Keeps no more than one."""

    def __init__(self) -> None:
        self._rest = b""

    @property
    def rest(self) -> bytes:
        """What has come after the last document."""
        return self._rest

    def feed(self, data: bytes) -> bytes | None:
        """The newest whole document in what has come so far, if one has come since. Raises DocumentError."""
        rest = self._rest + data
        end = rest.rfind(_END)
        if end < 0:
            if len(rest) > DOCUMENT_LIMIT_BYTES:
                self._rest = b""
                raise DocumentError("a document does not end")
            self._rest = rest
            return None
        end += len(_END)
        self._rest = rest[end:]
        before = rest.rfind(_END, 0, end - len(_END))
        document = rest[max(before, 0) : end]
        begin = document.rfind(b"<nvidia_smi_log")  # what was cut off before it goes with it
        return document[max(begin, 0) :]


def readings(document: bytes) -> tuple[GpuReading, ...]:
    """Of each card in a document, or in a piece of one that is whole in itself. Raises DocumentError.

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
    cards = list(root.iter("gpu")) or [root]
    found = (_reading(card, driver) for card in cards)
    return tuple(reading for reading in found if reading is not None)


def normal_address(text: str) -> str | None:
    """`00000000:0C:00.0` -> `0000:0c:00.0`, as the kernel writes it."""
    if not ADDRESS.fullmatch(text):
        return None
    domain, _, rest = text.partition(":")
    return f"{int(domain, 16):04x}:{rest}".lower()


def _reading(card: ET.Element, driver: str | None) -> GpuReading | None:
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
    if _is_lost(card):
        return GpuReading(gpu=gpu, backend=BACKEND_NAME, state=GpuState.LOST)
    fan_mode, fans = _fans(card)
    used, total = _memory(card)
    pstate = _PSTATE.fullmatch(_raw(card, "performance_state"))
    told = {name: _quantity(card, name) for name in _PLACES}
    return GpuReading(
        gpu=gpu,
        backend=BACKEND_NAME,
        fan_mode=fan_mode,
        fans=fans,
        temperature_limit_celsius=_limit(card, told["temperature_celsius"]),
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
        processes=_processes(card),
    )


def _raw(card: ET.Element, path: str) -> str:
    return (card.findtext(path) or "").strip()


def _text(card: ET.Element, path: str) -> str | None:
    """A word of the card's; `None` for what stands in place of one."""
    text = " ".join(_raw(card, path).split())
    is_told = text and text.strip("[]") not in {"N/A", "Not Supported", "Unknown Error", "None"}
    return text if is_told and text.isprintable() and len(text) <= 120 else None


def _number(card: ET.Element, path: str, unit: str) -> float | None:
    match = _QUANTITY.fullmatch(_raw(card, path))
    return float(match[1]) if match and match[2] == unit else None


def _quantity(card: ET.Element, name: str) -> float | None:
    unit, plausible = _UNITS[name.rpartition("_")[2]]
    values = (within(_number(card, path, unit), *plausible) for path in _PLACES[name])
    return next((value for value in values if value is not None), None)


def _bytes(text: str) -> int | None:
    match = _QUANTITY.fullmatch(text.strip())
    factor = _BYTES.get(match[2]) if match else None
    value = within(float(match[1]) * factor, 0.0, _BYTES_MAXIMUM) if match and factor else None
    return None if value is None else int(value)


def _memory(card: ET.Element) -> tuple[int | None, int | None]:
    """(used, total). Used leaves out what is reserved, on drivers that tell it apart."""
    used = _bytes(_raw(card, "fb_memory_usage/used"))
    total = _bytes(_raw(card, "fb_memory_usage/total"))
    if used is None or total is None or not used <= total or total == 0:
        return None, None
    return used, total


def _limit(card: ET.Element, temperature: float | None) -> float | None:
    """Where the card begins to slow down: since Ada only the margin to it is told."""
    if (
        limit := within(_number(card, "temperature/gpu_temp_slow_threshold", "C"), *_LIMIT_CELSIUS)
    ) is not None:
        return limit
    margin = _number(card, "temperature/gpu_temp_tlimit", "C")
    if margin is None or temperature is None:
        return None
    return within(temperature + margin, *_LIMIT_CELSIUS)


def _fans(card: ET.Element) -> tuple[FanMode, tuple[FanReading, ...]]:
    """The first fan only: nvidia-smi knows no other one. `N/A` is how a card says that it has none."""
    percent = within(_number(card, "fan_speed", "%"), *_FAN_PERCENT)
    if percent is not None:
        return FanMode.UNKNOWN, (FanReading(index=0, percent=percent),)
    has_none = _raw(card, "fan_speed").strip("[]") in {"N/A", "Not Supported"}
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


def _is_lost(card: ET.Element) -> bool:
    """Then the same words stand in every place."""
    texts = {_raw(card, path).strip("[]").lower() for path in ("temperature/gpu_temp", "performance_state")}
    return any(text.startswith(("gpu is lost", "gpu requires reset")) for text in texts)


def _processes(card: ET.Element) -> tuple[GpuProcess, ...] | None:
    """`None` unless the list is there: without permission, or in a virtual machine, a word stands in its place."""
    listing = card.find("processes")
    if listing is None or (listing.text or "").strip() not in {"", "None"}:
        return None
    kinds: dict[int, set[str]] = {}
    memory: dict[int, dict[str, dict[tuple[str, str], int]]] = {}
    for pid, kind, instance, used in _entries(listing):
        kinds.setdefault(pid, set()).add(kind)
        if used is not None:
            memory.setdefault(pid, {}).setdefault(kind, {})[instance] = used
    return tuple(
        GpuProcess(
            pid=pid,
            kind=_kind(kinds[pid]),
            # kinds overlap, so the largest counts; within one a process may use several MIG instances
            memory_used_bytes=max(
                (sum(parts.values()) for parts in memory.get(pid, {}).values()), default=None
            ),
        )
        for pid in sorted(kinds)
    )


def _entries(listing: ET.Element) -> Iterator[tuple[int, str, tuple[str, str], int | None]]:
    for entry in listing.iter("process_info"):
        pid = _raw(entry, "pid")
        if not (
            pid.isascii() and pid.isdigit() and 0 < int(pid[:12]) < 1 << 22
        ):  # the kernel's PID_MAX_LIMIT
            continue
        instance = (_raw(entry, "gpu_instance_id"), _raw(entry, "compute_instance_id"))
        yield int(pid[:12]), _raw(entry, "type"), instance, _bytes(_raw(entry, "used_memory"))


def _kind(types: set[str]) -> str:
    kinds = {_KINDS.get(kind, "") for kind in types}
    if "mps" in kinds:
        return "mps"
    words = {word for kind in kinds for word in kind.split("+")}
    return "+".join(word for word in ("compute", "graphics") if word in words) or "unknown"
