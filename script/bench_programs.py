"""What is measured: gpuwhyd, and its peers from PyPI and Debian, each started as a user would start it."""

import contextlib
import os
import pty
import shutil
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from script.bench_clocks import cpu_seconds, peak_bytes
from script.bench_gpus import Gpus
from tests.outputs.journald import Journald

ROOT = Path(__file__).resolve().parents[1]
_DAEMON = "from gpuwhyd.cli import main; raise SystemExit(main())"
START_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where programs run: a private bus, the fake driver's library, a journald of our own (None: without one)."""

    folder: Path
    address: str
    library: Path
    peers: Path
    """The bin folder of an environment with nvitop-exporter and gpustat; may be absent."""
    journald: Journald | None = None

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "LD_LIBRARY_PATH": str(self.library.parent), "PYTHONPATH": str(ROOT)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one program has used over a number of samples."""

    samples: float
    cpu_seconds: float
    peak_bytes: int
    nvml_calls: float
    """A sample."""

    @property
    def milliseconds(self) -> float:
        """CPU a sample, which is CPU seconds for 1,000 samples."""
        return 1000 * self.cpu_seconds / self.samples


def measure(pid: int, gpus: Gpus, *, interval_seconds: float, samples: int, moving: bool = True) -> Cost:
    """Watches a program that samples every `interval_seconds`, while the cards work on (or stand still)."""
    before, calls, used = gpus.samples(), gpus.calls(), cpu_seconds(pid)
    deadline = time.monotonic() + START_SECONDS + 3 * samples * interval_seconds
    while (taken := gpus.samples() - before) < samples:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{taken:g} samples of {samples} within the time for three times as many")
        time.sleep(interval_seconds / 2)
        if moving:
            gpus.work(interval_seconds / 2)
    return Cost(
        samples=taken,
        cpu_seconds=cpu_seconds(pid) - used,
        peak_bytes=peak_bytes(pid),
        nvml_calls=(gpus.calls() - calls) / taken,
    )


def wait_for_samples(process: "subprocess.Popen[bytes]", gpus: Gpus, samples: int) -> None:
    """Returns when a program has settled: it has taken so many samples since now."""
    wanted = gpus.samples() + samples
    deadline = time.monotonic() + START_SECONDS
    while gpus.samples() < wanted:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args} reads no card")
        time.sleep(0.05)


class Notified:
    """systemd's place: takes READY=1 and STATUS= as it does, and knows when the first came."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ready = threading.Event()
        self.ready_at = 0.0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"", str(self.path))
        self._thread.join()
        self._socket.close()
        self.path.unlink()

    def _listen(self) -> None:
        while message := self._socket.recv(8192):
            if message.startswith(b"READY=1") and not self.ready.is_set():
                self.ready_at = time.monotonic()
                self.ready.set()


@contextlib.contextmanager
def gpuwhyd(
    site: Site, gpus: Gpus, *, interval_seconds: float, library: str = ""
) -> Iterator[tuple[int, float]]:
    """The daemon as its unit starts it, at this interval also while a fan moves: its pid, and seconds to READY=1.

    `library`: the D-Bus library to use, `dbus-next` or `dbus-fast`; empty: as installed.
    """
    shutil.rmtree(site.folder / "state", ignore_errors=True)
    config = site.folder / "gpuwhyd.toml"
    length = f"{round(1000 * interval_seconds)}ms"
    config.write_text(f'[sampling]\ninterval = "{length}"\nfast_interval = "{length}"\n')
    notified = Notified(site.folder / "notify")
    environment = site.environment | {"NOTIFY_SOCKET": str(notified.path), "WATCHDOG_USEC": "60000000"}
    if library:
        environment["GPUWHYD_DBUS_LIBRARY"] = library
    enter = ["nsenter", "-t", str(site.journald.holder_pid), "--mount"] if site.journald else []
    command = [*enter, sys.executable, "-c", _DAEMON, "--bus", site.address, "--config", str(config)]
    command += ["--state-dir", str(site.folder / "state"), "--path.sysfs", str(gpus.sysfs)]
    began = time.monotonic()
    try:
        with _running(command, environment, site.folder / "gpuwhyd.log") as process:
            if not notified.ready.wait(START_SECONDS):
                raise RuntimeError(f"gpuwhyd is not ready: {(site.folder / 'gpuwhyd.log').read_text()}")
            yield process.pid, notified.ready_at - began
    finally:
        notified.close()


@contextlib.contextmanager
def peer(site: Site, name: str, *, interval_seconds: float) -> Iterator["subprocess.Popen[bytes]"]:
    """A peer by its name in PEERS."""
    with _running(
        PEERS[name](site, interval_seconds), site.environment, site.folder / f"{name}.log"
    ) as process:
        yield process


def _nvitop_exporter(site: Site, interval_seconds: float) -> list[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = str(site.peers / "nvitop-exporter")
    return [program, "--bind-address", "127.0.0.1", "--port", str(port), "--interval", str(interval_seconds)]


def _gpustat(site: Site, interval_seconds: float) -> list[str]:
    return [str(site.peers / "gpustat"), "--interval", str(interval_seconds)]


def _nvtop(_site: Site, interval_seconds: float) -> list[str]:
    return [os.environ.get("NVTOP", "nvtop"), "--delay", str(round(10 * interval_seconds))]


PEERS = {"nvitop-exporter": _nvitop_exporter, "gpustat": _gpustat, "nvtop": _nvtop}


def installed(site: Site, name: str) -> bool:
    return shutil.which(PEERS[name](site, 2.0)[0]) is not None


@contextlib.contextmanager
def _running(
    command: list[str], environment: dict[str, str], log: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    """On a terminal of its own, whose output is read: nvtop and gpustat draw on one."""
    screen, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (50, 200))
    reader = threading.Thread(target=_drain, args=(screen,), daemon=True)
    reader.start()
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command, stdin=terminal, stdout=terminal, stderr=errors, env={"TERM": "xterm", **environment}
        )
    os.close(terminal)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join()
        os.close(screen)


def _drain(screen: int) -> None:
    with contextlib.suppress(OSError):  # the last process on the terminal has ended
        while os.read(screen, 65536):
            pass
