"""Who uses an AMD card, by AMD's library."""

import pytest

from gpuwhyd.backends.amdsmi_processes import Entry, ProcessWork, without_strangers
from gpuwhyd.model import GpuState, Lack
from tests.backends.amdsmi_rig import ADDRESS, OWN_PID, SECOND, AmdsmiRig
from tests.fake_amdsmi.control import IO_ERROR, NOT_SUPPORTED, FakeProcess, wrapper_version

LIST = "amdsmi_get_gpu_process_list"
SECOND_NS = 1_000_000_000


@pytest.fixture
def rig(tmp_path):
    with AmdsmiRig(tmp_path) as rig:
        yield rig


@pytest.fixture
def tells_occupancy(rig):
    """Since ROCm 6.4."""
    assert not wrapper_version(rig.rocm.wrapper).startswith(("6.2", "6.3"))


def test_nobody_is_not_the_same_as_not_known(rig):
    card = rig.add_card()
    assert rig.reading().processes == ()
    card.fail(LIST, NOT_SUPPORTED)
    assert rig.reading().processes is None
    assert rig.lacks()["processes"] is Lack.NO_SENSOR


def test_our_own_pid_is_left_out(rig):
    rig.add_card().set_processes(FakeProcess(pid=4242), FakeProcess(pid=OWN_PID), FakeProcess(pid=17))
    assert [process.pid for process in rig.reading().processes] == [17, 4242]


def test_engine_time_is_the_difference_of_two_lists(rig):
    card = rig.add_card()
    card.set_processes(FakeProcess(pid=7, graphics_ns=90 * SECOND_NS, encoder_ns=SECOND_NS))
    (process,) = rig.reading().processes
    assert (process.engine_percent, process.encoder_percent) == (None, None)
    card.set_processes(FakeProcess(pid=7, graphics_ns=91 * SECOND_NS, encoder_ns=SECOND_NS * 3 // 2))
    (process,) = rig.reading(seconds=2.0).processes
    assert (process.engine_percent, process.encoder_percent) == (50.0, 25.0)


@pytest.mark.parametrize(
    ("graphics_ns", "expected"), [(5, None), (10 * SECOND_NS, None), (3_060_000_000, 100.0)]
)
def test_a_counter_that_goes_back_or_runs_faster_than_time_says_nothing(rig, graphics_ns, expected):
    card = rig.add_card()
    card.set_processes(FakeProcess(pid=7, graphics_ns=SECOND_NS))
    rig.read()
    card.set_processes(FakeProcess(pid=7, graphics_ns=graphics_ns))
    assert rig.reading(seconds=2.0).processes[0].engine_percent == expected


def test_compute_is_not_in_the_engine_time_so_zero_means_not_known(rig):
    rig.add_card().set_processes(FakeProcess(pid=7))
    rig.read()
    (process,) = rig.reading().processes
    assert (process.engine_percent, process.encoder_percent, process.kind) == (None, None, "compute")


@pytest.mark.usefixtures("tells_occupancy")
def test_a_process_without_an_occupied_unit_holds_the_card_and_once_it_worked_is_compute_for_good(rig):
    card = rig.add_card()
    seen = []
    for occupied in (0, 0, 104, 0):
        card.set_processes(FakeProcess(pid=7, occupied_units=occupied))
        (process,) = rig.reading().processes
        seen.append((process.kind, process.engine_percent))
    assert seen == [("holder", None), ("holder", 0.0), ("compute", None), ("compute", 0.0)]


def test_memory_is_not_served_because_the_library_counts_it_wrong(rig):
    rig.add_card().set_processes(FakeProcess(pid=7, memory_bytes=1 << 30))
    assert rig.reading().processes[0].memory_used_bytes is None


def test_a_process_that_is_listed_on_every_card_belongs_where_it_has_something(rig):
    first, second = rig.add_card(), rig.add_card(SECOND)
    first.set_processes(FakeProcess(pid=7), FakeProcess(pid=8, memory_bytes=0))
    second.set_processes(FakeProcess(pid=7, memory_bytes=0), FakeProcess(pid=8, memory_bytes=0))
    read = rig.read()
    assert [[p.pid for p in reading.processes] for reading in read.readings] == [[7, 8], [8]]


def test_a_name_that_is_no_utf8_hides_nobody(rig):
    rig.add_card().set_processes(FakeProcess(pid=7, name=b"/tmp/\xff\xfe"), FakeProcess(pid=8))
    assert [process.pid for process in rig.reading().processes] == [7, 8]


def test_a_list_longer_than_the_room_is_read_whole(rig):
    card = rig.add_card()
    card.set_processes(*(FakeProcess(pid=pid) for pid in range(1, 121)))
    assert [process.pid for process in rig.reading().processes] == list(range(1, 121))
    calls = rig.rocm.calls(LIST)
    rig.read()
    assert rig.rocm.calls(LIST) == calls + 1  # the room is kept


def test_a_list_that_fails_is_none_and_not_nobody(rig):
    card = rig.add_card()
    card.set_processes(FakeProcess(pid=7))
    rig.read()
    card.fail(LIST, IO_ERROR)
    reading = rig.reading()
    assert (reading.state, reading.processes) == (GpuState.AWAKE, None)
    card.fail(LIST, 0)
    assert [process.pid for process in rig.reading().processes] == [7]


def test_a_slow_list_is_asked_for_rarely_and_holds_meanwhile(rig):
    rig.seconds_a_list = 0.1
    card = rig.add_card()
    card.set_processes(FakeProcess(pid=7))
    rig.read()
    card.set_processes(FakeProcess(pid=8))
    for _ in range(4):
        assert [process.pid for process in rig.reading(seconds=2.0).processes] == [7]
    assert rig.rocm.calls(LIST) == 1
    assert [process.pid for process in rig.reading(seconds=2.0).processes] == [8]


def test_the_list_is_left_to_others_when_so_wanted(tmp_path):
    with AmdsmiRig(tmp_path, lists_processes=False) as rig:
        rig.add_card().set_processes(FakeProcess(pid=7))
        assert rig.reading().processes is None
        assert rig.rocm.calls(LIST) == 0
        assert "processes" not in rig.lacks()


def test_a_card_that_slept_has_no_list_from_before(rig):
    card = rig.add_card()
    card.set_processes(FakeProcess(pid=7, graphics_ns=SECOND_NS))
    rig.read()
    rig.sysfs.set_status(ADDRESS, "suspended")
    assert rig.reading().processes is None
    rig.sysfs.set_status(ADDRESS, "active")
    card.set_processes(FakeProcess(pid=7, graphics_ns=2 * SECOND_NS))
    assert rig.reading().processes[0].engine_percent is None


def test_a_pid_that_is_used_anew_is_no_old_worker():
    work = ProcessWork()
    work.weigh([Entry(pid=7, occupied_units=4)], own_pid=1, seconds=1.0)
    work.weigh([], own_pid=1, seconds=3.0)
    (process,) = work.weigh([Entry(pid=7, occupied_units=0)], own_pid=1, seconds=5.0)
    assert process.kind == "holder"


def test_strangers_are_told_by_what_they_have_elsewhere():
    empty, full = Entry(pid=7), Entry(pid=7, occupied_units=1)
    assert without_strangers({"a": (empty,), "b": (full,)}) == {"a": (), "b": (full,)}
    assert without_strangers({"a": (empty,), "b": (empty,)}) == {"a": (empty,), "b": (empty,)}
