"""Measures what gpuwhyd costs, beside its peers and the bare driver's library. See docs/cost.md."""

import argparse
import asyncio
import contextlib
import os
import platform
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from gpuwhyd import __version__
from script import bench_index
from script.bench_gpus import Gpus, compile_loop, sleepers
from script.bench_programs import PEERS, Cost, Site, gpuwhyd, installed, measure, peer, wait_for_samples
from script.bench_serving import serving, signals_heard
from tests.bus.buses import private_bus
from tests.fake_nvml.control import FakeDriver
from tests.outputs.journald import Journald, running_journald

HERE = Path(__file__).parent
MACHINES = ((1, 20), (8, 500))
"""(cards, processes on them)"""
CROWDS = (0, 4000, 16_000)
SETTLE_SAMPLES = 3
WINDOWS = 5
"""Each figure is the median of so many: other work on the machine costs all that it measures."""
SERVED_CALLS = 150
_SHORT_SECONDS = 0.2
_LOOP_PAUSE_SECONDS = 0.5


def main() -> int:
    options = _options()
    if options.index_only:
        return bench_index.main()
    # short, because a socket name holds 107 bytes
    with tempfile.TemporaryDirectory(prefix="bench-") as name, private_bus() as bus, _journald() as journald:
        folder = Path(name)
        library = FakeDriver.build(folder / "lib")
        site = Site(
            folder=folder, address=bus.address, library=library, peers=options.peers, journald=journald
        )
        print(_heading(options, journald is not None), flush=True)
        _beside_peers(site, options)
        _alone(site, options)
    print()
    return bench_index.main()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="script/bench", description="What does gpuwhyd cost?")
    parser.add_argument("--interval", type=float, default=2.0, metavar="SECONDS", help="between samples")
    parser.add_argument("--samples", type=int, default=30, metavar="N", help="for each figure")
    parser.add_argument("--crowd", type=int, default=max(CROWDS), metavar="N", help="most processes to start")
    parser.add_argument("--index-only", action="store_true", help="only what it costs to know who uses a GPU")
    parser.add_argument("--peers", type=Path, default=Path("/nonexistent"), help=argparse.SUPPRESS)
    return parser.parse_args()


@contextlib.contextmanager
def _journald() -> Iterator[Journald | None]:
    """A private one; it takes root and systemd."""
    if os.getuid() != 0 or not Path("/lib/systemd/systemd-journald").exists():
        yield None
        return
    with running_journald() as journald:
        yield journald


def _heading(options: argparse.Namespace, with_journal: bool) -> str:
    where = f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"
    journal = "journal on" if with_journal else "no journal: that takes root and systemd-journald"
    return (
        f"gpuwhyd {__version__}, {where}; {journal}\n"
        f"median of {WINDOWS} windows of {max(1, options.samples // WINDOWS)} samples, one every "
        f"{options.interval:g} s, with all readings moving\n"
        "CPU s for 1,000 samples = ms a sample\n"
    )


# -- beside its peers ---------------------------------------------------------------------------------------------


def _beside_peers(site: Site, options: argparse.Namespace) -> None:
    print("| program | cards, processes | CPU s / 1,000 samples | % of a core | peak MiB | NVML calls |")
    print("|---|---|---|---|---|---|")
    for cards, processes in MACHINES:
        with (
            sleepers(site.folder, processes) as pids,
            Gpus(site.folder, site.library, cards=cards, pids=pids) as gpus,
        ):
            _loops(site, gpus, len(pids), options.interval)
            for dbus in ("dbus-fast", "dbus-next"):
                with gpuwhyd(site, gpus, interval_seconds=options.interval, library=dbus) as (pid, _):
                    cost = _settled(gpus, pid, options)
                _row(f"**gpuwhyd** ({dbus})", gpus, len(pids), cost, options)
            for name in PEERS:
                if not installed(site, name):
                    print(f"| {name} | not installed | | | | |")
                    continue
                with peer(site, name, interval_seconds=options.interval) as process:
                    wait_for_samples(process, gpus, SETTLE_SAMPLES)
                    cost = _settled(gpus, process.pid, options)
                _row(name, gpus, len(pids), cost, options)
    print()


def _settled(gpus: Gpus, pid: int, options: argparse.Namespace, *, moving: bool = True) -> Cost:
    measure(pid, gpus, interval_seconds=options.interval, samples=SETTLE_SAMPLES, moving=moving)
    each = max(1, options.samples // WINDOWS)
    costs = [
        measure(pid, gpus, interval_seconds=options.interval, samples=each, moving=moving)
        for _ in range(WINDOWS)
    ]
    return sorted(costs, key=lambda cost: cost.milliseconds)[WINDOWS // 2]


def _row(what: str, gpus: Gpus, processes: int, cost: Cost, options: argparse.Namespace) -> None:
    percent = cost.milliseconds / 10 / options.interval
    print(
        f"| {what} | {gpus.count}, {processes} | {cost.milliseconds:.2f} | {percent:.3f} "
        f"| {cost.peak_bytes / 2**20:.1f} | {cost.nvml_calls:.0f} |",
        flush=True,
    )


def _loops(site: Site, gpus: Gpus, processes: int, interval_seconds: float) -> None:
    """The calls alone: in C, the limit, and through the functions of nvidia-ml-py."""
    pause = _LOOP_PAUSE_SECONDS
    loop = [str(compile_loop(site.folder, site.library)), "20", str(round(1000 * pause))]
    binding = [sys.executable, str(HERE / "bench_binding.py"), "20", str(pause)]
    for what, command in (("the calls alone, in C", loop), ("the calls alone, nvidia-ml-py", binding)):
        said = subprocess.run(command, env=site.environment, capture_output=True, text=True, check=True)
        microseconds, calls = said.stdout.split()
        milliseconds = float(microseconds) / 1000
        percent = milliseconds / 10 / interval_seconds
        print(f"| {what} | {gpus.count}, {processes} | {milliseconds:.3f} | {percent:.4f} | | {calls} |")


# -- the daemon alone ---------------------------------------------------------------------------------------------


def _alone(site: Site, options: argparse.Namespace) -> None:
    print("| gpuwhyd by itself | |")
    print("|---|---|")
    cards, processes = MACHINES[0]
    with (
        sleepers(site.folder, processes) as pids,
        Gpus(site.folder, site.library, cards=cards, pids=pids) as gpus,
    ):
        _starts(site, gpus)
        _still(site, gpus, options)
        _serves(site, gpus)
        for crowd in sorted({min(number, options.crowd) for number in CROWDS}):
            with (
                sleepers(site.folder, crowd) as others,
                gpuwhyd(site, gpus, interval_seconds=options.interval) as (pid, _),
            ):
                cost = _settled(gpus, pid, options)
                _say(
                    f"{len(others):,} processes more, that use no GPU",
                    f"{cost.milliseconds:.2f} ms a sample, peak {cost.peak_bytes / 2**20:.1f} MiB",
                )


def _say(what: str, value: str) -> None:
    print(f"| {what} | {value} |", flush=True)


def _starts(site: Site, gpus: Gpus) -> None:
    seconds = []
    for _ in range(5):
        with gpuwhyd(site, gpus, interval_seconds=2.0) as (_, to_ready):
            seconds.append(to_ready)
    _say("start to READY=1", f"{1000 * min(seconds):.0f} to {1000 * max(seconds):.0f} ms in five starts")


def _still(site: Site, gpus: Gpus, options: argparse.Namespace) -> None:
    with gpuwhyd(site, gpus, interval_seconds=options.interval) as (pid, _):
        still = _settled(gpus, pid, options, moving=False).milliseconds
        _say("no reading moves, so nothing is announced", f"{still:.2f} ms a sample")
        moving = _settled(gpus, pid, options).milliseconds
        _say(
            "all of them move, so PropertiesChanged is sent",
            f"{moving:.2f} ms a sample, {moving - still:+.2f} ms",
        )
    with gpuwhyd(site, gpus, interval_seconds=_SHORT_SECONDS) as (pid, _):
        short = argparse.Namespace(interval=_SHORT_SECONDS, samples=5 * options.samples)
        cost = _settled(gpus, pid, short)
        _say(
            f"a sample every {_SHORT_SECONDS:g} s: the caches are warm, so shorter intervals flatter",
            f"{cost.milliseconds:.2f} ms a sample",
        )


def _serves(site: Site, gpus: Gpus) -> None:
    with gpuwhyd(site, gpus, interval_seconds=10.0) as (pid, _):
        for answer in asyncio.run(serving(site.address, pid, calls=SERVED_CALLS)):
            _say(
                f"{answer.method}, {SERVED_CALLS} calls by one client",
                f"{answer.calls_a_second:.0f} a second, {answer.cpu_milliseconds:.2f} ms of CPU each",
            )
    with gpuwhyd(site, gpus, interval_seconds=2.0):
        heard: list[int] = []
        before = gpus.samples()
        listener = threading.Thread(
            target=lambda: heard.append(asyncio.run(signals_heard(site.address, 20.0)))
        )
        listener.start()
        while listener.is_alive():
            gpus.work(1.0)
            listener.join(1.0)
        _say(
            "PropertiesChanged while everything moves", f"{heard[0]} in {gpus.samples() - before:.0f} samples"
        )


if __name__ == "__main__":
    raise SystemExit(main())
