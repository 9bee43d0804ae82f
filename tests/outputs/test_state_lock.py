"""The lock that keeps two daemons from one state: between real processes."""

import contextlib
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuwhyd.errors import StateError
from gpuwhyd.outputs.state_lock import lock_state

HOLD = """
import os, sys
from pathlib import Path
from gpuwhyd.outputs.state_lock import lock_state
held = lock_state(Path(sys.argv[1]))
if sys.argv[2:] and os.fork() == 0:  # another that has the lock open, as a thread that hangs in the kernel has
    sys.stdin.read()
    os._exit(0)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "gpuwhyd" / "state.json"


@contextlib.contextmanager
def holder(state: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock. What it leaves behind ends with its standard input."""
    command = [sys.executable, "-c", HOLD, str(state), *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_second_one_is_told_who_holds_it_and_what_to_do(state: Path) -> None:
    with holder(state) as first, pytest.raises(StateError) as raised:
        lock_state(state)
    assert str(raised.value) == (
        f"another gpuwhyd (pid {first.pid}) keeps its state in {state.parent}: end that one first (the service: "
        "systemctl stop gpuwhyd), or start this one with --state-dir DIR --journal off"
    )


def test_it_is_free_again_when_its_holder_was_killed(state: Path) -> None:
    with holder(state) as first:
        first.kill()
        first.wait()
        held = lock_state(state)
    assert held is not None
    held.close()


def test_it_is_free_again_when_it_was_closed(state: Path) -> None:
    for _ in range(2):
        held = lock_state(state)
        assert held is not None
        held.close()


def test_states_in_different_places_do_not_meet(tmp_path: Path) -> None:
    first, second = (lock_state(tmp_path / name / "state.json") for name in "ab")
    assert first is not None
    assert second is not None
    first.close()
    second.close()


def test_a_holder_that_was_killed_and_hangs_does_not_keep_the_next_one_from_starting(
    state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with holder(state, "with another") as first:
        first.kill()
        os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)  # ended, and not reaped
        assert lock_state(state) is None
        assert f"pid {first.pid}" in caplog.text


def test_a_stopped_holder_is_no_dead_one(state: Path) -> None:
    with holder(state) as first:
        first.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, first.pid, os.WSTOPPED | os.WNOWAIT)
        with pytest.raises(StateError):
            lock_state(state)


@pytest.mark.parametrize("content", [b"", b"\xff\n", b"../self\n", b"99999999999999999999999999\n"])
def test_whatever_stands_in_the_file_the_lock_is_what_counts(state: Path, content: bytes) -> None:
    with holder(state):
        state.with_name("state.json.lock").write_bytes(content)
        with pytest.raises(StateError, match="another gpuwhyd"):
            lock_state(state)


def test_a_missing_directory_is_made_for_root_alone(state: Path) -> None:
    held = lock_state(state)
    assert held is not None
    held.close()
    assert stat.S_IMODE(state.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(state.with_name("state.json.lock").stat().st_mode) == 0o600


def test_where_no_file_can_be_there_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert lock_state(tmp_path / "file" / "state.json") is None


@pytest.mark.root
def test_a_read_only_directory_has_no_lock(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "gpuwhyd-test", str(tmp_path)], check=True)
    try:
        assert lock_state(tmp_path / "state.json") is None
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.root
def test_a_file_system_can_become_read_only_while_it_is_held(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "gpuwhyd-test", str(tmp_path)], check=True)
    try:
        held = lock_state(tmp_path / "state.json")
        assert held is not None
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        with pytest.raises(StateError):
            lock_state(tmp_path / "state.json")
        held.close()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_another_users_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "state.json.lock").symlink_to(tmp_path / "victim")
    assert lock_state(tmp_path / "state.json") is None
    assert (tmp_path / "victim").read_text() == "precious"
