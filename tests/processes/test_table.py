import logging
import os
import resource
import shutil
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from gpuwhyd.model import ProgramKind
from gpuwhyd.processes.table import ProcessTable
from tests.processes.fake_procfs import add_process, vanish_when_read
from tests.processes.real_processes import running, state, until

PROC = Path("/proc")


@pytest.fixture(params=[True, False], ids=["pidfd", "start-time"])
def table(request):
    with closing(ProcessTable(PROC, use_pidfds=request.param)) as table:
        yield table


def test_a_running_process_is_identified(table):
    with running() as sleep:
        who = table.identify(sleep.pid)

    assert (who.pid, who.name, who.command_line) == (sleep.pid, "sleep", ("sleep", "600"))
    assert (who.uid, Path(who.executable).name) == (
        os.geteuid(),
        os.path.basename(os.path.realpath(shutil.which("sleep"))),
    )
    assert who.program.user == who.user


def test_a_known_process_is_not_read_again(table):
    with running() as sleep:
        assert table.identify(sleep.pid) is table.identify(sleep.pid)


def test_an_end_is_reported_once_with_the_time_given(table):
    with running() as sleep:
        who = table.identify(sleep.pid)
        assert table.exits(1.0) == ()
        sleep.kill()
        sleep.wait()

        (end,) = table.exits(7.5)
        assert (end.process, end.boottime_seconds) == (who, 7.5)
        assert table.exits(8.0) == ()
        assert table.identify(sleep.pid) is None


def test_a_zombie_has_ended(table):
    with running() as sleep:
        who = table.identify(sleep.pid)
        sleep.kill()
        until(lambda: state(sleep.pid) == "Z")

        assert [end.process for end in table.exits(1.0)] == [who]
        assert table.identify(sleep.pid) is None


def test_a_zombie_that_was_not_known_is_nobody(table):
    with running(("true",)) as process:
        until(lambda: state(process.pid) == "Z")

        assert table.identify(process.pid) is None
        assert table.exits(1.0) == ()


def test_a_process_whose_first_thread_ended_goes_on(table):
    program = (
        "import ctypes, threading, time; threading.Thread(target=time.sleep, args=(600,)).start();"
        "ctypes.CDLL(None).pthread_exit(None)"
    )
    with running((sys.executable, "-c", program)) as process:
        until(lambda: state(process.pid) == "Z")

        who = table.identify(process.pid)
        assert who is not None
        assert table.exits(1.0) == ()
        process.kill()
        process.wait()
        assert [end.process for end in table.exits(2.0)] == [who]


def test_an_ended_process_is_still_told_until_its_end_is_reported(table):
    with running() as sleep:
        who = table.identify(sleep.pid)
        sleep.kill()
        sleep.wait()

        assert table.identify(sleep.pid) is who
        assert table.identify(sleep.pid) is who
        assert len(table.exits(1.0)) == 1


def test_processes_that_end_while_they_are_looked_at_are_nobody_or_end_once(table):
    for _ in range(60):
        with running(("true",), settled=False) as process:
            who = table.identify(process.pid)
            process.wait()
            seen = [end.process for end in table.exits(1.0)]
            assert seen == ([] if who is None else [who])


def test_pids_that_cannot_exist_are_nobody(table):
    assert [table.identify(pid) for pid in (-1, 0, 2**22 + 1, 2**31, 2**64)] == [None] * 5


@pytest.mark.parametrize("command_line", [b"", b"\0"])
def test_a_kernel_thread_is_a_bare_process_without_a_command_line(tmp_path, command_line):
    process = add_process(
        tmp_path, 77, "nv_queue", state="I", threads=1, cgroup="0::/\n", command_line=command_line
    )
    (process / "exe").unlink()  # readlink of a kernel thread's exe is ENOENT
    with closing(ProcessTable(tmp_path)) as table:
        who = table.identify(77)

    assert (who.name, who.command_line, who.executable) == ("nv_queue", None, None)
    assert (who.program.kind, who.program.name) == (ProgramKind.PROCESS, "nv_queue")


@pytest.mark.root
def test_another_users_process_is_told_with_its_user(table):
    with running(user=65534) as sleep:
        who = table.identify(sleep.pid)

    assert (who.uid, who.user) == (65534, "nobody")
    assert who.command_line == ("sleep", "600")


def test_hundreds_of_processes_are_followed_beyond_the_number_of_pidfds():
    with closing(ProcessTable(PROC, maximum_pidfds=2)) as table:
        before = open_descriptors()
        with running() as one, running() as two, running() as three:
            known = [table.identify(process.pid) for process in (one, two, three)]
            assert open_descriptors() - before == 2
            for process in (one, two, three):
                process.kill()
                process.wait()
            assert {end.process for end in table.exits(1.0)} == set(known)
        assert open_descriptors() == before


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_without_free_descriptors_nothing_is_remembered_wrongly_and_it_is_said_once(caplog):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with closing(ProcessTable(PROC)) as table, running() as sleep, caplog.at_level(logging.WARNING):
        lowest_free = os.dup(0)
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        try:
            assert [table.identify(sleep.pid), table.identify(sleep.pid)] == [None, None]
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert len(caplog.records) == 1
        assert table.identify(sleep.pid).command_line == ("sleep", "600")


def test_with_one_free_descriptor_the_start_time_stands_in_for_the_pidfd():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with closing(ProcessTable(PROC)) as table, running() as sleep:
        lowest_free = os.dup(0)
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + 1, hard))
        try:
            table.identify(sleep.pid)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        who = table.identify(sleep.pid)
        sleep.kill()
        sleep.wait()
        assert [end.process for end in table.exits(1.0)] == [who]


def test_close_gives_back_every_descriptor():
    before = open_descriptors()
    table = ProcessTable(PROC)
    with running() as sleep:
        table.identify(sleep.pid)
        table.close()
        table.close()
    assert open_descriptors() == before


def test_processes_that_left_the_gpu_are_forgotten_after_a_while():
    now = [0.0]
    before = open_descriptors()
    with (
        closing(ProcessTable(PROC, clock=lambda: now[0], idle_seconds=900)) as table,
        running() as sleep,
        running() as busy,
    ):
        table.identify(sleep.pid)
        kept = table.identify(busy.pid)
        now[0] = 899.0
        table.forget_idle({busy.pid})
        now[0] = 901.0
        table.forget_idle({busy.pid})
        sleep.kill()
        sleep.wait()

        assert table.exits(1.0) == ()
        assert table.identify(busy.pid) is kept
    assert open_descriptors() == before


def test_asking_for_a_known_process_costs_next_to_nothing():
    with closing(ProcessTable(PROC)) as table, running() as sleep:
        table.identify(sleep.pid)
        best = min(seconds_of(lambda: table.identify(sleep.pid), times=2000) for _ in range(5))

    assert best < 20e-6  # measured: 1 microsecond; reading one file alone takes 10


def seconds_of(action, times: int) -> float:
    begin = time.perf_counter()
    for _ in range(times):
        action()
    return (time.perf_counter() - begin) / times


# A /proc made of files: no pidfds, since its pids are not ours.


def test_a_fake_tree_is_never_watched_by_pidfd(tmp_path):
    add_process(tmp_path, os.getpid(), "not-me")
    before = open_descriptors()
    with closing(ProcessTable(tmp_path)) as table:
        assert table.identify(os.getpid()).name == "not-me"
        assert open_descriptors() == before


def test_a_reused_pid_is_another_process(tmp_path):
    add_process(tmp_path, comm="blender", start_ticks=100)
    with closing(ProcessTable(tmp_path)) as table:
        first = table.identify(4242)
        add_process(tmp_path, comm="ffmpeg", start_ticks=200)
        second = table.identify(4242)

        assert (first.name, second.name) == ("blender", "ffmpeg")
        assert first.program.key != second.program.key
        assert [end.process for end in table.exits(1.0)] == [first]
        assert table.identify(4242) is second


def test_a_pid_reused_between_two_ticks_is_an_end_too(tmp_path):
    add_process(tmp_path, start_ticks=100)
    with closing(ProcessTable(tmp_path)) as table:
        first = table.identify(4242)
        add_process(tmp_path, start_ticks=200)

        assert [end.process for end in table.exits(1.0)] == [first]


@pytest.mark.parametrize("name", ["stat", "status", "cmdline", "cgroup"])
def test_a_process_that_vanishes_while_one_of_its_files_is_read_is_nobody(tmp_path, name):
    process = add_process(tmp_path)
    with closing(ProcessTable(tmp_path)) as table:
        vanishing = vanish_when_read(process, name)
        assert table.identify(4242) is None
        vanishing.join()
        assert table.exits(1.0) == ()


@pytest.mark.parametrize("name", ["status", "cmdline", "cgroup"])
def test_a_pid_reused_while_one_of_its_files_is_read_is_not_mixed_up(tmp_path, name):
    process = add_process(tmp_path, comm="first", start_ticks=100)
    content = (process / name).read_bytes()
    (process / name).unlink()
    os.mkfifo(process / name)

    def reuse() -> None:
        with (process / name).open("wb") as writer:
            shutil.rmtree(process)
            add_process(tmp_path, comm="second", start_ticks=200)
            writer.write(content)

    reusing = threading.Thread(target=reuse)
    reusing.start()
    with closing(ProcessTable(tmp_path)) as table:
        assert table.identify(4242) is None
        reusing.join()
        assert table.identify(4242).name == "second"


def test_a_known_process_that_vanishes_in_the_tick_is_told_as_it_was(tmp_path):
    process = add_process(tmp_path)
    with closing(ProcessTable(tmp_path)) as table:
        who = table.identify(4242)
        shutil.rmtree(process)

        assert table.identify(4242) is who
        assert [end.process for end in table.exits(1.0)] == [who]
        assert table.identify(4242) is None


@pytest.mark.parametrize("missing", ["status", "cmdline", "exe", "cgroup"])
def test_a_part_that_the_kernel_does_not_tell_is_none_and_the_rest_stands(tmp_path, missing):
    process = add_process(tmp_path, uid=0)
    (process / missing).unlink()
    with closing(ProcessTable(tmp_path)) as table:
        who = table.identify(4242)

    parts = {
        "status": who.uid,
        "cmdline": who.command_line,
        "exe": who.executable,
        "cgroup": who.program.unit,
    }
    assert [name for name, value in parts.items() if value is None] == [missing]


@pytest.mark.parametrize("stat", [None, b"", b"garbage"])
def test_without_a_stat_there_is_nobody(tmp_path, stat):
    process = add_process(tmp_path)
    (process / "stat").unlink()
    if stat is not None:
        (process / "stat").write_bytes(stat)
    with closing(ProcessTable(tmp_path)) as table:
        assert table.identify(4242) is None


def test_the_number_of_remembered_processes_is_bounded(tmp_path):
    for pid in range(1, 21):
        add_process(tmp_path, pid)
    with closing(ProcessTable(tmp_path, maximum_processes=5)) as table:
        first = table.identify(1)
        for pid in range(2, 21):
            table.identify(pid)
        again = table.identify(1)
        assert again == first
        assert again is not first
        shutil.rmtree(tmp_path)
        assert sorted(end.process.pid for end in table.exits(1.0)) == [1, 17, 18, 19, 20]


def test_the_process_asked_for_the_longest_ago_is_forgotten_first(tmp_path):
    for pid in range(1, 5):
        add_process(tmp_path, pid)
    with closing(ProcessTable(tmp_path, maximum_processes=3)) as table:
        known = {pid: table.identify(pid) for pid in (1, 2, 3)}
        table.identify(1)
        table.identify(4)

        assert table.identify(1) is known[1]
        assert table.identify(2) is not known[2]


def test_a_hostile_name_cannot_forge_lines(tmp_path):
    add_process(tmp_path, comm="x\nWATCHDOG=1")
    with closing(ProcessTable(tmp_path)) as table:
        assert table.identify(4242).name == "x?WATCHDOG=1"


def test_arguments_and_path_do_not_reach_the_name(tmp_path):
    process = add_process(tmp_path, comm="python3", command_line=b"python3\0/home/anna/secret_plan.py\0")
    (process / "exe").unlink()
    (process / "exe").symlink_to("/home/anna/secret/python3")
    with closing(ProcessTable(tmp_path)) as table:
        who = table.identify(4242)

    assert (who.name, who.program.name) == ("python3", "python3")
    assert "secret" not in repr(who.program)
