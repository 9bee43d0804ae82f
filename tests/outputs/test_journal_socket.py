"""The sender against a socket of the test's own; journald itself is in test_journal.py."""

import array
import fcntl
import os
import socket
from pathlib import Path

import pytest

from gpuwhyd.outputs.journal_socket import JournalSocket, Receipt, Sent

ENTRY = (("MESSAGE", "hello"),)


def listening(path: Path) -> socket.socket:
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(str(path))
    return receiver


@pytest.fixture
def path(tmp_path):
    return tmp_path / "socket"


@pytest.fixture
def sender(path):
    journal = JournalSocket(path)
    yield journal
    journal.close()


def fill(sender: JournalSocket) -> int:
    taken = 0
    while sender.send(ENTRY) is Sent.TAKEN:
        taken += 1
        assert taken < 100_000
    return taken


def test_an_entry_arrives(path, sender):
    with listening(path) as receiver:
        assert sender.send(ENTRY) is Sent.TAKEN
        assert receiver.recv(100) == b"MESSAGE=hello\n"


def test_no_journal_is_away_and_says_why(sender):
    assert not sender.exists()
    assert sender.send(ENTRY) is Sent.AWAY
    assert sender.reason == "No such file or directory"


def test_a_socket_that_nobody_holds_is_away_though_the_machine_has_a_journal(path, sender):
    listening(path).close()
    assert sender.exists()
    assert not sender.reachable()
    assert sender.send(ENTRY) is Sent.AWAY
    assert sender.reason == "Connection refused"


def test_a_full_queue_is_busy_at_once_and_goes_on_later(path, sender):
    with listening(path) as receiver:
        taken = fill(sender)
        assert taken > 0
        assert sender.send(ENTRY) is Sent.BUSY
        assert sender.receipt() is Receipt.UNREAD
        for _ in range(taken):
            receiver.recv(100)
        assert sender.send(ENTRY) is Sent.TAKEN


def test_a_receipt_is_given_when_everything_was_read(path, sender):
    with listening(path) as receiver:
        sender.send(ENTRY)
        assert sender.receipt() is Receipt.UNREAD
        receiver.recv(100)
        assert sender.receipt() is Receipt.READ


def test_a_receiver_that_dies_unread_is_noticed_even_with_a_new_one_in_its_place(path, sender):
    receiver = listening(path)
    sender.send(ENTRY)
    receiver.close()
    path.unlink()
    with listening(path) as successor:
        assert sender.receipt() is Receipt.LOST
        assert sender.send(ENTRY) is Sent.TAKEN
        assert successor.recv(100) == b"MESSAGE=hello\n"


def test_the_first_entry_after_a_death_is_not_taken_so_that_order_can_be_kept(path, sender):
    receiver = listening(path)
    sender.send(ENTRY)
    receiver.close()
    path.unlink()
    with listening(path):
        assert sender.send(ENTRY) is Sent.AWAY
        assert sender.send(ENTRY) is Sent.TAKEN


def test_a_socket_kept_open_by_somebody_is_left_for_the_one_at_the_path(path, sender):
    with listening(path):
        fill(sender)
        path.unlink()
        with listening(path) as successor:
            assert sender.send(ENTRY) is Sent.AWAY
            assert sender.send(ENTRY) is Sent.TAKEN
            assert successor.recv(100) == b"MESSAGE=hello\n"


def test_a_large_entry_goes_as_a_sealed_memory_file(path, sender):
    text = "x" * 3_000_000
    with listening(path) as receiver:
        assert sender.send([("MESSAGE", text)]) is Sent.TAKEN
        data, rights, _, _ = receiver.recvmsg(100, socket.CMSG_SPACE(4))
        assert data == b""
        [memory] = array.array("i", rights[0][2])
        try:
            seals = fcntl.fcntl(memory, fcntl.F_GET_SEALS)
            wanted = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
            assert seals & wanted == wanted
            assert os.pread(memory, 4_000_000, 0) == f"MESSAGE={text}\n".encode()
        finally:
            os.close(memory)
