"""`[[rule]]` tables -> the engine's rules. A rule with a shipped name replaces that one; `enabled = false` removes it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpuwhyd.engine.settings import RULE_METRICS, SHIPPED_RULES, Rule
from gpuwhyd.errors import ConfigError
from gpuwhyd.model import Severity
from gpuwhyd.tables import (
    Key,
    WrongValueError,
    array,
    boolean,
    choice,
    duration,
    kind_of,
    number,
    read_table,
    shown,
    suggestion,
    text,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Range:
    """What a metric can be. A threshold outside of it, or at the end that is never passed, never holds."""

    minimum: float
    maximum: float
    unit: str


_PERCENT = _Range(minimum=0, maximum=100, unit="%")
_CELSIUS = _Range(minimum=-50, maximum=150, unit="degC")
_WATTS = _Range(minimum=0, maximum=5000, unit="W")
_MEGAHERTZ = _Range(minimum=0, maximum=50_000, unit="MHz")
_YES_OR_NO = _Range(minimum=0, maximum=1, unit="(0 is no, 1 is yes)")

METRIC_RANGES: Mapping[str, _Range] = {
    # nvml.h on nvmlDeviceGetFanSpeed: "this value may exceed 100% in certain cases"
    "fan_percent": _Range(minimum=0, maximum=200, unit="%"),
    "fan_rpm": _Range(minimum=0, maximum=30_000, unit="RPM"),
    "temperature_celsius": _CELSIUS,
    "hotspot_celsius": _CELSIUS,
    "memory_temperature_celsius": _CELSIUS,
    "power_watts": _WATTS,
    "power_average_watts": _WATTS,
    "utilization_percent": _PERCENT,
    "memory_utilization_percent": _PERCENT,
    "encoder_percent": _PERCENT,
    "decoder_percent": _PERCENT,
    "memory_used_bytes": _Range(minimum=0, maximum=2**44, unit="bytes"),
    "core_clock_mhz": _MEGAHERTZ,
    "memory_clock_mhz": _MEGAHERTZ,
    "memory_used_percent": _PERCENT,
    "temperature_margin_celsius": _CELSIUS,
    "thermal_throttled": _YES_OR_NO,
    "fan_stalled": _YES_OR_NO,
    # a cooler that does a third of what it did; better than ever is negative
    "cooling_loss_percent": _Range(minimum=-100, maximum=300, unit="%"),
}

_NAME = text(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", 'a name of letters, digits, "-", "_" and "."')
_DAY_SECONDS = 86400.0
_ANY_NUMBER = number(-1e18, 1e18)
_PCI_ADDRESS = re.compile(r"(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}:[0-9a-f]{2}\.[0-7])")
_GPU_ID = re.compile(r"pci_[0-9a-f]{4,8}_[0-9a-f]{2}_[0-9a-f]{2}_[0-7]|chassis_[A-Za-z0-9_]{1,64}")


def _gpu(value: object) -> str:
    """A GPU id, or a PCI address as lspci (`01:00.0`) or the kernel (`0000:01:00.0`) writes it.

    Not the number of a GPU in `gpuwhy status`: it may be another one's after the next boot.
    """
    if isinstance(value, str):
        if address := _PCI_ADDRESS.fullmatch(value.lower()):
            return f"{address[1] or '0000'}:{address[2]}"
        if _GPU_ID.fullmatch(value):
            return value
    raise WrongValueError(
        'must be a PCI address such as "0000:01:00.0" or a GPU id such as "pci_0000_01_00_0", as `gpuwhy doctor` '
        f"shows it, not {kind_of(value)}"
    )


def _severity(value: object) -> Severity:
    return Severity(choice(*Severity)(value))


RULE_KEYS = (
    Key(name="name", field="name", read=_NAME, required=True),
    Key(name="enabled", field="enabled", read=boolean),
    Key(name="metric", field="metric", read=choice(*RULE_METRICS)),
    # What these may be depends on the metric; see _levels.
    Key(name="above", field="above", read=lambda value: value),
    Key(name="below", field="below", read=lambda value: value),
    Key(name="clear", field="clear", read=lambda value: value),
    Key(name="for", field="for_seconds", read=duration(0, _DAY_SECONDS)),
    Key(name="cooldown", field="cooldown_seconds", read=duration(0, 30 * _DAY_SECONDS)),
    Key(name="severity", field="severity", read=_severity),
    Key(name="gpus", field="gpus", read=array(_gpu, "PCI addresses or GPU ids")),
)


def read_rules(rule_tables: list[object], source: str) -> tuple[Rule, ...]:
    """The shipped rules with those of the file put in their places, removed, or added behind. Raises ConfigError."""
    rules = {rule.name: rule for rule in SHIPPED_RULES}
    numbers: dict[str, int] = {}
    for index, table in enumerate(rule_tables, start=1):
        given = read_table(table, RULE_KEYS, source=source, where=_where(table, index))
        name = given["name"]
        if name in numbers:
            raise ConfigError(
                f"{source}: rule {shown(name)} is there twice, as [[rule]] {numbers[name]} and {index}; "
                f"rename or remove one"
            )
        numbers[name] = index
        enabled = given.pop("enabled", True)
        if not enabled and len(given) == 1:  # nothing but its name
            if name not in rules:
                raise ConfigError(
                    f"{source}: rule {shown(name)} is not a shipped one; {suggestion(name, rules)}"
                )
            del rules[name]
            continue
        rule = _rule(given, f"{source}: rule {shown(name)}")
        if enabled:
            rules[name] = rule
        else:
            rules.pop(name, None)
    return tuple(rules.values())


def _where(table: object, index: int) -> str:
    name = table.get("name") if isinstance(table, Mapping) else None
    return f"rule {shown(name)}" if isinstance(name, str) else f"rule {index}"


def _rule(given: dict[str, Any], where: str) -> Rule:
    if "metric" not in given:
        replaces = (
            "; it replaces the shipped rule of that name as a whole" if _is_shipped(given["name"]) else ""
        )
        raise ConfigError(f"{where}: metric is missing{replaces}")
    possible = METRIC_RANGES[given["metric"]]
    rule = Rule(**given | _levels(given, possible, where))
    _check_threshold(rule, possible, where)
    return rule


def _levels(given: Mapping[str, Any], possible: _Range, where: str) -> dict[str, float]:
    """Raises ConfigError for one that is no number."""
    levels = {}
    for key in ("above", "below", "clear"):
        if key in given:
            try:
                levels[key] = _ANY_NUMBER(given[key])
            except WrongValueError:
                span = f"{possible.minimum:g} to {possible.maximum:g} {possible.unit}"
                raise ConfigError(
                    f"{where}: {key} must be a number from {span}, not {kind_of(given[key])}"
                ) from None
    return levels


def _is_shipped(name: str) -> bool:
    return any(rule.name == name for rule in SHIPPED_RULES)


def _check_threshold(rule: Rule, possible: _Range, where: str) -> None:
    """Raises ConfigError for a rule that could never be raised, or never cleared."""
    if rule.above is not None and rule.below is not None:
        raise ConfigError(f"{where}: has both above and below; keep one, or write two rules")
    span = f"{rule.metric} goes from {possible.minimum:g} to {possible.maximum:g} {possible.unit}"
    if rule.above is not None:
        key, threshold = "above", rule.above
        holds = possible.minimum <= threshold < possible.maximum
    elif rule.below is not None:
        key, threshold = "below", rule.below
        holds = possible.minimum < threshold <= possible.maximum
    else:
        raise ConfigError(f"{where}: needs above or below, the level at which {rule.metric} is an alert")
    if not holds:
        raise ConfigError(f"{where}: {key} = {threshold:g} makes no sense: {span}")
    if rule.clear is None:
        return
    if not possible.minimum <= rule.clear <= possible.maximum:
        raise ConfigError(f"{where}: clear = {rule.clear:g} is never reached: {span}")
    if (rule.above is not None and rule.clear > threshold) or (
        rule.below is not None and rule.clear < threshold
    ):
        side = "above" if rule.below is not None else "below"
        raise ConfigError(
            f"{where}: clear = {rule.clear:g} must be {side} or at the threshold, {threshold:g}, that raises the alert"
        )
