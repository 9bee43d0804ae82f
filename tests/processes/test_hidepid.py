from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwhyd.processes.hidepid import LOOK_AGAIN_SECONDS, HidepidWatch, is_hidden_in, processes_are_hidden

DEBIAN = """\
22 28 0:20 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
23 28 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:13 - proc proc rw{options}
24 28 0:5 / /dev rw,nosuid,relatime shared:2 - devtmpfs udev rw,size=8110604k,nr_inodes=2027651,mode=755,inode64
38 23 0:31 / /proc/sys/fs/binfmt_misc rw,relatime shared:16 - autofs systemd-1 rw,fd=29,pgrp=1,timeout=0
28 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
"""


@pytest.mark.parametrize(
    ("options", "hidden"),
    [
        ("", False),
        (",hidepid=0", False),
        (",hidepid=off", False),
        (",gid=27", False),
        (",hidepid=1", True),
        (",hidepid=2", True),
        (",hidepid=4", True),
        (",hidepid=noaccess", True),
        (",gid=27,hidepid=invisible", True),
        (",hidepid=ptraceable,subset=pid", True),
        (",hidepid=something-new", True),
    ],
)
def test_hidepid_is_read_from_the_mount_of_proc(tmp_path, options, hidden):
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "mountinfo").write_text(DEBIAN.format(options=options))

    assert processes_are_hidden(tmp_path) is hidden


def test_the_mount_of_pid_1_is_what_users_see_not_the_services_own(tmp_path):
    for reader, options in (("1", ""), ("self", ",hidepid=invisible")):
        (tmp_path / reader).mkdir()
        (tmp_path / reader / "mountinfo").write_text(DEBIAN.format(options=options))

    assert processes_are_hidden(tmp_path) is False


def test_a_remount_is_noticed_after_ten_seconds_and_the_file_not_read_before(tmp_path):
    now = [1000.0]
    (tmp_path / "self").mkdir()
    mountinfo = tmp_path / "self" / "mountinfo"
    mountinfo.write_text(DEBIAN.format(options=""))
    hidden = HidepidWatch(tmp_path, lambda: now[0])
    assert not hidden()

    mountinfo.write_text(DEBIAN.format(options=",hidepid=2"))
    now[0] += LOOK_AGAIN_SECONDS - 0.1
    assert not hidden()
    now[0] += 0.1
    assert hidden()


def test_the_last_mount_at_one_place_covers_the_others():
    later = "90 28 0:50 / /proc rw,relatime - proc proc rw,hidepid=2\n"

    assert is_hidden_in(DEBIAN.format(options="") + later) is True
    assert is_hidden_in(later + DEBIAN.format(options="")) is False


def test_a_procfs_at_another_place_is_found_by_its_path():
    mounts = DEBIAN.format(options="") + "91 28 0:51 / /host\\040root/proc rw - proc proc rw,hidepid=2\n"

    assert is_hidden_in(mounts, Path("/host root/proc")) is True
    assert is_hidden_in(mounts, Path("/elsewhere")) is False


def test_bind_mounts_of_parts_of_proc_say_nothing():
    container = "92 28 0:21 /sys /proc/sys ro - proc proc rw,hidepid=2\n93 28 0:9 / /proc rw - tmpfs tmpfs rw,hidepid=2\n"

    assert is_hidden_in(container) is None


def test_without_a_mount_table_nothing_is_hidden(tmp_path):
    assert processes_are_hidden(tmp_path) is False


def test_a_mount_table_that_cannot_be_read_counts_as_hidden(tmp_path):
    (tmp_path / "self" / "mountinfo").mkdir(parents=True)

    assert processes_are_hidden(tmp_path) is True


def test_the_real_proc_gives_an_answer():
    text = Path("/proc/self/mountinfo").read_text()

    assert processes_are_hidden(Path("/proc")) is any(
        "hidepid=" in line and "hidepid=0" not in line and "hidepid=off" not in line
        for line in text.splitlines()
        if line.split()[4] == "/proc"
    )


@given(st.text(alphabet=" -/\\0147proc,hidepid=\n", max_size=200))
def test_any_text_is_survived(text):
    assert is_hidden_in(text) in (True, False, None)
