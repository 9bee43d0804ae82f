"""sd_notify against a socket of the test's own, as systemd holds one."""

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuwhyd.outputs.notify import NotifyOutput
from tests.outputs.events import report


@pytest.fixture
def manager(tmp_path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.setblocking(False)
        yield receiver


def told(manager: socket.socket) -> list[str]:
    return manager.recv(8192).decode().splitlines()


def nothing_told(manager: socket.socket) -> bool:
    try:
        manager.recv(8192)
    except BlockingIOError:
        return True
    return False


def notify(manager: socket.socket, *, now: list[int] | None = None, **options: int) -> NotifyOutput:
    clock = now or [123]
    return NotifyOutput(address=manager.getsockname(), monotonic_usec=lambda: clock[0], **options)


def publish(output: NotifyOutput, headline: str, *, hidden: bool = False) -> None:
    asyncio.run(output.publish(report(headline=headline, hidden=hidden)))


def test_the_first_report_makes_it_ready_with_the_headline(manager):
    publish(notify(manager), "GPU 0: quiet.")
    assert told(manager) == ["READY=1", "STATUS=GPU 0: quiet."]


def test_the_headline_is_told_when_it_changes(manager):
    output = notify(manager)
    publish(output, "quiet")
    publish(output, "quiet")
    publish(output, "loud")
    assert [told(manager), told(manager)] == [["READY=1", "STATUS=quiet"], ["STATUS=loud"]]
    assert nothing_told(manager)


def test_numbers_alone_are_told_every_ten_seconds(manager):
    now = [5_000_000]
    output = notify(manager, now=now)
    publish(output, "fan at 57 % for 4 s")
    assert told(manager)[1] == "STATUS=fan at 57 % for 4 s"
    now[0] += 9_000_000
    publish(output, "fan at 58 % for 13 s")
    assert nothing_told(manager)
    publish(output, "fan at rest after 13 s")
    assert told(manager) == ["STATUS=fan at rest after 13 s"]
    now[0] += 10_000_000
    publish(output, "fan at rest after 14 s")
    assert told(manager) == ["STATUS=fan at rest after 14 s"]


def test_a_temperature_that_becomes_a_range_is_only_numbers(manager):
    now = [5_000_000]
    output = notify(manager, now=now)
    publish(output, "fan at 57 % for 4 s, 70 degC.")
    told(manager)
    publish(output, "fan at 58 % for 6 s, 67 to 73 degC.")
    assert nothing_told(manager)


def test_a_headline_cannot_hold_another_message(manager):
    publish(notify(manager), "quiet\nMAINPID=1\n" + "x" * 5000)
    _, status = told(manager)
    assert status.startswith("STATUS=quiet MAINPID=1 xxx")
    assert len(status) == len("STATUS=") + 1024


def test_where_processes_are_hidden_the_status_names_none(manager):
    publish(notify(manager), "GPU 0: loud because of ollama.service", hidden=True)
    assert "ollama" not in "".join(told(manager))


def test_the_watchdog_is_fed_by_reports_alone_and_four_times_in_its_patience(manager):
    now = [5_000_000]
    output = notify(manager, now=now, watchdog_usec=120_000_000)
    publish(output, "quiet")
    assert "WATCHDOG=1" in told(manager)
    now[0] += 29_000_000
    publish(output, "quiet")
    assert nothing_told(manager)
    now[0] += 1_000_000
    publish(output, "quiet")
    assert told(manager) == ["WATCHDOG=1"]
    now[0] += 100_000_000
    assert nothing_told(manager)


def test_a_meal_that_did_not_arrive_comes_with_the_next_report(manager):
    output = notify(manager, watchdog_usec=120_000_000)
    place = Path(manager.getsockname())
    away = place.rename(place.with_name("away"))
    publish(output, "quiet")
    away.rename(place)
    publish(output, "quiet")
    assert "WATCHDOG=1" in told(manager)


def test_reload_and_stop(manager):
    output = notify(manager)
    output.reloading()
    output.reloaded()
    asyncio.run(output.close())
    assert [told(manager) for _ in range(3)] == [
        ["RELOADING=1", "MONOTONIC_USEC=123"],
        ["READY=1"],
        ["STOPPING=1"],
    ]


def test_an_abstract_socket():
    name = f"@gpuwhyd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + name[1:])
        receiver.setblocking(False)
        publish(NotifyOutput(address=name), "quiet")
        assert told(receiver) == ["READY=1", "STATUS=quiet"]


def test_a_full_socket_neither_blocks_nor_loses_readiness(manager, caplog):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as stranger:
        filled = 0
        try:
            while True:
                stranger.sendto(b"x", manager.getsockname())
                filled += 1
        except BlockingIOError:
            pass
    output = notify(manager)
    publish(output, "quiet")
    publish(output, "quiet")
    for _ in range(filled):
        told(manager)
    assert nothing_told(manager)
    publish(output, "quiet")
    assert told(manager) == ["READY=1", "STATUS=quiet"]
    assert len(caplog.records) == 1


@pytest.mark.parametrize("address", [None, "", "vsock:2:1234"])
def test_where_nobody_listens_nothing_happens(address):
    output = NotifyOutput(address=address)
    publish(output, "quiet")
    asyncio.run(output.close())


def test_a_vanished_socket_is_one_line(manager, caplog):
    output = notify(manager)
    Path(manager.getsockname()).unlink()
    publish(output, "quiet")
    publish(output, "loud")
    [line] = caplog.records
    assert line.getMessage().endswith("No such file or directory")


@pytest.mark.parametrize(
    ("environment", "fed"),
    [
        ({}, False),
        ({"WATCHDOG_USEC": "30000000"}, True),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, True),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, False),
        ({"WATCHDOG_USEC": "nonsense"}, False),
        ({"WATCHDOG_USEC": "0"}, False),
    ],
)
def test_the_watchdog_is_fed_when_systemd_asks_this_process(manager, environment, fed):
    output = NotifyOutput.from_environment({"NOTIFY_SOCKET": manager.getsockname(), **environment})
    publish(output, "quiet")
    assert ("WATCHDOG=1" in told(manager)) == fed


def test_a_path_that_no_socket_can_have_is_told_as_that(caplog):
    publish(NotifyOutput(address="/" + "x" * 200), "quiet")
    assert caplog.messages[0].endswith("AF_UNIX path too long")
