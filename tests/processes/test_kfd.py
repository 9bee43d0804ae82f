"""Compute processes of AMD cards, as the kernel's KFD lists them."""

from pathlib import Path

import pytest

from gpuwhyd.model import GpuState
from gpuwhyd.processes.kfd import KfdUse, engine_percents
from tests.processes.fake_gpus import OWN_PID, FakeGpus, amdgpu, reading, touched

SECOND = 1_000_000_000
GPU = 51_234


@pytest.fixture
def gpus(tmp_path: Path) -> FakeGpus:
    gpus = FakeGpus(tmp_path)
    gpus.card()
    return gpus


@pytest.fixture
def with_kfd(gpus: FakeGpus) -> FakeGpus:
    gpus.kfd_node(0, 0, units=0)
    gpus.kfd_node(1, GPU)
    return gpus


def test_engine_time_is_the_part_of_the_compute_units_that_work(with_kfd: FakeGpus) -> None:
    with_kfd.kfd_process(42, GPU, vram=5 << 30, queues=2, occupancy=15)
    process = with_kfd.processes(1000)[42]
    assert (process.kind, process.memory_used_bytes) == ("compute", 5 << 30)
    assert process.engine_percent == pytest.approx(25)


def test_a_kernel_that_cannot_count_units_leaves_the_engine_time_unknown(with_kfd: FakeGpus) -> None:
    with_kfd.kfd_process(42, GPU, vram=1 << 30, queues=2)
    assert with_kfd.processes(1000)[42].engine_percent is None


def test_memory_without_queues_is_idle(with_kfd: FakeGpus) -> None:
    with_kfd.kfd_process(42, GPU, vram=1 << 30)
    assert with_kfd.processes(1000)[42].engine_percent == 0


def test_who_only_has_kfd_open_uses_no_card(with_kfd: FakeGpus) -> None:
    with_kfd.kfd_process(42, GPU)
    assert with_kfd.processes(1000) == {}


def test_gpuwhyd_itself_does_not_count(with_kfd: FakeGpus) -> None:
    """Opening /dev/kfd, as AMD's library does, makes a process of KFD's."""
    with_kfd.kfd_process(OWN_PID, GPU, vram=1 << 20, queues=1, occupancy=60)
    assert with_kfd.processes(1000) == {}


def test_kfd_may_come_later(gpus: FakeGpus) -> None:
    assert gpus.processes(1000) == {}
    gpus.kfd_node(1, GPU)
    gpus.kfd_process(42, GPU, vram=1 << 30, queues=1, occupancy=30)
    assert gpus.processes(1002)[42].engine_percent == pytest.approx(50)


def test_a_card_that_comes_later_is_found_by_its_id(with_kfd: FakeGpus) -> None:
    with_kfd.kfd_process(42, GPU, vram=1 << 30)
    assert set(with_kfd.processes(1000)) == {42}
    second = "0000:0b:00.0"
    with_kfd.card(second, "card1", "renderD129")
    with_kfd.kfd_node(2, 777, second)
    with_kfd.kfd_process(43, 777, vram=1 << 30)
    one, other = with_kfd.tick(1002, reading(), reading(second))
    assert [process.pid for process in one.processes or ()] == [42]
    assert [process.pid for process in other.processes or ()] == [43]


def test_a_card_in_another_domain_is_told_apart(gpus: FakeGpus) -> None:
    far = "10000:e1:1f.5"
    gpus.card(far, "card1", "renderD129")
    gpus.kfd_node(1, GPU, far)
    gpus.kfd_process(42, GPU, vram=1 << 30)
    one, other = gpus.tick(1000, reading(), reading(far))
    assert one.processes == ()
    assert [process.pid for process in other.processes or ()] == [42]


def test_partitions_of_a_card_are_that_card(gpus: FakeGpus) -> None:
    """The highest bits of location_id number them."""
    location = int("03", 16) << 8
    gpus.kfd_node(1, 11, units=20, location_id=location)
    gpus.kfd_node(2, 12, units=20, location_id=1 << 28 | location)
    gpus.kfd_process(42, 11, vram=1 << 30, queues=1, occupancy=20)
    gpus.kfd_process(42, 12, vram=2 << 30, queues=1, occupancy=10)
    process = gpus.processes(1000)[42]
    assert process.engine_percent == pytest.approx(75)
    assert process.memory_used_bytes == 3 << 30


def test_graphics_and_compute_of_one_process_are_one_entry(with_kfd: FakeGpus) -> None:
    said = with_kfd.holds(42, 7, fdinfo=amdgpu(1, gfx=0, vram_kib=1 << 20))
    with_kfd.kfd_process(42, GPU, vram=1 << 29, queues=1, occupancy=30)
    with_kfd.tick(1000)
    said.write_text(amdgpu(1, gfx=SECOND // 2, vram_kib=1 << 20))
    (process,) = with_kfd.processes(1002).values()
    assert process.kind == "compute+graphics"
    assert process.engine_percent == pytest.approx(75)
    assert process.memory_used_bytes == 1 << 30, "fdinfo counts KFD's memory too, so the larger is all of it"
    said.write_text(amdgpu(1, gfx=3 * SECOND))
    assert with_kfd.processes(1004)[42].engine_percent == 100


def test_the_render_node_of_a_compute_process_makes_it_no_graphics(with_kfd: FakeGpus) -> None:
    with_kfd.holds(42, 7, fdinfo=amdgpu(1))
    with_kfd.kfd_process(42, GPU, vram=1 << 29, queues=1, occupancy=30)
    (process,) = with_kfd.processes(1000).values()
    assert (process.kind, process.engine_percent) == ("compute", pytest.approx(50))


def test_a_sleeping_card_is_left_alone(with_kfd: FakeGpus) -> None:
    with_kfd.kfd_process(42, GPU, vram=1 << 30, queues=1, occupancy=30)
    asleep = reading(state=GpuState.ASLEEP, can_suspend=True)
    assert with_kfd.tick(1000, asleep) == (asleep,)


def test_of_a_card_that_is_let_go_only_what_the_kernel_has_in_memory_is_read(
    with_kfd: FakeGpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_kfd.kfd_process(42, GPU, vram=1 << 30, queues=1, occupancy=30)
    seen = touched(monkeypatch, with_kfd)
    process = with_kfd.processes(1000, reading(state=GpuState.UNKNOWN, can_suspend=True))[42]
    assert (process.kind, process.engine_percent, process.memory_used_bytes) == ("holder", 0, 1 << 30)
    assert [path for path in seen if "stats_" in path or "sdma_" in path] == []


def test_an_id_of_no_card_is_looked_for_once_between_full_walks(
    with_kfd: FakeGpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_kfd.kfd_process(42, 666, vram=1 << 30)
    seen = touched(monkeypatch, with_kfd)
    for now in range(1000, 1030, 2):
        assert with_kfd.processes(now) == {}
    assert sum(path.endswith("topology/nodes") for path in seen) == 1
    with_kfd.kfd_node(5, 666)
    assert set(with_kfd.processes(1030)) == {42}


def test_a_process_that_ends_in_between_is_left_out(with_kfd: FakeGpus) -> None:
    with_kfd.kfd_process(42, GPU, vram=1 << 30, queues=1, occupancy=30)
    for name in (f"vram_{GPU}", "queues", f"stats_{GPU}"):
        path = with_kfd.sysfs / "class/kfd/kfd/proc/42" / name
        path.rename(with_kfd.sysfs / name)
        with_kfd.tick(1000)
    assert with_kfd.processes(1000) == {}


def use(occupancy: float | None, *, memory: int = 1, queues: int = 1) -> KfdUse:
    return KfdUse(memory_used_bytes=memory, queues=queues, occupancy_percent=occupancy)


@pytest.mark.parametrize(
    ("uses", "utilization", "explained", "percents"),
    [
        # a kernel that fills a quarter of the units keeps all of the card at work
        ({1: use(25)}, 96.0, 0.0, {1: 96.0}),
        ({1: use(20), 2: use(5)}, 100.0, 0.0, {1: 80.0, 2: 20.0}),
        ({1: use(20), 2: use(0)}, 100.0, 40.0, {1: 60.0, 2: 0.0}),
        # what the units say is the least
        ({1: use(50)}, 30.0, 0.0, {1: 50.0}),
        ({1: use(50)}, None, 0.0, {1: 50.0}),
        # between two kernels nobody is at work, but somebody has been
        (
            {1: use(0, memory=3), 2: use(0, memory=1), 3: use(0, memory=9, queues=0)},
            80.0,
            0.0,
            {1: 60, 2: 20, 3: 0},
        ),
        ({1: use(0)}, 10.0, 0.0, {1: 0.0}),
        # not even the kernel can tell
        ({1: use(None), 2: use(0)}, 100.0, 0.0, {1: None, 2: 0.0}),
        ({}, 100.0, 0.0, {}),
    ],
)
def test_compute_processes_share_what_the_card_worked(
    uses: dict[int, KfdUse], utilization: float | None, explained: float, percents: dict[int, float | None]
) -> None:
    found = engine_percents(uses, utilization_percent=utilization, explained_percent=explained)
    assert found == {pid: None if p is None else pytest.approx(p) for pid, p in percents.items()}


def test_what_others_did_is_not_theirs(with_kfd: FakeGpus) -> None:
    said = with_kfd.holds(41, 7, fdinfo=amdgpu(1, gfx=0))
    with_kfd.kfd_process(42, GPU, vram=1 << 29, queues=1, occupancy=6)
    first = with_kfd.processes(1000, reading(utilization_percent=90.0))
    assert first[42].engine_percent == pytest.approx(10), "what the other did is not known yet"
    said.write_text(amdgpu(1, gfx=SECOND))
    second = with_kfd.processes(1002, reading(utilization_percent=90.0))
    assert second[41].engine_percent == pytest.approx(50)
    assert second[42].engine_percent == pytest.approx(40)
