r"""What `rocm-smi --json` writes -> readings with the values that amdgpu's files give, and where they stood.

Pure.

`{"card0": {...}, "system": {...}}`, in which every value is a string, keys are sentences with units that change from
version to version (ROCm 3 to 7), and what a card does not have is absent, `N/A`, or `N/A (Secondary die)`.
"""

import json
import re
from collections.abc import Mapping

from gpuwhyd.backends.pci import gpu_id
from gpuwhyd.backends.plausible import BYTES, CELSIUS, MEGAHERTZ, PERCENT, RPM, WATTS, within
from gpuwhyd.backends.program_answer import Told
from gpuwhyd.model import PCI_ADDRESS, FanReading, GpuIdentity, GpuProcess, GpuReading

BACKEND_NAME = "rocm-smi"
ANSWER_LIMIT_BYTES = 4 << 20

_NUMBER = re.compile(r"\(?(-?[0-9]{1,18}(?:\.[0-9]{1,9})?)(?: ?mhz\)?)?", re.IGNORECASE)
_CARD = re.compile(r"card[0-9]{1,4}")
_PID = re.compile(r"pid([0-9]{1,7})")
_BRACKETS = re.compile(r".*\[(.+)\]\s*")

_PLAUSIBLE = {
    "celsius": CELSIUS,
    "watts": WATTS,
    "percent": PERCENT,
    "rpm": RPM,
    "mhz": MEGAHERTZ,
    "bytes": BYTES,
}
"""By the last word of a quantity's name."""
_FULL_LEVEL = 255.0
"""The level is hwmon's pwm1; the percent beside it is the same, rounded."""

_FAN_LEVEL, _FAN_PERCENT = "Fan speed (level)", "Fan speed (%)"
_AVERAGE = ("Average Graphics Package Power (W)", "Average Socket Power (W)")
_INSTANT = (
    "Current Socket Graphics Package Power (W)",
    "Current Graphics Package Power (W)",
    "Current Socket Power (W)",
)
PLACES: dict[str, tuple[str, ...]] = {
    "fan_percent": (_FAN_LEVEL, _FAN_PERCENT),
    "fan_rpm": ("Fan RPM",),
    "temperature_celsius": ("Temperature (Sensor edge) (C)",),
    "hotspot_celsius": ("Temperature (Sensor junction) (C)",),
    "memory_temperature_celsius": ("Temperature (Sensor memory) (C)",),
    "power_watts": (*_INSTANT, *_AVERAGE),
    "power_average_watts": _AVERAGE,
    "power_limit_watts": ("Max Graphics Package Power (W)",),
    "utilization_percent": ("GPU use (%)",),
    "memory_utilization_percent": ("GPU Memory Read/Write Activity (%)", "GPU memory use (%)"),
    "memory_used_bytes": ("VRAM Total Used Memory (B)",),
    "memory_total_bytes": ("VRAM Total Memory (B)",),
    "core_clock_mhz": ("sclk clock speed:", "sclk clock speed"),
    "memory_clock_mhz": ("mclk clock speed:", "mclk clock speed"),
}
"""Quantity -> its keys in a card's table as ROCm 6 spells them, the better one first."""


class AnswerError(ValueError):
    """No answer of rocm-smi's; says why."""


def cards(answer: bytes) -> tuple[Told, ...]:
    """Each card in the answer; the places of its texts are the keys in lower case. Raises AnswerError.

    A fan at 0 is not told, and never who controls it: the fan mode is `unknown`.
    """
    if len(answer) > ANSWER_LIMIT_BYTES:
        raise AnswerError(f"an answer has {len(answer)} bytes")
    text = answer.decode("utf-8", "replace")
    try:
        whole = json.loads(text[max(text.find("{"), 0) :].rstrip())  # warnings come before it
    except (ValueError, RecursionError) as error:
        raise AnswerError(f"no JSON: {type(error).__name__}") from error
    if not isinstance(whole, dict):
        raise AnswerError("no JSON object")
    tables = [
        _folded(told) for name, told in whole.items() if _CARD.fullmatch(name) and isinstance(told, dict)
    ]
    system = _folded(whole.get("system"))
    # Which card a process uses is not told, so it is known only where there is one.
    processes = _processes(system) if len(tables) == 1 else None
    found = ((_reading(card, system, processes), card) for card in tables)
    return tuple(Told(reading, card) for reading, card in found if reading is not None)


def place_of(texts: Mapping[str, str], quantity: str) -> str | None:
    """The key, as in PLACES, that a quantity comes from; `None` when the card has none of its keys."""
    keys = [key for key in PLACES[quantity] if key.lower() in texts]
    good = (key for key in keys if _number(texts, key, _plausible(quantity, key)) is not None)
    return next(good, next(iter(keys), None))


def _folded(table: object) -> dict[str, str]:
    """Keys in lower case: ROCm 6 writes `Card Series`, 5 `Card series`."""
    if not isinstance(table, dict):
        return {}
    return {key.lower().strip(): value.strip() for key, value in table.items() if isinstance(value, str)}


def _reading(
    card: Mapping[str, str], system: Mapping[str, str], processes: tuple[GpuProcess, ...] | None
) -> GpuReading | None:
    address = card.get("pci bus", "").lower()
    if not PCI_ADDRESS.fullmatch(address):
        return None
    driver = _word(system, "driver version")
    used = _quantity(card, "memory_used_bytes")
    total = _quantity(card, "memory_total_bytes")
    if used is None or not total or used > total:
        used = total = None
    return GpuReading(
        gpu=GpuIdentity(
            id=gpu_id(address),
            name=_name(card),
            vendor="amd",
            pci_address=address,
            driver=f"amdgpu {driver}" if driver else "amdgpu",
            vbios_version=_word(card, "vbios version"),
        ),
        backend=BACKEND_NAME,
        fans=_fans(card),
        temperature_celsius=_quantity(card, "temperature_celsius"),
        hotspot_celsius=_quantity(card, "hotspot_celsius"),
        memory_temperature_celsius=_quantity(card, "memory_temperature_celsius"),
        power_watts=_quantity(card, "power_watts"),
        power_average_watts=_quantity(card, "power_average_watts"),
        power_limit_watts=_quantity(card, "power_limit_watts"),
        utilization_percent=_quantity(card, "utilization_percent"),
        memory_utilization_percent=_quantity(card, "memory_utilization_percent"),
        memory_used_bytes=None if used is None else int(used),
        memory_total_bytes=None if total is None else int(total),
        core_clock_mhz=_quantity(card, "core_clock_mhz"),
        memory_clock_mhz=_quantity(card, "memory_clock_mhz"),
        processes=processes,
    )


def _plausible(quantity: str, key: str) -> tuple[float, float]:
    return (0.0, _FULL_LEVEL) if key == _FAN_LEVEL else _PLAUSIBLE[quantity.rpartition("_")[2]]


def _number(card: Mapping[str, str], key: str, plausible: tuple[float, float]) -> float | None:
    match = _NUMBER.fullmatch(card.get(key.lower(), ""))
    return within(float(match[1]), *plausible) if match else None


def _quantity(card: Mapping[str, str], quantity: str) -> float | None:
    values = (_number(card, key, _plausible(quantity, key)) for key in PLACES[quantity])
    return next((value for value in values if value is not None), None)


def _word(table: Mapping[str, str], key: str) -> str | None:
    text = " ".join(table.get(key, "").split())
    is_told = text and not text.startswith("N/A") and text.isprintable() and len(text) <= 120
    return text if is_told else None


def _name(card: Mapping[str, str]) -> str:
    """The marketing name in brackets behind the chip's; hexadecimal where rocm-smi knows none."""
    for key in ("card series", "card model", "device name"):
        name = _word(card, key)
        if name and not name.startswith("0x"):
            brackets = _BRACKETS.fullmatch(name)
            name = brackets[1].strip() if brackets else name
            return name if name.startswith("AMD") else f"AMD {name}"
    return "AMD GPU"


def _fans(card: Mapping[str, str]) -> tuple[FanReading, ...]:
    level = _number(card, _FAN_LEVEL, _plausible("fan_percent", _FAN_LEVEL))
    percent = _number(card, _FAN_PERCENT, PERCENT) if level is None else level / _FULL_LEVEL * 100.0
    rpm = _quantity(card, "fan_rpm")
    if percent is None and rpm is None:
        return ()
    return (FanReading(index=0, percent=percent, rpm=rpm, rpm_is_measured=rpm is not None),)


def _processes(system: Mapping[str, str]) -> tuple[GpuProcess, ...] | None:
    """`"PID4242": "name, gpus, vram, sdma, cu"`: those that compute. `None` when none is told: others may draw."""
    found = []
    for key, value in system.items():
        match = _PID.fullmatch(key)
        parts = [part.strip() for part in value.rsplit(",", 4)]  # a name may have commas
        if match and 0 < int(match[1]) < 1 << 22 and len(parts) == 5:
            used = int(parts[2]) if parts[2].isascii() and parts[2].isdigit() and len(parts[2]) < 16 else None
            found.append(GpuProcess(pid=int(match[1]), kind="compute", memory_used_bytes=used))
    return tuple(sorted(found, key=lambda process: process.pid)) or None
