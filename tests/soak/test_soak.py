"""script/soak tells a daemon that grows from one that does not; its scenario is a day of equal slices."""

from dataclasses import replace
from itertools import pairwise

import pytest

from gpuwhyd.backends.simulated_physics import running
from gpuwhyd.backends.simulated_scenario import parse_scenario
from script import soak_series
from script.soak_scenario import SLICE_MINUTES, scenario, starts
from script.soak_series import Moment, alternation_faults, growth, slices, table

DAY_SECONDS = 86_400


def a_day(**per_moment: float) -> list[Moment]:
    """A moment each two minutes; its gauges wobble, and each of `per_moment` grows by so much from one to the next."""
    day = []
    for number in range(DAY_SECONDS // 120 + 1):
        wobble = number * 7919 % 11
        # what every process does: it grows in its first hour, then stays
        warm_kib = 3000 * min(1.0, number / 30)
        moment = Moment(
            seconds=number * 120.0,
            resident_kib=round(35_000 + warm_kib + 20 * wobble),
            peak_kib=38_500,
            anonymous_kib=round(21_000 + warm_kib + 20 * wobble),
            descriptors=8 + wobble // 8,
            threads=6,
            cpu_seconds=number * 0.2,
            samples=number * 60,
            journal_entries=number * 2 + wobble % 2,
            journal_bytes=number * 5000,
            state_bytes=15_000 + 300 * wobble,
            spikes_started=number // 5,
            spikes_ended=number // 5,
            processes=number * 10,
            changes=number * 20,
            answers=number * 15,
        )
        grown = {name: getattr(moment, name) + int(by * number) for name, by in per_moment.items()}
        day.append(replace(moment, **grown))
    return day


def faults(moments: list[Moment]) -> list[str]:
    return soak_series.faults(moments, most_threads=8)


def test_a_daemon_that_stays_as_it_is_is_flat() -> None:
    assert faults(a_day()) == []


@pytest.mark.parametrize(
    ("name", "per_moment", "complaint"),
    [
        ("resident_kib", 4, "resident_kib grew by 14"),  # 2.8 MiB a day
        ("anonymous_kib", 4, "anonymous_kib grew by 14"),
        ("descriptors", 1 / 100, "more descriptors"),  # seven a day
        ("threads", 1 / 200, "9 threads, of 8 at most"),
        ("state_bytes", 20, "state_bytes grew"),
    ],
)
def test_a_slow_leak_is_found(name: str, per_moment: float, complaint: str) -> None:
    (fault,) = faults(a_day(**{name: per_moment}))

    assert complaint in fault


def test_a_journal_that_is_written_to_ever_more_is_found() -> None:
    day = [
        replace(moment, journal_entries=number**2 // 100, journal_bytes=number**2 * 10)
        for number, moment in enumerate(a_day())
    ]

    assert [fault.split()[0] for fault in faults(day)] == ["journal_entries", "journal_bytes"]


def test_a_daemon_that_stopped_sampling_is_found() -> None:
    day = [replace(moment, samples=min(moment.samples, 20_000)) for moment in a_day()]

    assert faults(day) == ["the daemon does not sample"]


def test_the_slope_leaves_out_the_first_quarter() -> None:
    assert growth(a_day(), "resident_kib") == pytest.approx(0, abs=50)
    assert growth(a_day(resident_kib=2), "resident_kib") == pytest.approx(2 * 720, abs=50)


def test_slices_are_equal_and_lose_nothing() -> None:
    parts = slices(a_day(), 12)

    assert [part.gained("samples") for part in parts] == pytest.approx([3600] * 12, abs=60)
    assert sum(part.gained("samples") for part in parts) == a_day()[-1].samples
    assert len(table(a_day(), 12).splitlines()) == 14


def test_too_few_moments_are_not_cut() -> None:
    with pytest.raises(ValueError, match="too few"):
        slices(a_day()[:5], 12)


def test_spikes_alternate_on_each_card() -> None:
    good = [
        ("a", "spike-started"),
        ("b", "spike-started"),
        ("a", "spike-updated"),
        ("a", "spike-ended"),
        ("a", "alert-raised"),
        ("a", "spike-started"),
    ]

    assert alternation_faults(good) == []
    assert alternation_faults([*good, ("a", "spike-started")]) == ["a: spike-started while a spike is open"]
    assert alternation_faults([*good, ("c", "spike-ended")]) == ["c: spike-ended while no spike is open"]


def test_the_scenario_is_a_day_of_equal_slices() -> None:
    text = scenario(speed=100)
    parsed = parse_scenario(text, "soak")
    day = [starts(text, hour * 3600.0) for hour in range(0, 25, SLICE_MINUTES // 60)]
    per_slice = {later - earlier for earlier, later in pairwise(day[1:])}

    assert len(parsed.programs) == 100
    assert len(per_slice) == 1  # the first one is not yet in full swing
    assert day[-1] > 5_000
    assert parsed.speed == 100


def test_starts_counts_the_processes_of_the_scenario() -> None:
    text = scenario(speed=100)
    parsed = parse_scenario(text, "soak")
    seen = {run.pid for second in range(2 * 3600) for run in running(parsed, second)}

    assert starts(text, 2 * 3600 - 1) == len(seen)
