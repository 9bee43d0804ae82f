"""Runs the daemon for long and judges what was seen. See docs/soak.md."""

import argparse
import asyncio
import contextlib
import csv
import dataclasses
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from gpuwhyd import __version__
from gpuwhyd.client.ask import AskError
from gpuwhyd.errors import BusError
from script import soak_programs, soak_scenario, soak_series
from script.soak_clients import EVENT_SIGNALS, Clients
from script.soak_journal import WrittenEntries
from script.soak_series import Moment
from tests.bus.buses import private_bus
from tests.outputs.journald import Journald, running_journald

ROOT = Path(__file__).resolve().parents[1]
SPEED = 100.0
SIMULATED_DAYS = 2
"""The events that are remembered become their 500 on the first; the second, and the end of the first, are judged."""
SLICES = 12
MOST_THREADS = 4 + min(32, (os.cpu_count() or 1) + 4)
"""The main one, one each for two backends and the processes, and asyncio's pool, as large as Python makes it."""
_SOURCE = ("gpuwhyd", "config", "dbus", "systemd")
_START_SECONDS = 20.0
_DAEMON = "from gpuwhyd.cli import main; raise SystemExit(main())"
_CLIENT = "from gpuwhyd.client.cli import main; raise SystemExit(main())"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="script/soak", description="Does gpuwhyd stay as it is, for a day of work?"
    )
    parser.add_argument(
        "--real-time", action="store_true", help="an hour on the fake driver, with real processes"
    )
    parser.add_argument(
        "--seconds", type=float, help="real seconds; default 1728 (two days at 100 times speed), or 3600"
    )
    parser.add_argument("--series", type=Path, metavar="FILE", help="where to write every moment as CSV")
    options = parser.parse_args()
    seconds = options.seconds or (3600.0 if options.real_time else SIMULATED_DAYS * 86_400 / SPEED)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # short, because a socket name holds 107 bytes
    with (
        tempfile.TemporaryDirectory(prefix="soak-") as name,
        running_journald() as journald,
        private_bus() as bus,
    ):
        soak = Soak(Path(name), journald, bus.address, real_time=options.real_time)
        try:
            print(_heading(seconds, options.real_time), flush=True)
            return asyncio.run(soak.run(seconds, options.series))
        finally:
            soak.close()


class Soak:
    """The daemon runs from a copy of the source, so that a checkout that changes meanwhile does not disturb it."""

    def __init__(self, folder: Path, journald: Journald, address: str, *, real_time: bool) -> None:
        self._folder = folder
        self._journald = journald
        self._address = address
        self._speed = 1.0 if real_time else SPEED
        self._scenario = "" if real_time else soak_scenario.scenario(SPEED)
        self._programs = soak_programs.programs(folder) if real_time else None
        self._clients = Clients(address)
        self._source = folder / "src"
        for part in _SOURCE:
            shutil.copytree(ROOT / part, self._source / part, ignore=shutil.ignore_patterns("__pycache__"))
        (directory,) = (path for path in journald.directory.iterdir() if path.is_dir())
        self._written = WrittenEntries(directory)
        self._moments: list[Moment] = []

    def close(self) -> None:
        if self._programs is not None:
            self._programs.close()

    async def run(self, seconds: float, series: Path | None) -> int:
        with self._daemon() as daemon:
            await self._until_it_answers(daemon)
            with self._running("watch.log", _CLIENT, "--bus", self._address, "watch") as watch:
                ended = await self._look_on(daemon, seconds)
                if watch.poll() is not None:
                    ended.append(RuntimeError("gpuwhy watch ended"))
            health = await self._clients.health()
            daemon.terminate()
            status = await asyncio.to_thread(daemon.wait, 10)
        self._written.read()
        if series is not None:
            _write(series, self._moments)
        found = [f"a client ended: {error!r}" for error in ended]
        found += [] if status == 0 else [f"the daemon ended with status {status}"]
        return self._judge(health, found)

    def _judge(self, health: dict[str, object], found: list[str]) -> int:
        print(soak_series.table(self._moments, SLICES))
        print("\n" + soak_series.summary(self._moments))
        written = self._written
        print(
            "Events in the journal: " + ", ".join(f"{n} {kind}" for kind, n in sorted(written.kinds.items()))
        )
        told = (self._folder / "watch.log").read_text().count("\n")
        heard = sum(self._clients.heard[name] for name in EVENT_SIGNALS)
        log_lines = (self._folder / "daemon.log").read_text().splitlines()
        print(
            f"Heard as signals: {heard}; lines of `gpuwhy watch`: {told}; the daemon's own log: {len(log_lines)} lines; "
            f"journal files: {written.disk_bytes() / 2**20:.0f} MiB"
        )
        found += soak_series.faults(
            self._moments, most_threads=MOST_THREADS
        ) + soak_series.alternation_faults(written.spike_events)
        found += [f"{count} times: {failure}" for failure, count in self._clients.failures.items()]
        found += [f"written twice: {event_id}" for event_id in written.doubled]
        journal = health["journal"]
        if journal["queued"] or journal["dropped"]:
            found.append(f"the journal is not up to date: {journal}")
        told_on_bus = sum(
            written.kinds[kind]
            for kind in ("spike-started", "spike-updated", "spike-ended", "alert-raised", "alert-cleared")
        )
        # A moment passes between the first and the last things that are ended.
        if abs(told_on_bus - heard) > 3:
            found.append(f"{told_on_bus} events were written, {heard} were heard")
        found += [f"logged: {line}" for line in log_lines if " ERROR " in line or "Traceback" in line]
        for fault in found:
            print("FAULT: " + fault)
        print("Verdict: " + ("not flat" if found else "flat"))
        return 1 if found else 0

    # -- looking --------------------------------------------------------------------------------------------------

    async def _look_on(self, daemon: subprocess.Popen[bytes], seconds: float) -> list[BaseException]:
        """Gives what ended clients before their time."""
        began = time.monotonic()
        tasks = [asyncio.create_task(self._clients.listen()), asyncio.create_task(self._clients.poll())]
        if self._programs is not None:
            tasks.append(asyncio.create_task(self._work()))
        pause_seconds = max(0.25, seconds / 720)
        try:
            while (now := time.monotonic()) < began + seconds:
                self._moments.append(await self._moment(daemon, (now - began) * self._speed))
                await asyncio.sleep(pause_seconds)
            self._moments.append(await self._moment(daemon, (time.monotonic() - began) * self._speed))
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        return [error for error in ended if isinstance(error, Exception)]

    async def _moment(self, daemon: subprocess.Popen[bytes], seconds: float) -> Moment:
        if daemon.poll() is not None:
            raise RuntimeError(f"the daemon ended: {(self._folder / 'daemon.log').read_text()[-2000:]}")
        health = await self._clients.health()
        self._written.read()
        proc = Path(f"/proc/{daemon.pid}")
        status = dict(
            line.split(":", 1) for line in (proc / "status").read_text().splitlines() if ":" in line
        )
        kinds = self._written.kinds
        if self._programs is None:
            processes = soak_scenario.starts(self._scenario, seconds)
        else:
            processes = self._programs.started
        state_file = self._folder / "state/state.json"
        return Moment(
            seconds=seconds,
            resident_kib=_kib(status["VmRSS"]),
            peak_kib=_kib(status["VmHWM"]),
            anonymous_kib=_kib(status["RssAnon"]),
            descriptors=_descriptors(proc),
            threads=int(status["Threads"]),
            cpu_seconds=health["cpu_seconds"],
            samples=health["samples"],
            journal_entries=self._written.entries,
            journal_bytes=self._written.bytes,
            state_bytes=state_file.stat().st_size if state_file.exists() else 0,
            spikes_started=kinds["spike-started"],
            spikes_ended=kinds["spike-ended"],
            processes=processes,
            changes=self._clients.heard["PropertiesChanged"],
            answers=self._clients.answers,
        )

    async def _work(self) -> None:
        while True:
            self._programs.step()
            await asyncio.sleep(soak_programs.STEP_SECONDS)

    # -- what runs ------------------------------------------------------------------------------------------------

    def _daemon(self) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
        config = self._folder / "gpuwhyd.toml"
        config.touch()
        (self._folder / "state").mkdir()
        arguments = [
            "--bus",
            self._address,
            "--config",
            str(config),
            "--state-dir",
            str(self._folder / "state"),
        ]
        if self._programs is None:
            scenario = self._folder / "scenario.toml"
            scenario.write_text(self._scenario)
            arguments += ["--simulate", str(scenario), "--journal", "on"]
        else:
            arguments += ["--path.sysfs", str(self._folder / "sys")]
        return self._running("daemon.log", _DAEMON, *arguments, inside=True)

    @contextlib.contextmanager
    def _running(
        self, log: str, code: str, *arguments: str, inside: bool = False
    ) -> Iterator[subprocess.Popen[bytes]]:
        """`inside`: where /run/systemd/journal/socket is our own journald's. nsenter(1) becomes the command."""
        environment = {**os.environ, "PYTHONPATH": str(self._source), "LD_LIBRARY_PATH": str(self._folder)}
        enter = ["nsenter", "-t", str(self._journald.holder_pid), "--mount"] if inside else []
        command = [*enter, sys.executable, "-c", code, *arguments]
        with (
            (self._folder / log).open("wb") as output,
            subprocess.Popen(
                command, stdout=output, stderr=output, env=environment, cwd=self._source
            ) as process,
        ):
            try:
                yield process
            finally:
                process.kill()

    async def _until_it_answers(self, daemon: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            with contextlib.suppress(AskError, BusError):
                if (await self._clients.health())["samples"]:
                    return
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the daemon does not answer: {(self._folder / 'daemon.log').read_text()}")
            await asyncio.sleep(0.1)


def _heading(seconds: float, real_time: bool) -> str:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return (
        f"gpuwhyd {__version__} ({commit.stdout.strip()}), Python {platform.python_version()}, "
        f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC, {seconds:g} s at speed {1 if real_time else SPEED:g}\n"
    )


def _descriptors(proc: Path) -> int:
    """Without the pidfds of processes that live: how many of those there are, the programs decide (proc(5), fdinfo)."""
    count = 0
    for number in os.listdir(proc / "fd"):
        with contextlib.suppress(FileNotFoundError):  # it was open for a moment
            pid = re.search(r"^Pid:\s*(-?\d+)$", (proc / "fdinfo" / number).read_text(), re.MULTILINE)
            count += pid is None or int(pid[1]) <= 0
    return count


def _kib(value: str) -> int:
    return int(value.split(maxsplit=1)[0])


def _write(path: Path, moments: list[Moment]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(field.name for field in dataclasses.fields(Moment))
        writer.writerows(dataclasses.astuple(moment) for moment in moments)


if __name__ == "__main__":
    raise SystemExit(main())
