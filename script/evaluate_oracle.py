"""Who knows everything but the noise: the card's constants and each program's watts, but of the moment only the samples.

No engine can be better with these sensors; the distance to it is what could still be won.
"""

from dataclasses import replace

from script.evaluate_score import SETTLE_PERCENT, WORK_PART, Answer, right_causes, shares
from script.evaluate_world import HIDDEN, STEP_SECONDS, Card, Program, Sample, Scenario

_LONGEST_AFTER_RUN_SECONDS = 1200.0


class Oracle:
    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._card = Card(kind=scenario.kind)
        self._visible = {program.name: program for program in scenario.programs if program.visible}
        self._now = 0.0
        self._smooth_watts = 0.0

    def answer(self, sample: Sample) -> Answer:
        """What can be said at this sample."""
        kind = self._scenario.kind
        engines: dict[str, float] = {}
        for (name, _), percent in sample.engine_percents.items():
            engines[name] = engines.get(name, 0.0) + percent
        watts = {name: percent * self._visible[name].watts_per_percent for name, percent in engines.items()}
        unseen = max(0.0, sample.power_watts - kind.idle_watts - sum(watts.values()))
        if unseen > WORK_PART * kind.limit_watts:
            watts[HIDDEN] = unseen
        programs = tuple(_steady(name, value) for name, value in watts.items() if value)
        while self._now < sample.seconds:
            self._card.advance(programs, self._now, STEP_SECONDS)
            self._now += STEP_SECONDS
        self._card.percent = sample.fan_percent
        parts = shares(self._card.heat(), set(self._visible))
        self._smooth_watts += (sum(watts.values()) - self._smooth_watts) * 0.2
        works = self._smooth_watts > WORK_PART * kind.limit_watts
        causes = right_causes(parts, works=works)
        best = max((name for name in parts if name != HIDDEN), key=lambda name: parts[name], default=None)
        return Answer(
            cause=min(causes) if causes else "unknown",
            leading=best,
            shares={name: part for name, part in parts.items() if name != HIDDEN},
            confidence=1.0,
            quiet_in_seconds=None if works else self._quiet_in(),
        )

    def _quiet_in(self) -> float | None:
        """By letting the card cool down."""
        card = self._card
        copy = replace(card, fast=dict(card.fast), slow=dict(card.slow), watts={})
        copy.percent, copy.turning, copy.filtered_celsius = card.percent, card.turning, card.filtered_celsius
        copy.fast, copy.slow = dict(card.fast), dict(card.slow)
        seconds = 0.0
        while seconds < _LONGEST_AFTER_RUN_SECONDS:
            if copy.percent <= self._scenario.kind.rest_percent + SETTLE_PERCENT:
                return seconds
            copy.advance((), seconds, STEP_SECONDS)
            seconds += STEP_SECONDS
        return None


def _steady(name: str, watts: float) -> Program:
    return Program(
        name=name,
        pid=0,
        start_seconds=0,
        stop_seconds=float("inf"),
        engine_percent=1.0,
        watts_per_percent=watts,
    )
