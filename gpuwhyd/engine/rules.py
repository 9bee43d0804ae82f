"""The user's threshold rules: alerts are raised when one holds for long enough, and cleared when it is over."""

from collections.abc import Mapping
from dataclasses import dataclass

from gpuwhyd.engine.saved import optional_number, restore, table
from gpuwhyd.engine.settings import Rule
from gpuwhyd.model import EventKind, GpuIdentity, GpuReading

_THERMAL_REASONS = frozenset({"sw-thermal", "hw-thermal", "hw-slowdown"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Firing:
    """One rule was raised or cleared."""

    kind: EventKind
    rule: Rule
    value: float
    for_seconds: float
    reason: str | None = None
    """Why it was cleared, where it was not by its value."""


@dataclass(slots=True)
class _Holding:
    since: float | None = None
    raised: bool = False
    raised_at: float | None = None
    last_value: float | None = None
    """`None` for one that an earlier version has saved without it."""
    rule: Rule | None = None
    """By which it is weighed: the configuration may have lost it when it ends. `None` as above."""


def metric_value(
    reading: GpuReading,
    metric: str,
    *,
    fan_stalled: float | None = None,
    cooling_loss_percent: float | None = None,
) -> float | None:
    """What a rule's metric says now; `None` when the card has no such reading.

    `fan_stalled` is what the card's tachometers say (`Tachometers.stalled`): a reading alone cannot tell a fan that
    stands from one that does not exist. `cooling_loss_percent` is what the card's own history says
    (`History.loss_part`).
    """
    if metric == "fan_stalled":
        return fan_stalled
    if metric == "cooling_loss_percent":
        return cooling_loss_percent
    derived = _DERIVED.get(metric)
    value = derived(reading) if derived else getattr(reading, metric)
    return None if value is None else float(value)


class RuleBook:
    """All rules for one card. A missing metric neither raises nor clears."""

    def __init__(self, saved: Mapping[str, object] | None = None, *, same_boot: bool = True) -> None:
        """`saved`: what `saved()` gave; TypeError when it is not that. After a reboot its times mean nothing."""
        self._holdings: dict[str, _Holding] = {}
        self._rules: tuple[Rule, ...] | None = None
        for name, item in (saved or {}).items():
            holding = table(item)
            self._holdings[name] = _Holding(
                raised=bool(holding.get("raised")),
                raised_at=optional_number(holding.get("raised_at")) if same_boot else None,
                last_value=optional_number(holding.get("last_value")),
                rule=None if holding.get("rule") is None else restore(Rule, holding["rule"]),
            )

    def feed(
        self,
        now: float,
        reading: GpuReading,
        rules: tuple[Rule, ...],
        *,
        fan_stalled: float | None = None,
        cooling_loss_percent: float | None = None,
    ) -> list[Firing]:
        """What changed with this reading, and with the rules."""
        ended = self.reconfigured(now, reading.gpu, rules)
        fired = (
            self._weigh(
                now,
                rule,
                metric_value(
                    reading,
                    rule.metric,
                    fan_stalled=fan_stalled,
                    cooling_loss_percent=cooling_loss_percent,
                ),
            )
            for rule in rules
            if _applies(rule, reading.gpu)
        )
        return ended + [firing for firing in fired if firing is not None]

    def reconfigured(self, now: float, gpu: GpuIdentity, rules: tuple[Rule, ...]) -> list[Firing]:
        """What was raised by a rule that is not for this card any more is over: nothing else would ever clear it."""
        if rules is self._rules:
            return []
        self._rules, before, self._holdings = rules, self._holdings, {}
        own = {rule.name: rule for rule in rules if _applies(rule, gpu)}
        firings = []
        for name, holding in before.items():
            rule = own.get(name)
            # of another metric it is another rule, and the card may not even offer that one
            if rule is None or (holding.rule is not None and holding.rule.metric != rule.metric):
                firings += _ended(now, holding, "the configuration has no such rule for this card any more")
            else:
                holding.rule = rule
                self._holdings[name] = holding
        return firings

    def interrupted(self) -> None:
        """A gap or a suspend: durations start anew; what is raised stays raised."""
        for holding in self._holdings.values():
            if not holding.raised:
                holding.since = None

    def end(self, now: float) -> list[Firing]:
        """The card has gone: what is raised is over, at the last value that was read of it."""
        return [
            firing
            for holding in self._holdings.values()
            for firing in _ended(now, holding, "the card has gone")
        ]

    def raised(self) -> tuple[str, ...]:
        return tuple(name for name, holding in self._holdings.items() if holding.raised)

    def saved(self) -> dict[str, object]:
        return {
            name: {
                "raised": holding.raised,
                "raised_at": holding.raised_at,
                "last_value": holding.last_value,
                "rule": _saved_rule(holding.rule) if holding.raised and holding.rule is not None else None,
            }
            for name, holding in self._holdings.items()
            if holding.raised or holding.raised_at is not None
        }

    def _weigh(self, now: float, rule: Rule, value: float | None) -> Firing | None:
        if value is None:
            return None
        holding = self._holdings.setdefault(rule.name, _Holding())
        holding.last_value, holding.rule = value, rule
        if holding.raised:
            if holding.since is None:
                holding.since = holding.raised_at if holding.raised_at is not None else now
            if not _over(rule, value):
                return None
            lasted = now - holding.since
            holding.raised, holding.since = False, None
            return Firing(kind=EventKind.ALERT_CLEARED, rule=rule, value=value, for_seconds=lasted)
        if not _holds(rule, value):
            holding.since = None
            return None
        if holding.since is None:
            holding.since = now
        cooling = holding.raised_at is not None and now - holding.raised_at < rule.cooldown_seconds
        if now - holding.since < rule.for_seconds or cooling:
            return None
        holding.raised, holding.raised_at = True, now
        return Firing(kind=EventKind.ALERT_RAISED, rule=rule, value=value, for_seconds=now - holding.since)


def _ended(now: float, holding: _Holding, reason: str) -> list[Firing]:
    """Cleared for another reason than its value; nothing if it is not raised, or too little is known of it."""
    if not holding.raised:
        return []
    since = holding.raised_at if holding.since is None else holding.since
    holding.raised, holding.since = False, None
    if holding.rule is None or holding.last_value is None:
        return []
    lasted, kind = 0.0 if since is None else now - since, EventKind.ALERT_CLEARED
    return [Firing(kind=kind, rule=holding.rule, value=holding.last_value, for_seconds=lasted, reason=reason)]


def _saved_rule(rule: Rule) -> dict[str, object]:
    """What an alert tells of its rule."""
    return {
        "name": rule.name,
        "metric": rule.metric,
        "above": rule.above,
        "below": rule.below,
        "severity": rule.severity,
    }


def _applies(rule: Rule, gpu: GpuIdentity) -> bool:
    return not rule.gpus or gpu.id in rule.gpus or gpu.pci_address in rule.gpus


def _holds(rule: Rule, value: float) -> bool:
    if rule.above is not None:
        return value > rule.above
    return rule.below is not None and value < rule.below


def _over(rule: Rule, value: float) -> bool:
    if rule.above is not None:
        return value <= (rule.above if rule.clear is None else rule.clear)
    return rule.below is not None and value >= (rule.below if rule.clear is None else rule.clear)


def _memory_used_percent(reading: GpuReading) -> float | None:
    if reading.memory_used_bytes is None or not reading.memory_total_bytes:
        return None
    return 100.0 * reading.memory_used_bytes / reading.memory_total_bytes


def _temperature_margin_celsius(reading: GpuReading) -> float | None:
    if reading.temperature_celsius is None or reading.temperature_limit_celsius is None:
        return None
    return reading.temperature_limit_celsius - reading.temperature_celsius


def _thermal_throttled(reading: GpuReading) -> float | None:
    if reading.throttle_reasons is None:
        return None
    return float(any(reason in _THERMAL_REASONS for reason in reading.throttle_reasons))


_DERIVED = {
    "memory_used_percent": _memory_used_percent,
    "temperature_margin_celsius": _temperature_margin_celsius,
    "thermal_throttled": _thermal_throttled,
}
