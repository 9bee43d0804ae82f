"""What a user may change in the engine, with its defaults. `config.py` fills these from the TOML file."""

from dataclasses import dataclass

from gpuwhyd.model import Severity

RULE_METRICS = (
    "fan_percent",
    "fan_rpm",
    "temperature_celsius",
    "hotspot_celsius",
    "memory_temperature_celsius",
    "power_watts",
    "power_average_watts",
    "utilization_percent",
    "memory_utilization_percent",
    "encoder_percent",
    "decoder_percent",
    "memory_used_bytes",
    "core_clock_mhz",
    "memory_clock_mhz",
    "memory_used_percent",
    "temperature_margin_celsius",
    "thermal_throttled",
    "fan_stalled",
    "cooling_loss_percent",
)
"""Names a rule may watch: a reading's quantities, and five derived from them and from what was learned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """An alert is raised when `metric` has been above (or below) its threshold for `for_seconds` without a break.

    It is cleared when the metric comes back to `clear`, or when the rule is no more. Exactly one of `above` and `below` is set. A missing metric
    neither raises nor clears. After it was raised it is not raised again for `cooldown_seconds`.
    """

    name: str
    metric: str
    above: float | None = None
    below: float | None = None
    clear: float | None = None
    """The level that ends it; the threshold itself when `None`."""
    for_seconds: float = 0.0
    cooldown_seconds: float = 0.0
    severity: Severity = Severity.WARNING
    gpus: tuple[str, ...] = ()
    """GPU ids or PCI addresses; empty means all."""


SHIPPED_RULES = (
    Rule(
        name="high-usage",
        metric="utilization_percent",
        above=50.0,
        clear=40.0,
        for_seconds=60.0,
        cooldown_seconds=3600.0,
        severity=Severity.NOTICE,
    ),
    Rule(
        name="overheating",
        metric="temperature_margin_celsius",
        below=3.0,
        clear=8.0,
        for_seconds=10.0,
        cooldown_seconds=600.0,
        severity=Severity.ERROR,
    ),
    Rule(
        name="thermal-throttling",
        metric="thermal_throttled",
        above=0.5,
        for_seconds=10.0,
        cooldown_seconds=600.0,
        severity=Severity.WARNING,
    ),
    Rule(
        name="fan-stalled",
        metric="fan_stalled",
        above=0.5,
        for_seconds=20.0,
        cooldown_seconds=600.0,
        severity=Severity.CRITICAL,
    ),
    Rule(
        name="cooler-got-worse",
        metric="cooling_loss_percent",
        above=20.0,
        clear=10.0,
        cooldown_seconds=86400.0,
        severity=Severity.NOTICE,
    ),
    Rule(
        name="memory-pressure",
        metric="memory_used_percent",
        above=95.0,
        clear=90.0,
        for_seconds=60.0,
        cooldown_seconds=3600.0,
        severity=Severity.NOTICE,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpikeSettings:
    """When a fan counts as up. Levels of real cards at rest run from 0 to 41 %, with jitter of 1 to 3 points."""

    rise_percent: float = 8.0
    """Points above rest that open a spike; also percent from standstill."""
    rise_rpm: float = 300.0
    """The same where percent cannot be trusted and the fan's maximum is not known (else 8 % of the maximum)."""
    start_rpm: float = 600.0
    """RPM from standstill that open a spike."""
    settle_percent: float = 3.0
    """A fan at most so many points above rest is back at rest."""
    settle_rpm: float = 100.0
    settle_seconds: float = 10.0
    """For so long, before it counts."""
    merge_seconds: float = 60.0
    """A rest shorter than this between two rises makes them one spike."""
    new_rest_seconds: float = 900.0
    """An idle card whose fan stays flat for so long has found a new rest level."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    spike: SpikeSettings = SpikeSettings()
    rules: tuple[Rule, ...] = SHIPPED_RULES
