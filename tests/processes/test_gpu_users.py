"""Which cards are asked at all, who merely holds a card, and what is not touched."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gpuwhyd.model import GpuProcess, GpuReading, GpuState
from gpuwhyd.processes.gpu_nodes import GpuNodes
from tests.processes.fake_gpus import AMD, INTEL, OWN_PID, FakeGpus, amdgpu, i915, reading, touched

SECOND = 1_000_000_000
NVIDIA = "0000:01:00.0"


@pytest.fixture
def gpus(tmp_path: Path) -> FakeGpus:
    gpus = FakeGpus(tmp_path)
    gpus.card()
    return gpus


# -- what is not touched ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "needless",
    [
        reading(NVIDIA, vendor="nvidia", driver="nvidia 550.54.14", processes=()),
        reading(NVIDIA, vendor="nvidia", driver="nvidia 550.54.14"),  # MIG: fdinfo has nothing of it either
        reading(state=GpuState.ASLEEP, can_suspend=True),
        reading(state=GpuState.LOST),
        reading(state=GpuState.UNKNOWN, can_suspend=False),
        reading(state=GpuState.UNKNOWN),
    ],
    ids=lambda one: f"{one.gpu.vendor}-{one.state}-{one.processes}-{one.can_suspend}",
)
def test_nothing_is_read_while_no_card_needs_it(
    gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch, needless: object
) -> None:
    gpus.holds(42, 7, fdinfo=amdgpu(1))
    seen = touched(monkeypatch, gpus)
    for now in range(1000, 1200, 2):
        assert gpus.tick(now, needless) == (needless,)  # type: ignore[arg-type]
    assert seen == []


def test_fdinfo_is_read_of_cards_that_are_awake_only(gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading xe's wakes the card, and keeps one awake that was let go."""
    gpus.card("0000:0b:00.0", "card1", "renderD129")
    gpus.card("0000:0c:00.0", "card2", "renderD130")
    gpus.holds(41, 7, fdinfo=amdgpu(1))
    gpus.holds(42, 7, "dri/renderD129", amdgpu(1, pci="0000:0b:00.0"))
    gpus.holds(43, 7, "dri/renderD130", amdgpu(1, pci="0000:0c:00.0"))
    seen = touched(monkeypatch, gpus)
    for now in range(1000, 1100, 2):
        done = gpus.tick(
            now,
            reading(),
            reading("0000:0b:00.0", state=GpuState.ASLEEP, can_suspend=True),
            reading("0000:0c:00.0", state=GpuState.UNKNOWN, can_suspend=True),
        )
    assert [card.processes and [p.pid for p in card.processes] for card in done] == [[41], None, [43]]
    read = {path for path in seen if "/fdinfo/" in path}
    assert read == {f"{gpus.procfs}/41/fdinfo/7"}


def test_a_card_that_fell_asleep_since_it_was_read_is_not_woken(
    gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus.holds(42, 7, fdinfo=amdgpu(1))
    gpus.tick(1000)
    gpus.power(AMD, "suspended")
    seen = touched(monkeypatch, gpus)
    assert gpus.tick(1002, reading(can_suspend=True))[0].processes is None
    assert [path for path in seen if "/fdinfo/" in path] == []


def test_a_tick_reads_one_descriptor_of_each_client(gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3, 13):
        gpus.holds(42, number, fdinfo=amdgpu(1))
        gpus.holds(43, number, fdinfo=amdgpu(2))
    for pid in range(100, 130):
        gpus.process(pid)
    gpus.tick(1000, reading(can_suspend=False))
    seen = touched(monkeypatch, gpus)
    gpus.tick(1002, reading(can_suspend=False))
    assert sorted(path.split("/")[-3] for path in seen if "/fdinfo/" in path) == ["42", "43"]
    assert len(seen) == 2 + 1, "and KFD's list"


# -- which cards are completed ------------------------------------------------------------------------------------------


def test_a_card_that_its_backend_knows_stays_as_it_is(gpus: FakeGpus) -> None:
    gpus.holds(42, 7, fdinfo=amdgpu(1))
    known = reading(NVIDIA, vendor="nvidia", processes=(GpuProcess(pid=7),), can_suspend=False)
    one, other = gpus.tick(1000, known, reading())
    assert one is known
    assert [process.pid for process in other.processes or ()] == [42]


def test_nouveau_is_asked_although_its_cards_are_nvidias(gpus: FakeGpus) -> None:
    text = f"drm-driver:\tnouveau\ndrm-client-id:\t4\ndrm-pdev:\t{AMD}\n"
    gpus.holds(42, 7, fdinfo=text)
    assert set(gpus.processes(1000, reading(vendor="nvidia", driver="nouveau"))) == {42}


def test_a_fan_of_the_machine_has_no_users(gpus: FakeGpus) -> None:
    chassis = reading()
    chassis = replace(
        chassis, gpu=replace(chassis.gpu, id="chassis_asus", vendor="chassis", pci_address=None)
    )
    assert gpus.tick(1000, chassis) == (chassis,)


def test_a_node_that_is_on_no_pci_bus_is_nobodys(gpus: FakeGpus) -> None:
    folder = gpus.sysfs / "class/drm/renderD140"
    folder.mkdir(parents=True)
    (folder / "device").symlink_to("../../../soc/fec00000.gpu")
    gpus.holds(42, 7, "dri/renderD140", "drm-driver:\tv3d\ndrm-client-id:\t1\n")
    gpus.holds(43, 7, "dri/renderD141")  # its card was unplugged
    assert gpus.processes(1000) == {}
    nodes = GpuNodes(sysfs=gpus.sysfs, procfs=gpus.procfs)
    assert [nodes.address(node) for node in ("renderD128", "renderD140", "renderD141")] == [AMD, None, None]


def test_a_node_that_is_another_cards_now_is_looked_up_anew(gpus: FakeGpus) -> None:
    gpus.card("0000:0b:00.0", "renderD129")
    gpus.holds(42, 7, "dri/renderD129", amdgpu(1, pci="0000:0b:00.0"))
    cards = (reading(), reading("0000:0b:00.0"))
    assert [len(card.processes or ()) for card in gpus.tick(1000, *cards)] == [0, 1]
    for node, address in (("renderD129", AMD), ("renderD128", "0000:0b:00.0")):
        link = gpus.sysfs / "class/drm" / node / "device"
        link.unlink()
        link.symlink_to(gpus.sysfs / "bus/pci/devices" / address)
    gpus.holds(42, 7, "dri/renderD129", amdgpu(1))
    for now in range(1002, 1040, 2):
        done = gpus.tick(now, *cards)
    assert [len(card.processes or ()) for card in done] == [1, 0]


def test_who_has_a_card_open_but_may_not_be_read_leaves_it_unknown(
    gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus.holds(42, 7, fdinfo=amdgpu(1))
    real = os.open

    def refuse(path: str, *more: int) -> int:
        if "/fdinfo/" in str(path):
            raise PermissionError(13, "Permission denied")
        return real(path, *more)

    monkeypatch.setattr(os, "open", refuse)
    assert gpus.tick(1000)[0].processes is None


@pytest.mark.parametrize(("flags", "users"), [(os.O_PATH, ()), (os.O_RDWR, None)], ids=["path", "file"])
def test_a_real_file_that_is_called_like_a_node_is_no_user(
    gpus: FakeGpus, tmp_path: Path, flags: int, users: tuple[()] | None
) -> None:
    """With O_PATH that is certain. Else, alone, it may be a node whose driver does not tell: not that nobody uses it.
    The next client settles it.
    """
    (tmp_path / "dri").mkdir()
    (tmp_path / "dri/renderD128").touch()
    number = os.open(tmp_path / "dri/renderD128", flags)
    try:
        (gpus.procfs / str(os.getpid())).symlink_to(f"/proc/{os.getpid()}")
        assert gpus.tick(1000)[0].processes == users
        gpus.holds(42, 7, fdinfo=amdgpu(1))
        for now in range(1002, 1032, 2):
            done = gpus.tick(now)
        assert [process.pid for process in done[0].processes or ()] == [42]
    finally:
        os.close(number)


AS_NOBODY = """
import os, sys
from pathlib import Path
from tests.processes.fake_gpus import reading
from gpuwhyd.processes.gpu_users import CardUsers
os.setgroups([]); os.setgid(65534); os.setuid(65534)
users = CardUsers(procfs=Path("/proc"), sysfs=Path(sys.argv[1]), own_pid=os.getpid())
print({users.complete((reading(),), 1000.0 + now)[0].processes for now in range(0, 100, 2)})
"""


@pytest.mark.root
def test_without_the_right_to_look_into_all_processes_nobody_is_told(gpus: FakeGpus) -> None:
    command = [sys.executable, "-c", AS_NOBODY, str(gpus.sysfs)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout == "{None}\n"
    assert done.stderr.count("may not be looked into") == 1


# -- utilization ------------------------------------------------------------------------------------------------------


def test_a_card_that_tells_no_utilization_gets_that_of_its_clients(gpus: FakeGpus) -> None:
    gpus.card(INTEL, "card1", "renderD129")
    intel = reading(INTEL, vendor="intel", driver="i915")
    gpus.holds(42, 7, "dri/renderD129", i915(1))
    gpus.holds(43, 7, "dri/renderD129", i915(2))
    assert gpus.tick(1000, intel)[0].utilization_percent is None, "not known yet is not zero"
    gpus.holds(42, 7, "dri/renderD129", i915(1, render=SECOND // 2))
    gpus.holds(43, 7, "dri/renderD129", i915(2, render=SECOND, video=SECOND))
    assert gpus.tick(1002, intel)[0].utilization_percent == pytest.approx(75)
    gpus.holds(42, 7, "dri/renderD129", i915(1, render=3 * SECOND))
    gpus.holds(43, 7, "dri/renderD129", i915(2, render=3 * SECOND, video=SECOND))
    assert gpus.tick(1004, intel)[0].utilization_percent == 100
    assert gpus.tick(1006, intel)[0].utilization_percent == 0


def test_a_cards_own_utilization_stays(gpus: FakeGpus) -> None:
    gpus.holds(42, 7, fdinfo=amdgpu(1))
    assert gpus.tick(1000, reading(utilization_percent=88.0))[0].utilization_percent == 88


def test_clients_that_are_not_counted_give_no_utilization(gpus: FakeGpus) -> None:
    gpus.holds(42, 7, fdinfo=f"drm-driver:\tradeon\ndrm-client-id:\t4\ndrm-pdev:\t{AMD}\n")
    for now in (1000, 1002):
        assert gpus.tick(now)[0].utilization_percent is None


# -- who is looked for --------------------------------------------------------------------------------------------------


def seconds_until_seen(gpus: FakeGpus, idle: GpuReading, busy: GpuReading) -> int:
    """How long a process that comes with the work is unknown."""
    for now in range(1000, 1010, 2):
        gpus.tick(now, idle)
    gpus.holds(42, 7, fdinfo=amdgpu(1, gfx=SECOND))
    for now in range(1010, 1060, 2):
        if 42 in gpus.processes(now, busy):
            return now - 1010
    raise AssertionError("it was not found")


@pytest.mark.parametrize(
    ("utilization", "seconds"),
    [(19.0, 20), (20.0, 2), (100.0, 2)],
)
def test_somebody_unknown_who_works_is_looked_for(gpus: FakeGpus, utilization: float, seconds: int) -> None:
    idle, busy = reading(utilization_percent=0.0), reading(utilization_percent=utilization)
    assert seconds_until_seen(gpus, idle, busy) == seconds


@pytest.mark.parametrize(("watts", "seconds"), [(34.0, 20), (36.0, 2)])
def test_power_tells_too_where_the_card_tells_no_utilization(
    gpus: FakeGpus, watts: float, seconds: int
) -> None:
    assert seconds_until_seen(gpus, reading(power_watts=20.0), reading(power_watts=watts)) == seconds


def test_who_explains_the_work_makes_no_further_search(
    gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = gpus.holds(41, 7, fdinfo=amdgpu(1, gfx=SECOND))
    gpus.tick(1000, reading(utilization_percent=90.0))
    seen = touched(monkeypatch, gpus)
    for now in range(1002, 1030, 2):
        said.write_text(amdgpu(1, gfx=SECOND * (now - 1000)))
        gpus.tick(now, reading(utilization_percent=90.0))
    swept = [path for path in seen if path == str(gpus.procfs)]
    assert swept == []


def test_power_that_is_explained_makes_no_search(gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch) -> None:
    said = gpus.holds(41, 7, fdinfo=amdgpu(1, gfx=SECOND))
    gpus.tick(1000, reading(power_watts=20.0))
    gpus.tick(1002, reading(power_watts=20.0))
    seen = touched(monkeypatch, gpus)
    for now in range(1004, 1030, 2):
        said.write_text(amdgpu(1, gfx=SECOND * (now - 1000)))
        gpus.tick(now, reading(power_watts=90.0))
    assert str(gpus.procfs) not in seen


def test_a_search_that_finds_nobody_is_given_up(gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """A virtual machine may have the card."""
    busy = reading(utilization_percent=90.0)
    gpus.tick(1000, busy)
    seen = touched(monkeypatch, gpus)
    for now in range(1002, 1200, 2):
        gpus.tick(now, busy)
    swept = [path for path in seen if path == str(gpus.procfs)]
    assert len(swept) == pytest.approx(30 / 4 + 200 / 30, abs=2)


# -- holders ------------------------------------------------------------------------------------------------------------


def kinds(processes: dict[int, GpuProcess]) -> dict[int, str]:
    return {pid: process.kind for pid, process in processes.items()}


def test_who_holds_an_idle_card_that_could_sleep_is_named(gpus: FakeGpus) -> None:
    """logind has its client together with the compositor, and the node open all the same."""
    gpus.process(41, comm="systemd-logind", cpu_ticks=1)
    gpus.process(42, comm="kwin", cpu_ticks=900)
    for pid in (41, 42):
        gpus.holds(pid, 7, "dri/card0", amdgpu(1, gfx=SECOND))
    idle = reading(can_suspend=True, utilization_percent=1.0)
    gpus.tick(1000, idle)
    found = gpus.processes(1002, idle)
    assert kinds(found) == {41: "holder", 42: "graphics"}
    assert found[41].engine_percent == 0
    assert kinds(gpus.processes(1004, reading(can_suspend=False))) == {42: "graphics"}
    assert kinds(gpus.processes(1006, reading(can_suspend=True, utilization_percent=50.0))) == {
        42: "graphics"
    }


def test_while_somebody_works_nobody_merely_holds(gpus: FakeGpus) -> None:
    gpus.process(41, cpu_ticks=1)
    gpus.process(42, cpu_ticks=900)
    idle = reading(can_suspend=True, utilization_percent=1.0)
    for busy in (SECOND, 2 * SECOND):
        for pid in (41, 42):
            gpus.holds(pid, 7, fdinfo=amdgpu(1, gfx=busy))
        found = gpus.processes(1000 + 2 * (busy // SECOND), idle)
    assert kinds(found) == {42: "graphics"}


def test_who_holds_a_card_that_is_let_go_and_stays_awake(gpus: FakeGpus) -> None:
    gpus.nvidia(NVIDIA, 0)
    gpus.nvidia("0000:02:00.0", 1)
    gpus.holds(42, 7, "nvidia0")
    gpus.holds(43, 7, "nvidia1")
    gpus.holds(OWN_PID, 7, "nvidia0")
    let_go = reading(NVIDIA, vendor="nvidia", driver="nvidia 550", state=GpuState.UNKNOWN, can_suspend=True)
    found = gpus.processes(1000, let_go)
    assert kinds(found) == {42: "holder"}
    assert found[42].engine_percent == 0
    gpus.closes(42, 7)
    assert gpus.processes(1002, let_go) == {}, "what the index knows is asked again each time"


def test_a_card_that_its_backend_knows_has_holders_when_it_stays_awake_idle(gpus: FakeGpus) -> None:
    gpus.nvidia(NVIDIA, 0)
    gpus.holds(42, 7, "nvidia0")
    gpus.holds(43, 7, "nvidia0")
    known = (GpuProcess(pid=43, kind="compute", engine_percent=0.0),)
    idle = reading(NVIDIA, vendor="nvidia", can_suspend=True, utilization_percent=0.0, processes=known)
    busy = reading(NVIDIA, vendor="nvidia", can_suspend=True, utilization_percent=40.0, processes=known)
    for now in range(1000, 1090, 2):
        assert gpus.tick(now, idle) == (idle,)
    assert kinds(gpus.processes(1090, idle)) == {42: "holder", 43: "compute"}
    assert gpus.tick(1092, busy) == (busy,)
    assert gpus.tick(1094, idle) == (idle,)


def test_the_only_card_with_kfd_is_held_by_who_has_kfd_open(gpus: FakeGpus) -> None:
    gpus.kfd_node(1, 51_234)
    gpus.holds(42, 7, "kfd")
    idle = reading(can_suspend=True, utilization_percent=0.0)
    assert kinds(gpus.processes(1000, idle)) == {42: "holder"}
    gpus.kfd_node(2, 51_235, "0000:0b:00.0")
    for now in range(1002, 1040, 2):
        found = gpus.processes(now, idle)
    assert found == {}, "with two of them it may be either"


def test_without_nvidias_module_its_nodes_are_nobodys(gpus: FakeGpus) -> None:
    gpus.holds(42, 7, "nvidia0")
    (gpus.procfs / "driver/nvidia/gpus" / NVIDIA).mkdir(parents=True)
    let_go = reading(NVIDIA, vendor="nvidia", state=GpuState.UNKNOWN, can_suspend=True)
    assert gpus.processes(1000, let_go) == {}
