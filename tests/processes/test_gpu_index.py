"""The index of who holds device nodes: complete, and without looking at what has not changed.

Where numbers of descriptors matter the processes are real: a /proc of links to a few directories of the real one.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from gpuwhyd.processes import gpu_index
from gpuwhyd.processes.gpu_index import MANY_DESCRIPTORS, GpuIndex, node_of, numbers_are_told
from gpuwhyd.processes.held_nodes import OF_ONE_NODE, OF_ONE_SHARER
from tests.processes.fake_gpus import OWN_PID, FakeGpus
from tests.processes.real_processes import running, state, until

HERE = os.getpid()


@pytest.mark.parametrize(
    ("link", "node"),
    [
        ("/dev/dri/card0", "card0"),
        ("/dev/dri/renderD128", "renderD128"),
        ("/dev/dri/renderD128 (deleted)", "renderD128"),
        ("/run/host/dev/dri/card12", "card12"),
        ("/dev/nvidia0", "nvidia0"),
        ("/dev/kfd", "kfd"),
        ("/dev/nvidiactl", None),
        ("/dev/nvidia-uvm", None),
        ("/dev/nvidia0/x", None),
        ("/dev/card0", None),
        ("/home/eva/cards", None),
        ("/home/eva/dri/card0.txt", None),
        ("socket:[4711]", None),
        ("kfd", None),
        ("/a\n/dri/card0", "card0"),
        ("", None),
    ],
)
def test_nodes_are_known_by_the_end_of_their_name(link: str, node: str | None) -> None:
    assert node_of(link) == node


def test_this_kernel_is_asked_whether_it_tells_numbers(tmp_path: Path) -> None:
    release = tuple(map(int, os.uname().release.split(".")[:2]))
    assert numbers_are_told("/proc") is (release >= (6, 2))
    (tmp_path / "self/fd").mkdir(parents=True)
    assert not numbers_are_told(str(tmp_path)), (
        "the size of a directory on a disk is no number of descriptors"
    )
    assert not numbers_are_told(str(tmp_path / "nowhere"))


# -- plain files: a kernel before 6.2 -------------------------------------------------------------------------------


@pytest.fixture
def gpus(tmp_path: Path) -> FakeGpus:
    return FakeGpus(tmp_path)


@pytest.fixture
def index(gpus: FakeGpus) -> GpuIndex:
    return GpuIndex(gpus.procfs, own_pid=OWN_PID)


def held(index: GpuIndex) -> list[tuple[int, int, str]]:
    return sorted((one.pid, one.number, one.node) for one in index.descriptors)


def test_it_knows_who_holds_what(gpus: FakeGpus, index: GpuIndex) -> None:
    gpus.holds(42, 7)
    gpus.holds(42, 8, "null")
    gpus.holds(43, 3, "nvidia1")
    gpus.holds(43, 4, "kfd")
    gpus.holds(OWN_PID, 3)
    gpus.process(44)
    assert not index.is_complete
    index.advance(1000)
    assert index.is_complete
    assert held(index) == [(42, 7, "renderD128"), (43, 3, "nvidia1"), (43, 4, "kfd")]


def test_without_numbers_there_is_a_full_walk_every_half_minute(gpus: FakeGpus, index: GpuIndex) -> None:
    index.advance(1000)
    gpus.holds(42, 7)
    for now in range(1002, 1030, 2):
        index.advance(now)
        assert held(index) == []
    index.advance(1030)
    assert held(index) == [(42, 7, "renderD128")]
    gpus.ends(42)
    for now in range(1032, 1062, 2):
        index.advance(now)
    assert held(index) == []


def test_an_early_sweep_without_numbers_finds_the_new_processes(gpus: FakeGpus, index: GpuIndex) -> None:
    gpus.process(41)
    index.advance(1000)
    gpus.holds(41, 7)
    gpus.holds(42, 7)
    index.advance(1002, early=True)
    assert held(index) == [], "at most every 4 s"
    index.advance(1004, early=True)
    assert held(index) == [(42, 7, "renderD128")]


def test_a_pid_that_was_given_anew_is_another_process(gpus: FakeGpus, index: GpuIndex) -> None:
    gpus.holds(42, 7)
    index.advance(1000)
    (before,) = index.descriptors
    other = gpus.procfs / "other"
    os.rename(gpus.procfs / "42", other)
    gpus.holds(42, 7)
    index.advance(1004, early=True)
    (after,) = index.descriptors
    assert after is not before
    assert after.absent_at_seconds == 1000


def test_what_was_there_at_the_first_look_may_be_old(gpus: FakeGpus, index: GpuIndex) -> None:
    gpus.holds(42, 7)
    index.advance(1000)
    gpus.holds(42, 8)
    index.advance(1030)
    assert {one.number: one.absent_at_seconds for one in index.descriptors} == {7: None, 8: 1000}


def test_who_asks_again_after_a_long_time_waits_for_a_new_walk(gpus: FakeGpus, index: GpuIndex) -> None:
    gpus.holds(42, 7)
    index.advance(1000)
    gpus.ends(42)
    gpus.holds(43, 7)
    index.advance(1061)
    assert index.is_complete
    assert [(one.pid, one.absent_at_seconds) for one in index.descriptors] == [(43, None)]


@pytest.mark.parametrize("what", ["process", "fd directory", "descriptor"])
def test_what_vanishes_in_the_middle_is_left_out(
    gpus: FakeGpus, index: GpuIndex, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus.holds(42, 7)
    gpus.holds(43, 7)
    listing = os.listdir

    def listdir(path: str) -> list[str]:
        names = listing(path)
        if what == "process" and path == str(gpus.procfs):
            gpus.ends(43)
        elif path == f"{gpus.procfs}/43/fd":
            if what == "fd directory":
                gpus.ends(43)
                raise ProcessLookupError(3, "No such process")
            gpus.closes(43, 7)
        return names

    monkeypatch.setattr(os, "listdir", listdir)
    index.advance(1000)
    assert index.is_complete
    assert held(index) == [(42, 7, "renderD128")]


def test_a_shortage_of_descriptors_is_told_once_and_over_with_the_next_walk(
    gpus: FakeGpus, index: GpuIndex, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gpus.holds(42, 7)
    listing = os.listdir

    def listdir(path: str) -> list[str]:
        if path.endswith("/42/fd"):
            raise OSError(24, "Too many open files")
        return listing(path)

    monkeypatch.setattr(os, "listdir", listdir)
    for now in range(1000, 1100, 2):
        index.advance(now)
        assert not index.is_complete
    assert caplog.text.count("Too many open files") == 1
    monkeypatch.undo()
    for now in range(1100, 1140, 2):
        index.advance(now)
    assert index.is_complete
    assert held(index) == [(42, 7, "renderD128")]


@pytest.mark.parametrize(
    ("capabilities", "refusing", "complete"),
    [
        ("000001ffffffffff", 1, True),
        ("0000000000080004", 3, True),
        ("0000000000080002", 1, True),
        ("000001ffffffffff", 4, False),
        ("0000000000000000", 1, False),
        ("0000000000080000", 1, False),
        ("0000000000000004", 1, False),
        (None, 1, False),
    ],
)
def test_a_process_that_nobody_may_look_into_does_not_hide_the_others(
    gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch, capabilities: str | None, refusing: int, complete: bool
) -> None:
    """Rights that are wanting are another matter; so are many that refuse, as from inside a user namespace."""
    if capabilities is not None:
        (gpus.procfs / "self").mkdir()
        (gpus.procfs / "self/status").write_text(f"Name:\tx\nCapPrm:\t0\nCapEff:\t{capabilities}\n")
    for pid in range(100, 100 + refusing):
        gpus.holds(pid, 7)
    gpus.holds(42, 7)
    reading = os.readlink

    def readlink(path: str) -> str:
        if int(path.split("/")[-3]) >= 100:
            raise PermissionError(13, "Permission denied")
        return reading(path)

    monkeypatch.setattr(os, "readlink", readlink)
    index = GpuIndex(gpus.procfs, own_pid=OWN_PID)
    for now in range(1000, 1070, 2):
        index.advance(now)
    assert index.is_complete is complete
    if complete:
        assert held(index) == [(42, 7, "renderD128")]


def test_of_protected_programs_that_come_and_go_the_log_has_one_line(
    gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    (gpus.procfs / "self").mkdir()
    (gpus.procfs / "self/status").write_text("CapEff:\t000001ffffffffff\n")
    listing = os.listdir

    def listdir(path: str) -> list[str]:
        if path.endswith("/fd") and int(path.split("/")[-2]) >= 100:
            raise PermissionError(13, "Permission denied")
        return listing(path)

    monkeypatch.setattr(os, "listdir", listdir)
    index = GpuIndex(gpus.procfs, own_pid=OWN_PID)
    for pid in range(100, 110):
        gpus.holds(pid, 7)
        index.advance(1000 + 30 * (pid - 100))
        assert index.is_complete
        gpus.ends(pid)
    (line,) = caplog.messages
    assert line.startswith("process 100 cannot be looked into")


def test_shortages_that_take_turns_are_told_once_each(
    gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    errors = iter([24, 12, 24, 13, 12, 13, 24])
    listing = os.listdir

    def listdir(path: str) -> list[str]:
        if path.endswith("/1/fd"):
            number = next(errors)
            raise OSError(number, os.strerror(number))
        return listing(path)

    monkeypatch.setattr(os, "listdir", listdir)
    index = GpuIndex(gpus.procfs, own_pid=OWN_PID)
    for now in range(1000, 1210, 30):
        index.advance(now)
        assert not index.is_complete
    assert next(errors, None) is None
    assert len(caplog.messages) == 3


def test_a_large_machine_is_walked_in_slices(gpus: FakeGpus) -> None:
    for pid in range(100, 150):
        gpus.holds(pid, 7)
    reads = 0

    def stopwatch() -> float:
        nonlocal reads
        reads += 1
        return reads * 0.1

    index = GpuIndex(gpus.procfs, own_pid=OWN_PID, stopwatch=stopwatch)
    ticks = 0
    while not index.is_complete:
        index.advance(1000 + 2 * ticks)
        ticks += 1
    assert ticks == 5 + 1, "ten processes a second, one second a slice"
    assert len(held(index)) == 50


def test_one_process_with_very_many_descriptors_is_walked_in_slices_too(gpus: FakeGpus) -> None:
    for number in range(2 * 256 + 10):
        gpus.holds(100, number, "null")
    gpus.holds(100, 5000)
    times = iter(range(1000))
    index = GpuIndex(gpus.procfs, own_pid=OWN_PID, stopwatch=lambda: next(times))
    ticks = 0
    while not index.is_complete:
        index.advance(1000 + 2 * ticks)
        ticks += 1
    assert ticks == 5, "after each of two processes, after 256 and after 512 descriptors, and what is left"
    assert held(index) == [(100, 5000, "renderD128")]


def test_one_users_crowd_does_not_push_out_another(gpus: FakeGpus, index: GpuIndex) -> None:
    """However many processes, and by whatever names: each of the files may be called like another card's node."""
    for pid in range(100, 120):
        (gpus.process(pid) / "cgroup").write_text("0::/user.slice/user-1000.slice/session-2.scope\n")
        for number in range(OF_ONE_SHARER // 10):
            (gpus.procfs / f"{pid}/fd/{number}").symlink_to(f"/tmp/dri/card{number}")
    for pid, cgroup in ((90, "ollama.service"), (190, "plex.service")):
        (gpus.process(pid) / "cgroup").write_text(f"0::/system.slice/{cgroup}\n")
        gpus.holds(pid, 7)
    index.advance(1000)
    index.advance(1030)
    assert index.is_complete
    assert {(90, 7, "renderD128"), (190, 7, "renderD128")} < set(held(index))
    assert len(held(index)) == OF_ONE_SHARER + 2


def test_what_is_beyond_the_bound_may_be_old_when_it_is_seen(gpus: FakeGpus, index: GpuIndex) -> None:
    for number in range(OF_ONE_NODE + 10):
        gpus.holds(42, number)
    index.advance(1000)
    (only,) = {one.absent_at_seconds for one in index.descriptors}
    shown = {number for _, number, _ in held(index)}
    for number in shown:
        gpus.closes(42, number)
    index.advance(1030)
    assert len(held(index)) == 10
    assert {one.absent_at_seconds for one in index.descriptors} == {only} == {None}


def test_one_users_many_open_files_do_not_hold_up_the_walk(
    gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    most = 2 * (MANY_DESCRIPTORS + 1)
    monkeypatch.setattr(gpu_index, "WALKED_OF_ONE_SHARER", most)
    for pid in range(100, 110):
        (gpus.process(pid) / "cgroup").write_text("0::/user.slice/user-1000.slice/session-2.scope\n")
        for number in range(MANY_DESCRIPTORS + 1):
            (gpus.procfs / f"{pid}/fd/{number}").symlink_to("/dev/null")
    (gpus.process(190) / "cgroup").write_text("0::/system.slice/ollama.service\n")
    for number in range(1, MANY_DESCRIPTORS + 1):
        (gpus.procfs / f"190/fd/{number}").symlink_to("/dev/null")
    gpus.holds(190, 0)
    reading, links = os.readlink, 0

    def readlink(path: str) -> str:
        nonlocal links
        links += 1
        return reading(path)

    monkeypatch.setattr(os, "readlink", readlink)
    index = GpuIndex(gpus.procfs, own_pid=OWN_PID)
    for walks, now in enumerate((1000, 1030), 1):
        index.advance(now)
        assert index.is_complete
        assert held(index) == [(190, 0, "renderD128")]
        assert links == walks * (most + MANY_DESCRIPTORS + 1)
    (line,) = caplog.messages
    assert line.startswith("user-1000.slice has too many files open")


def test_nothing_is_followed(gpus: FakeGpus, index: GpuIndex) -> None:
    """What a descriptor leads to may hang, on a file system whose server is gone: a FIFO hangs as well."""
    gpus.process(42)
    os.mkfifo(gpus.procfs / "card0")
    (gpus.procfs / "42/fd/3").symlink_to(gpus.procfs / "card0")
    index.advance(1000)
    assert index.is_complete


# -- real processes ---------------------------------------------------------------------------------------------------


class Nodes:
    """Files that are called like nodes, and a /proc with links to some real processes, this one among them."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.procfs = folder / "proc"
        self.procfs.mkdir()
        self._stack = stack
        self._folder = folder / "dri"
        self._folder.mkdir()
        self.show("self")
        self.show(str(HERE))

    def show(self, name: str) -> None:
        (self.procfs / name).symlink_to(f"/proc/{name}")

    def hide(self, name: str) -> None:
        (self.procfs / name).unlink()

    def open(self, name: str = "renderD128") -> int:
        path = self._folder / name
        path.touch()
        descriptor = os.open(path, os.O_RDONLY)
        self._stack.callback(_close, descriptor)
        return descriptor


def _close(descriptor: int) -> None:
    with suppress(OSError):
        os.close(descriptor)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    if not numbers_are_told("/proc"):
        pytest.skip(
            "this kernel is older than Linux 6.2: it does not tell how many descriptors a process has"
        )
    with ExitStack() as stack:
        yield Nodes(tmp_path, stack)


def walked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The /proc/PID/fd that are listed from now on."""
    seen: list[str] = []
    listing = os.listdir

    def listdir(path: str) -> list[str]:
        if str(path).endswith("/fd"):
            seen.append(str(path).rsplit("/", 2)[1])
        return listing(path)

    monkeypatch.setattr(os, "listdir", listdir)
    return seen


def test_a_new_descriptor_is_found_with_the_next_quick_sweep(nodes: Nodes) -> None:
    index = GpuIndex(nodes.procfs, own_pid=OWN_PID)
    index.advance(1000)
    assert held(index) == []
    number = nodes.open()
    for now in range(1002, 1010, 2):
        index.advance(now)
        assert held(index) == []
    index.advance(1010)
    assert held(index) == [(HERE, number, "renderD128")]
    (one,) = index.descriptors
    assert one.absent_at_seconds == 1000
    assert index.is_still_open(one)
    os.close(number)
    assert not index.is_still_open(one)
    index.advance(1020)
    assert held(index) == []


def test_copies_of_a_descriptor_are_kept_as_far_as_they_do_good(nodes: Nodes) -> None:
    """dup is free, and needs no rights beyond the first descriptor."""
    number, other = nodes.open(), nodes.open("card0")
    copies = [os.dup(number) for _ in range(3 * OF_ONE_NODE)]
    try:
        index = GpuIndex(nodes.procfs, own_pid=OWN_PID)
        index.advance(1000)
        assert held(index) == [
            (HERE, other, "card0") if one == other else (HERE, one, "renderD128")
            for one in sorted([number, other, *copies])[: OF_ONE_NODE + 1]
        ]
    finally:
        for copy in copies:
            os.close(copy)


@pytest.mark.parametrize("tells_numbers", [True, False])
def test_what_is_known_of_a_process_stays_when_it_has_too_many_files_open_to_look_again(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch, tells_numbers: bool
) -> None:
    monkeypatch.setattr(gpu_index, "numbers_are_told", lambda _: tells_numbers)
    number = nodes.open()
    index = GpuIndex(nodes.procfs, own_pid=OWN_PID)
    index.advance(1000)
    monkeypatch.setattr(gpu_index, "WALKED_OF_ONE_SHARER", MANY_DESCRIPTORS)
    copies = [os.dup(number) for _ in range(MANY_DESCRIPTORS)]
    try:
        index.advance(1060)
        assert held(index) == [(HERE, number, "renderD128")]
    finally:
        for copy in copies:
            os.close(copy)
    index.advance(1120)
    assert held(index) == [(HERE, number, "renderD128")]


def test_who_has_not_changed_is_not_walked(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as other:
        until(lambda: state(other.pid) == "S")  # the loader has closed what it opened
        nodes.show(str(other.pid))
        index = GpuIndex(nodes.procfs, own_pid=OWN_PID)
        index.advance(1000)
        seen = walked(monkeypatch)
        for now in range(1002, 1060, 2):
            index.advance(now)
        assert seen == []
        nodes.open()
        index.advance(1060 - 0.5)
        index.advance(1060 - 0.4)
        assert seen in ([], [str(HERE)])
        index.advance(1060)
        assert sorted(seen)[-2:] == sorted((str(HERE), str(other.pid))), "the full walk looks at all"


def test_a_descriptor_exchanged_for_another_is_found_by_the_full_walk(nodes: Nodes) -> None:
    index = GpuIndex(nodes.procfs, own_pid=OWN_PID)
    placeholder = os.open("/dev/null", os.O_RDONLY)
    index.advance(1000)
    os.close(placeholder)
    number = nodes.open()
    for now in range(1002, 1060, 2):
        index.advance(now)
        assert held(index) == []
    index.advance(1060)
    assert held(index) == [(HERE, number, "renderD128")]
    assert [one.absent_at_seconds for one in index.descriptors] == [1000], "nobody has looked since"


def test_a_new_process_is_found_with_the_next_sweep_and_early_when_asked_for(nodes: Nodes) -> None:
    index = GpuIndex(nodes.procfs, own_pid=OWN_PID)
    index.advance(1000)
    node = nodes.open()
    with running(pass_fds=(node,)) as other:
        os.close(node)
        nodes.show(str(other.pid))
        index.advance(1003, early=True)
        assert held(index) == []
        index.advance(1004, early=True)
        assert held(index) == [(other.pid, node, "renderD128")]
        (one,) = index.descriptors
        assert one.absent_at_seconds == 1000
    nodes.hide(str(other.pid))
    index.advance(1014)
    assert held(index) == []


def test_a_zombie_holds_nothing(nodes: Nodes) -> None:
    node = nodes.open()
    index = GpuIndex(nodes.procfs, own_pid=HERE)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1, pass_fds=(node,)) as other:
        nodes.show(str(other.pid))
        index.advance(1000)
        assert held(index) == [(other.pid, node, "renderD128")]
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        index.advance(1010)
        assert held(index) == []
        assert index.is_complete


def test_a_busy_giant_is_left_to_the_full_walk(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_index, "GIANT_DESCRIPTORS", 1)
    index = GpuIndex(nodes.procfs, own_pid=OWN_PID)
    index.advance(1000)
    nodes.open()
    seen = walked(monkeypatch)
    for now in range(1002, 1060, 2):
        index.advance(now)
    assert seen == []
    index.advance(1060)
    assert seen == [str(HERE)]


@pytest.mark.root
def test_the_real_proc_is_walked(tmp_path: Path) -> None:
    """As root also where a security module protects some process, as sandboxes protect their PID 1."""
    (tmp_path / "dri").mkdir()
    with (tmp_path / "dri/card7").open("w") as node:
        index = GpuIndex(Path("/proc"), own_pid=OWN_PID)
        while not index._is_whole and not index._is_refused:
            index.advance(1000)
        if os.geteuid() == 0:
            assert (HERE, node.fileno(), "card7") in held(index)


AS_NOBODY = """
import os, sys
from pathlib import Path
from gpuwhyd.processes.gpu_index import GpuIndex
os.setgroups([]); os.setgid(65534); os.setuid(65534)
index = GpuIndex(Path("/proc"), own_pid=os.getpid())
for now in range(1000, 1200, 2):
    index.advance(now)
    assert not index.is_complete
print("incomplete")
"""


@pytest.mark.root
def test_an_ordinary_user_learns_that_it_is_not_complete_and_the_log_says_it_once() -> None:
    done = subprocess.run([sys.executable, "-c", AS_NOBODY], capture_output=True, text=True, check=True)
    assert done.stdout == "incomplete\n"
    assert done.stderr.count("other users' processes may not be looked into") == 1


WITH_THE_RIGHTS_OF_THE_SERVICE = """
import os
from pathlib import Path
from gpuwhyd.processes.gpu_index import GpuIndex
index = GpuIndex(Path("/proc"), own_pid=os.getpid())
index.advance(1000)
print(index.is_complete, sorted({one.node for one in index.descriptors}))
"""


@pytest.mark.root
def test_the_two_capabilities_of_the_service_are_enough(tmp_path: Path) -> None:
    """The process that is looked at is another user's."""
    (tmp_path / "dri").mkdir()
    with (tmp_path / "dri/renderD4711").open("w") as node, running(pass_fds=(node.fileno(),), user=65534):
        pass_on = ["setpriv", "--bounding-set=-all,+sys_ptrace,+dac_read_search", "--no-new-privs"]
        command = [*pass_on, sys.executable, "-c", WITH_THE_RIGHTS_OF_THE_SERVICE]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    complete, nodes = done.stdout.split(" ", 1)
    assert complete == "True", done.stderr
    assert "renderD4711" in nodes


HIDEPID = """
import os, sys
from pathlib import Path
from gpuwhyd.processes.gpu_index import GpuIndex
os.setgroups([]); os.setgid(65534); os.setuid(65534)
index = GpuIndex(Path(sys.argv[1]), own_pid=os.getpid())
index.advance(1000)
assert "1" not in os.listdir(sys.argv[1]), "this is no hidepid"
print(index.is_complete)
"""


@pytest.mark.root
def test_processes_that_do_not_even_show_are_missed() -> None:
    """With hidepid=2 an ordinary user sees its own only, and nothing refuses: that list must not pass for all."""
    script = 'mount -t proc -o hidepid=2 proc /proc && "$1" -c "$2" /proc; code=$?; exit $code'
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "sh", "-c", script, "sh", sys.executable, HIDEPID],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("False\n", 0), done.stderr
