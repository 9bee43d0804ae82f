"""A process whose command line cannot be read, for now or for ever, costs nobody else anything."""

import contextlib
import errno
import os
import threading
from contextlib import closing

import pytest

from gpuwhyd.processes.command_lines import MOST_WAITING, CommandLines
from gpuwhyd.processes.table import ProcessTable
from tests.processes.fake_procfs import add_process
from tests.processes.real_processes import until


@contextlib.contextmanager
def hanging(*processes):
    """Whoever reads the command line of one of these waits until this ends."""
    for process in processes:
        (process / "cmdline").unlink()
        os.mkfifo(process / "cmdline")
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(OSError):  # nobody reads it
                os.close(os.open(process / "cmdline", os.O_WRONLY | os.O_NONBLOCK))


def readers():
    return [thread for thread in threading.enumerate() if thread.name == "command-lines"]


def test_the_others_are_known_and_so_is_the_process_but_for_its_command_line(tmp_path):
    add_process(tmp_path, 7, "good", command_line=b"good\0")
    stuck = add_process(tmp_path, 8, "stuck", cgroup="0::/system.slice/stuck.service\n")
    with (
        hanging(stuck),
        closing(ProcessTable(tmp_path, command_lines=CommandLines(wait_seconds=0.01))) as table,
    ):
        for _ in range(3):
            known = table.identify_all((8, 7))
            assert known[7].command_line == ("good",)
            assert (known[8].name, known[8].command_line) == ("stuck", None)
            assert known[8].program.key == "unit:stuck.service"


def test_while_several_hang_none_is_read_and_afterwards_they_are_again(tmp_path, caplog):
    caplog.set_level("INFO")
    stuck = [add_process(tmp_path, pid) for pid in range(100, 100 + MOST_WAITING)]
    good = add_process(tmp_path, 7, command_line=b"good\0")
    with closing(CommandLines(wait_seconds=0.01)) as lines:
        with hanging(*stuck):
            assert [lines.read(str(process)) for process in stuck] == [None] * MOST_WAITING
            assert lines.read(str(good)) is None
            assert len(readers()) == MOST_WAITING
        until(lambda: not readers())
        assert lines.read(str(good)) == ("good",)
    assert len(caplog.records) == MOST_WAITING
    until(lambda: not readers())


def test_want_of_descriptors_is_told_to_who_asked(tmp_path):
    def fails(_process):
        raise OSError(errno.EMFILE, "too many open files")

    with closing(CommandLines(fails)) as lines, pytest.raises(OSError, match="too many open files"):
        lines.read(str(tmp_path))
