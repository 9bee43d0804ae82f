"""Small files of the kernel's, read with bounds."""

import os
from pathlib import Path

import pytest

from gpuwhyd.kernel_files import device_sleeps, read_once, read_text, read_whole_number


def test_a_file_is_opened_and_read_once_and_no_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stat").write_bytes(b"x" * 5000)
    reads: list[int] = []
    really_read = os.read
    monkeypatch.setattr(os, "read", lambda fd, limit: reads.append(limit) or really_read(fd, limit))
    before = len(os.listdir("/proc/self/fd"))
    assert read_once(str(tmp_path / "stat"), 4096) == b"x" * 4096
    assert reads == [4096]
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_is_not_there_is_an_empty_text(tmp_path: Path) -> None:
    (tmp_path / "name").write_text("amdgpu\n")
    assert read_text(str(tmp_path / "name")) == "amdgpu"
    assert read_text(str(tmp_path / "absent")) == ""
    assert read_text(str(tmp_path)) == ""


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("42\n", 42),
        ("0", 0),
        ("18446744073709551615\n", 2**64 - 1),
        ("9" * 21, None),
        ("-1", None),
        ("4.2", None),
        ("٣", None),
        ("", None),
        ("none", None),
    ],
)
def test_a_whole_number_or_none(tmp_path: Path, text: str, number: int | None) -> None:
    (tmp_path / "value").write_text(text)
    assert read_whole_number(str(tmp_path / "value")) == number


@pytest.mark.parametrize(
    ("status", "sleeps"),
    [
        ("suspended\n", True),
        ("suspending\n", True),
        ("resuming\n", True),
        ("active\n", False),
        ("error\n", False),
        ("unsupported\n", False),
        ("", False),
    ],
)
def test_a_device_on_its_way_to_sleep_or_back_counts_as_asleep(
    tmp_path: Path, status: str, sleeps: bool
) -> None:
    (tmp_path / "runtime_status").write_text(status)
    assert device_sleeps(str(tmp_path / "runtime_status")) is sleeps


def test_without_runtime_power_management_nothing_sleeps(tmp_path: Path) -> None:
    assert not device_sleeps(str(tmp_path / "runtime_status"))
