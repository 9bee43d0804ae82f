"""The texts of fdinfo: of the drivers that there are, old and new, and of what is none."""

import os
from pathlib import Path

import pytest

from gpuwhyd.processes.fdinfo import Engine, FdInfo, is_path_only, parse
from tests.samples import SAMPLES


def parsed(text: str) -> FdInfo:
    info = parse(text.encode())
    assert info is not None
    return info


def sample(name: str) -> FdInfo:
    if SAMPLES is None:
        pytest.skip("the samples are not here: ../shared/samples")
    info = parse(Path(SAMPLES / "fdinfo" / name).read_bytes())
    assert info is not None
    return info


def test_amdgpu_as_a_real_machine_tells_it() -> None:
    info = sample("amdgpu-issue87.txt")
    assert (info.driver, info.pci_address, info.client_id) == ("amdgpu", "0000:08:00.0", 217)
    assert info.engines == {"gfx": Engine(busy_nanoseconds=107322799)}
    assert info.memory_used_bytes == 2068 * 1024


def test_i915_as_the_kernel_documents_it() -> None:
    info = sample("i915.txt")
    assert (info.driver, info.pci_address, info.client_id) == ("i915", "0000:00:02.0", 7)
    assert info.engines["video"] == Engine(busy_nanoseconds=0, capacity=2)
    assert info.engines["render"] == Engine(busy_nanoseconds=9288864723)
    assert set(info.engines) == {"render", "copy", "video", "video-enhance"}
    assert info.memory_used_bytes is None


def test_xe_as_the_kernel_documents_it() -> None:
    info = sample("xe.txt")
    assert (info.driver, info.pci_address, info.client_id) == ("xe", "0000:03:00.0", 3)
    assert info.engines["rcs"] == Engine(cycles=28257900, total_cycles=7655183225)
    assert info.engines["ccs"].capacity == 4
    assert info.memory_used_bytes == 23992 * 1024


def test_the_first_amdgpu_that_told_had_a_format_of_its_own() -> None:
    info = parsed(
        "pos:\t0\nflags:\t02100002\npdev:\t0000:0B:00.0\npasid:\t32771\nvram mem:\t73000 kB\ngtt mem:\t8 kB\n"
        "cpu mem:\t0 kB\ngfx0:\t12.5%\ngfx1:\t3.25%\ncompute2:\t1.0%\nenc_10:\t7.50%\ndec0:\t99.99%\n"
    )
    assert (info.driver, info.pci_address, info.client_id) == ("amdgpu", "0000:0b:00.0", 32771)
    assert info.memory_used_bytes == 73000 * 1024
    # hundredths have no leading zero: 12.5% is 12.05
    assert info.engines["gfx"].percent == pytest.approx(12.05 + 3.25)
    assert info.engines["compute"].percent == pytest.approx(1.0)
    assert info.engines["enc_1"].percent == pytest.approx(7.5)
    assert info.engines["dec"].percent == pytest.approx(99.99)


def test_the_very_first_one_left_out_the_domain() -> None:
    assert parsed("pdev:\t0b:00.0\npasid:\t1\n").pci_address == "0000:0b:00.0"


def test_v3d_puts_a_blank_before_its_tab_and_is_on_no_pci_bus() -> None:
    info = parsed("drm-driver:\tv3d\ndrm-client-id:\t5\ndrm-engine-bin: \t123 ns\ndrm-engine-csd: \t9 ns\n")
    assert info.pci_address is None
    assert info.engines == {"bin": Engine(busy_nanoseconds=123), "csd": Engine(busy_nanoseconds=9)}


def test_a_maximum_frequency_has_a_unit() -> None:
    info = parsed(
        "drm-driver:\tmsm\ndrm-client-id:\t1\ndrm-engine-gpu:\t5 ns\ndrm-cycles-gpu:\t77\ndrm-maxfreq-gpu:\t800 MHz\n"
    )
    assert info.engines["gpu"] == Engine(busy_nanoseconds=5, cycles=77, max_frequency_hertz=800_000_000)


@pytest.mark.parametrize(
    ("lines", "size"),
    [
        ("drm-memory-vram:\t3 KiB\n", 3 << 10),
        ("drm-total-vram0:\t9 MiB\ndrm-resident-vram0:\t2 MiB\n", 2 << 20),
        ("drm-total-vram0:\t7\n", 7),
        ("drm-resident-local0:\t1 MiB\ndrm-resident-system0:\t5 MiB\n", 1 << 20),
        ("drm-resident-system0:\t5 MiB\ndrm-resident-stolen-system0:\t1 MiB\n", 5 << 20),
        ("drm-resident-system:\t1 KiB\ndrm-resident-gtt:\t2 KiB\n", 3 << 10),
        ("drm-shared-vram0:\t7 MiB\ndrm-active-vram0:\t7 MiB\n", None),
        ("drm-memory-vram:\t3 QiB\n", None),
        ("drm-memory-vram:\t-3 KiB\n", None),
    ],
)
def test_memory_is_what_is_resident_on_the_card_else_in_the_machine(lines: str, size: int | None) -> None:
    assert parsed("drm-driver:\tx\n" + lines).memory_used_bytes == size


@pytest.mark.parametrize(
    "text", ["", "pos:\t0\nflags:\t02\nmnt_id:\t9\n", "drm-driver:\t\n", "pdev:\t0000:01:00.0\n"]
)
def test_a_descriptor_of_something_else_is_no_client(text: str) -> None:
    assert parse(text.encode()) is None


def test_a_capacity_of_zero_is_not_allowed_and_counts_as_one() -> None:
    assert (
        parsed("drm-driver:\tx\ndrm-engine-a:\t1 ns\ndrm-engine-capacity-a:\t0\n").engines["a"].capacity == 1
    )


def test_only_amdgpu_leaves_out_engines_that_never_worked() -> None:
    assert parsed("drm-driver:\tamdgpu\n").tells_engines
    assert not parsed("drm-driver:\tnouveau\n").tells_engines
    assert parsed("drm-driver:\ti915\ndrm-engine-render:\t0 ns\n").tells_engines


@pytest.mark.parametrize(("flags", "path_only"), [(os.O_RDONLY, False), (os.O_PATH, True)])
def test_this_kernel_tells_what_was_opened_as_a_path_only(
    tmp_path: Path, flags: int, path_only: bool
) -> None:
    (tmp_path / "card0").touch()
    number = os.open(tmp_path / "card0", flags)
    try:
        raw = Path(f"/proc/self/fdinfo/{number}").read_bytes()
    finally:
        os.close(number)
    assert is_path_only(raw) is path_only
    assert parse(raw) is None


def test_what_has_no_flags_was_opened() -> None:
    assert not is_path_only(b"pos:\t0\nflags:\t9\n")
