"""/proc as hostile processes shape it: what the kernel wrote comes out again, damage is None, and nobody passes for another."""

import os
import re
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from gpuwhyd.model import ProcessIdentity, ProgramKind
from gpuwhyd.processes import procfs as files
from gpuwhyd.processes.cgroup import placement
from gpuwhyd.processes.hidepid import is_hidden_in
from gpuwhyd.processes.program import program_of
from gpuwhyd.processes.table import ProcessTable
from tests.fuzz.mutation import HOSTILE_TEXTS, damaged_bytes, damaged_text, examples
from tests.processes.fake_procfs import add_process, stat_line
from tests.processes.test_cgroup import APPS, CONTAINERS, UNITS
from tests.processes.test_hidepid import DEBIAN

COMMS = st.one_of(
    st.binary(max_size=15),
    st.sampled_from(
        [
            b") R 1 1 1",
            b"((",
            b"))",
            b") Z 0",
            b"a\nUid:\t0",
            b"Uid:\t0\t0\t0",
            b"\x1b[2J",
            b"\xff\xfe",
            "\u202egpj".encode(),
        ]
    ),
).map(lambda name: name.replace(b"\0", b"?"))
"""TASK_COMM_LEN is 16: a name has up to 15 bytes of anything but NUL."""

STATS = [
    stat_line(),
    stat_line(comm=") R 1 1 ("),
    stat_line(comm="a b\nc", state="Z", threads=3),
    Path("/proc/self/stat").read_bytes(),
]
STATUSES = [
    Path("/proc/self/status").read_bytes(),
    b"Name:\ta\\nUid:\t0\nPid:\t7\nUid:\t1000\t1001\t1002\t1003\nGid:\t0\t0\t0\t0\n",
]


@examples(180)
@given(
    COMMS,
    st.sampled_from("RSDZTtWXxKPI"),
    st.integers(0, 2**31 - 1),
    st.integers(0, 2**64 - 1),
)
def test_a_stat_line_of_the_kernel_is_read_whatever_the_name(
    comm: bytes, state: str, threads: int, start: int
) -> None:
    line = stat_line(comm=os.fsdecode(comm), state=state, threads=threads, start_ticks=start)

    assert files.parse_stat(line) == files.Stat(
        comm=os.fsdecode(comm), state=state, threads=threads, start_ticks=start
    )


@examples(300)
@given(damaged_bytes(STATS, pieces=[b")", b"(", b" ", b"9" * 5000, b"-1", b"\xd9\xa3"]))
def test_a_damaged_stat_is_none_or_bounded(raw: bytes) -> None:
    stat = files.parse_stat(raw)
    if stat is not None:
        assert 0 <= stat.start_ticks < 10**20
        assert 0 <= stat.threads < 10**20
        assert stat.comm.encode(errors="surrogateescape") in raw


@examples(180)
@given(COMMS, st.lists(st.integers(0, 2**32 - 1), min_size=4, max_size=4))
def test_no_name_forges_a_user(comm: bytes, uids: list[int]) -> None:
    """The kernel escapes the name in status: line feeds and backslashes, fs/proc/array.c."""
    escaped = comm.replace(b"\\", b"\\\\").replace(b"\n", b"\\n")
    text = (
        b"Name:\t"
        + escaped
        + b"\nUmask:\t0022\nUid:\t"
        + b"\t".join(b"%d" % uid for uid in uids)
        + b"\nGid:\t0\t0\t0\t0\n"
    )

    assert files.parse_uid(text) == uids[1]


@examples(180)
@given(damaged_bytes(STATUSES, pieces=[b"Uid:", b"\t", b"\n", b"9" * 30]))
def test_a_damaged_status_is_none_or_a_number_that_stands_there(raw: bytes) -> None:
    uid = files.parse_uid(raw)
    assert uid is None or b"%d" % uid in raw


@examples(180)
@given(
    st.lists(st.binary(max_size=60).map(lambda word: word.replace(b"\0", b" ")), max_size=100),
    st.integers(0, 3),
)
def test_arguments_come_out_as_they_were_given(words: list[bytes], trailing: int) -> None:
    raw = b"".join(word + b"\0" for word in words) + b"\0" * trailing
    found = [os.fsencode(word) for word in files.parse_command_line(raw)]

    assert sum(map(len, found)) <= files.COMMAND_LINE_LIMIT_BYTES
    whole = raw[: files.COMMAND_LINE_LIMIT_BYTES].rstrip(b"\0")
    assert b"\0".join(found) == whole
    if len(raw) <= files.COMMAND_LINE_LIMIT_BYTES and words and words[-1]:
        assert found == words


CGROUPS = [text for text, *_ in (*UNITS, *CONTAINERS, *APPS)]
SEGMENTS = st.one_of(
    st.sampled_from(
        sorted({part for text in CGROUPS for part in re.split(r"[/\n]|\d*:[a-z=,]*:", text) if part})
    ),
    st.sampled_from([text.replace("\n", " ") for text in HOSTILE_TEXTS]),
    st.text(st.characters(categories=None, exclude_characters="\n/\0"), max_size=20),
)


def told(program: object) -> list[str]:
    names = ("key", "name", "unit", "user_unit", "slice", "container", "app")
    return [text for name in names if (text := getattr(program, name)) is not None]


@examples(420)
@given(
    damaged_text(
        CGROUPS, pieces=["/", ":", "\n", "0::", "\\x2d", "\\xff", ".service", ".scope", "user@1000.service"]
    )
)
def test_any_cgroup_gives_a_program_that_can_be_shown(text: str) -> None:
    found = program_of(placement(text), pid=7, start_ticks=9, name="x", uid=5, user="u")

    assert found.key
    assert found.name
    assert all(shown.isprintable() for shown in told(found))
    assert (found.kind is ProgramKind.PROCESS) == (found.key == "process:7:9")
    for unit in (found.unit, found.user_unit):
        assert unit is None or re.fullmatch(r"[A-Za-z0-9:_.\\@-]{1,255}", unit)


@examples(420)
@given(st.lists(SEGMENTS, max_size=6), st.sampled_from(["0::", "1:name=systemd:"]), st.booleans())
def test_below_their_manager_users_pass_for_nobody_else(
    below: list[str], hierarchy: str, deleted: bool
) -> None:
    base = "/user.slice/user-1000.slice/user@1000.service"
    place = placement(f"{hierarchy}{'/'.join([base, *below])}{' (deleted)' if deleted else ''}\n")
    found = program_of(place, pid=7, start_ticks=9, name="x", uid=1000, user="eva")

    assert (found.unit, place.owner_uid) == ("user@1000.service", 1000)
    whose = {
        ProgramKind.PROCESS: "process:7:9",
        ProgramKind.UNIT: "user-unit:1000:",
        ProgramKind.APP: "app:1000:",
        ProgramKind.CONTAINER: f"container:{place.container.runtime if place.container else ''}:user-1000:",
    }
    assert found.key.startswith(whose[found.kind])


@examples(300)
@given(st.lists(SEGMENTS, max_size=6))
def test_below_its_cgroup_a_service_stays_that_service(below: list[str]) -> None:
    place = placement("0::" + "/".join(["/system.slice/ollama.service", *below]) + "\n")

    assert (place.unit, place.slice, place.user_unit, place.owner_uid) == (
        "ollama.service",
        "system.slice",
        None,
        None,
    )
    assert place.app is None
    assert place.virtual_machine is None


@examples(180)
@given(
    st.lists(SEGMENTS, min_size=1, max_size=6),
    st.sampled_from(["/lxc/web", "/docker", "/lxc.payload.web", "/x"]),
)
def test_what_a_container_calls_a_unit_is_none_of_this_machine(below: list[str], above: str) -> None:
    """The units of the systemd inside are not those that journalctl and systemctl know here."""
    place = placement("0::" + "/".join([above, *below]) + "\n")

    assert (place.unit, place.slice, place.user_unit, place.owner_uid) == (None, None, None, None)


MOUNTS = st.lists(
    st.tuples(
        st.sampled_from(["/", "/pid", "/sys"]),
        st.sampled_from(["/proc", "/proc", "/mnt/a b", "/proc/sys/fs", "/x\ty\\z", "/srv - proc"]),
        st.lists(st.sampled_from(["shared:7", "master:3", "propagate_from:1", "unbindable"]), max_size=3),
        st.sampled_from(["proc", "proc", "tmpfs", "fuse.proc"]),
        st.sampled_from(["proc", "none", "a b", "hidepid=2"]),
        st.lists(
            st.sampled_from(
                ["rw", "gid=27", "subset=pid", "hidepid=0", "hidepid=off", "hidepid=1", "hidepid=invisible"]
            ),
            min_size=1,
            max_size=3,
        ),
    ),
    max_size=5,
)


def mangled(text: str) -> str:
    """As the kernel writes it: seq_escape of blank, tab, line feed and backslash."""
    return "".join(f"\\{ord(char):03o}" if char in " \t\n\\" else char for char in text)


@examples(300)
@given(MOUNTS)
def test_hidepid_is_what_the_last_mount_on_proc_says(
    mounts: list[tuple[str, str, list[str], str, str, list[str]]],
) -> None:
    text, hidden = "", None
    for number, (root, place, optional, kind, source, options) in enumerate(mounts):
        fields = [str(number), "1", "0:2", root, mangled(place), "rw,nosuid", *optional]
        text += f"{' '.join(fields)} - {kind} {mangled(source)} {','.join(options)}\n"
        if (root, place, kind) == ("/", "/proc", "proc"):
            hidden = any(
                option.startswith("hidepid=") and option[8:] not in ("0", "off") for option in options
            )

    assert is_hidden_in(text) is hidden


@examples(180)
@given(
    damaged_text(
        [DEBIAN.format(options=",hidepid=2"), DEBIAN.format(options="")],
        pieces=[" - ", " ", "\\040", "\\777", "hidepid=", "\n"],
    )
)
def test_any_mount_table_gives_an_answer(text: str) -> None:
    assert is_hidden_in(text) in (True, False, None)


DESCRIPTORS = Path("/proc/self/fd")


@examples(150)
@given(
    damaged_bytes(STATS[:3], pieces=[b"9" * 3000]),
    damaged_bytes(STATUSES),
    damaged_bytes([b"blender\0-b\0scene.blend\0", b"\0\0", b"x" * 9000]),
    damaged_bytes(
        [text.encode(errors="surrogateescape") for text in CGROUPS],
        pieces=[b"\xff", b"\x1b[2J", b"a" * 70_000],
    ),
    st.sampled_from(["stat", "status", "cmdline", "cgroup", "exe", None]),
)
def test_a_process_with_damaged_files_is_known_or_not_known(
    stat: bytes, status: bytes, command_line: bytes, cgroup: bytes, missing: str | None
) -> None:
    before = len(list(DESCRIPTORS.iterdir()))
    with tempfile.TemporaryDirectory() as directory:
        process = add_process(Path(directory))
        for name, content in (
            ("stat", stat),
            ("status", status),
            ("cmdline", command_line),
            ("cgroup", cgroup),
        ):
            (process / name).write_bytes(content)
        if missing:
            (process / missing).unlink()
        table = ProcessTable(Path(directory))
        try:
            found = table.identify(4242)
            again = table.identify(4242)
            table.exits(1.0)
        finally:
            table.close()
    assert len(list(DESCRIPTORS.iterdir())) == before
    assert (found is None) == (again is None) or missing == "stat"
    if isinstance(found, ProcessIdentity):
        assert found.name.isprintable()
        assert all(shown.isprintable() for shown in told(found.program))
        assert (
            found.command_line is None or sum(map(len, found.command_line)) <= files.COMMAND_LINE_LIMIT_BYTES
        )
