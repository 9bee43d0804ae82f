"""Which cause is named, with which suspects, and how it is said."""

from dataclasses import replace

import pytest

from gpuwhyd.engine.sentences import compose, redacted
from gpuwhyd.engine.words import duration
from gpuwhyd.model import (
    Cause,
    FanMode,
    GpuProcess,
    GpuReading,
    GpuUse,
    ProcessIdentity,
    Program,
    ProgramKind,
)
from tests.engine.rig import Rig, second_gpu, unit

OLLAMA = unit("ollama.service", 4242, user="ollama")
RENDER = unit("render.service", 500)
HOLDER = unit("holder.service", 77)


def spike(programs: dict[ProcessIdentity, float | None], *, seconds: float = 120, **reading: object) -> Rig:
    rig = Rig().run(60, fan=0)
    reading = {"fan": 57, "watts": 200, "celsius": 75, **reading}
    return rig.run(seconds, programs, **reading)


def test_one_program_that_works_is_the_workload() -> None:
    rig = spike({OLLAMA: 95.0})
    assert rig.answer.cause is Cause.WORKLOAD
    assert rig.answer.suspects[0].program.unit == "ollama.service"
    assert rig.answer.suspects[0].pids == (4242,)
    assert rig.answer.suspects[0].share > 0.95
    assert rig.answer.confidence > 0.9
    assert rig.answer.sentence.startswith(
        "GPU 0 (RTX 3070): fan at 57 % for 2 min because ollama.service (ollama, pid 4242, user ollama) made "
    )
    assert "200 W on average over" in rig.answer.sentence


@pytest.mark.parametrize("interval_seconds", [0.2, 0.5, 1.0, 2.0])
def test_a_fan_that_rises_in_the_first_sample_of_the_load_names_the_load(interval_seconds: float) -> None:
    rig = Rig(step=interval_seconds).run(60, fan=30, rpm=990)
    rig.tick({OLLAMA: 95.0}, fan=62, rpm=2046, watts=200, celsius=75)
    assert rig.kinds == ["started"]
    assert rig.answer.cause is Cause.WORKLOAD
    assert rig.answer.suspects[0].program.unit == "ollama.service"


def test_the_first_sentence_of_a_spike_says_that_the_fan_rose() -> None:
    rig = Rig().run(60, fan=0)
    rig.tick({OLLAMA: 95.0}, fan=40, rpm=1400, watts=200, celsius=60)
    rig.tick({OLLAMA: 95.0}, fan=45, rpm=1500, watts=200, celsius=62)
    assert rig.spikes[0].explanation.sentence.startswith(
        "GPU 0 (RTX 3070): fan rose to 45 % because ollama.service"
    )
    rig.run(10, {OLLAMA: 95.0}, fan=50, watts=200, celsius=70)
    assert "fan at 50 % for 10 s because" in rig.answer.sentence


def test_a_program_that_only_holds_memory_gets_nothing() -> None:
    rig = spike({OLLAMA: 95.0, HOLDER: 0.0})
    assert [s.program.name for s in rig.answer.suspects] == ["ollama.service"]


def test_several_programs_are_named_together() -> None:
    rig = spike({OLLAMA: 50.0, RENDER: 45.0})
    assert rig.answer.cause is Cause.WORKLOAD_MIXED
    assert "ollama.service" in rig.answer.sentence
    assert "render.service" in rig.answer.sentence
    assert sum(s.share for s in rig.answer.suspects) <= 1


def test_forty_workers_of_one_unit_are_one_suspect() -> None:
    workers = {
        ProcessIdentity(pid=pid, start_ticks=1, name="worker", program=OLLAMA.program): 2.4
        for pid in range(900, 940)
    }
    rig = spike(workers)
    assert len(rig.answer.suspects) == 1
    assert len(rig.answer.suspects[0].pids) == 40
    assert "40 processes" in rig.answer.sentence


def test_work_that_no_visible_process_explains_is_hidden() -> None:
    rig = spike({}, busy=98)
    assert rig.answer.cause is Cause.HIDDEN_WORKLOAD
    assert rig.answer.suspects == ()
    assert rig.answer.unattributed_share > 0.95


def test_a_small_visible_program_is_not_blamed_for_a_hidden_load() -> None:
    rig = spike({OLLAMA: 10.0}, busy=98)
    assert rig.answer.cause is Cause.HIDDEN_WORKLOAD
    assert rig.answer.suspects[0].share < 0.2


def test_where_engine_times_are_unknown_memory_is_the_proxy_with_less_confidence() -> None:
    known, guessed = spike({OLLAMA: 95.0}), spike({OLLAMA: None}, busy=95)
    assert guessed.answer.cause is Cause.WORKLOAD
    assert guessed.answer.confidence < known.answer.confidence
    several = spike({OLLAMA: None, RENDER: None}, busy=95)
    assert several.answer.cause is Cause.WORKLOAD, "that several hold memory is no sign that several work"
    assert several.answer.confidence < guessed.answer.confidence


def is_said_to_be_a_guess(rig: Rig) -> bool:
    return "engine_times_unknown" in {item.quantity for item in rig.answer.evidence}


def test_shares_that_are_a_guess_are_said_to_be_one() -> None:
    assert (
        "(a guess, by who holds its memory and since when)" in spike({OLLAMA: None}, busy=95).answer.sentence
    )
    assert "guess" not in spike({OLLAMA: 95.0}, busy=95).answer.sentence
    assert "a guess" in spike({OLLAMA: None, RENDER: None}, busy=95).answer.sentence


def test_a_guess_stays_one_after_the_load_and_over_a_restart() -> None:
    rig = spike({OLLAMA: None}, busy=95)
    rig.tick({}, ended=(OLLAMA,), fan=55, celsius=70, watts=15)
    rig.run(30, fan=45, celsius=60)
    assert rig.answer.cause is Cause.RESIDUAL_HEAT
    assert is_said_to_be_a_guess(rig)
    assert rig.answer.confidence <= 0.9
    rig.restart().run(4, fan=44, celsius=59)
    assert is_said_to_be_a_guess(rig)


def test_a_guess_is_over_when_its_heat_is_gone() -> None:
    rig = spike({OLLAMA: None}, busy=95)
    rig.run(60, {RENDER: 95.0}, fan=57, watts=200, celsius=75)
    assert is_said_to_be_a_guess(rig)
    rig.run(1800, {RENDER: 95.0}, fan=57, watts=200, celsius=75)
    assert not is_said_to_be_a_guess(rig)


def test_a_card_whose_users_cannot_be_listed_is_hidden_not_idle() -> None:
    rig = spike({}, busy=98, visible=False)
    assert rig.answer.cause is Cause.HIDDEN_WORKLOAD


def test_after_the_load_the_exited_program_is_still_named() -> None:
    rig = spike({OLLAMA: 95.0})
    rig.tick({}, ended=(OLLAMA,), fan=55, celsius=70, watts=15)
    rig.run(30, fan=45, celsius=60)
    suspect = rig.answer.suspects[0]
    assert rig.answer.cause is Cause.RESIDUAL_HEAT
    assert (suspect.program.unit, suspect.alive, suspect.pids) == ("ollama.service", False, ())
    assert suspect.stopped_seconds_ago == pytest.approx(30, abs=2)
    assert "user ollama), which exited 30 s ago" in rig.answer.sentence
    assert rig.answer.outlook.quiet_in_seconds is not None


def test_a_load_that_is_over_is_told_as_over_within_a_few_seconds() -> None:
    rig = spike({OLLAMA: 95.0}, seconds=300)
    rig.tick({}, ended=(OLLAMA,), fan=57, celsius=74, watts=15)
    rig.run(6, fan=56, celsius=72, watts=15)
    assert rig.answer.cause is Cause.RESIDUAL_HEAT


@pytest.mark.parametrize("pause_seconds", [8, 20])
def test_work_in_pulses_is_work_through_its_pauses_once_it_has_gone_on_after_one(pause_seconds: int) -> None:
    rig = spike({OLLAMA: 95.0})
    causes = []
    for _ in range(5):
        rig.run(20, {OLLAMA: 95.0}, fan=57, watts=200, celsius=75)
        for _ in range(pause_seconds // 2):
            rig.tick({OLLAMA: 0.0}, fan=56, watts=15, celsius=68)
            causes.append(rig.answer.cause)
    assert set(causes[pause_seconds // 2 :]) == {Cause.WORKLOAD}
    rig.run(pause_seconds * 0.3 + 4, {OLLAMA: 0.0}, fan=50, watts=15, celsius=60)
    assert rig.answer.cause is Cause.RESIDUAL_HEAT


def test_shares_that_change_make_a_mix_uncertain() -> None:
    rig = spike({OLLAMA: 48.0, RENDER: 47.0})
    assert rig.answer.cause is Cause.WORKLOAD_MIXED
    steady = rig.answer.confidence
    rig.tick({RENDER: 95.0}, ended=(OLLAMA,), fan=57, watts=200, celsius=75)
    rig.run(6, {RENDER: 95.0}, fan=57, watts=200, celsius=75)
    assert rig.answer.cause is Cause.WORKLOAD_MIXED
    assert rig.answer.confidence < 0.6 < 0.9 < steady


def test_a_program_that_pauses_but_lives_has_stopped_not_exited() -> None:
    rig = spike({OLLAMA: 95.0})
    rig.run(30, {OLLAMA: 0.0}, fan=45, celsius=60)
    assert rig.answer.suspects[0].alive
    assert "stopped working" in rig.answer.sentence


def test_a_fan_that_starts_long_after_a_short_load_names_that_load() -> None:
    rig = Rig().run(60, fan=0)
    rig.run(20, {OLLAMA: 95.0}, fan=0, watts=200, celsius=60)
    rig.tick({}, ended=(OLLAMA,), fan=0, celsius=60)
    rig.run(90, fan=0, celsius=58)
    rig.run(10, fan=30, celsius=56)
    assert rig.kinds == ["started"]
    assert rig.spikes[0].explanation.cause is Cause.RESIDUAL_HEAT
    assert rig.spikes[0].explanation.suspects[0].program.name == "ollama.service"


def test_a_reused_pid_of_another_program_is_another_suspect() -> None:
    rig = spike({OLLAMA: 95.0})
    rig.tick({}, ended=(OLLAMA,), fan=57, watts=200)
    rig.run(20, {unit("render.service", 4242, start=999): 95.0}, fan=57, watts=200, celsius=75)
    names = {s.program.name: s for s in rig.answer.suspects}
    assert not names["ollama.service"].alive
    assert names["render.service"].alive


@pytest.mark.parametrize("rest", [0, 27])
def test_a_fan_under_manual_policy_is_manual_also_under_load(rest: int) -> None:
    rig = Rig().run(60, fan=rest)
    rig.run(60, {OLLAMA: 95.0}, fan=60, mode=FanMode.MANUAL, watts=200, celsius=70)
    assert rig.answer.cause is Cause.MANUAL_FAN
    assert "set to 60 %" in rig.answer.sentence
    assert "Meanwhile ollama.service" in rig.answer.sentence


def test_an_idle_program_is_not_said_to_heat_a_card_whose_fan_is_manual() -> None:
    rig = Rig().run(120, {OLLAMA: 4.0}, fan=70, mode=FanMode.MANUAL, watts=16)
    rig.run(60, {OLLAMA: 4.0}, fan=70, mode=FanMode.MANUAL, watts=19)
    assert "Meanwhile" not in rig.answer.sentence
    assert rig.answer.suspects == ()


def test_a_manual_fan_from_the_start_opens_no_spike() -> None:
    rig = Rig().run(60, {OLLAMA: 95.0}, fan=70, mode=FanMode.MANUAL, watts=200)
    assert rig.kinds == []
    assert rig.answer.cause is Cause.MANUAL_FAN


def test_a_fast_flat_fan_on_a_cool_card_is_pinned() -> None:
    rig = Rig().run(300, {OLLAMA: 40.0}, fan=100, rpm=3500, watts=25, celsius=35)
    assert rig.kinds == []
    assert rig.answer.cause is Cause.MANUAL_FAN
    assert "pinned at 100 %" in rig.answer.sentence


def test_a_fan_up_for_no_visible_reason_is_unknown_and_says_what_was_looked_at() -> None:
    rig = Rig().run(60, fan=0)
    rig.run(60, fan=50, celsius=41)
    assert rig.answer.cause is Cause.UNKNOWN
    assert "15 W, 41 degC" in rig.answer.sentence


def test_a_quiet_card_names_its_last_spike() -> None:
    rig = spike({OLLAMA: 95.0})
    rig.tick({}, ended=(OLLAMA,), fan=40)
    rig.run(600, fan=0)
    assert rig.answer.cause is Cause.QUIET
    assert rig.answer.sentence.endswith("It was last up 10 min ago because of ollama.service.")


def test_how_long_ago_a_spike_of_before_a_reboot_was_is_told_by_the_wall_clock() -> None:
    rig = spike({OLLAMA: 95.0}).run(600, fan=0)
    rig.restart(boot_id="next")
    feed, ended = rig.engine.feed, rig.now
    rig.now = 20.0
    rig.engine.feed = lambda s: feed(  # type: ignore[method-assign]
        replace(s, wall_usec=s.wall_usec + round((ended + 3600) * 1e6))
    )
    rig.run(4, fan=0)
    assert "It was last up 70 min ago" in rig.answer.sentence


def test_the_end_names_who_had_heated_the_card() -> None:
    rig = spike({OLLAMA: 95.0})
    rig.tick({}, ended=(OLLAMA,), fan=40)
    rig.run(100, fan=0)
    assert rig.kinds[-1] == "ended"
    assert "fan back at rest after 2 min; it had been at up to 57 % because ollama.service" in (
        rig.spikes[-1].explanation.sentence
    )
    assert rig.spikes[-1].explanation.cause is Cause.WORKLOAD


def test_an_update_is_sent_when_the_leading_suspect_changed_for_a_while() -> None:
    rig = spike({OLLAMA: 95.0})
    rig.tick({}, ended=(OLLAMA,), fan=57, watts=200)
    rig.run(300, {RENDER: 95.0}, fan=57, watts=200, celsius=75)
    updates = [event for event in rig.spikes if event.kind.value == "spike-updated"]
    assert updates[-1].explanation.suspects[0].program.name == "render.service"
    assert len(updates) <= 300 / 30


def test_two_cards_one_hot_blame_only_the_hot_one() -> None:
    rig = Rig()
    other = second_gpu(rig)
    work = GpuProcess(pid=OLLAMA.pid, engine_percent=95.0)
    for _ in range(90):
        rig.now += 2
        hot = rig.reading(
            fan=57 if rig.now > 1060 else 0, watts=200 if rig.now > 1060 else 15, busy=95, processes=(work,)
        )
        cold = Rig(gpu=other).reading(fan=0, busy=0)
        rig.feed(readings=(cold, hot), uses=(GpuUse(gpu_id=rig.gpu.id, process=OLLAMA, use=work),))
    assert rig.report is not None
    assert rig.answer.cause is Cause.WORKLOAD
    assert rig.report.explanations[other.id].cause is Cause.QUIET
    assert rig.report.explanations[other.id].gpu_label == "GPU 1 (RTX 3090)"
    assert "GPU 0 (RTX 3070): fan at 57 %" in rig.report.headline


def test_power_missing_falls_back_to_utilisation_with_less_confidence() -> None:
    rig = spike({OLLAMA: 95.0}, watts=None)
    assert rig.answer.cause is Cause.WORKLOAD
    assert rig.answer.confidence < 0.9


def test_a_load_of_which_nothing_is_known_for_a_moment_is_not_said_to_be_over() -> None:
    rig = spike({OLLAMA: 95.0})
    rig.run(20, {OLLAMA: None}, fan=None, watts=None, celsius=None, busy=None)
    assert rig.answer.cause is Cause.WORKLOAD
    over = spike({OLLAMA: 95.0}).run(20, fan=57, watts=15)
    over.run(20, fan=None, watts=None, celsius=None, busy=None)
    assert over.answer.cause is Cause.RESIDUAL_HEAT


def test_a_redacted_answer_holds_no_name_and_still_says_why() -> None:
    rig = spike({OLLAMA: 95.0})
    public = redacted(rig.answer)
    assert "ollama" not in repr(public)
    assert "4242" not in repr(public)
    assert "because a program made" in public.sentence
    rig.tick({}, ended=(OLLAMA,), fan=40)
    rig.run(100, fan=0)
    assert "ollama" not in repr(redacted(rig.answer))
    assert "ollama" not in repr(redacted(rig.spikes[-1].explanation))


def test_every_explanation_repeats_its_own_sentence() -> None:
    rig = spike({OLLAMA: 95.0})
    assert compose(rig.answer) == rig.answer.sentence


def test_a_bare_process_is_named_by_itself() -> None:
    program = Program(kind=ProgramKind.PROCESS, key="process:9:1", name="blender", user="eve")
    rig = spike({ProcessIdentity(pid=9, start_ticks=1, name="blender", program=program): 90.0})
    assert "because blender (pid 9, user eve) made" in rig.answer.sentence


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.4, "0 s"),
        (40, "40 s"),
        (99, "99 s"),
        (180, "3 min"),
        (4800, "80 min"),
        (7300, "2 h 2 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_durations_are_said_without_false_precision(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def bare_process(pid: int) -> ProcessIdentity:
    program = Program(kind=ProgramKind.PROCESS, key=f"process:{pid}:1", name="ffmpeg", user="ann")
    return ProcessIdentity(pid=pid, start_ticks=1, name="ffmpeg", program=program)


@pytest.mark.parametrize("job_seconds", [1, 2, 4])
def test_a_row_of_short_jobs_is_visible_work_however_small_the_share_of_each(job_seconds: int) -> None:
    rig = Rig(step=1.0).run(60, fan=0)
    for number in range(900 // job_seconds):
        job = bare_process(100 + number)
        rig.run(job_seconds, {job: 90.0}, fan=50, watts=200, celsius=70)
        rig.tick(ended=(job,), step=0.0, fan=50, watts=200, celsius=70, busy=90.0)
    assert rig.answer.cause is Cause.WORKLOAD_MIXED
    assert "ffmpeg (user ann)" in rig.answer.sentence


def test_the_end_of_a_hidden_load_blames_no_bystander() -> None:
    rig = spike({OLLAMA: 5.0}, busy=95.0).run(200, {OLLAMA: 0.0}, fan=0)
    told = rig.spikes[-1].explanation
    assert told.cause is Cause.HIDDEN_WORKLOAD
    assert "no visible program explains it" in told.sentence


def test_the_end_of_a_mixed_load_names_several() -> None:
    rig = spike({OLLAMA: 50.0, RENDER: 45.0}).run(200, fan=0)
    told = rig.spikes[-1].explanation.sentence
    assert "because several programs heated it together, ollama.service" in told
    assert "render.service" in told


def test_work_in_pulses_shorter_than_a_tick_is_not_hidden() -> None:
    """Utilisation is of the last moment, engine times are of the whole tick."""
    rig = Rig().run(60, fan=0)
    for number in range(200):
        pulse = number % 5 == 0
        watts, busy = (200.0, 100.0) if pulse else (30.0, 0.0)
        rig.tick({OLLAMA: 20.0}, fan=40, watts=watts, busy=busy, celsius=60)
    assert rig.answer.cause is Cause.WORKLOAD
    assert rig.answer.unattributed_share < 0.3


def test_who_works_on_a_little_after_a_load_is_not_said_to_have_stopped() -> None:
    rig = spike({OLLAMA: 95.0}, seconds=600).run(20, {OLLAMA: 10.0}, fan=50, watts=35, celsius=60)
    assert rig.answer.cause is Cause.RESIDUAL_HEAT
    assert "stopped" not in rig.answer.sentence
    assert "which does little now" in rig.answer.sentence


@pytest.mark.parametrize("interval_seconds", [0.2, 0.5, 1.0, 2.0])
def test_averages_and_trends_are_told_at_any_interval(interval_seconds: float) -> None:
    rig = Rig(step=interval_seconds).run(60, fan=0)
    for step in range(16):
        watts = 150.0 if step % 2 else 250.0
        rig.run(2, {OLLAMA: 95.0}, fan=50, watts=watts, celsius=50 + step)
    average = next(e.value for e in rig.answer.evidence if e.quantity == "average_power_watts")
    assert average == pytest.approx(200, abs=12)
    assert rig.answer.outlook.trend == "rising"


def test_a_load_that_has_just_ended_does_not_make_the_card_hotter() -> None:
    rig = Rig(step=1.0).run(60, fan=0, celsius=35)
    for step in range(12):
        rig.tick({OLLAMA: 95.0}, fan=50, watts=220, celsius=47 + step)
    assert rig.answer.outlook.trend == "rising"
    trends = []
    for celsius in (58, 57, 56, 55, 54):
        rig.tick(fan=50, watts=15, celsius=celsius)
        trends.append(rig.answer.outlook.trend)
    assert "rising" not in trends
    assert trends[-1] == "falling"


def test_a_temperature_that_has_turned_is_told_as_it_goes_now() -> None:
    rig = Rig(step=1.0).run(60, fan=0, celsius=35)
    for celsius in (50, 52, 54, 56, 58, 60, 59, 58, 57, 56):
        rig.tick({OLLAMA: 95.0}, fan=50, watts=120, celsius=celsius)
    assert rig.answer.outlook.trend == "falling"
    for celsius in (55, 56, 57, 58):
        rig.tick({OLLAMA: 95.0}, fan=50, watts=120, celsius=celsius)
    assert rig.answer.outlook.trend == "rising"


def test_an_open_spike_tells_how_high_it_has_come() -> None:
    rig = spike({OLLAMA: 95.0}, fan=57, celsius=75)
    rig.run(20, {OLLAMA: 95.0}, fan=62, watts=200, celsius=79).run(20, {OLLAMA: 50.0}, fan=50, celsius=70)
    assert (rig.evidence("peak_fan_percent"), rig.evidence("peak_temperature_celsius")) == (62, 79)
    rig.run(120, fan=0, celsius=40)
    assert rig.answer.cause is Cause.QUIET
    assert rig.evidence("peak_fan_percent") is None


def test_what_was_measured_is_told_since_the_time_that_it_is_of() -> None:
    rig = Rig().run(60, fan=0, celsius=35).run(30, {OLLAMA: 95.0}, fan=50, watts=220, celsius=60)
    rig.run(400, {OLLAMA: 95.0}, fan=50, watts=220, celsius=70)
    assert rig.report is not None
    told = {e.quantity: e for e in rig.answer.evidence}
    assert told["temperature_low_celsius"].value == 70
    for quantity in ("temperature_low_celsius", "average_power_watts"):
        since = told[quantity].since_usec
        assert since is not None
        assert (rig.report.snapshot.wall_usec - since) / 1e6 == pytest.approx(180, abs=rig.step)


def test_the_very_first_answer_in_mid_load_names_who_works() -> None:
    rig = Rig()
    rig.tick({OLLAMA: 95.0}, fan=60, watts=200, celsius=75)
    assert rig.spikes[0].explanation.cause is Cause.WORKLOAD
    assert "because ollama.service" in rig.answer.sentence


def test_a_card_that_tells_nothing_of_its_fan_is_not_said_to_idle_while_it_works() -> None:
    rig = Rig().run(60, {OLLAMA: 95.0}, fans=(), mode=FanMode.UNKNOWN, watts=200)
    assert "little to do" not in rig.answer.sentence
    assert "does not tell its fan's speed, while ollama.service" in rig.answer.sentence


def test_an_energy_counter_coarser_than_a_tick_makes_no_power_of_its_own() -> None:
    """It stands still for some ticks and then says what was used in all of them."""
    rig = Rig()
    plain = rig.reading

    def with_energy(**reading: object) -> GpuReading:
        every_five_seconds = 150.0 * int((rig.now + 1.0) / 5.0)
        return replace(plain(**reading), energy_joules=every_five_seconds)  # type: ignore[arg-type]

    rig.reading = with_energy  # type: ignore[method-assign]
    rig.run(120, fan=0, watts=30, busy=50)
    rig.run(120, {OLLAMA: 50.0}, fan=0, watts=30)
    average = next((e.value for e in rig.answer.evidence if e.quantity == "average_power_watts"), 30.0)
    assert average == pytest.approx(30, rel=0.1)
    assert "uses the card" not in rig.answer.sentence
