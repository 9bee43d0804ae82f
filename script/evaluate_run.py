"""Is the engine right? On scenarios with known truth, and on recordings of real fans. See docs/evaluation.md."""

import argparse
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from zlib import crc32

from gpuwhyd.engine.engine import Engine
from gpuwhyd.engine.settings import EngineSettings
from gpuwhyd.model import (
    BackendHealth,
    BackendState,
    EventKind,
    Explanation,
    FanMode,
    FanReading,
    GpuIdentity,
    GpuProcess,
    GpuReading,
    GpuState,
    GpuUse,
    ProcessExit,
    ProcessIdentity,
    Program,
    ProgramKind,
    Snapshot,
    SpikeEvent,
)
from script.evaluate_oracle import Oracle
from script.evaluate_recordings import evaluate_recordings
from script.evaluate_score import (
    LATE_SAMPLES,
    NEARLY_PERCENT,
    RISE_PERCENT,
    SETTLE_PERCENT,
    SETTLE_SECONDS,
    SMOOTH_SECONDS,
    WORK_PART,
    Answer,
    Marks,
    Swing,
    right_causes,
    shares,
    sound_fan_rests,
    swings,
    with_fault,
)
from script.evaluate_stories import STORIES, scenario
from script.evaluate_world import SAMPLE_SECONDS, Sample, Scenario, run

GPU = GpuIdentity(id="card", name="Card", vendor="simulated")
GPU_BESIDE = GpuIdentity(id="other", name="Other", vendor="simulated")
_READY = (BackendHealth(name="world", state=BackendState.READY),)
LISTED = 30
UNASKED = Answer(cause="unknown", leading=None, shares={}, confidence=0.0, quiet_in_seconds=None)


def main() -> int:
    parser = argparse.ArgumentParser(prog="script/evaluate", description="Is the engine right?")
    parser.add_argument(
        "--scenarios", type=int, default=1000, metavar="N", help="how many seeds (default 1000)"
    )
    parser.add_argument("--first", type=int, default=0, metavar="N", help="the first of them (default 0)")
    parser.add_argument("--seed", type=int, action="append", help="only this one, told in full")
    parser.add_argument("--story", choices=tuple(STORIES), help="only scenarios of this kind")
    parser.add_argument("--recordings", type=Path, help="a folder of fan logs, with SPIKES.tsv")
    options = parser.parse_args()
    seeds = options.seed or range(options.first, options.first + options.scenarios)
    engine, oracle = Marks(name="gpuwhyd"), Marks(name="oracle")
    for seed in seeds:
        made = scenario(seed)
        if options.story is None or made.story == options.story:
            evaluate(made, engine, oracle, tell=bool(options.seed))
    report(engine, oracle)
    if options.recordings is not None:
        evaluate_recordings(options.recordings)
    return 0


def evaluate(made: Scenario, engine_marks: Marks, oracle_marks: Marks, *, tell: bool) -> None:
    everything = list(run(made))
    samples = [sample for sample in everything if sample.seconds >= made.judged_from]
    truth = swings(made, samples) if made.kind.pinned_percent is None else []
    engine, oracle = Engine(EngineSettings(rules=()), boot_id="evaluate"), Oracle(made)
    visible = {program.name for program in made.programs if program.visible}
    started: list[float] = []
    where = f"seed {made.seed} ({made.story})"
    sound_rests: dict[Swing, bool] = {}
    changed, worked, before = -SETTLE_SECONDS, False, None
    for sample in everything:
        events = engine.follow(snapshot(made, sample))
        if sample.seconds < made.judged_from:
            continue
        if sample.lost:
            changed = sample.seconds
        for event in events:
            if isinstance(event, SpikeEvent) and event.gpu.id == GPU.id:
                if event.kind is EventKind.SPIKE_STARTED:
                    started.append(sample.seconds)
                if tell:
                    print(f"{sample.seconds:7.0f} s  {event.kind.value:<14} {event.explanation.sentence}")
        theirs = UNASKED if made.sessions else oracle.answer(sample)  # it would have to live through the days
        works = _works(made, sample.seconds)
        if works != worked:
            changed, worked = sample.seconds, works
        gap = (before is not None and sample.seconds - before > 4 * SAMPLE_SECONDS) or sample.lost
        before = sample.seconds
        if gap:
            changed = sample.seconds
        swing = next((s for s in truth if s.onset + LATE_SAMPLES * SAMPLE_SECONDS <= sample.seconds), None)
        swing = next((s for s in truth if _in_swing(s, sample)), None) if swing else None
        if made.kind.pinned_percent is not None:
            if sample.seconds > 150:
                said = answer_of(engine.explanations[GPU.id])
                engine_marks.judge(where, made.story, said, {"manual-fan"}, {})
            continue
        if swing is None or sample.seconds - changed < SETTLE_SECONDS:
            continue
        if sample.true_percent - made.kind.rest_percent <= SETTLE_PERCENT + 1:
            continue
        parts = shares(sample.true_heat, visible)
        causes = right_causes(parts, works=works, outside=sample.true_outside_kelvin, heat=sample.true_heat)
        if made.fault is not None:
            if swing not in sound_rests:
                sound_rests[swing] = sound_fan_rests(made, samples, swing)
            causes = with_fault(causes, made, sample, works=works, sound_rests=sound_rests[swing])
        given = answer_of(engine.explanations[GPU.id])
        if tell and given.cause not in causes:
            print(f"{sample.seconds:7.0f} s  WRONG {given.cause} for {sorted(causes)}: {_shown(parts)}")
        engine_marks.judge(where, made.story, given, causes, parts)
        if _is_of_the_oracle(made):
            oracle_marks.judge(where, made.story, theirs, causes, parts)
        if not works and swing.end is not None and (left := swing.end - sample.seconds) >= 20:
            for marks, answer in ((engine_marks, given), (oracle_marks, theirs)):
                if "residual-heat" in causes and answer.quiet_in_seconds is not None:
                    marks.quiet_errors.append(abs(answer.quiet_in_seconds - left) / left)
    nearly = swings(made, samples, NEARLY_PERCENT) if made.kind.pinned_percent is None else []
    match(truth, nearly, started, engine_marks, where)
    strict = Marks(name="without leeway")
    match(truth, truth, started, strict, where)
    engine_marks.strictly_found += strict.found
    engine_marks.strictly_invented += strict.invented
    if made.kind.pinned_percent is None:
        engine_marks.rest_hours += (
            sum(SAMPLE_SECONDS for s in samples if not any(_in_swing(swing, s) for swing in truth)) / 3600
        )


def _is_of_the_oracle(made: Scenario) -> bool:
    """It knows nothing of other cards, of sleep, of resets and of other days, and has to see who works."""
    return (
        made.engine_times
        and made.beside is None
        and not (made.suspends or made.resets or made.sessions or made.kind.spot)
    )


def _in_swing(swing: Swing, sample: Sample) -> bool:
    return swing.onset + LATE_SAMPLES * SAMPLE_SECONDS <= sample.seconds and (
        swing.end is None or sample.seconds < swing.end
    )


def _works(made: Scenario, now: float) -> bool:
    """Whether the card works in truth, pulses smoothed."""
    if made.asleep(now):
        return False
    least = WORK_PART * made.kind.limit_watts
    total = 0.0
    for program in made.programs:
        if program.start_seconds <= now < program.stop_seconds:
            paused = (
                program.period_seconds is not None
                and program.period_seconds * (1 - program.duty) > SMOOTH_SECONDS
            )
            if not paused or program.works(now):
                total += program.engine_percent * program.watts_per_percent * program.duty
    return total > least


def match(truth: list[Swing], nearly: list[Swing], started: list[float], marks: Marks, where: str) -> None:
    """Each swing wants one start, from when the fan left rest to two samples after it was up.

    `nearly`: the same with those that need not be told, of which a swing may be the later part.
    """
    left, told = list(started), list[Swing]()
    for swing in truth:
        marks.swings += 1
        latest = swing.onset + LATE_SAMPLES * SAMPLE_SECONDS
        around = next((s for s in nearly if _within(swing.onset, s)), swing)
        mine = [t for t in left if _within(t, around)]
        if not mine:
            marks.missed.append(f"{where}, at {swing.onset:.0f} s")
            continue
        marks.found += 1
        marks.delays.append(mine[0] - swing.onset)
        if mine[0] > latest:
            marks.late.append(f"{where}: {mine[0] - swing.onset:.0f} s after the fan was up")
        told.append(around)
        left = [t for t in left if t not in mine[:1]]
    marks.invented += [
        f"{where}, at {t:.0f} s"
        for t in left
        if not any(_within(t, swing) for swing in nearly if swing not in told)
    ]


def _within(t: float, swing: Swing) -> bool:
    return swing.left_rest - SAMPLE_SECONDS <= t and (swing.end is None or t <= swing.end)


def snapshot(made: Scenario, sample: Sample) -> Snapshot:
    """What the daemon's sampler would hand to the engine."""
    identities = {who: _identity(*who) for who in [*sample.engine_percents, *sample.exited]}
    held = {program.name: program.memory_bytes for program in made.programs}
    processes = {
        who: GpuProcess(
            pid=who[1],
            kind="compute",
            memory_used_bytes=held[who[0]],
            engine_percent=percent if made.engine_times else None,
        )
        for who, percent in sample.engine_percents.items()
    }
    if sample.lost:
        processes = {}
    wall_seconds = 1_700_000_000 + sample.seconds + made.wall_offset(sample.seconds)
    others, their_uses = _beside(made, sample)
    spot = made.kind.spot
    reading = GpuReading(
        gpu=GPU,
        backend="world",
        state=GpuState.AWAKE,
        fan_mode=FanMode.AUTO if made.kind.pinned_percent is None else FanMode.UNKNOWN,
        fans=(FanReading(index=0, percent=sample.fan_percent, rpm=sample.fan_rpm, rpm_is_measured=True),),
        temperature_celsius=sample.temperature_celsius,
        hotspot_celsius=None if spot is None or spot.is_memory else sample.spot_celsius,
        memory_temperature_celsius=sample.spot_celsius if spot is not None and spot.is_memory else None,
        power_watts=sample.power_watts,
        power_limit_watts=made.kind.limit_watts,
        utilization_percent=sample.utilization_percent,
        processes=tuple(processes.values()),
    )
    return Snapshot(
        boottime_seconds=sample.seconds,
        wall_usec=round(wall_seconds * 1e6),
        readings=(
            GpuReading(gpu=GPU, backend="world", state=GpuState.LOST) if sample.lost else reading,
            *others,
        ),
        uses=(
            *(GpuUse(gpu_id=GPU.id, process=identities[who], use=use) for who, use in processes.items()),
            *their_uses,
        ),
        resumed=sample.resumed,
        exits=tuple(
            ProcessExit(process=identities[who], boottime_seconds=sample.seconds) for who in sample.exited
        ),
        backends=_READY,
    )


def _beside(made: Scenario, sample: Sample) -> tuple[tuple[GpuReading, ...], tuple[GpuUse, ...]]:
    """The reading of the card beside, where there is one, and who uses it."""
    beside = made.beside
    if beside is None:
        return (), ()
    program, watts = beside.program, beside.watts(sample.seconds)
    percent = program.engine_percent if program.works(sample.seconds) else 0.0
    use = GpuProcess(pid=program.pid, kind="compute", engine_percent=percent)
    reading = GpuReading(
        gpu=GPU_BESIDE,
        backend="world",
        fan_mode=FanMode.AUTO,
        fans=(FanReading(index=0, percent=60.0 if percent else 30.0),),
        temperature_celsius=70.0 if percent else 40.0,
        power_watts=watts,
        power_limit_watts=beside.limit_watts,
        utilization_percent=percent,
        processes=(use,),
    )
    return (reading,), (GpuUse(gpu_id=GPU_BESIDE.id, process=_identity(program.name, program.pid), use=use),)


def _identity(name: str, pid: int) -> ProcessIdentity:
    program = Program(kind=ProgramKind.UNIT, key=f"unit:{name}", name=name, unit=name)
    return ProcessIdentity(
        pid=pid, start_ticks=crc32(name.encode()), name=name.removesuffix(".service"), program=program
    )


def answer_of(explanation: Explanation) -> Answer:
    return Answer(
        cause=explanation.cause.value,
        leading=explanation.suspects[0].program.name if explanation.suspects else None,
        shares={suspect.program.name: suspect.share for suspect in explanation.suspects},
        confidence=explanation.confidence,
        quiet_in_seconds=explanation.outlook.quiet_in_seconds,
    )


# -- the report ---------------------------------------------------------------------------------------------------


def report(engine: Marks, oracle: Marks) -> None:
    print("| | gpuwhyd | oracle | wanted |\n|---|---|---|---|")
    print(f"| swings of the fan found | {engine.found} of {engine.swings} | | all |")
    print(f"| of them later than two samples | {len(engine.late)} | | 0 |")
    if engine.delays:
        print(f"| delay, median | {statistics.median(engine.delays):.1f} s | | |")
    print(f"| invented, in {engine.rest_hours:.0f} h at rest | {len(engine.invented)} | | 0 |")
    print(f"| invented, were {RISE_PERCENT} points the limit | {len(engine.strictly_invented)} | | |")
    print(f"| found, were {RISE_PERCENT} points the limit | {engine.strictly_found} of {engine.swings} | | |")
    for what, of, wanted in (
        ("leading suspect right", _leading, ">= 98 %"),
        ("cause right", _cause, ">= 95 %"),
        ("shares wrong by, mean", _share_error, "<= 5 points"),
        ("quiet time wrong by, median", _quiet_error, "<= 25 %"),
    ):
        print(f"| {what} | {of(engine)} | {of(oracle)} | {wanted} |")
    print("\n| truth | answer | times |\n|---|---|---|")
    for (truth, answer), count in sorted(engine.confusion.items()):
        print(f"| {truth} | {answer} | {count} |")
    print("\n| confidence | answers | right | wanted: within 10 points |\n|---|---|---|---|")
    for tenth, rights in sorted(engine.tenths.items()):
        share = sum(rights) / len(rights)
        print(
            f"| {tenth / 10:.1f} to {tenth / 10 + 0.1:.1f} | {len(rights)} | {share:.0%} | {abs(share - tenth / 10 - 0.05) * 100:.0f} off |"
        )
    print("\n| story | shares wrong by |\n|---|---|")
    for story, errors in sorted(engine.share_errors_by_story.items()):
        print(f"| {story} | {100 * statistics.fmean(errors):.1f} points |")
    for title, lines in (
        ("missed", engine.missed),
        ("invented", engine.invented),
        ("late", engine.late),
        ("wrong leading suspect, answers", _counted(engine.leading_wrong.most_common())),
        ("wrong cause, answers", _counted(engine.cause_wrong.most_common())),
    ):
        if lines:
            print(f"\n{title}: {len(lines)}")
            print("\n".join(f"  {line}" for line in lines[:LISTED]))
            if len(lines) > LISTED:
                print(f"  and {len(lines) - LISTED} more")
    sys.stdout.flush()


def _counted(pairs: Iterable[tuple[str, int]]) -> list[str]:
    return [f"{where}: {count}" for where, count in pairs]


def _ratio(right: int, wrong: int) -> str:
    return f"{100 * right / (right + wrong):.1f} % of {right + wrong}" if right + wrong else "-"


def _leading(marks: Marks) -> str:
    return _ratio(marks.leading_right, marks.leading_wrong.total())


def _cause(marks: Marks) -> str:
    return _ratio(marks.cause_right, marks.cause_wrong.total())


def _share_error(marks: Marks) -> str:
    return f"{100 * statistics.fmean(marks.share_errors):.1f} points" if marks.share_errors else "-"


def _quiet_error(marks: Marks) -> str:
    return (
        f"{statistics.median(marks.quiet_errors):.0%} of {len(marks.quiet_errors)}"
        if marks.quiet_errors
        else "-"
    )


def _shown(parts: dict[str, float]) -> str:
    return ", ".join(f"{name} {part:.0%}" for name, part in sorted(parts.items(), key=lambda item: -item[1]))


if __name__ == "__main__":
    raise SystemExit(main())
