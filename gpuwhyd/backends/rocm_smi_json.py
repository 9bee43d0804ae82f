r"""What `rocm-smi --json` writes -> readings with the values that amdgpu's files give. Pure.

`{"card0": {...}, "system": {...}}`, in which every value is a string, keys are sentences with units that change from
version to version (ROCm 3 to 7), and what a card does not have is absent, `N/A`, or `N/A (Secondary die)`.
"""

import json
import re
from collections.abc import Mapping

from gpuwhyd.backends.nvml_questions import within
from gpuwhyd.backends.pci import ADDRESS, gpu_id
from gpuwhyd.model import FanReading, GpuIdentity, GpuProcess, GpuReading

BACKEND_NAME = "rocm-smi"
ANSWER_LIMIT_BYTES = 4 << 20

_NUMBER = re.compile(r"\(?(-?[0-9]{1,18}(?:\.[0-9]{1,9})?)(?: ?mhz\)?)?", re.IGNORECASE)
_CARD = re.compile(r"card[0-9]{1,4}")
_PID = re.compile(r"pid([0-9]{1,7})")
_BRACKETS = re.compile(r".*\[(.+)\]\s*")

_CELSIUS = (-50.0, 200.0)
_WATTS = (0.0, 10_000.0)
_PERCENT = (0.0, 100.0)
_RPM = (0.0, 30_000.0)
_MEGAHERTZ = (0.0, 100_000.0)
_BYTES = (0.0, float(1 << 50))
_FULL_LEVEL = 255.0
"""`Fan speed (level)` is hwmon's pwm1; the percent beside it is the same, rounded."""

_AVERAGE = ("average graphics package power (w)", "average socket power (w)")
_INSTANT = (
    "current socket graphics package power (w)",
    "current graphics package power (w)",
    "current socket power (w)",
)


class AnswerError(ValueError):
    """No answer of rocm-smi's; says why."""


def readings(answer: bytes) -> tuple[GpuReading, ...]:
    """Of each card in the answer. Raises AnswerError.

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
    cards = [
        _folded(told) for name, told in whole.items() if _CARD.fullmatch(name) and isinstance(told, dict)
    ]
    system = _folded(whole.get("system"))
    # Which card a process uses is not told, so it is known only where there is one.
    processes = _processes(system) if len(cards) == 1 else None
    found = (_reading(card, system, processes) for card in cards)
    return tuple(reading for reading in found if reading is not None)


def _folded(table: object) -> dict[str, str]:
    """Keys in lower case: ROCm 6 writes `Card Series`, 5 `Card series`."""
    if not isinstance(table, dict):
        return {}
    return {key.lower().strip(): value.strip() for key, value in table.items() if isinstance(value, str)}


def _reading(
    card: Mapping[str, str], system: Mapping[str, str], processes: tuple[GpuProcess, ...] | None
) -> GpuReading | None:
    address = card.get("pci bus", "").lower()
    if not ADDRESS.fullmatch(address):
        return None
    driver = _word(system, "driver version")
    average, instant = _number(card, _WATTS, *_AVERAGE), _number(card, _WATTS, *_INSTANT)
    used = _number(card, _BYTES, "vram total used memory (b)")
    total = _number(card, _BYTES, "vram total memory (b)")
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
        temperature_celsius=_number(card, _CELSIUS, "temperature (sensor edge) (c)"),
        hotspot_celsius=_number(card, _CELSIUS, "temperature (sensor junction) (c)"),
        memory_temperature_celsius=_number(card, _CELSIUS, "temperature (sensor memory) (c)"),
        power_watts=instant if instant is not None else average,
        power_average_watts=average,
        power_limit_watts=_number(card, _WATTS, "max graphics package power (w)") or None,
        utilization_percent=_number(card, _PERCENT, "gpu use (%)"),
        memory_utilization_percent=_number(
            card, _PERCENT, "gpu memory read/write activity (%)", "gpu memory use (%)"
        ),
        memory_used_bytes=None if used is None else int(used),
        memory_total_bytes=None if total is None else int(total),
        core_clock_mhz=_number(card, _MEGAHERTZ, "sclk clock speed:", "sclk clock speed"),
        memory_clock_mhz=_number(card, _MEGAHERTZ, "mclk clock speed:", "mclk clock speed"),
        processes=processes,
    )


def _number(card: Mapping[str, str], plausible: tuple[float, float], *keys: str) -> float | None:
    matches = (_NUMBER.fullmatch(card.get(key, "")) for key in keys)
    values = (within(float(match[1]), *plausible) for match in matches if match)
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
    level = _number(card, (0.0, _FULL_LEVEL), "fan speed (level)")
    percent = level / _FULL_LEVEL * 100.0 if level is not None else _number(card, _PERCENT, "fan speed (%)")
    rpm = _number(card, _RPM, "fan rpm")
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
