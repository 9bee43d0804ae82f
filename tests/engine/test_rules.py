"""Alerts: raised when a rule has held for long enough, cleared at its clear level, not repeated while it cools down."""

from dataclasses import replace

import pytest

from gpuwhyd.engine.engine import Engine
from gpuwhyd.engine.rules import metric_value
from gpuwhyd.engine.settings import RULE_METRICS, SHIPPED_RULES, EngineSettings, Rule
from gpuwhyd.model import AlertEvent, GpuState, Severity
from tests.engine.rig import Rig, unit

HOT = Rule(
    name="hot",
    metric="temperature_celsius",
    above=80.0,
    clear=70.0,
    for_seconds=10.0,
    cooldown_seconds=300.0,
    severity=Severity.ERROR,
)


def watching(*rules: Rule) -> Rig:
    return Rig(engine=Engine(EngineSettings(rules=rules), boot_id="boot"))


def told(rig: Rig) -> list[str]:
    return [event.kind.value.removeprefix("alert-") for event in rig.events if isinstance(event, AlertEvent)]


def test_a_rule_is_raised_only_after_it_has_held_for_its_time() -> None:
    rig = watching(HOT).run(20, celsius=70)
    rig.run(10, celsius=85)
    assert told(rig) == []
    rig.tick(celsius=85)
    assert told(rig) == ["raised"]
    alert = next(event for event in rig.events if isinstance(event, AlertEvent))
    assert (alert.rule, alert.value, alert.threshold, alert.severity) == ("hot", 85, 80, Severity.ERROR)
    assert alert.for_seconds == pytest.approx(10)
    assert alert.sentence == "GPU 0 (RTX 3070): hot: temperature_celsius is 85, above 80 for 10 s."


def test_one_sample_below_starts_the_time_anew() -> None:
    rig = watching(HOT)
    for _ in range(10):
        rig.run(8, celsius=85).tick(celsius=79)
    assert told(rig) == []


def test_it_is_cleared_at_the_clear_level_not_at_the_threshold() -> None:
    rig = watching(HOT).run(20, celsius=85).run(60, celsius=75)
    assert told(rig) == ["raised"]
    rig.tick(celsius=70)
    assert told(rig) == ["raised", "cleared"]


def test_it_is_not_raised_again_while_it_cools_down() -> None:
    rig = watching(HOT).run(20, celsius=85).run(20, celsius=60).run(200, celsius=85)
    assert told(rig) == ["raised", "cleared"]
    rig.run(120, celsius=85)
    assert told(rig) == ["raised", "cleared", "raised"]


def test_a_missing_metric_neither_raises_nor_clears() -> None:
    rig = watching(HOT).run(8, celsius=85).run(20, celsius=None).tick(celsius=85)
    rig2 = watching(HOT).run(20, celsius=85).run(20, celsius=None)
    assert rig is not None
    assert told(rig2) == ["raised"]


def test_a_gap_does_not_count_as_time_that_it_held() -> None:
    rig = watching(HOT).run(4, celsius=85)
    rig.tick(celsius=85, step=3600, resumed=True)
    assert told(rig) == []


def test_below_works_as_above_does() -> None:
    rig = (
        watching(Rule(name="slow", metric="fan_percent", below=20.0, clear=25.0))
        .run(4, fan=30)
        .run(4, fan=10)
    )
    rig.run(4, fan=22).run(4, fan=25)
    assert told(rig) == ["raised", "cleared"]


@pytest.mark.parametrize(
    ("gpus", "raised"), [(("pci_0000_01_00_0",), True), (("0000:01:00.0",), True), (("other",), False)]
)
def test_a_rule_can_be_for_some_gpus(gpus: tuple[str, ...], raised: bool) -> None:
    rig = watching(replace(HOT, gpus=gpus)).run(20, celsius=85)
    assert (told(rig) == ["raised"]) is raised


def test_a_raised_alert_is_not_raised_again_by_a_restart_and_still_clears() -> None:
    settings = EngineSettings(rules=(HOT,))
    rig = watching(HOT).run(20, celsius=85).restart(settings=settings).run(60, celsius=85)
    assert told(rig) == ["raised"]
    rig.tick(celsius=60)
    assert told(rig) == ["raised", "cleared"]


def test_an_alert_raised_before_a_reboot_clears_after_it() -> None:
    rig = watching(HOT).run(20, celsius=85)
    rig.restart(boot_id="other", settings=EngineSettings(rules=(HOT,)))
    rig.now = 20.0
    rig.run(10, celsius=60)
    assert told(rig) == ["raised", "cleared"]


OTHERS = {
    "dropped": (),
    "narrowed to other cards": (replace(HOT, gpus=("0000:99:00.0",)),),
    "of another metric": (replace(HOT, metric="hotspot_celsius"),),
}
"""Configurations that have no such rule for the card any more."""


@pytest.mark.parametrize("rules", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("state", [GpuState.AWAKE, GpuState.ASLEEP])
def test_an_alert_is_over_when_a_reload_leaves_no_rule_for_it(
    rules: tuple[Rule, ...], state: GpuState
) -> None:
    rig = watching(HOT).run(20, celsius=85)
    rig.engine.reconfigure(EngineSettings(rules=rules))
    rig.run(20, celsius=85, state=state)
    assert told(rig) == ["raised", "cleared"]
    cleared = [event for event in rig.events if isinstance(event, AlertEvent)][-1]
    assert (cleared.rule, cleared.metric, cleared.value) == ("hot", "temperature_celsius", 85)
    assert (cleared.threshold, cleared.severity) == (80, Severity.ERROR)
    assert cleared.sentence == (
        "GPU 0 (RTX 3070): hot is over: the configuration has no such rule for this card any more."
    )


@pytest.mark.parametrize("rules", OTHERS.values(), ids=OTHERS)
def test_an_alert_is_over_when_a_restart_leaves_no_rule_for_it(rules: tuple[Rule, ...]) -> None:
    rig = watching(HOT).run(20, celsius=85).restart(settings=EngineSettings(rules=rules))
    rig.run(20, celsius=85)
    assert told(rig) == ["raised", "cleared"]
    cleared = [event for event in rig.events if isinstance(event, AlertEvent)][-1]
    assert (cleared.rule, cleared.threshold, cleared.severity) == ("hot", 80, Severity.ERROR)


def test_an_alert_stays_when_a_reload_moves_its_threshold() -> None:
    rig = watching(HOT).run(20, celsius=85)
    rig.engine.reconfigure(EngineSettings(rules=(replace(HOT, above=90.0),)))
    rig.run(20, celsius=85)
    assert told(rig) == ["raised"]
    rig.tick(celsius=70)
    assert told(rig) == ["raised", "cleared"]


def test_the_time_that_a_rule_was_not_for_the_card_does_not_count() -> None:
    rig = watching(HOT).run(8, celsius=85)
    rig.engine.reconfigure(EngineSettings(rules=(replace(HOT, gpus=("0000:99:00.0",)),)))
    rig.run(20, celsius=85)
    rig.engine.reconfigure(EngineSettings(rules=(HOT,)))
    rig.run(8, celsius=85)
    assert told(rig) == []


def test_the_shipped_high_usage_rule_holds_above_fifty_percent_for_a_minute() -> None:
    rig = Rig(engine=Engine(EngineSettings(), boot_id="boot"))
    rig.run(58, {unit("x.service", 5): 60.0}, watts=30)
    assert told(rig) == []
    rig.run(6, {unit("x.service", 5): 60.0}, watts=30)
    assert told(rig) == ["raised"]


def test_derived_metrics() -> None:
    rig = Rig()
    reading = replace(
        rig.reading(celsius=80),
        memory_used_bytes=3,
        memory_total_bytes=4,
        temperature_limit_celsius=90.0,
        throttle_reasons=("power-cap", "hw-thermal"),
    )
    assert metric_value(reading, "memory_used_percent") == 75
    assert metric_value(reading, "temperature_margin_celsius") == 10
    assert metric_value(reading, "thermal_throttled") == 1
    assert metric_value(replace(reading, throttle_reasons=("power-cap",)), "thermal_throttled") == 0


def test_every_metric_of_the_configuration_can_be_read() -> None:
    for metric in RULE_METRICS:
        metric_value(Rig().reading(), metric)
    assert {rule.metric for rule in SHIPPED_RULES} <= set(RULE_METRICS)


@pytest.mark.parametrize("unread", [GpuState.ASLEEP, GpuState.UNKNOWN, GpuState.LOST])
def test_what_holds_starts_anew_after_the_card_was_not_read(unread: GpuState) -> None:
    rule = Rule(name="busy", metric="utilization_percent", above=50.0, for_seconds=60.0)
    rig = watching(rule).run(30, busy=90.0).run(600, state=unread).run(30, busy=90.0)
    assert told(rig) == []
    rig.run(40, busy=90.0)
    assert told(rig) == ["raised"]
