import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwhyd.processes import procfs
from tests.processes.fake_procfs import stat_line


@pytest.mark.parametrize(
    "comm",
    [
        "blender",
        "Web Content",
        "(sd-pam)",
        "a) R 1 (b",
        "two\nlines",
        "kworker/u8:0-events_unbound",
        "",
        "\udcff\udcfe",
    ],
)
def test_stat_is_read_whatever_the_process_calls_itself(comm):
    stat = procfs.parse_stat(stat_line(comm=comm, state="R", threads=7, start_ticks=99))

    assert stat == procfs.Stat(comm=comm, state="R", threads=7, start_ticks=99)


@pytest.mark.parametrize("raw", [b"", b"4242 (x) S 1 2", b"4242 x S 1", b"((((", b")("])
def test_a_stat_that_cannot_be_understood_gives_none(raw):
    assert procfs.parse_stat(raw) is None


@pytest.mark.parametrize(
    ("state", "threads", "ended"), [("S", 1, False), ("Z", 1, True), ("X", 0, True), ("Z", 3, False)]
)
def test_a_zombie_has_ended_unless_only_its_first_thread_did(state, threads, ended):
    assert procfs.parse_stat(stat_line(state=state, threads=threads)).ended is ended


@given(st.binary(max_size=300))
def test_parsers_never_raise_on_garbage(raw):
    procfs.parse_stat(raw)
    procfs.parse_uid(raw)
    procfs.parse_command_line(raw)


@given(st.text(max_size=40), st.lists(st.binary(max_size=4), max_size=30))
def test_a_stat_with_any_fields_is_parsed_or_none(comm, fields):
    raw = b"1 (" + comm.encode(errors="surrogatepass") + b") " + b" ".join(fields)
    stat = procfs.parse_stat(raw)

    assert stat is None or stat.start_ticks >= 0


def test_the_effective_user_counts_and_a_name_cannot_forge_it():
    status = b"Name:\tx\\nUid:\t0\t0\t0\t0\nUmask:\t0022\nUid:\t1000\t33\t1000\t1000\nGid:\t0\t0\t0\t0\n"

    assert procfs.parse_uid(status) == 33
    assert procfs.parse_uid(b"Name:\tx\n") is None


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"python3\0train.py\0--lr\0" + b"0.1\0", ("python3", "train.py", "--lr", "0.1")),
        (b"sh\0-c\0\0x\0", ("sh", "-c", "", "x")),
        (b"nginx: master process" + b"\0" * 200, ("nginx: master process",)),
        (b"caf\xe9\0", ("caf\udce9",)),
        (b"", ()),
        (b"\0\0", ()),
    ],
)
def test_command_lines_are_split_at_nul(raw, words):
    assert procfs.parse_command_line(raw) == words


def test_a_huge_command_line_is_cut(tmp_path):
    (tmp_path / "cmdline").write_bytes(b"x" * 1_000_000)

    (word,) = procfs.read_command_line(tmp_path)

    assert len(word) == procfs.COMMAND_LINE_LIMIT_BYTES


def test_what_could_forge_a_line_or_a_terminal_sequence_is_not_printable():
    assert procfs.printable("ok \u00fc\n\x1b[31m\u202e\udcff") == "ok ü??[31m??"


def test_this_very_process_is_read_from_the_real_proc():
    process = f"/proc/{os.getpid()}"

    assert procfs.read_stat(process).start_ticks > 0
    assert procfs.read_uid(process) == os.geteuid()
    assert procfs.read_executable(process) == os.readlink("/proc/self/exe")
    assert "pytest" in " ".join(procfs.read_command_line(process))
    assert ":/" in procfs.read_cgroup(process)


def test_parts_that_are_not_there_are_none_and_a_missing_stat_is_gone(tmp_path):
    assert procfs.read_uid(tmp_path) is None
    assert procfs.read_command_line(tmp_path) is None
    assert procfs.read_executable(tmp_path) is None
    assert procfs.read_cgroup(tmp_path) is None
    with pytest.raises(OSError) as raised:
        procfs.read_stat(tmp_path)
    assert procfs.is_gone(raised.value)


def test_a_long_cgroup_file_is_read_to_its_end(tmp_path):
    text = "".join(f"{line}:cpu{line}:/{'x' * 3000}\n" for line in range(14)) + "0::/system.slice/a.service\n"
    Path(tmp_path / "cgroup").write_text(text)

    assert procfs.read_cgroup(tmp_path) == text
