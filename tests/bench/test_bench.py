"""The parts of script/bench work: what is measured is there, counted once, and gone afterwards. Few samples, no times."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from script.bench_clocks import cpu_seconds, peak_bytes
from script.bench_gpus import BUSY_PROCESSES, Gpus, compile_loop, sleepers
from script.bench_programs import Site, gpuwhyd, measure
from script.bench_serving import CALLS, serving
from tests.bus.buses import private_bus
from tests.fake_nvml.control import FakeDriver

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FakeDriver.build(tmp_path_factory.mktemp("driver"))


@pytest.fixture
def pids(tmp_path: Path) -> Iterator[tuple[int, ...]]:
    with sleepers(tmp_path, 20) as pids:
        yield pids


@pytest.fixture
def gpus(tmp_path: Path, library: Path, pids: tuple[int, ...]) -> Iterator[Gpus]:
    with Gpus(tmp_path, library, cards=2, pids=pids) as gpus:
        yield gpus


def test_sleepers_are_as_many_as_asked_for_and_none_is_left(tmp_path: Path) -> None:
    with sleepers(tmp_path, 12) as pids:
        assert len(set(pids)) == 12
        states = [Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] for pid in pids]
        assert set(states) <= {"S", "R"}
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_the_clock_of_a_process_is_that_of_all_its_threads_ended_ones_too() -> None:
    code = """
import threading
input("ready\\n")
thread = threading.Thread(target=lambda: sum(range(2_000_000)))
thread.start()
thread.join()
input("done\\n")
"""
    with subprocess.Popen([sys.executable, "-uc", code], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        before, peak = cpu_seconds(process.pid), peak_bytes(process.pid)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "done\n"
        assert cpu_seconds(process.pid) > before + 0.001
        assert peak_bytes(process.pid) >= peak > 1 << 20
        process.communicate("\n")


def test_the_bare_loop_makes_the_daemons_calls(
    tmp_path: Path, library: Path, gpus: Gpus, pids: tuple[int, ...]
) -> None:
    """Else its cost would be no limit of the daemon's."""
    with private_bus() as bus:
        site = Site(folder=tmp_path, address=bus.address, library=library, peers=Path("/nonexistent"))
        with gpuwhyd(site, gpus, interval_seconds=0.2) as (pid, seconds):
            cost = measure(pid, gpus, interval_seconds=0.2, samples=4)
            answers = asyncio.run(serving(bus.address, pid, calls=2))
            maps = Path(f"/proc/{pid}/maps").read_text()
    assert seconds > 0
    assert cost.samples >= 4
    assert cost.cpu_seconds > 0
    assert [answer.method for answer in answers] == [method for method, *_ in CALLS]
    unwanted = [name for name in ("libssl", "psutil", "amdsmi") if name in maps]
    assert unwanted == [], "memory that nothing here has a use for"
    loop = [str(compile_loop(tmp_path, library)), "3", "1"]
    said = subprocess.run(
        loop, env={"LD_LIBRARY_PATH": str(library.parent)}, capture_output=True, text=True, check=True
    )
    microseconds, calls = said.stdout.split()
    assert float(microseconds) > 0
    # a few calls that a card declined are asked once in ten minutes, a tick may be counted in part
    assert float(calls) == pytest.approx(cost.nvml_calls, rel=0.2)


def test_every_process_is_on_a_card_and_some_of_them_work(gpus: Gpus, pids: tuple[int, ...]) -> None:
    listed = [
        process for card in gpus.driver.cards for process in card._card.processes[: card._card.process_count]
    ]
    assert sorted(process.pid for process in listed) == sorted(pids)
    assert sum(process.sm > 0 for process in listed) == 2 * BUSY_PROCESSES


def test_the_daemon_does_not_import_what_it_has_no_use_for() -> None:
    code = "import sys; import gpuwhyd.daemon; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    unwanted = {"psutil", "amdsmi", "http.client", "email", "difflib", "zipfile", "importlib.metadata"}
    unwanted |= {"gpuwhyd.backends.simulated", "gpuwhyd.client", "gpuwhyd.install"}
    assert not imported & unwanted
