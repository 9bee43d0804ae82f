"""History from memory, and from a real journald in a namespace (tests marked `root`)."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuwhyd.errors import HistoryError
from gpuwhyd.model import Event, EventKind
from gpuwhyd.outputs.history import CompleteHistory, History, JournalHistory, RecentHistory, open_history
from gpuwhyd.outputs.journal_entries import MESSAGE_IDS, as_json, entry, event_id, record
from gpuwhyd.outputs.journal_socket import JournalSocket, Receipt, Sent
from tests.outputs.events import WALL_USEC, alert_event, backend_event, one_of_each, report, spike_event
from tests.outputs.journald import Journald, running_journald, until

root = pytest.mark.root
ROOT = Path(__file__).parents[2]


@pytest.fixture
def journald() -> Iterator[Journald]:
    with running_journald() as server:
        yield server


def write(server: Journald, *events: Event, **changed: str) -> None:
    """With fields as gpuwhyd writes them, but for those changed."""
    sender = JournalSocket(server.socket_path)
    try:
        for event in events:
            fields = dict(entry(event, object_pid=False)) | changed
            until(lambda fields=fields: sender.send(fields.items()) is Sent.TAKEN)
        until(lambda: sender.receipt() is Receipt.READ)
    finally:
        sender.close()


def remembering(*events: Event) -> RecentHistory:
    recent = RecentHistory()
    asyncio.run(recent.publish(report(*events)))
    return recent


@pytest.fixture(params=["memory", pytest.param("journal", marks=root)])
def all_kinds(request) -> History:
    """Either history, of one event of each kind."""
    if request.param == "memory":
        return remembering(*one_of_each())
    server = request.getfixturevalue("journald")
    write(server, *one_of_each())
    return JournalHistory(directory=server.directory)


def test_what_is_read_is_what_happened_newest_last(all_kinds):
    assert all_kinds.read(since_usec=0, maximum=100) == [record(event) for event in one_of_each()]


def test_the_newest_are_kept_when_there_are_more(all_kinds):
    assert [item["event"] for item in all_kinds.read(since_usec=0, maximum=2)] == [
        "backend-failing",
        "backend-recovered",
    ]
    assert all_kinds.read(since_usec=0, maximum=0) == []


def test_it_can_be_narrowed(all_kinds):
    def kinds(**options: str) -> list[object]:
        return [item["event"] for item in all_kinds.read(since_usec=0, maximum=100, **options)]

    assert kinds(event="alert-raised") == ["alert-raised"]
    assert kinds(event="nonsense") == []
    assert len(kinds(gpu_pci="0000:01:00.0")) == 8
    assert kinds(gpu_pci="0000:02:00.0") == []
    assert kinds(spike_id="pci_0000_01_00_0-1699999960000000") == [
        "spike-started",
        "spike-updated",
        "spike-ended",
    ]
    assert kinds(spike_id="x\nMESSAGE_ID=1") == []


def test_since_counts_the_events_own_time(all_kinds):
    assert len(all_kinds.read(since_usec=WALL_USEC, maximum=100)) == 10
    assert all_kinds.read(since_usec=WALL_USEC + 1, maximum=100) == []


def test_memory_is_bounded():
    recent = remembering(*(spike_event(number=number) for number in range(600)))
    assert len(recent.read(since_usec=0, maximum=1000)) == 500


def test_memory_is_bounded_in_bytes_too():
    events = [spike_event(number=number) for number in range(20)]
    one_bytes = len(as_json(record(events[0])))
    recent = RecentHistory(remembered_bytes=one_bytes * 5 + 100)
    for event in events:
        asyncio.run(recent.publish(report(event)))
    assert recent.read(since_usec=0, maximum=1000) == [record(event) for event in events[-5:]]

    small = RecentHistory(remembered_bytes=1)
    asyncio.run(small.publish(report(*events)))
    assert small.read(since_usec=0, maximum=1000) == [record(events[-1])]


@root
def test_another_users_event_is_not_believed(journald):
    write(journald, spike_event())
    forged = "".join(f"{name}={value}\n" for name, value in entry(alert_event(), object_pid=False))
    journald.run("logger", "--journald", uid=65534, stdin=forged)
    shown = journald.run(
        "journalctl", "--no-pager", "-o", "cat", f"MESSAGE_ID={MESSAGE_IDS[EventKind.ALERT_RAISED]}"
    )
    assert "2 degC below its limit" in shown
    history = JournalHistory(directory=journald.directory)
    assert [item["event"] for item in history.read(since_usec=0, maximum=100)] == ["spike-started"]
    assert history.written_event_ids([event_id(alert_event()), event_id(spike_event())]) == {
        event_id(spike_event())
    }


@root
def test_a_broken_entry_is_left_out(journald):
    write(journald, spike_event())
    for detail in (
        "", "nonsense", "[]", "{}", '{"event":1,"wall_usec":1}', '{"event":"x","wall_usec":true}', "[" * 50_000
    ):  # fmt: skip
        write(journald, spike_event(number=1), GPUWHY_DETAIL=detail)
    write(journald, spike_event(number=2))
    read = JournalHistory(directory=journald.directory).read(since_usec=0, maximum=100)
    assert [item["wall_usec"] for item in read] == [WALL_USEC, WALL_USEC + 2]


@root
def test_an_entry_with_two_ids_is_that_of_no_event(journald):
    identity, message = event_id(spike_event()), MESSAGE_IDS[EventKind.SPIKE_STARTED]
    fields = f"MESSAGE=x\nMESSAGE_ID={message}\nGPUWHY_EVENT_ID={identity}\nGPUWHY_EVENT_ID=other\n"
    journald.run("logger", "--journald", stdin=fields)
    history = JournalHistory(directory=journald.directory)
    until(lambda: sum(1 for _ in history._newest_first([f"GPUWHY_EVENT_ID={identity}"], 0)) == 1)
    assert history.written_event_ids([identity]) == set()


@root
def test_an_event_that_stands_there_twice_is_read_once(journald):
    write(journald, spike_event(), spike_event(number=1), spike_event())
    read = JournalHistory(directory=journald.directory).read(since_usec=0, maximum=100)
    assert [item["wall_usec"] for item in read] == [WALL_USEC, WALL_USEC + 1]


@root
def test_rotated_and_vacuumed_journals(journald):
    history = JournalHistory(directory=journald.directory)
    archived = "*/system@*.journal"
    write(journald, spike_event())
    journald.rotate()
    until(lambda: any(journald.directory.glob(archived)))
    write(journald, spike_event(number=1))
    assert [item["wall_usec"] for item in history.read(since_usec=0, maximum=9)] == [WALL_USEC, WALL_USEC + 1]
    for file in journald.directory.glob(archived):
        file.unlink()
    assert [item["wall_usec"] for item in history.read(since_usec=0, maximum=9)] == [WALL_USEC + 1]


@root
def test_what_journald_got_before_is_not_walked_through(journald):
    write(journald, spike_event())
    future_usec = 4_000_000_000_000_000
    assert JournalHistory(directory=journald.directory).read(since_usec=future_usec, maximum=100) == []


@root
def test_many_event_ids_are_looked_up_at_once(journald):
    events = [spike_event(number=number) for number in range(250)]
    write(journald, *events[::2])
    history = JournalHistory(directory=journald.directory)
    assert history.written_event_ids([event_id(event) for event in events]) == {
        event_id(e) for e in events[::2]
    }
    assert history.written_event_ids([]) == set()


@root
def test_the_complete_history_also_has_what_the_journal_has_not_got_yet(journald):
    write(journald, spike_event(), backend_event(wall_usec=WALL_USEC + 5))
    recent = remembering(
        spike_event(), alert_event(wall_usec=WALL_USEC + 3), backend_event(wall_usec=WALL_USEC + 5)
    )
    history, written = open_history(recent, directory=journald.directory)
    read = history.read(since_usec=0, maximum=100)
    assert [item["event"] for item in read] == ["spike-started", "alert-raised", "backend-failing"]
    assert [item["event"] for item in history.read(since_usec=0, maximum=2)] == [
        "alert-raised",
        "backend-failing",
    ]
    assert written([event_id(spike_event())]) == {event_id(spike_event())}


def test_without_a_journal_memory_serves_and_the_reason_is_said_once(tmp_path, caplog):
    history = CompleteHistory(JournalHistory(directory=tmp_path / "none"), remembering(spike_event()))
    for _ in range(3):
        assert [item["event"] for item in history.read(since_usec=0, maximum=100)] == ["spike-started"]
    [line] = caplog.records
    assert line.getMessage().endswith("the journal cannot be opened: No such file or directory")


@root
def test_no_journal_file_is_one_clear_line():
    """In a process that sees no journal at all, with the real library."""
    script = (
        "from gpuwhyd.outputs.history import JournalHistory\n"
        "try: JournalHistory(uid=4711).read(since_usec=0, maximum=1)\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    hide = 'for d in /run/log /var/log; do [ ! -d $d ] || mount -t tmpfs tmpfs $d; done; exec "$@"'
    run = ["unshare", "--mount", "sh", "-c", hide, "sh", sys.executable, "-c", script]
    done = subprocess.run(run, capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.startswith("HistoryError no journal file can be read: ")
    assert len(done.stdout.splitlines()) == 1


def test_without_systemd_python_the_folder_of_that_name_is_not_taken_for_it():
    """-S leaves out the installed packages, so that `systemd` is the project's own folder."""
    script = (
        "import sys; sys.path.insert(0, '.')\n"
        "from gpuwhyd.outputs.history import JournalHistory\n"
        "from gpuwhyd.errors import HistoryError\n"
        "try: JournalHistory().read(since_usec=0, maximum=1)\n"
        "except HistoryError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.startswith("reading the journal needs the Python package systemd-python: ")


def test_a_history_error_is_one_of_ours():
    with pytest.raises(HistoryError, match="cannot be opened"):
        JournalHistory(directory=Path("/nonexistent")).read(since_usec=0, maximum=1)
