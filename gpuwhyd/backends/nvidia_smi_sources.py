"""Which element of nvidia-smi's document each quantity of a card comes from, and why one is missing. Pure."""

import re

from gpuwhyd.backends.nvidia_smi_xml import NOT_OFFERED, PLACES, place_of
from gpuwhyd.backends.program_answer import Told
from gpuwhyd.model import FanMode, FieldSource, Lack

_VALUE = re.compile(r"-?[0-9][0-9.]*( ?[%A-Za-z]+)?|P[0-9]+|")
"""Also of an element that holds others: its own text is empty."""
_MOST_LETTERS = 60


def sources_of(told: Told) -> tuple[FieldSource, ...]:
    """Of an awake card: one for each quantity that nvidia-smi can tell."""
    return tuple(_source(told, quantity, paths) for quantity, paths in PLACES.items())


def _source(told: Told, quantity: str, paths: tuple[str, ...]) -> FieldSource:
    reading, texts = told
    lack, advice = None, ""
    place = place_of(texts, quantity)
    if quantity == "fan_percent" and reading.fan_mode is FanMode.NONE:
        lack, advice = Lack.NO_SENSOR, "it has no fan of its own"
    elif getattr(reading, quantity) is None:
        lack, advice = _lack([texts[path] for path in paths if path in texts])
    return FieldSource(
        gpu_id=reading.gpu.id,
        backend=reading.backend,
        quantity=quantity,
        source=place or paths[0],
        lack=lack,
        advice=advice,
    )


def _lack(texts: list[str]) -> tuple[Lack, str]:
    """`texts`: what stands in the quantity's places. What can be mended is told first."""
    if not texts:
        return Lack.OLD_DRIVER, "this driver's nvidia-smi does not tell it; a newer one may"
    words = next((text for text in texts if text.strip("[]") not in NOT_OFFERED), None)
    if words is None:
        return Lack.NO_SENSOR, ""
    if "permission" in words.lower():
        return Lack.NO_PERMISSION, "the driver tells it to root only, in a container to the host's"
    if _VALUE.fullmatch(words):
        return Lack.UNREADABLE, "the driver's value cannot be true"
    shown = "".join(letter if letter.isprintable() else "?" for letter in words[:_MOST_LETTERS])
    return Lack.UNREADABLE, f"nvidia-smi says {shown!r}"
