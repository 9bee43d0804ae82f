"""What `gpuwhy doctor` says of the journal, from what the daemon's journal output says of itself."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from gpuwhyd.client.doctor import problems_of
from gpuwhyd.client.json_form import metrics
from gpuwhyd.outputs.dbus_views import metrics as metrics_view
from gpuwhyd.outputs.journal import JournalOutput
from gpuwhyd.outputs.journal_socket import JournalSocket
from gpuwhyd.outputs.state import StateStore
from tests.client import reports
from tests.outputs.events import report, spike_event


@contextlib.contextmanager
def journal_socket(path: Path, *, is_held: bool = True) -> Iterator[socket.socket]:
    """Where journald listens. Nobody reads from it unless the test does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        if not is_held:
            listener.close()  # its file stays, as when journald is stopped
        yield listener


async def journal_health(path: Path, *, events: int = 1, until: Callable[[dict], bool]) -> dict[str, object]:
    """What the daemon says of its journal with so many events to write, as soon as that is what the test waits for."""
    journal = JournalOutput(
        store=StateStore(None),
        restored=None,
        already_written=lambda _: set(),
        journal_socket=JournalSocket(path),
    )
    await journal.publish(report(*(spike_event(number=number) for number in range(events))))
    try:
        async with asyncio.timeout(10):
            while not until(health := journal.health()):
                await asyncio.sleep(0.01)
    finally:
        await journal.close()
    return health


def problems_with_journal(path: Path, **settings) -> list[str]:
    cards = [metrics(one) for one in metrics_view(reports.loud_report())]
    return problems_of(reports.health(journal=asyncio.run(journal_health(path, **settings))), cards)


def test_doctor_tells_that_journald_does_not_read(tmp_path):
    with journal_socket(tmp_path / "socket"):  # which takes some datagrams, and then none
        [problem] = problems_with_journal(
            tmp_path / "socket", events=300, until=lambda health: health["state"] != "ready"
        )
    assert problem.startswith("The journal takes no events, 300 wait.")


def test_doctor_tells_that_journald_is_not_running(tmp_path):
    with journal_socket(tmp_path / "socket", is_held=False):
        [problem] = problems_with_journal(
            tmp_path / "socket", until=lambda health: health["state"] != "ready"
        )
    assert problem == "The journal takes no events, 1 wait. See: systemctl status systemd-journald"


def test_doctor_has_nothing_against_a_machine_without_a_journal(tmp_path):
    assert problems_with_journal(tmp_path / "socket", until=lambda health: health["state"] != "ready") == []


def test_doctor_has_nothing_against_a_journal_that_reads(tmp_path):
    with journal_socket(tmp_path / "socket") as journald:
        journald.setblocking(False)

        def read(health: dict[str, object]) -> bool:
            with contextlib.suppress(BlockingIOError):
                journald.recv(65536)
            return health["queued"] == 0

        assert problems_with_journal(tmp_path / "socket", until=read) == []
