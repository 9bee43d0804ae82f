"""fdinfo, KFD and descriptors as no kernel should write them: what is told stays within its bounds, and nothing fails."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwhyd.model import GpuProcess
from gpuwhyd.processes.engine_time import busy_percent, larger
from gpuwhyd.processes.fdinfo import Engine, FdInfo, parse
from gpuwhyd.processes.gpu_index import node_of
from gpuwhyd.processes.gpu_users import CardUsers
from tests.fuzz.mutation import HOSTILE_TEXTS, damaged_bytes, damaged_text, examples
from tests.processes.fake_gpus import AMD, OWN_PID, FakeGpus, amdgpu, i915, reading, xe

OLD = b"pos:\t0\npdev:\t0000:03:00.0\npasid:\t7\nvram mem:\t73000 kB\ngfx0:\t12.5%\nenc_10:\t7.50%\n"
FDINFOS = [
    amdgpu(1, gfx=107322799, enc_1=5, compute=9).encode(),
    i915(7, render=9288864723, video=3).encode(),
    xe(3, total=7655183225, capacity=4, rcs=28257900, ccs=0).encode(),
    b"drm-driver:\tv3d\ndrm-client-id:\t5\ndrm-engine-bin: \t123 ns\ndrm-total-memory:\t5 MiB\n",
    b"drm-driver:\tmsm\ndrm-client-id:\t1\ndrm-engine-gpu:\t5 ns\ndrm-cycles-gpu:\t77\ndrm-maxfreq-gpu:\t800 MHz\n",
    OLD,
    b"pos:\t0\nflags:\t02\nmnt_id:\t9\n",
]
PIECES = [
    b"drm-",
    b"engine-",
    b":\t",
    b"\n",
    b" ns",
    b"\xd9\xa3",
    b"9" * 25,
    b"9" * 5000,
    b"-1",
    b"0",
    b"%",
    b"\0",
]


def bounded(info: FdInfo) -> None:
    assert info.pci_address is None or re.fullmatch(
        r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", info.pci_address
    )
    assert info.client_id is None or 0 <= info.client_id < 10**20
    assert all(0 <= size < 10**30 for size in info.memory_bytes.values())
    for engine in info.engines.values():
        assert engine.capacity > 0
        assert engine.max_frequency_hertz is None or engine.max_frequency_hertz > 0
        for count in (engine.busy_nanoseconds, engine.cycles, engine.total_cycles, engine.percent):
            assert count is None or count >= 0


@examples(400)
@given(damaged_bytes(FDINFOS, pieces=PIECES))
def test_a_damaged_fdinfo_is_none_or_bounded(raw: bytes) -> None:
    info = parse(raw)
    if info is not None:
        bounded(info)
        assert info.memory_used_bytes is None or info.memory_used_bytes >= 0


NAMES = st.text("abcdefgh_", min_size=1, max_size=8)
COUNTS = st.integers(0, 2**64 - 1)


@examples(150)
@given(st.dictionaries(NAMES, st.tuples(COUNTS, COUNTS, st.integers(1, 64)), max_size=6), COUNTS)
def test_what_a_driver_writes_is_read(engines: dict[str, tuple[int, int, int]], client: int) -> None:
    text = f"drm-driver:\tx\ndrm-client-id:\t{client}\n"
    for name, (cycles, total, capacity) in engines.items():
        text += f"drm-cycles-{name}:\t{cycles}\ndrm-total-cycles-{name}:\t{total}\n"
        text += f"drm-engine-capacity-{name}:\t{capacity}\n"
    assert parse(text.encode()) == FdInfo(
        driver="x",
        client_id=client,
        engines={
            name: Engine(cycles=cycles, total_cycles=total, capacity=capacity)
            for name, (cycles, total, capacity) in engines.items()
        },
    )


MAYBE = st.none() | COUNTS
ENGINES = st.builds(
    Engine,
    busy_nanoseconds=MAYBE,
    cycles=MAYBE,
    total_cycles=MAYBE,
    max_frequency_hertz=st.none() | st.integers(1, 2**40),
    capacity=st.integers(1, 64),
    percent=st.none() | st.floats(0, 1e9),
)


@examples(300)
@given(ENGINES, st.none() | ENGINES, st.none() | st.floats(-1e9, 1e9), st.none() | st.floats(-1e12, 1e12))
def test_no_counters_make_an_engine_work_more_than_always(
    engine: Engine, before: Engine | None, seconds: float | None, clock: float | None
) -> None:
    later = larger(engine, before)
    percent = busy_percent(later, before, seconds, clock)
    assert percent is None or 0 <= percent <= 100
    for count, now in ((engine.busy_nanoseconds, later.busy_nanoseconds), (engine.cycles, later.cycles)):
        assert (now is None) == (count is None)
        assert count is None or now is None or now >= count


LINKS = [
    "/dev/dri/card0",
    "/dev/dri/renderD128 (deleted)",
    "/dev/kfd",
    "/dev/nvidia0",
    "socket:[4711]",
    "/a/b",
]


@examples(250)
@given(damaged_text(LINKS, pieces=["/", "dri/", "card", "renderD", "nvidia", " (deleted)", "9" * 300]))
def test_any_link_is_a_node_or_none(link: str) -> None:
    node = node_of(link)
    assert node is None or (re.fullmatch(r"(card|renderD|nvidia)[0-9]+|kfd", node) and node in link)


NUMBERS = st.one_of(
    st.sampled_from([b"", b"\n", b"0\n", b"15\n", b"60\n", b"-1\n", b"18446744073709551615\n", b"9" * 31]),
    st.sampled_from([text.encode(errors="surrogatepass") for text in HOSTILE_TEXTS]),
    st.binary(max_size=8),
)
PROPERTIES = [
    b"cpu_cores_count 0\nsimd_count 120\nsimd_per_cu 2\nlocation_id 768\ndomain 0\n",
    b"simd_count 0\nsimd_per_cu 0\nlocation_id 4026532608\ndomain 65536\n",
]
GPU = 51_234
DESCRIPTORS = Path("/proc/self/fd")


def sane(processes: Iterable[GpuProcess]) -> None:
    seen = set()
    for process in processes:
        assert process.pid not in seen
        seen.add(process.pid)
        assert process.kind in {"compute", "graphics", "compute+graphics", "unknown", "holder"}
        assert process.memory_used_bytes is None or process.memory_used_bytes >= 0
        for percent in (process.engine_percent, process.encoder_percent, process.decoder_percent):
            assert percent is None or 0 <= percent <= 100


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> FakeGpus:
    """Made once, because it is a hundred files."""
    gpus = FakeGpus(tmp_path_factory.mktemp("gpus"))
    gpus.card()
    gpus.kfd_node(1, GPU)
    gpus.kfd_process(42, GPU, queues=1, occupancy=1)
    gpus.nvidia("0000:01:00.0", 0)
    return gpus


@examples(30)
@given(
    st.lists(damaged_bytes(FDINFOS, pieces=PIECES, most=2), min_size=6, max_size=6),
    damaged_bytes(PROPERTIES, pieces=[b"location_id ", b" ", b"9" * 25]),
    st.lists(NUMBERS, min_size=6, max_size=6),
    damaged_bytes([b"42 (a) S " + b"1 " * 40, b")"], pieces=[b"9" * 30, b"-1 "]),
    st.lists(st.sampled_from([*LINKS, "/dev/dri/renderD128"]), min_size=4, max_size=4),
    st.sampled_from([None, 0.0, 55.0]),
)
def test_any_files_give_processes_within_bounds(
    tree: FakeGpus,
    fdinfos: list[bytes],
    properties: bytes,
    numbers: list[bytes],
    stat: bytes,
    links: list[str],
    utilization: float | None,
) -> None:
    before = len(os.listdir(DESCRIPTORS))
    tree.users = CardUsers(procfs=tree.procfs, sysfs=tree.sysfs, own_pid=OWN_PID)
    node, process = (tree.sysfs / "class/kfd/kfd" / name for name in ("topology/nodes/1", "proc/42"))
    (node / "properties").write_bytes(properties)
    for path, number in zip(
        (
            node / "gpu_id",
            process / f"vram_{GPU}",
            process / f"stats_{GPU}/cu_occupancy",
            process / f"queues/{GPU}0/gpuid",
            tree.sysfs / "bus/pci/devices" / AMD / "power/runtime_status",
            tree.procfs / "driver/nvidia/gpus/0000:01:00.0/information",
        ),
        numbers,
        strict=True,
    ):
        path.write_bytes(b"Device Minor: " + number if path.name == "information" else number)
    for pid in (42, 43):
        for place, link in enumerate(links):
            tree.holds(pid, place, link.removeprefix("/dev/"))
        (tree.procfs / str(pid) / "stat").write_bytes(stat)
    for now, first in ((1000, 0), (1002, 2), (1030, 1), (1032, 3)):
        for pid in (42, 43):
            for place in range(len(links)):
                said = fdinfos[(first + place * pid) % len(fdinfos)]
                (tree.procfs / str(pid) / "fdinfo" / str(place)).write_bytes(said)
        (done,) = tree.tick(now, reading(utilization_percent=utilization, can_suspend=True))
        sane(done.processes or ())
        assert done.utilization_percent is None or 0 <= done.utilization_percent <= 100
    assert len(os.listdir(DESCRIPTORS)) <= before
