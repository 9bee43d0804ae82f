"""Who uses a card and how much: merged lists, samples weighed over the tick, garbage left out."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwhyd.backends.nvml_samples import SampleWindow
from tests.backends.nvml_rig import OWN_PID, NvmlRig
from tests.fake_nvml.control import (
    INSUFFICIENT_SIZE,
    NO_PERMISSION,
    NOT_FOUND,
    NOT_SUPPORTED,
    UNKNOWN,
    FakeProcess,
    FakeSample,
)

SECOND_US = 1_000_000
START = 1_700_000_000 * SECOND_US


@pytest.fixture
def rig(tmp_path):
    with NvmlRig(tmp_path) as rig:
        yield rig


@pytest.fixture
def card(rig):
    card = rig.add_card()
    card.set_sample_period(None)
    return card


def test_the_overlapping_lists_are_one_list_by_pid(rig, card):
    card.set_processes(
        FakeProcess(pid=40, kind="graphics", memory_bytes=4),
        FakeProcess(pid=30, kind="compute+graphics", memory_bytes=300),
        FakeProcess(pid=20, kind="compute+mps", memory_bytes=200),
        FakeProcess(pid=10, kind="compute", memory_bytes=None),
        FakeProcess(pid=50, kind="mps", memory_bytes=5),
    )
    found = [(process.pid, process.kind, process.memory_used_bytes) for process in rig.reading().processes]
    assert found == [
        (10, "compute", None),
        (20, "mps", 200),
        (30, "compute+graphics", 300),
        (40, "graphics", 4),
        (50, "mps", 5),
    ]


def test_the_daemon_itself_is_no_load(rig, card):
    card.set_processes(FakeProcess(pid=OWN_PID), FakeProcess(pid=7))
    card.set_samples(FakeSample(pid=OWN_PID, time_stamp=rig.wall_us + 1, sm=9))
    assert [process.pid for process in rig.reading().processes] == [7]


def test_more_processes_than_expected_are_all_listed(rig, card):
    pids = list(range(100, 164))
    card.set_processes(*(FakeProcess(pid=pid) for pid in pids))
    assert [process.pid for process in rig.reading().processes] == pids


def test_a_list_that_fails_makes_no_half_list(rig, card):
    card.set_processes(FakeProcess(pid=7, kind="graphics"), FakeProcess(pid=8))
    card.fail("nvmlDeviceGetGraphicsRunningProcesses_v3", UNKNOWN)
    reading = rig.reading()
    assert reading.processes is None
    assert reading.temperature_celsius == 35.0
    card.fail("nvmlDeviceGetGraphicsRunningProcesses_v3", 0)
    assert [process.pid for process in rig.reading().processes] == [7, 8]


def test_no_permission_for_any_list_means_unknown_not_nobody(rig, card):
    for function in rig.driver.functions:
        if "RunningProcesses" in function:
            card.fail(function, NO_PERMISSION)
    assert rig.reading().processes is None


def test_a_sample_counts_for_the_tick_and_a_process_without_one_did_nothing(rig, card):
    card.set_processes(FakeProcess(pid=7), FakeProcess(pid=8))
    rig.reading()
    card.set_samples(FakeSample(pid=7, time_stamp=rig.wall_us + 2 * SECOND_US, sm=95, mem=20, enc=10, dec=5))
    working, idle = rig.reading(2).processes
    assert (working.engine_percent, working.memory_utilization_percent) == (95.0, 20.0)
    assert (working.encoder_percent, working.decoder_percent) == (10.0, 5.0)
    assert (idle.engine_percent, idle.memory_utilization_percent, idle.encoder_percent) == (0.0, 0.0, 0.0)


def test_a_process_has_no_more_memory_than_any_card_has(rig, card):
    card.set_processes(FakeProcess(pid=7, memory_bytes=2**64 - 2), FakeProcess(pid=8, memory_bytes=1 << 50))
    assert [process.memory_used_bytes for process in rig.reading().processes] == [None, 1 << 50]


def test_each_change_of_a_process_shows_at_the_next_reading(rig, card):
    card.set_processes(FakeProcess(pid=7, memory_bytes=1))
    (first,) = rig.reading().processes
    (same,) = rig.reading().processes
    assert same is first, "what stays the same is made once"
    card.set_processes(FakeProcess(pid=7, memory_bytes=2))
    assert rig.reading().processes[0].memory_used_bytes == 2
    card.set_processes(FakeProcess(pid=7, memory_bytes=2, kind="compute+graphics"))
    assert rig.reading().processes[0].kind == "compute+graphics"
    card.set_samples(FakeSample(pid=7, time_stamp=rig.wall_us + 2 * SECOND_US, sm=50))
    assert rig.reading().processes[0].engine_percent == 50.0
    assert rig.reading().processes[0].engine_percent == 0.0
    card.fail("nvmlDeviceGetProcessUtilization", NOT_SUPPORTED)
    assert rig.reading().processes[0].engine_percent is None


def test_samples_that_the_driver_makes_itself_are_followed(rig, card):
    card.set_sample_period(0.2)
    card.set_processes(FakeProcess(pid=7, sm=95), FakeProcess(pid=8, sm=3))
    assert [process.engine_percent for process in rig.reading(0).processes] == [
        pytest.approx(95, abs=2),
        pytest.approx(3, abs=1),
    ]


@pytest.mark.parametrize("succeeds", [True, False])
def test_no_samples_are_no_work_however_the_driver_says_it(rig, card, succeeds):
    card.set_processes(FakeProcess(pid=7))
    card.set_sizing(succeeds=succeeds)
    assert rig.reading().processes[0].engine_percent == 0.0


def test_not_found_on_the_sizing_call_is_no_work_too(rig, card):
    card.set_processes(FakeProcess(pid=7))
    card.fail("nvmlDeviceGetProcessUtilization", NOT_FOUND)
    assert rig.reading().processes[0].engine_percent == 0.0


def test_a_driver_that_wants_room_for_4096_samples_gets_it(rig, card):
    card.set_processes(FakeProcess(pid=7))
    card.set_sizing(count=4096)
    card.set_samples(FakeSample(pid=7, time_stamp=rig.wall_us + SECOND_US, sm=60))
    assert rig.reading(1).processes[0].engine_percent == 60.0


@pytest.mark.parametrize("claimed", [1 << 20, (1 << 32) - 1])
def test_no_room_is_made_for_more_processes_or_samples_than_there_can_be(rig, card, claimed, caplog):
    card.set_processes(FakeProcess(pid=7))
    rig.reading()
    card.set_sizing(count=claimed)
    card.claim(claimed)
    tracemalloc.start()
    reading = rig.reading()
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 4 << 20
    assert (reading.processes, reading.temperature_celsius) == (None, 35.0)
    card.claim(0)
    assert rig.reading().processes[0].engine_percent is None
    card.set_sizing()
    assert rig.reading().processes[0].engine_percent == 0.0


def test_a_list_that_stays_too_small_does_not_grow_for_ever(rig, card):
    card.fail("nvmlDeviceGetComputeRunningProcesses_v3", INSUFFICIENT_SIZE)
    tracemalloc.start()
    for _ in range(20):
        rig.reading()
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 16 << 20


def test_garbage_samples_are_left_out(rig, card):
    card.set_processes(FakeProcess(pid=7), FakeProcess(pid=8))
    rig.reading()
    stamp = rig.wall_us + 2 * SECOND_US
    card.set_samples(
        FakeSample(pid=7, time_stamp=stamp, sm=50, enc=4_000_000),
        FakeSample(pid=7, time_stamp=stamp - 1000, sm=1_234_567),
        FakeSample(pid=8, time_stamp=stamp - 3600 * SECOND_US, sm=99),
        FakeSample(pid=8, time_stamp=stamp + 3600 * SECOND_US, sm=99),
        FakeSample(pid=8, time_stamp=0, sm=99),
        FakeSample(pid=666, time_stamp=stamp, sm=99),
    )
    first, second = rig.reading(2).processes
    assert (first.pid, first.engine_percent, first.encoder_percent) == (7, 50.0, 0.0)
    assert (second.pid, second.engine_percent) == (8, 0.0)
    stamp += 2 * SECOND_US
    card.set_samples(FakeSample(pid=8, time_stamp=stamp, sm=70))
    assert rig.reading(2).processes[1].engine_percent == 70.0, "a stamp of the future hid real samples"


def test_a_process_that_ended_within_the_tick_is_listed_once_more_with_its_work(rig, card):
    card.set_processes(FakeProcess(pid=7, kind="graphics"))
    rig.reading()
    card.set_processes()
    card.set_samples(FakeSample(pid=7, time_stamp=rig.wall_us + 2 * SECOND_US, sm=80))
    (ended,) = rig.reading(2).processes
    assert (ended.pid, ended.kind, ended.engine_percent, ended.memory_used_bytes) == (
        7,
        "graphics",
        80.0,
        None,
    )
    assert rig.reading(2).processes == ()


def test_a_clock_set_back_does_not_silence_the_samples(rig, card):
    card.set_processes(FakeProcess(pid=7))
    rig.reading()
    rig.wall_us -= 3600 * SECOND_US
    card.set_samples(FakeSample(pid=7, time_stamp=rig.wall_us + 2 * SECOND_US, sm=40))
    assert rig.reading(2).processes[0].engine_percent == 40.0


def window_at(wall_us):
    window = SampleWindow()
    window.begin(wall_us)
    window.weigh((), (), wall_us)
    return window


def sample(pid, wall_us, percent):
    return (pid, wall_us, percent, 0, 0, 0)


def test_samples_are_weighed_by_the_time_they_stand_for():
    window = window_at(START)
    samples = [sample(7, START + n * 500_000, 100 if n <= 2 else 20) for n in (1, 2, 3, 4)]
    assert window.weigh(samples, {7}, START + 2 * SECOND_US)[7].engine == pytest.approx(60.0)


def test_half_a_tick_of_work_is_half_the_percent():
    window = window_at(START)
    busy = [sample(7, START + n * 200_000, 100) for n in range(1, 6)]
    assert window.weigh(busy, {7}, START + 2 * SECOND_US)[7].engine == pytest.approx(50.0)


def test_work_that_begins_late_in_the_tick_counts_from_then():
    window = window_at(START)
    idle_then_busy = [sample(8, START + n * 200_000, 1) for n in range(1, 11)]
    idle_then_busy += [sample(7, START + n * 200_000, 100) for n in (9, 10)]
    assert window.weigh(idle_then_busy, {7, 8}, START + 2 * SECOND_US)[7].engine == pytest.approx(25, abs=6)


def test_ticks_shorter_than_the_sample_period_repeat_the_answer():
    window = window_at(START)
    seen = []
    for tick in range(1, 20):
        wall = START + tick * 400_000
        begin = window.begin(wall)
        stamps = range(START + SECOND_US, wall + 1, SECOND_US)
        work = window.weigh([sample(7, stamp, 90) for stamp in stamps if stamp > begin], {7}, wall)
        seen.append(work[7].engine if 7 in work else 0.0)
    assert seen[2:] == [pytest.approx(90.0)] * 17


def test_work_ends_when_the_samples_do():
    window = window_at(START)
    window.weigh(
        [sample(7, START + SECOND_US, 90), sample(7, START + 2 * SECOND_US, 90)], {7}, START + 2 * SECOND_US
    )
    assert window.weigh((), {7}, START + 4 * SECOND_US) == {}


def test_a_night_asleep_is_not_one_long_tick():
    window = window_at(START)
    morning = START + 8 * 3600 * SECOND_US
    assert window.begin(morning) == morning - SECOND_US


@given(
    st.lists(
        st.tuples(
            st.integers(0, 9),
            st.integers(START - 10 * SECOND_US, START + 10 * SECOND_US),
            *(st.integers(0, 2**32 - 1) | st.integers(0, 100) for _ in range(4)),
        ),
        max_size=30,
    ),
    st.lists(st.integers(-5 * SECOND_US, 40 * SECOND_US), min_size=1, max_size=5),
)
def test_whatever_the_driver_says_percents_stay_within_0_and_100(samples, ticks):
    window, wall = SampleWindow(), START
    for tick in ticks:
        wall += tick
        for busy in window.weigh(samples, {1, 2, 3}, wall).values():
            assert all(
                0 <= percent <= 100 for percent in (busy.engine, busy.memory, busy.encoder, busy.decoder)
            )


def test_the_period_is_learned_from_the_first_thousand_samples():
    """A product's period does not change; going through 80 samples a tick once more for that is not free."""
    window = SampleWindow()
    wall_us = 1_000_000_000
    for _ in range(40):  # 50 samples of one process, each of 1/5 s
        stamps = range(wall_us - 9_800_000, wall_us + 1, 200_000)
        window.weigh([(7, stamp, 50, 0, 0, 0) for stamp in stamps], {7}, wall_us)
        wall_us += 10_000_000
    work = window.weigh([(7, wall_us - 160_000, 50, 0, 0, 0), (7, wall_us, 50, 0, 0, 0)], {7}, wall_us)
    assert work[7].engine == pytest.approx(50 * (300_000 + 160_000) / 10_000_000)
    work = window.weigh([(7, wall_us + 9_700_000, 50, 0, 0, 0)], {7}, wall_us + 9_700_000)
    assert work[7].engine == pytest.approx(50 * 300_000 / 9_700_000), "1/5 s and half as much for jitter"
