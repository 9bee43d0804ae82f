"""Which properties moved enough to be announced. Pure: time comes with the call.

PropertiesChanged is for widgets that redraw on every signal, so it is sent at most once a second for an object, and
only for what moved since it was last told. What was told is kept, not what was last seen: slow drift is told as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import isnan

GAP_SECONDS = 1.0
JITTER_SECONDS = 0.05
"""A tick every second comes a few milliseconds early or late; without this slack every other one would be held back."""
TEXT_SECONDS_WHILE_ACTIVE = 10.0
TEXT_SECONDS_WHILE_QUIET = 60.0
"""Sentences hold durations and numbers that change with every sample. While one says the same it is told so seldom."""

_THRESHOLDS = {
    "FanPercent": 1.0,
    "FanRpm": 50.0,  # below what a tachometer of two pulses a turn resolves in a second (30 RPM), plus its chatter
    "TemperatureCelsius": 1.0,
    "HotspotCelsius": 1.0,
    "MemoryTemperatureCelsius": 1.0,
    "PowerWatts": 1.0,
    "PowerLimitWatts": 1.0,
    "UtilizationPercent": 1.0,
    "Confidence": 0.05,
}
_MEMORY_POINT = 0.01
_MEMORY_BYTES = float(64 << 20)
"""Where the card does not tell how much memory it has."""
_TEXTS = frozenset({"Sentence", "Headline"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """What the bus was last told of one object."""

    properties: Mapping[str, object] = field(default_factory=dict)
    topic: tuple[object, ...] = ()
    """What the text is about (`gpu_topic`)."""
    text_at_seconds: float = 0.0
    not_before_seconds: float = 0.0


def announced_in_full(
    properties: Mapping[str, object], topic: tuple[object, ...], now_seconds: float
) -> Announced:
    """After InterfacesAdded, which tells everything."""
    return Announced(
        properties=dict(properties),
        topic=topic,
        text_at_seconds=now_seconds,
        not_before_seconds=now_seconds + GAP_SECONDS,
    )


def changes(
    announced: Announced,
    properties: Mapping[str, object],
    *,
    topic: tuple[object, ...],
    active: bool,
    now_seconds: float,
) -> tuple[dict[str, object], Announced]:
    """What to announce now, perhaps nothing, and what is announced after that.

    What is held back is not lost: the next call compares with what was told. `active`: the fan is up.
    """
    if now_seconds < announced.not_before_seconds - JITTER_SECONDS:
        return {}, announced
    moved = {name: value for name, value in properties.items() if _moved(name, value, announced, properties)}
    text_gap = TEXT_SECONDS_WHILE_ACTIVE if active else TEXT_SECONDS_WHILE_QUIET
    if topic == announced.topic and now_seconds < announced.text_at_seconds + text_gap:
        moved = {
            name: value
            for name, value in moved.items()
            if name not in _TEXTS or name not in announced.properties
        }
    if not moved:
        return {}, announced
    told_text = not _TEXTS.isdisjoint(moved)
    return moved, replace(
        announced,
        properties={**announced.properties, **moved},
        topic=topic if told_text else announced.topic,
        text_at_seconds=now_seconds if told_text else announced.text_at_seconds,
        not_before_seconds=max(announced.not_before_seconds, now_seconds) + GAP_SECONDS,
    )


def _moved(name: str, value: object, announced: Announced, properties: Mapping[str, object]) -> bool:
    if name not in announced.properties:
        return True
    told = announced.properties[name]
    if not isinstance(value, float) or not isinstance(told, float):
        return value != told
    if isnan(value) or isnan(told):
        return isnan(value) != isnan(told)
    threshold = _THRESHOLDS.get(name, 0.0)
    if name == "MemoryUsedBytes":
        total = properties.get("MemoryTotalBytes")
        threshold = _MEMORY_POINT * total if isinstance(total, float) and not isnan(total) else _MEMORY_BYTES
    return value != told and abs(value - told) >= threshold
