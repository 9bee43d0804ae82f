"""Every sentence that an answer can have, as a person reads it: all causes, while the fan is up and when it is over.

`sentences.txt` beside this file is the contract: who changes a word changes it there, and reads it aloud.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from gpuwhyd.engine.sentences import compose
from gpuwhyd.model import Cause, Evidence, Explanation, Outlook, Program, ProgramKind, Suspect


def suspect(
    name: str, share: float, *, pids: tuple[int, ...] = (4242,), user: str | None = None, **more: object
) -> Suspect:
    program = Program(kind=ProgramKind.UNIT, key=f"unit:{name}", name=name, unit=name, user=user)
    process = name.removesuffix(".service")
    return Suspect(program=program, share=share, process_name=process, pids=pids, **more)  # type: ignore[arg-type]


GOLDEN = Path(__file__).with_name("sentences.txt")
OLLAMA = suspect("ollama.service", 0.81, user="ollama")
WORKERS = suspect("render.service", 0.55, pids=(1, 2, 3))
NAMELESS = Suspect(program=Program(kind=ProgramKind.PROCESS, key="process:7:1", name="blender"), share=0.4)
SMALL = suspect("index.service", 0.04, pids=(9,))
GONE = replace(OLLAMA, alive=False, pids=(), stopped_seconds_ago=42.0)
PAUSED = replace(OLLAMA, stopped_seconds_ago=42.0)
ON_CPU = suspect("build.service", 0.7, user="anna", cpu_share=0.7)
MEASURED = {"average_power_watts": 212.4, "average_over_seconds": 178.0, "temperature_low_celsius": 52.0}
CPU = {"cpu_average_power_watts": 38.2, "cpu_average_over_seconds": 100.0, "cpu_temperature_celsius": 88.0}
OVER = {"ended_after_seconds": 305.0, "ended_by": "rest", "peak_fan_percent": 62.0}
SPIKE: dict[str, object] = {
    "fan_percent": 57.0,
    "temperature_celsius": 78.0,
    "power_watts": 212.0,
    "for_seconds": 40.0,
}
REST: dict[str, object] = {"fan_percent": 30.0, "temperature_celsius": 40.0, "power_watts": 15.0}


SAID: set[tuple[Cause, bool]] = set()
"""Causes, and whether it was over."""


def said(
    cause: Cause,
    *suspects: Suspect,
    seen: dict[str, float | str] | None = None,
    gpu_id: str = "gpu",
    label: str = "GPU 0 (RTX 3070)",
    quiet_in: float | None = None,
    **reading: object,
) -> str:
    SAID.add((cause, "ended_by" in (seen or {})))
    return compose(
        Explanation(
            gpu_id=gpu_id,
            gpu_label=label,
            cause=cause,
            confidence=0.9,
            sentence="",
            suspects=suspects,
            evidence=tuple(Evidence(quantity=name, value=value) for name, value in (seen or {}).items()),
            outlook=Outlook(quiet_in_seconds=quiet_in),
            **(reading or SPIKE),  # type: ignore[arg-type]
        )
    )


HOT_MEMORY = {"memory_temperature_celsius": 98.0}
COOL = {**SPIKE, "temperature_celsius": 52.0}
NEAR = {"neighbour": "GPU 1 (RTX 3090)", "warmed_from_celsius": 41.0}
STUCK = {
    "idle_power_watts": 62.0,
    "idle_power_needed_watts": 15.0,
    "performance_state": "P0",
    "memory_clock_mhz": 9501.0,
}
STALLED = {"fan_stalled": 1.0, "fan_told_percent": 70.0, "fan_measured_rpm": 0.0, "held_for_seconds": 25.0}
SENTENCES: dict[str, str] = {
    "quiet, stands still": said(Cause.QUIET, **{**REST, "fan_percent": 0.0}),
    "quiet, rests": said(
        Cause.QUIET, seen={"last_spike_seconds_ago": 740.0, "last_spike_program": "ollama.service"}, **REST
    ),
    "quiet, while somebody works": said(Cause.QUIET, OLLAMA, seen=MEASURED, **REST),
    "quiet, asleep": said(Cause.QUIET, seen={"asleep": 1.0}, for_seconds=None),
    "quiet, let go": said(Cause.QUIET, seen={"let_go": 1.0}, for_seconds=None),
    "quiet, watched": said(Cause.QUIET, seen={"kept_awake_by": "nvtop"}, **REST),
    "quiet, no fan": said(Cause.QUIET, seen={"no_fan": 1.0}, power_watts=30.0),
    "workload": said(Cause.WORKLOAD, OLLAMA, seen=MEASURED),
    "workload, just now": said(Cause.WORKLOAD, OLLAMA, **{**SPIKE, "for_seconds": 1.0}),
    "workload, several processes, no user": said(Cause.WORKLOAD, WORKERS),
    "workload, bare process without a pid": said(Cause.WORKLOAD, NAMELESS),
    "workload, a guess": said(Cause.WORKLOAD, OLLAMA, seen={"engine_times_unknown": 1.0}),
    "workload, before the start": said(Cause.WORKLOAD, OLLAMA, seen={"began_before_start": 1.0}),
    "workload, no fan": said(Cause.WORKLOAD, OLLAMA, seen={"no_fan": 1.0}),
    "workload, has just exited": said(Cause.WORKLOAD, GONE, seen=MEASURED),
    "workload, no fan, has just exited": said(Cause.WORKLOAD, GONE, seen={"no_fan": 1.0}),
    "workload, over": said(Cause.WORKLOAD, OLLAMA, seen=OVER, **REST),
    "workload, new rest": said(Cause.WORKLOAD, OLLAMA, seen={**OVER, "ended_by": "new-rest"}, **REST),
    "workload, card removed": said(Cause.WORKLOAD, OLLAMA, seen={**OVER, "ended_by": "removed"}, **REST),
    "workload, reboot": said(Cause.WORKLOAD, GONE, seen={**OVER, "ended_by": "reboot"}, **REST),
    "mixed": said(Cause.WORKLOAD_MIXED, WORKERS, NAMELESS, seen=MEASURED),
    "mixed, three": said(Cause.WORKLOAD_MIXED, WORKERS, NAMELESS, SMALL),
    "mixed, one has exited": said(Cause.WORKLOAD_MIXED, WORKERS, replace(GONE, share=0.3), SMALL),
    "mixed, over": said(Cause.WORKLOAD_MIXED, WORKERS, NAMELESS, seen=OVER, **REST),
    "residual, exited": said(Cause.RESIDUAL_HEAT, GONE, quiet_in=130.0),
    "residual, paused, soon": said(Cause.RESIDUAL_HEAT, PAUSED, quiet_in=4.0),
    "residual, works on a little": said(Cause.RESIDUAL_HEAT, OLLAMA),
    "residual, paused but busy": said(Cause.RESIDUAL_HEAT, replace(PAUSED, engine_percent=2.0)),
    "residual, with another": said(Cause.RESIDUAL_HEAT, replace(WORKERS, stopped_seconds_ago=9.0), NAMELESS),
    "residual, with others": said(
        Cause.RESIDUAL_HEAT, replace(WORKERS, stopped_seconds_ago=9.0), NAMELESS, SMALL
    ),
    "residual, nobody known": said(Cause.RESIDUAL_HEAT, quiet_in=700.0),
    "residual, over": said(Cause.RESIDUAL_HEAT, GONE, seen=OVER, **REST),
    "hidden": said(Cause.HIDDEN_WORKLOAD, seen=MEASURED),
    "hidden, over": said(Cause.HIDDEN_WORKLOAD, seen=OVER, **REST),
    "monitor": said(
        Cause.MONITOR, replace(OLLAMA, share=0.0), seen={"kept_awake_by": "x", "held_for_seconds": 130.0}
    ),
    "monitor, two": said(Cause.MONITOR, WORKERS, NAMELESS, seen={"kept_busy_by": "x"}),
    "monitor, gpuwhyd itself": said(Cause.MONITOR, seen={"kept_awake_by_gpuwhyd": 1.0}),
    "monitor, over": said(Cause.MONITOR, OLLAMA, seen=OVER, **REST),
    "idle clocks": said(Cause.IDLE_CLOCKS, seen=STUCK),
    "idle clocks, over": said(Cause.IDLE_CLOCKS, seen=OVER, **REST),
    "hotspot, memory": said(Cause.HOTSPOT, OLLAMA, seen=HOT_MEMORY, **COOL),
    "hotspot, chip, unusual, two programs": said(
        Cause.HOTSPOT,
        WORKERS,
        NAMELESS,
        seen={"hotspot_celsius": 84.0, "hotspot_usual_celsius": 68.0},
        **COOL,
    ),
    "hotspot, nobody": said(Cause.HOTSPOT, seen={"hotspot_celsius": 92.0}, **COOL),
    "hotspot, over": said(Cause.HOTSPOT, OLLAMA, seen=OVER, **REST),
    "manual": said(Cause.MANUAL_FAN),
    "manual, pinned, under load": said(Cause.MANUAL_FAN, OLLAMA, seen={"fan_pinned": 1.0, **MEASURED}),
    "manual, over": said(Cause.MANUAL_FAN, seen=OVER, **REST),
    "fan fault, stalled": said(Cause.FAN_FAULT, seen=STALLED),
    "fan fault, over": said(Cause.FAN_FAULT, seen=OVER, **REST),
    "neighbour": said(Cause.NEIGHBOUR_HEAT, OLLAMA, seen=NEAR, **{**COOL, "power_watts": 15.0}),
    "neighbour, two programs": said(Cause.NEIGHBOUR_HEAT, WORKERS, NAMELESS, seen=NEAR, **COOL),
    "neighbour, nobody known": said(Cause.NEIGHBOUR_HEAT, seen={"neighbour": "the CPU"}, **COOL),
    "neighbour, over": said(Cause.NEIGHBOUR_HEAT, OLLAMA, seen=OVER, **REST),
    "shared cooler": said(
        Cause.SHARED_COOLER, ON_CPU, seen=CPU, gpu_id="chassis_x", label="ThinkPad P53 fan"
    ),
    "shared cooler, load over": said(
        Cause.SHARED_COOLER,
        replace(ON_CPU, alive=False, pids=(), stopped_seconds_ago=30.0),
        seen={"cpu_load_is_over": 1.0},
    ),
    "shared cooler, over": said(Cause.SHARED_COOLER, ON_CPU, seen=OVER, **REST),
    **{
        f"driver event, {kind}": said(Cause.DRIVER_EVENT, seen={"driver_event": kind})
        for kind in ("boot", "resume", "wake", "load", "reset")
    },
    "driver event, over": said(Cause.DRIVER_EVENT, seen=OVER, **REST),
    "ambient": said(Cause.AMBIENT, OLLAMA, seen={"cooling_loss_percent": 24.0, **MEASURED}),
    "ambient, over": said(Cause.AMBIENT, OLLAMA, seen=OVER, **REST),
    "unknown": said(Cause.UNKNOWN),
    "unknown, no reading": said(Cause.UNKNOWN, seen={"no_reading": 1.0}),
    "unknown, over": said(Cause.UNKNOWN, seen=OVER, **REST),
}


def golden() -> dict[str, str]:
    """`name | sentence`, one a line."""
    lines = GOLDEN.read_text(encoding="utf-8").splitlines()
    return {name.strip(): sentence.strip() for name, _, sentence in (line.partition("|") for line in lines)}


@pytest.mark.parametrize("name", SENTENCES)
def test_it_is_said_as_it_was_read_and_found_good(name: str) -> None:
    assert SENTENCES[name] == golden()[name]


def test_the_golden_sentences_are_those_of_all_causes_while_they_last_and_when_they_are_over() -> None:
    assert golden().keys() == SENTENCES.keys()
    assert {cause for cause, _ in SAID} == set(Cause)
    assert {cause for cause, over in SAID if over} == set(Cause) - {Cause.QUIET}


@pytest.mark.parametrize("name", SENTENCES)
def test_a_sentence_is_one_line_without_jargon_or_false_precision(name: str) -> None:
    sentence = SENTENCES[name]
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert not any(word in sentence for word in ("None", "P-state", "namespace", "tachometer says", "  "))
    assert not any(part.replace(".", "", 1).isdigit() and "." in part for part in sentence.split())
