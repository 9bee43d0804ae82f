"""The journal output against a real journald; tests marked `root` start one in a namespace of its own."""

import asyncio
import contextlib
import dataclasses
import json
import logging
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from gpuwhyd.errors import HistoryError
from gpuwhyd.model import Event, EventKind
from gpuwhyd.outputs.history import JournalHistory
from gpuwhyd.outputs.journal import JournalOutput, JournalSettings
from gpuwhyd.outputs.journal_entries import event_id
from gpuwhyd.outputs.journal_socket import JournalSocket
from gpuwhyd.outputs.state import StateStore
from tests.outputs.events import OLLAMA, explanation, one_of_each, report, spike_event
from tests.outputs.journald import Journald, running_journald, until

root = pytest.mark.root


@pytest.fixture
def journald() -> Iterator[Journald]:
    with running_journald() as server:
        yield server


@pytest.fixture
def activated_journald() -> Iterator[Journald]:
    with running_journald(socket_held=True) as server:
        yield server


def output(
    server: Journald, state: Path | None = None, settings: JournalSettings | None = None
) -> JournalOutput:
    """As a daemon's start builds it, with what an earlier life left in the state file."""
    store = StateStore(state)
    return JournalOutput(
        store=store,
        restored=store.load().get("outbox"),
        already_written=JournalHistory(directory=server.directory).written_event_ids,
        settings=settings,
        journal_socket=JournalSocket(server.socket_path),
    )


@contextlib.asynccontextmanager
async def running(journal: JournalOutput) -> AsyncIterator[JournalOutput]:
    try:
        yield journal
    finally:
        await journal.close()


async def eventually(journal: JournalOutput, condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Ticks, as the daemon's loop does, until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"did not happen within {seconds} s: {journal.health()}"
        await journal.publish(report())
        await asyncio.sleep(0.01)


def delivered(journal: JournalOutput) -> bool:
    return journal.health()["queued"] == 0


def entries(server: Journald, *arguments: str) -> list[dict[str, object]]:
    lines = server.run("journalctl", "-o", "json", "--all", "--no-pager", *arguments).splitlines()
    return [json.loads(line) for line in lines]


def ids(server: Journald) -> list[object]:
    return [entry["GPUWHY_EVENT_ID"] for entry in entries(server, "SYSLOG_IDENTIFIER=gpuwhyd")]


def events(count: int) -> list[Event]:
    return [spike_event(EventKind.SPIKE_UPDATED, number=number) for number in range(count)]


def publish(server: Journald, *some: Event, state: Path | None = None) -> None:
    async def body() -> None:
        async with running(output(server, state)) as journal:
            await journal.publish(report(*some))
            await eventually(journal, lambda: delivered(journal))
            assert journal.health() == {"state": "ready", "queued": 0, "dropped": 0}

    asyncio.run(body())


@root
def test_the_fields_of_every_event_can_be_read_in_the_journal(journald):
    publish(journald, *one_of_each())
    written = entries(journald, "SYSLOG_IDENTIFIER=gpuwhyd")
    assert [entry["GPUWHY_EVENT_ID"] for entry in written] == [event_id(event) for event in one_of_each()]
    assert [entry["GPUWHY_EVENT"] for entry in written] == [kind.value for kind in EventKind]
    started = written[0]
    assert started["MESSAGE"] == "GPU 0 (RTX 3070): fan at 57 %."
    assert started["PRIORITY"] == "5"
    assert started["GPUWHY_SUSPECT_SHARE"] == "0.81"
    assert started["_UID"] == "0"


@root
def test_journalctl_u_shows_the_event_for_every_suspects_unit(journald):
    publish(journald, spike_event())
    for unit in ("ollama.service", "burner.service"):
        [entry] = entries(journald, "-u", unit)
        assert entry["GPUWHY_EVENT"] == "spike-started"
    assert entries(journald, "-u", "innocent.service") == []


@root
def test_journald_attaches_the_suspects_command_line_unless_that_is_switched_off(journald):
    with subprocess.Popen(["sleep", "1000"]) as suspect:
        try:
            until(lambda: Path(f"/proc/{suspect.pid}/comm").read_text() == "sleep\n")
            alive = dataclasses.replace(OLLAMA, pids=(suspect.pid,))

            async def body() -> None:
                async with running(output(journald)) as journal:
                    await journal.publish(report(spike_event(answer=explanation(alive))))
                    await eventually(journal, lambda: delivered(journal))
                    journal.configure(JournalSettings(object_pid=False))
                    await journal.publish(report(spike_event(number=1, answer=explanation(alive))))
                    await eventually(journal, lambda: delivered(journal))

            asyncio.run(body())
        finally:
            suspect.kill()
    attached, not_attached = entries(journald, "SYSLOG_IDENTIFIER=gpuwhyd")
    assert attached["OBJECT_CMDLINE"] == "sleep 1000"
    assert attached["GPUWHY_SUSPECT_PID"] == str(suspect.pid)
    assert not {"OBJECT_PID", "OBJECT_CMDLINE", "OBJECT_COMM"} & not_attached.keys()


@root
def test_a_name_with_newlines_adds_no_field(journald):
    evil = "x\nPRIORITY=0\nGPUWHY_EVIL=yes\n"
    program = dataclasses.replace(OLLAMA.program, name=evil, unit=evil, user=evil)
    answer = explanation(dataclasses.replace(OLLAMA, program=program), sentence=evil)
    publish(journald, spike_event(answer=answer))
    [entry] = entries(journald, "SYSLOG_IDENTIFIER=gpuwhyd")
    assert "GPUWHY_EVIL" not in entry
    assert entry["PRIORITY"] == "5"
    assert entry["MESSAGE"] == "x PRIORITY=0 GPUWHY_EVIL=yes"


@root
def test_journalctl_x_explains_the_event(journald):
    """The catalog is bound over the system's, inside the namespace only."""
    publish(journald, spike_event(EventKind.SPIKE_ENDED))
    catalog = Path(__file__).parents[2] / "systemd/gpuwhyd.catalog"
    script = (
        "mkdir -p /run/tree/usr/lib/systemd/catalog /run/tree/var/lib/systemd/catalog /var/lib/systemd/catalog;"
        f"cp {catalog} /run/tree/usr/lib/systemd/catalog/;"
        "journalctl --root=/run/tree --update-catalog;"
        "mount --bind /run/tree/var/lib/systemd/catalog /var/lib/systemd/catalog;"
        "journalctl -x --no-pager --no-hostname SYSLOG_IDENTIFIER=gpuwhyd"
    )
    shown = journald.run("sh", "-ec", script)
    assert "Subject: The fan of NVIDIA GeForce RTX 3070 is at rest again" in shown
    assert "30 seconds after it had left it" in " ".join(shown.replace("░░", " ").split())
    assert "gpuwhy pci_0000_01_00_0-1699999960000000" in shown


@root
def test_while_journald_stalls_nothing_blocks_and_afterwards_nothing_is_missing(journald):
    async def body() -> None:
        async with running(output(journald)) as journal:
            await journal.publish(report())
            journald.stall()
            longest = 0.0
            for event in events(300):
                began = time.monotonic()
                await journal.publish(report(event))
                await asyncio.sleep(0)
                longest = max(longest, time.monotonic() - began)
            assert longest < 0.5
            await eventually(journal, lambda: journal.health()["state"] == "stalled")
            assert journal.health()["queued"] == 300
            journald.go_on()
            await eventually(journal, lambda: delivered(journal))
            assert journal.health() == {"state": "ready", "queued": 0, "dropped": 0}

    asyncio.run(body())
    assert ids(journald) == [event_id(event) for event in events(300)]


@root
def test_journald_killed_with_entries_unread_and_started_again_has_all_once_and_in_order(journald):
    async def body() -> None:
        async with running(output(journald)) as journal:
            await journal.publish(report(*events(20)))
            await eventually(journal, lambda: delivered(journal))
            journald.stall()
            await journal.publish(report(*events(40)[20:]))
            await eventually(journal, lambda: journal.health()["state"] == "stalled")
            journald.kill()
            await journal.publish(report(*events(60)[40:]))
            await eventually(journal, lambda: journal.health()["state"] == "away")
            assert journal.health()["queued"] == 40
            journald.start()
            await eventually(journal, lambda: delivered(journal))
            assert journal.health()["dropped"] == 0

    asyncio.run(body())
    assert ids(journald) == [event_id(event) for event in events(60)]


@root
def test_journald_stopped_and_started_as_systemd_does_has_all_once_and_in_order(activated_journald):
    """The socket stays, and what waits in it is not lost: it must not be sent again."""

    async def body() -> None:
        async with running(output(activated_journald)) as journal:
            await journal.publish(report(*events(5)))
            await eventually(journal, lambda: delivered(journal))
            activated_journald.kill(signal.SIGTERM)
            await journal.publish(report(*events(40)[5:]))
            await eventually(journal, lambda: journal.health()["state"] == "stalled")
            activated_journald.start()
            await eventually(journal, lambda: delivered(journal))

    asyncio.run(body())
    assert ids(activated_journald) == [event_id(event) for event in events(40)]


@root
def test_an_entry_that_had_to_wait_does_not_name_a_pid_that_may_be_another_process_by_now(journald):
    async def body() -> None:
        async with running(output(journald)) as journal:
            await journal.publish(report())
            journald.kill()
            await journal.publish(report(spike_event()))
            await eventually(journal, lambda: journal.health()["state"] == "away")
            journald.start()
            await eventually(journal, lambda: delivered(journal))

    asyncio.run(body())
    [entry] = entries(journald, "SYSLOG_IDENTIFIER=gpuwhyd")
    assert "OBJECT_PID" not in entry
    assert entry["GPUWHY_SUSPECT_PID"] == "4242"
    assert entry["OBJECT_SYSTEMD_UNIT"]


async def crash_when(journal: JournalOutput, condition: Callable[[], bool]) -> None:
    """Runs until the condition holds and then ends without close(), as SIGKILL does."""
    await eventually(journal, condition)
    worker = journal._worker
    assert worker is not None
    worker.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await worker
    journal._socket.close()


def saved_ids(state: Path) -> list[object]:
    return [entry["event_id"] for entry in StateStore(state).load().get("outbox", [])]


@root
def test_a_crash_before_sending_loses_nothing(journald, tmp_path):
    state = tmp_path / "state.json"
    journald.kill()

    async def first_life() -> None:
        journal = output(journald, state)
        await journal.publish(report(*events(3)))
        await crash_when(journal, lambda: len(saved_ids(state)) == 3)

    asyncio.run(first_life())
    journald.start()
    assert ids(journald) == []
    publish(journald, spike_event(number=99), state=state)
    assert ids(journald) == [event_id(event) for event in (*events(3), spike_event(number=99))]
    assert saved_ids(state) == []


@root
def test_a_crash_after_sending_and_before_that_is_saved_doubles_nothing(journald, tmp_path):
    state = tmp_path / "state.json"

    async def first_life() -> None:
        journal = output(journald, state)
        await journal.publish(report(*events(3)))
        await eventually(journal, lambda: len(saved_ids(state)) == 3)
        before_sending = state.read_bytes()
        await crash_when(journal, lambda: len(ids(journald)) == 3)
        state.write_bytes(before_sending)

    asyncio.run(first_life())
    assert len(saved_ids(state)) == 3
    publish(journald, spike_event(number=99), state=state)
    assert ids(journald) == [event_id(event) for event in (*events(3), spike_event(number=99))]


@root
def test_a_crash_while_entries_wait_in_a_stalled_journalds_queue_doubles_nothing(journald, tmp_path):
    """The look-up must wait until journald has read what the earlier life left in its socket."""
    state = tmp_path / "state.json"
    journald.stall()

    async def first_life() -> None:
        journal = output(journald, state)
        await journal.publish(report(*events(3)))
        await crash_when(journal, lambda: journal._outbox.unread == 3)

    async def second_life() -> None:
        async with running(output(journald, state)) as journal:
            await journal.publish(report(spike_event(number=99)))
            for _ in range(10):
                await journal.publish(report())
                await asyncio.sleep(0.01)
            assert journal.health()["queued"] == 4
            journald.go_on()
            await eventually(journal, lambda: delivered(journal))

    asyncio.run(first_life())
    assert len(saved_ids(state)) == 3
    asyncio.run(second_life())
    assert ids(journald) == [event_id(event) for event in (*events(3), spike_event(number=99))]


@root
def test_closing_sends_what_is_queued_and_leaves_an_empty_outbox(journald, tmp_path):
    state = tmp_path / "state.json"

    async def body() -> None:
        journal = output(journald, state)
        await journal.publish(report(*events(3)))
        await journal.close()

    asyncio.run(body())
    assert ids(journald) == [event_id(event) for event in events(3)]
    assert saved_ids(state) == []


@root
def test_closing_while_journald_is_away_keeps_the_events_for_the_next_start(journald, tmp_path):
    state = tmp_path / "state.json"
    journald.kill()

    async def body() -> None:
        journal = output(journald, state)
        await journal.publish(report(*events(3)))
        await journal.close()

    asyncio.run(body())
    assert saved_ids(state) == [event_id(event) for event in events(3)]


@root
def test_a_disk_that_takes_nothing_does_not_keep_events_from_the_journal(journald, tmp_path, caplog):
    (tmp_path / "file").touch()
    publish(journald, *events(3), state=tmp_path / "file" / "state.json")
    assert ids(journald) == [event_id(event) for event in events(3)]
    assert ["State cannot be saved" in record.getMessage() for record in caplog.records] == [False, True]


@root
def test_an_outage_is_one_line_and_its_end_another(journald, caplog):
    caplog.set_level(logging.INFO, logger="gpuwhyd")

    async def body() -> None:
        async with running(output(journald)) as journal:
            await journal.publish(report())
            journald.kill()
            await journal.publish(report(*events(3)))
            await eventually(journal, lambda: len(caplog.records) == 1)
            journald.start()
            await eventually(journal, lambda: delivered(journal))

    asyncio.run(body())
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("The journal does not take events (")
    assert first.endswith(": Connection refused); they wait")
    assert second == "The journal takes events again; 3 waited, 0 were given up since the start"


def unread(directory: Path) -> JournalOutput:
    def no_journal(event_ids: object) -> set[str]:
        raise HistoryError("no journal file can be read")

    return JournalOutput(
        store=StateStore(directory / "state.json"),
        restored=None,
        already_written=no_journal,
        journal_socket=JournalSocket(directory / "socket"),
    )


def test_on_a_machine_without_a_journal_nothing_piles_up(tmp_path):
    async def body() -> None:
        async with running(unread(tmp_path)) as journal:
            for event in events(5):
                await journal.publish(report(event))
            assert journal.health() == {"state": "absent", "queued": 0, "dropped": 0}

    asyncio.run(body())


@root
def test_a_journal_that_appears_later_is_used():
    with running_journald() as server:
        server.kill()
        server.socket_path.unlink()

        async def body() -> None:
            async with running(output(server)) as journal:
                await journal.publish(report(spike_event()))
                assert journal.health()["state"] == "absent"
                server.start()
                await journal.publish(report(spike_event(number=1)))
                await eventually(journal, lambda: delivered(journal))

        asyncio.run(body())
        assert ids(server) == [event_id(spike_event(number=1))]


@root
def test_waiting_events_are_sent_when_the_journal_cannot_be_asked_about_them(journald, tmp_path, caplog):
    state = tmp_path / "state.json"
    journald.kill()

    async def first_life() -> None:
        journal = output(journald, state)
        await journal.publish(report(*events(2)))
        await journal.close()

    async def second_life() -> None:
        store = StateStore(state)
        journal = JournalOutput(
            store=store,
            restored=store.load()["outbox"],
            already_written=JournalHistory(directory=Path("/nonexistent")).written_event_ids,
            journal_socket=JournalSocket(journald.socket_path),
        )
        async with running(journal):
            await eventually(journal, lambda: delivered(journal))

    asyncio.run(first_life())
    journald.start()
    asyncio.run(second_life())
    assert ids(journald) == [event_id(event) for event in events(2)]
    assert "2 events may stand in the journal twice" in caplog.text


def test_closing_in_the_moment_of_a_new_event_does_not_hang(tmp_path: Path) -> None:
    """Nobody reads this journal, so that there is always something to wait for."""

    async def test() -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        listener.bind(str(tmp_path / "socket"))
        journal = JournalOutput(
            store=StateStore(None),
            restored=None,
            already_written=lambda _ids: set(),
            journal_socket=JournalSocket(tmp_path / "socket"),
        )
        await journal.publish(report(spike_event(EventKind.SPIKE_STARTED)))
        while not journal._outbox.unread or not journal._wake._waiters:
            await asyncio.sleep(0)
        await journal.publish(report())
        closing = asyncio.create_task(journal.close())
        done, _ = await asyncio.wait({closing}, timeout=10)
        listener.close()
        assert done

    asyncio.run(test())
