"""What DRM clients made a card do, from a /proc and a /sys of plain files."""

from pathlib import Path

import pytest

from gpuwhyd.model import GpuState
from tests.processes.fake_gpus import AMD, INTEL, FakeGpus, amdgpu, i915, reading, xe

SECOND = 1_000_000_000


@pytest.fixture
def gpus(tmp_path: Path) -> FakeGpus:
    gpus = FakeGpus(tmp_path)
    gpus.card()
    return gpus


def test_engine_time_is_that_since_the_last_reading(gpus: FakeGpus) -> None:
    said = gpus.holds(42, 7, fdinfo=amdgpu(1, gfx=100 * SECOND, enc=SECOND))
    first = gpus.processes(1000)[42]
    assert (first.kind, first.memory_used_bytes) == ("graphics", 2048 << 10)
    assert first.engine_percent is None, "it may have worked a year ago"
    said.write_text(amdgpu(1, gfx=100 * SECOND + SECOND // 2, enc=SECOND + SECOND // 5))
    second = gpus.processes(1002)[42]
    assert second.engine_percent == pytest.approx(25)
    assert second.encoder_percent == pytest.approx(10)
    assert second.decoder_percent == 0
    assert gpus.processes(1004)[42].engine_percent == 0


def test_an_engine_that_begins_to_work_was_not_printed_before(gpus: FakeGpus) -> None:
    said = gpus.holds(42, 7, fdinfo=amdgpu(1))
    assert gpus.processes(1000)[42].engine_percent == 0
    said.write_text(amdgpu(1, compute=SECOND))
    process = gpus.processes(1002)[42]
    assert (process.engine_percent, process.kind) == (pytest.approx(50), "compute")


def test_graphics_and_compute_count_together_and_no_more_than_all(gpus: FakeGpus) -> None:
    said = gpus.holds(42, 7, fdinfo=amdgpu(1, gfx=0, compute=0))
    gpus.tick(1000)
    said.write_text(amdgpu(1, gfx=SECOND // 2, compute=SECOND // 2))
    assert gpus.processes(1002)[42].engine_percent == pytest.approx(50)
    said.write_text(amdgpu(1, gfx=9 * SECOND, compute=SECOND))
    process = gpus.processes(1004)[42]
    assert (process.engine_percent, process.kind) == (100, "compute+graphics")


def test_copies_of_a_descriptor_count_once(gpus: FakeGpus) -> None:
    for number in (7, 8, 9):
        gpus.holds(42, number, fdinfo=amdgpu(1, gfx=SECOND))
    gpus.tick(1000)
    for number in (7, 8, 9):
        gpus.holds(42, number, fdinfo=amdgpu(1, gfx=2 * SECOND))
    process = gpus.processes(1002)[42]
    assert process.engine_percent == pytest.approx(50)
    assert process.memory_used_bytes == 2048 << 10


def test_clients_of_one_process_add_up(gpus: FakeGpus) -> None:
    gpus.holds(42, 7, fdinfo=amdgpu(1, gfx=SECOND))
    gpus.holds(42, 8, fdinfo=amdgpu(2, gfx=SECOND))
    gpus.tick(1000)
    gpus.holds(42, 7, fdinfo=amdgpu(1, gfx=SECOND + SECOND // 2))
    gpus.holds(42, 8, fdinfo=amdgpu(2, gfx=SECOND + SECOND // 4))
    process = gpus.processes(1002)[42]
    assert process.engine_percent == pytest.approx(37.5)
    assert process.memory_used_bytes == 4096 << 10


@pytest.mark.parametrize("compositor", [41, 43])
def test_a_client_that_was_passed_on_belongs_to_who_uses_the_processor(
    gpus: FakeGpus, compositor: int
) -> None:
    """logind opens the card for the compositor and keeps the descriptor."""
    gpus.process(42, comm="systemd-logind", cpu_ticks=50)
    gpus.process(compositor, comm="kwin_wayland", cpu_ticks=5000)
    for pid in (42, compositor):
        gpus.holds(pid, 7, "dri/card0", amdgpu(1, gfx=SECOND))
    assert set(gpus.processes(1000)) == {compositor}
    for pid in (42, compositor):
        gpus.holds(pid, 7, "dri/card0", amdgpu(1, gfx=2 * SECOND))
    gpus.process(compositor, comm="kwin_wayland", cpu_ticks=5060)
    found = gpus.processes(1002)
    assert set(found) == {compositor}
    assert found[compositor].engine_percent == pytest.approx(50)


def test_a_client_moves_on_with_the_work(gpus: FakeGpus) -> None:
    """A launcher that used much of the processor hands its client to a child, and does nothing after that."""
    gpus.process(42, cpu_ticks=9000)
    gpus.process(43, cpu_ticks=1)
    for pid in (42, 43):
        gpus.holds(pid, 7, fdinfo=amdgpu(1, gfx=SECOND))
    assert set(gpus.processes(1000)) == {42}
    gpus.process(43, cpu_ticks=80)
    for pid in (42, 43):
        gpus.holds(pid, 7, fdinfo=amdgpu(1, gfx=2 * SECOND))
    assert set(gpus.processes(1002)) == {43}
    for pid in (42, 43):
        gpus.holds(pid, 7, fdinfo=amdgpu(1, gfx=3 * SECOND))
    assert set(gpus.processes(1004)) == {43}, "nobody used the processor: it stays where it was"


def test_a_client_stays_while_nobody_uses_the_processor(gpus: FakeGpus) -> None:
    gpus.process(42, cpu_ticks=9000)
    gpus.process(43, cpu_ticks=1)
    for busy in (1, 2, 3):
        for pid in (42, 43):
            gpus.holds(pid, 7, fdinfo=amdgpu(1, gfx=busy * SECOND))
        assert set(gpus.processes(1000 + 2 * busy)) == {42}


def test_who_comes_later_gets_no_client_for_work_of_long_ago(gpus: FakeGpus) -> None:
    """A daemon with years of processor time is handed a descriptor, and sleeps."""
    gpus.process(42, cpu_ticks=100)
    gpus.process(43, cpu_ticks=1)
    gpus.process(44, cpu_ticks=9_000_000)
    for pid in (42, 43):
        gpus.holds(pid, 7, fdinfo=amdgpu(1, gfx=SECOND))
    assert set(gpus.processes(1000)) == {42}
    for pid in (42, 43, 44):
        gpus.holds(pid, 7, fdinfo=amdgpu(1, gfx=2 * SECOND))
    gpus.process(42, cpu_ticks=120)
    assert set(gpus.processes(1030)) == {42}


def test_a_shared_client_outlives_its_owner(gpus: FakeGpus) -> None:
    gpus.process(42, cpu_ticks=9000)
    gpus.process(43, cpu_ticks=1)
    for pid in (42, 43):
        gpus.holds(pid, 7, fdinfo=amdgpu(1, gfx=SECOND))
    assert set(gpus.processes(1000)) == {42}
    gpus.ends(42)
    gpus.holds(43, 7, fdinfo=amdgpu(1, gfx=2 * SECOND))
    found = gpus.processes(1002)
    assert set(found) == {43}
    assert found[43].engine_percent == pytest.approx(50)


def test_a_counter_that_goes_back_stays_until_it_has_caught_up(gpus: FakeGpus) -> None:
    said = gpus.holds(42, 7, fdinfo=amdgpu(1, gfx=10 * SECOND))
    gpus.tick(1000)
    said.write_text(amdgpu(1, gfx=9 * SECOND))
    assert gpus.processes(1002)[42].engine_percent == 0
    said.write_text(amdgpu(1, gfx=11 * SECOND))
    assert gpus.processes(1004)[42].engine_percent == pytest.approx(50)


def test_engines_of_which_there_are_several_share_their_time(gpus: FakeGpus) -> None:
    gpus.card(INTEL, "card1", "renderD129")
    said = gpus.holds(42, 7, "dri/renderD129", i915(3, video=0))
    intel = reading(INTEL, vendor="intel", driver="i915")
    gpus.tick(1000, intel)
    said.write_text(i915(3, render=SECOND, video=2 * SECOND))
    process = gpus.processes(1002, intel)[42]
    assert process.decoder_percent == pytest.approx(50)
    assert process.engine_percent == pytest.approx(50)
    assert process.encoder_percent is None, "Intel's engines do not tell playing from recording"
    assert process.memory_used_bytes == 2 << 20


def test_cycles_are_counted_by_the_cards_own_clock(gpus: FakeGpus) -> None:
    said = gpus.holds(42, 7, fdinfo=xe(3, total=1_000_000, rcs=500, ccs=0))
    assert gpus.processes(1000)[42].engine_percent is None
    said.write_text(xe(3, total=1_001_000, rcs=750, ccs=0))
    assert gpus.processes(1002)[42].engine_percent == pytest.approx(25)
    said.write_text(xe(3, total=1_001_000, rcs=750, ccs=0))
    assert gpus.processes(1004)[42].engine_percent is None, "the card's clock stood still"
    said.write_text(xe(3, total=10, rcs=750, ccs=0))
    gpus.tick(1006)
    said.write_text(xe(3, total=2010, rcs=1750, ccs=0))
    assert gpus.processes(1008)[42].engine_percent == pytest.approx(50), "it was reset, and goes on"


def test_a_group_of_engines_works_fully_when_all_of_them_do(gpus: FakeGpus) -> None:
    said = gpus.holds(42, 7, fdinfo=xe(3, total=1000, capacity=4, ccs=0))
    gpus.tick(1000)
    said.write_text(xe(3, total=2000, capacity=4, ccs=2000))
    assert gpus.processes(1002)[42].engine_percent == pytest.approx(50)


def test_cycles_with_a_maximum_frequency(gpus: FakeGpus) -> None:
    text = "drm-driver:\tmsm\ndrm-client-id:\t1\ndrm-cycles-gpu:\t{}\ndrm-maxfreq-gpu:\t800 MHz\n"
    said = gpus.holds(42, 7, fdinfo=text.format(0))
    gpus.tick(1000)
    said.write_text(text.format(400_000_000))
    assert gpus.processes(1002)[42].engine_percent == pytest.approx(25)


def test_a_process_that_started_since_the_last_sweep_did_all_its_work_since(gpus: FakeGpus) -> None:
    gpus.tick(1000)
    gpus.process(42, start_ticks=102_600)  # 1026 s after boot
    gpus.holds(42, 7, fdinfo=amdgpu(1, gfx=3 * SECOND))
    for now in range(1002, 1031, 2):
        found = gpus.processes(now)
    assert found[42].engine_percent == pytest.approx(100 * 3 / 4)


def test_a_process_younger_than_a_tick_worked_for_a_part_of_it(gpus: FakeGpus) -> None:
    for now in range(1000, 1029, 2):
        gpus.tick(now)
    gpus.process(42, start_ticks=102_950)
    gpus.holds(42, 7, fdinfo=amdgpu(1, gfx=SECOND // 2))
    assert gpus.processes(1030)[42].engine_percent == pytest.approx(25)


def test_a_node_opened_since_the_last_look_at_its_process_is_counted_from_then(gpus: FakeGpus) -> None:
    gpus.process(42, start_ticks=100)
    gpus.tick(1000)
    gpus.holds(42, 7, fdinfo=amdgpu(1, gfx=15 * SECOND))
    for now in range(1002, 1031, 2):
        found = gpus.processes(now)
    assert found[42].engine_percent == pytest.approx(50)


def test_a_young_client_of_a_driver_that_counts_cycles(gpus: FakeGpus) -> None:
    """How fast the card's clock runs is known from others."""
    other = gpus.holds(41, 7, fdinfo=xe(1, total=0, rcs=0))
    for now in range(1000, 1029, 2):
        other.write_text(xe(1, total=(now - 1000) * 100, rcs=0))
        gpus.tick(now)
    other.write_text(xe(1, total=3000, rcs=0))
    gpus.process(42, start_ticks=102_800)
    gpus.holds(42, 7, fdinfo=xe(2, total=3000, rcs=150))
    assert gpus.processes(1030)[42].engine_percent == pytest.approx(75)


def test_after_a_sleep_work_is_counted_from_when_the_card_woke(gpus: FakeGpus) -> None:
    said = gpus.holds(42, 7, fdinfo=amdgpu(1, gfx=SECOND))
    gpus.tick(1000)
    for now in range(1010, 1060, 10):
        gpus.tick(now, reading(state=GpuState.ASLEEP), reading(INTEL, vendor="intel", driver="i915"))
    said.write_text(amdgpu(1, gfx=2 * SECOND))
    assert gpus.processes(1052)[42].engine_percent == pytest.approx(50)


def test_a_client_opened_before_a_sleep_worked_after_it(gpus: FakeGpus) -> None:
    gpus.tick(1000)
    gpus.process(42, start_ticks=100_100)
    gpus.holds(42, 7, fdinfo=amdgpu(1, gfx=SECOND))
    other = reading(INTEL, vendor="intel", driver="i915")
    for now in range(1010, 1060, 10):
        gpus.tick(now, reading(state=GpuState.ASLEEP), other)
    assert gpus.processes(1054)[42].engine_percent == pytest.approx(25)


def test_a_client_that_vanishes_is_gone_and_its_process_with_it(gpus: FakeGpus) -> None:
    gpus.holds(42, 7, fdinfo=amdgpu(1))
    gpus.holds(43, 7, fdinfo=amdgpu(2))
    gpus.tick(1000)
    gpus.closes(42, 7)
    gpus.ends(43)
    assert gpus.processes(1002) == {}


def test_a_number_that_is_something_else_now_is_no_client(gpus: FakeGpus) -> None:
    said = gpus.holds(42, 7, fdinfo=amdgpu(1, gfx=SECOND))
    gpus.tick(1000)
    gpus.holds(42, 7, "null", "pos:\t0\n")
    assert gpus.processes(1002) == {}
    said.write_text(amdgpu(1, pci="0000:0b:00.0", gfx=9 * SECOND))
    assert gpus.processes(1004) == {}, "it is on another card now"


def test_the_same_client_number_on_another_card_is_not_that_client(gpus: FakeGpus) -> None:
    said = gpus.holds(42, 7, fdinfo=amdgpu(1, gfx=SECOND))
    gpus.tick(1000)
    said.write_text(amdgpu(1, pci="0000:0b:00.0", gfx=2 * SECOND))
    assert gpus.processes(1002) == {}


def test_a_number_with_a_new_client_begins_anew(gpus: FakeGpus) -> None:
    said = gpus.holds(42, 7, fdinfo=amdgpu(1, gfx=SECOND))
    gpus.tick(1000)
    said.write_text(amdgpu(2, gfx=500 * SECOND))
    gpus.tick(1002)
    assert gpus.processes(1004)[42].engine_percent is None
    said.write_text(amdgpu(2, gfx=501 * SECOND))
    assert gpus.processes(1006)[42].engine_percent == pytest.approx(50)


def test_the_same_client_number_on_two_cards_is_two_clients(gpus: FakeGpus) -> None:
    gpus.card("0000:0b:00.0", "card1", "renderD129")
    gpus.holds(42, 7, fdinfo=amdgpu(1, gfx=0))
    gpus.holds(42, 8, "dri/renderD129", amdgpu(1, pci="0000:0b:00.0", gfx=0))
    both = (reading(), reading("0000:0b:00.0"))
    gpus.tick(1000, *both)
    gpus.holds(42, 7, fdinfo=amdgpu(1, gfx=SECOND))
    gpus.holds(42, 8, "dri/renderD129", amdgpu(1, pci="0000:0b:00.0", gfx=2 * SECOND))
    one, other = gpus.tick(1002, *both)
    assert one.processes is not None
    assert other.processes is not None
    assert [p.engine_percent for p in (*one.processes, *other.processes)] == [pytest.approx(50), 100]


def test_a_driver_that_says_nothing_leaves_the_users_unknown(
    gpus: FakeGpus, caplog: pytest.LogCaptureFixture
) -> None:
    """nouveau and radeon before Linux 6.5: an empty list would say that nobody uses the card."""
    caplog.set_level("INFO")
    gpus.holds(42, 7)
    for now in range(1000, 1100, 2):
        assert gpus.tick(now)[0].processes is None
    assert caplog.text.count("does not tell who uses it") == 1
    gpus.ends(42)
    for now in range(1100, 1140, 2):
        done = gpus.tick(now)
    assert done[0].processes == ()


@pytest.mark.parametrize("pid", [41, 43])
def test_who_is_silent_beside_a_client_hides_nobody(
    gpus: FakeGpus, pid: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Anybody may call a file of theirs like a node; a driver tells of all its clients, or of none."""
    caplog.set_level("INFO")
    said = gpus.holds(42, 7, fdinfo=amdgpu(1, gfx=SECOND))
    gpus.holds(pid, 7)
    assert set(gpus.processes(1000)) == {42}
    said.write_text(amdgpu(1, gfx=2 * SECOND))
    found = gpus.processes(1002)
    assert set(found) == {42}
    assert found[42].engine_percent == pytest.approx(50)
    gpus.ends(42)
    assert gpus.processes(1004) == {}, "that the driver tells is known by now"
    assert caplog.text == ""


def test_the_first_client_ends_what_silence_left_unknown(gpus: FakeGpus) -> None:
    """Until then a file that is called like a node may be a node whose driver does not tell."""
    gpus.holds(41, 7)
    assert gpus.tick(1000)[0].processes is None
    gpus.holds(42, 7, fdinfo=amdgpu(1))
    for now in range(1002, 1032, 2):
        done = gpus.tick(now)
    assert [process.pid for process in done[0].processes or ()] == [42]


def test_a_client_of_another_card_does_not_break_the_silence(gpus: FakeGpus) -> None:
    gpus.holds(41, 7)
    gpus.holds(42, 7, fdinfo=amdgpu(1, pci="0000:0b:00.0"))
    assert gpus.tick(1000)[0].processes is None


def test_a_driver_that_names_clients_but_counts_nothing(gpus: FakeGpus) -> None:
    gpus.holds(42, 7, fdinfo=f"drm-driver:\tnouveau\ndrm-client-id:\t4\ndrm-pdev:\t{AMD}\n")
    gpus.tick(1000)
    process = gpus.processes(1002)[42]
    assert (process.kind, process.engine_percent) == ("unknown", None)


def test_the_old_amdgpu_percentages_need_no_second_reading(gpus: FakeGpus) -> None:
    gpus.holds(42, 7, fdinfo=f"pdev:\t{AMD}\npasid:\t7\nvram mem:\t100 kB\ngfx0:\t31.50%\n")
    process = gpus.processes(1000)[42]
    assert (process.engine_percent, process.memory_used_bytes) == (pytest.approx(31.5), 100 << 10)


def test_a_client_that_never_worked_only_holds_the_node(gpus: FakeGpus) -> None:
    gpus.holds(42, 7, fdinfo=amdgpu(1))
    process = gpus.processes(1000)[42]
    assert (process.kind, process.engine_percent) == ("holder", 0)


def test_two_readings_at_one_moment_do_not_divide_by_nothing(gpus: FakeGpus) -> None:
    said = gpus.holds(42, 7, fdinfo=amdgpu(1, gfx=SECOND))
    gpus.tick(1000)
    said.write_text(amdgpu(1, gfx=2 * SECOND))
    assert gpus.processes(1000)[42].engine_percent is None
    assert gpus.processes(1002)[42].engine_percent == pytest.approx(50), "and what was done is not lost"


def test_an_unchanged_process_is_the_same_object(gpus: FakeGpus) -> None:
    """The sampler keeps all that hangs on it then."""
    gpus.holds(42, 7, fdinfo=amdgpu(1, gfx=SECOND))
    gpus.tick(1000)
    assert gpus.processes(1002)[42] is gpus.processes(1004)[42]
