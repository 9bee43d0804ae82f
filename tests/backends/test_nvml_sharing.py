"""Cards that several programs share by MIG or MPS: who uses them, what each did, and what nobody can know."""

import pytest

from gpuwhyd.model import Cause, GpuProcess, GpuReading, GpuUse
from tests.backends.nvml_rig import OWN_PID, NvmlRig
from tests.engine.rig import Rig as EngineRig
from tests.engine.rig import unit
from tests.fake_nvml.control import (
    NO_PERMISSION,
    NOT_SUPPORTED,
    UNKNOWN,
    FakeInstance,
    FakeProcess,
    FakeSample,
)

MIB = 1 << 20
LARGE = FakeInstance(
    gpu_instance=2, profile="3g.40gb", memory_total_bytes=40448 * MIB, memory_used_bytes=11091 * MIB
)
SMALL = FakeInstance(gpu_instance=9)
SERVER, FIRST, SECOND, ALONE = 100, 201, 202, 300


@pytest.fixture
def rig(tmp_path):
    with NvmlRig(tmp_path) as rig:
        yield rig


@pytest.fixture
def h100(rig):
    """As recorded of an H100 in MIG mode: no fan; power and temperature as ever."""
    return rig.add_card(
        name="NVIDIA H100 80GB HBM3",
        number_of_fans=0,
        power_limit_mw=700_000,
        memory_total=81559 * MIB,
        utilization=100,
        mig_mode=0,
    )


@pytest.fixture
def card(rig):
    card = rig.add_card()
    card.set_sample_period(None)
    return card


def listed(reading: GpuReading) -> dict[int, int | None]:
    assert reading.processes is not None
    return {process.pid: process.memory_used_bytes for process in reading.processes}


def on_instances(*, own: bool = False) -> tuple[FakeProcess, ...]:
    processes = (
        FakeProcess(pid=1, memory_bytes=2296 * MIB, sm=60, instance=0),
        FakeProcess(pid=2, memory_bytes=7484 * MIB, sm=99, instance=0),
        FakeProcess(pid=3, memory_bytes=512 * MIB, sm=10, instance=2),
    )
    return (*processes, FakeProcess(pid=OWN_PID, instance=2)) if own else processes


# ---- MIG ----


def test_processes_of_all_instances_are_the_cards(rig, h100):
    h100.partition(LARGE, None, SMALL)
    h100.set_processes(*on_instances(own=True))
    assert listed(rig.reading()) == {1: 2296 * MIB, 2: 7484 * MIB, 3: 512 * MIB}


def test_the_instances_lists_serve_where_the_whole_cards_is_refused(rig, h100):
    h100.partition(LARGE, None, SMALL, aggregate=NO_PERMISSION)
    h100.set_processes(*on_instances())
    reading = rig.reading()
    assert listed(reading) == {1: 2296 * MIB, 2: 7484 * MIB, 3: 512 * MIB}
    assert reading.memory_used_bytes is None, "the whole card's memory is refused too"
    assert reading.power_watts == 21.5


def test_the_instances_know_the_memory_that_the_whole_cards_list_hides(rig, h100):
    h100.partition(LARGE, None, SMALL, aggregate_hides_memory=True)
    h100.set_processes(*on_instances())
    assert listed(rig.reading()) == {1: 2296 * MIB, 2: 7484 * MIB, 3: 512 * MIB}


def test_the_whole_cards_list_serves_where_instances_have_none(rig, h100):
    h100.partition(FakeInstance(gpu_instance=2, result=NOT_SUPPORTED))
    h100.set_processes(FakeProcess(pid=1, memory_bytes=7 * MIB, instance=0))
    assert listed(rig.reading()) == {1: 7 * MIB}


def test_a_process_on_two_instances_holds_the_memory_of_both_once(rig, h100):
    h100.partition(LARGE, SMALL)
    h100.set_processes(
        FakeProcess(pid=1, memory_bytes=10 * MIB, instance=0),
        FakeProcess(pid=1, memory_bytes=5 * MIB, instance=1),
    )
    assert listed(rig.reading()) == {1: 15 * MIB}


def test_a_driver_that_speaks_of_four_billion_mig_devices_is_asked_for_a_few(rig, h100):
    h100.partition(LARGE, None, SMALL)
    h100.claim(1 << 20)
    rig.reading()
    assert rig.driver.calls("nvmlDeviceGetMigDeviceHandleByIndex") <= 64


@pytest.mark.parametrize("permitted", [(), (2,)], ids=["nothing", "one-instance"])
def test_without_privilege_who_uses_a_partitioned_card_is_unknown_not_nobody(rig, h100, permitted):
    refused = FakeInstance(gpu_instance=2, result=NO_PERMISSION)
    h100.partition(refused, None, SMALL if 2 in permitted else refused, aggregate=NO_PERMISSION)
    h100.set_processes(*on_instances())
    reading = rig.reading()
    assert reading.processes is None
    assert reading.temperature_celsius == 35.0


def test_one_list_that_is_refused_leaves_it_unknown_who_uses_the_card(rig, card):
    card.set_processes(FakeProcess(pid=1), FakeProcess(pid=2, kind="graphics"))
    card.fail("nvmlDeviceGetGraphicsRunningProcesses_v3", NO_PERMISSION)
    card.fail("nvmlDeviceGetGraphicsRunningProcesses_v2", NO_PERMISSION)
    card.fail("nvmlDeviceGetGraphicsRunningProcesses", NO_PERMISSION)
    assert rig.reading().processes is None


def test_a_partitioned_card_tells_no_utilisation(rig, h100):
    h100.partition(LARGE, None, SMALL)
    h100.set_processes(*on_instances())
    reading = rig.reading()
    assert (reading.utilization_percent, reading.memory_utilization_percent) == (None, None)
    assert (reading.encoder_percent, reading.decoder_percent) == (None, None)
    assert {process.engine_percent for process in reading.processes} == {None}


def test_instances_come_and_go_while_the_daemon_runs(rig, h100):
    h100.partition(LARGE, aggregate=NO_PERMISSION)
    h100.set_processes(FakeProcess(pid=1, instance=0))
    assert listed(rig.reading()).keys() == {1}
    h100.partition(None, SMALL, LARGE, aggregate=NO_PERMISSION)
    h100.set_processes(FakeProcess(pid=3, instance=1), FakeProcess(pid=4, instance=2))
    assert listed(rig.reading()).keys() == {3, 4}
    h100.unite()
    h100.set_processes(FakeProcess(pid=5))
    assert listed(rig.reading()).keys() == {5}
    assert rig.reading().utilization_percent == 100, "what it declined in MIG mode is asked again"


def test_a_list_of_one_instance_that_fails_makes_no_half_list(rig, h100):
    h100.partition(LARGE, FakeInstance(gpu_instance=9, result=UNKNOWN))
    h100.set_processes(*on_instances()[:2])
    assert rig.reading().processes is None


def test_a_card_that_is_not_partitioned_is_not_asked_for_instances(rig, h100, card):
    rig.read()
    assert rig.driver.calls("nvmlDeviceGetMigDeviceHandleByIndex") == 0
    before = rig.driver.calls("nvmlDeviceGetMigMode")
    rig.read()
    assert rig.driver.calls("nvmlDeviceGetMigMode") == before + 1, "a card that knows no MIG was asked again"


def explained(rig: NvmlRig, engine: EngineRig, seconds: float) -> None:
    """What the engine makes of so many seconds of readings; every process is a unit of its own."""
    for _ in range(round(seconds / 2)):
        reading = rig.reading(2)
        engine.now += 2
        uses = (
            GpuUse(gpu_id=reading.gpu.id, process=unit(f"job{use.pid}.service", use.pid), use=use)
            for use in reading.processes or ()
        )
        engine.feed(readings=(reading,), uses=tuple(uses))


def loaded_partitioned_card(rig, h100, **partition: int) -> EngineRig:
    engine = EngineRig()
    h100.partition(LARGE, None, SMALL, **partition)
    h100.set(power_instant_mw=98_000, power_average_mw=98_000, temperature=42)
    explained(rig, engine, 60)
    h100.set(power_instant_mw=432_000, power_average_mw=432_000, temperature=52)
    h100.set_processes(*on_instances())
    explained(rig, engine, 60)
    return engine


def test_the_answer_for_a_partitioned_card_says_that_its_split_is_a_guess(rig, h100):
    answer = loaded_partitioned_card(rig, h100).answer
    assert answer.cause is Cause.WORKLOAD
    assert answer.suspects[0].program.name == "job2.service", "who holds most memory"
    assert answer.suspects[0].engine_percent is None
    assert [item.value for item in answer.evidence if item.quantity == "engine_times_unknown"] == [1.0]
    assert answer.confidence == 0.68, "as measured for a guess by memory alone: docs/causes.md"
    assert "a guess, by who holds its memory and since when" in answer.sentence


def test_the_answer_without_privilege_names_nobody(rig, h100):
    engine = EngineRig()
    refused = FakeInstance(gpu_instance=2, result=NO_PERMISSION)
    h100.partition(refused, None, refused, aggregate=NO_PERMISSION)
    h100.set(power_instant_mw=98_000, power_average_mw=98_000)
    explained(rig, engine, 60)
    h100.set(power_instant_mw=432_000, power_average_mw=432_000, temperature=60)
    h100.set_processes(*on_instances())
    explained(rig, engine, 60)
    assert engine.answer.cause is Cause.HIDDEN_WORKLOAD
    assert engine.answer.suspects == ()
    assert engine.answer.unattributed_share > 0.9
    assert "MIG" in engine.answer.sentence


# ---- MPS ----


@pytest.fixture
def mps(rig, card):
    """A server and two clients, as nvidia-smi shows them: `C` with 30 MiB, and `M+C`."""
    named = {SERVER: "nvidia-cuda-mps", FIRST: "python3", SECOND: "python3", ALONE: "python3"}
    for pid, name in named.items():
        (rig.procfs / str(pid)).mkdir(parents=True)
        (rig.procfs / str(pid) / "comm").write_text(name + "\n")
    card.set_processes(
        FakeProcess(pid=SERVER, memory_bytes=30 * MIB),
        FakeProcess(pid=FIRST, kind="compute+mps", memory_bytes=900 * MIB),
        FakeProcess(pid=SECOND, kind="mps", memory_bytes=100 * MIB),
    )
    rig.reading()
    return card


def sampled(rig: NvmlRig, card, **percents: int) -> dict[int, GpuProcess]:
    """The next tick's processes, when the driver's samples are these."""
    pids = {"server": SERVER, "first": FIRST, "second": SECOND, "alone": ALONE}
    stamp = rig.wall_us + 2_000_000
    card.set_samples(
        *(
            FakeSample(pid=pids[name], time_stamp=stamp, sm=percent, mem=5)
            for name, percent in percents.items()
        )
    )
    return {process.pid: process for process in rig.reading(2).processes}


def engines(processes: dict[int, GpuProcess]) -> dict[int, float | None]:
    return {pid: process.engine_percent for pid, process in processes.items()}


def test_clients_have_their_own_work_and_memory_and_the_server_has_none(rig, mps):
    found = sampled(rig, mps, first=60, second=30)
    assert engines(found) == {SERVER: 0.0, FIRST: 60.0, SECOND: 30.0}
    assert [found[pid].kind for pid in (SERVER, FIRST, SECOND)] == ["compute", "mps", "mps"]
    assert [found[pid].memory_used_bytes // MIB for pid in (SERVER, FIRST, SECOND)] == [30, 900, 100]


def test_work_that_is_sampled_of_both_server_and_clients_counts_once(rig, mps):
    assert engines(sampled(rig, mps, server=90, first=60, second=30)) == {
        SERVER: 0.0,
        FIRST: 60.0,
        SECOND: 30.0,
    }
    assert engines(sampled(rig, mps, server=60, first=60)) == {SERVER: 0.0, FIRST: 60.0, SECOND: 0.0}


def test_work_that_is_sampled_of_the_server_only_is_its_clients_and_who_did_how_much_unknown(rig, mps):
    assert engines(sampled(rig, mps, server=90)) == {SERVER: 0.0, FIRST: None, SECOND: None}
    assert engines(sampled(rig, mps)) == {SERVER: 0.0, FIRST: 0.0, SECOND: 0.0}


def test_a_client_that_ended_within_the_tick_still_has_a_part_in_the_servers_work(rig, mps):
    mps.set_processes(FakeProcess(pid=SERVER, memory_bytes=30 * MIB))
    assert engines(sampled(rig, mps, server=90)) == {SERVER: 0.0, FIRST: None, SECOND: None}
    assert engines(sampled(rig, mps, server=90)) == {SERVER: 90.0}, "nobody but the server is left to see"


def test_others_on_the_card_keep_their_own_work(rig, mps):
    mps.set_processes(
        FakeProcess(pid=SERVER), FakeProcess(pid=FIRST, kind="mps"), FakeProcess(pid=ALONE, memory_bytes=MIB)
    )
    sampled(rig, mps)
    assert engines(sampled(rig, mps, server=50, alone=40)) == {SERVER: 0.0, FIRST: None, ALONE: 40.0}


def test_a_server_whose_clients_cannot_be_seen_answers_for_them(rig, mps):
    """Drivers older than Volta's MPS, or clients in another PID namespace."""
    mps.fail("nvmlDeviceGetMPSComputeRunningProcesses_v3", NOT_SUPPORTED)
    mps.set_processes(FakeProcess(pid=SERVER))
    sampled(rig, mps)
    assert engines(sampled(rig, mps, server=90)) == {SERVER: 90.0}


def test_a_server_whose_name_is_hidden_is_a_process_like_others(rig, mps):
    (rig.procfs / str(ALONE) / "comm").unlink()
    mps.set_processes(FakeProcess(pid=ALONE), FakeProcess(pid=FIRST, kind="mps"))
    assert engines(sampled(rig, mps, alone=50, first=40)) == {ALONE: 50.0, FIRST: 40.0}


def test_servers_names_are_read_once_and_not_at_all_without_clients(rig, mps):
    (rig.procfs / str(SERVER) / "comm").write_text("something else\n")
    assert engines(sampled(rig, mps, server=90))[SERVER] == 0.0, "it was read again"
    mps.set_processes(FakeProcess(pid=SERVER))
    sampled(rig, mps)
    assert engines(sampled(rig, mps, server=90)) == {SERVER: 90.0}
    mps.set_processes(FakeProcess(pid=SERVER), FakeProcess(pid=FIRST, kind="mps"))
    assert engines(sampled(rig, mps, server=90)) == {SERVER: 90.0, FIRST: 0.0}, (
        "meanwhile the pid is another's"
    )


def test_mps_on_a_partitioned_card_gives_the_server_no_part(rig, h100, mps):
    h100.partition(LARGE)
    h100.set_processes(
        FakeProcess(pid=SERVER, memory_bytes=30 * MIB, instance=0),
        FakeProcess(pid=FIRST, kind="mps", memory_bytes=900 * MIB, instance=0),
    )
    (reading,) = [row for row in rig.read().readings if row.gpu.name.startswith("NVIDIA H100")]
    assert {use.pid: use.engine_percent for use in reading.processes} == {SERVER: 0.0, FIRST: None}


def test_the_answer_names_the_client_not_the_server(rig, mps):
    engine = EngineRig()
    mps.set(power_instant_mw=20_000, power_average_mw=20_000)
    explained(rig, engine, 60)
    mps.set(power_instant_mw=200_000, power_average_mw=200_000, utilization=90, temperature=70)
    mps.set_fan(0, percent=60)
    for _ in range(30):
        stamp = rig.wall_us + 2_000_000
        mps.set_samples(FakeSample(pid=SERVER, time_stamp=stamp, sm=90))
        explained(rig, engine, 2)
    assert engine.answer.cause is Cause.WORKLOAD
    assert engine.answer.suspects[0].program.name == f"job{FIRST}.service"
    assert all(suspect.program.name != f"job{SERVER}.service" for suspect in engine.answer.suspects)
    assert "engine_times_unknown" in {item.quantity for item in engine.answer.evidence}
