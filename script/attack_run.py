"""Attacks the real daemon on private buses with the stock system policy and prints what it cost; see docs/hardening.md."""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gpuwhyd.bus.header import MessageKind
from tests.bus.attackers import ATTACKS, ROOT
from tests.bus.buses import PrivateBus, private_broker, private_bus
from tests.bus.heartbeat import Pulse
from tests.bus.raw import BUS, RawClient

REPOSITORY = Path(__file__).parents[1]
BUSES = {"dbus-daemon": private_bus, "dbus-broker": private_broker}
LIBRARIES = ("dbus-next", "dbus-fast")
ATTACKER_UID = 65534
OTHER_UID = 1  # daemon; dbus-daemon lets in only users that exist
NOTHING = "nothing"
START_SECONDS = 20.0
MIB = 1 << 20

MOST_STALL_SECONDS = 0.2
MOST_WAIT_SECONDS = {"dbus-next": 1.0, "dbus-fast": 0.1}
MOST_GROWTH_MIB = 20
MOST_LINES_PER_MINUTE = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    attack: str
    stall_seconds: float
    worked_seconds: float
    waits: tuple[float, ...]
    bus_wait_seconds: float
    """The longest that the bus itself took to answer, which the daemon cannot help."""
    errors: tuple[str, ...]
    memory_before: int
    memory_peak: int
    memory_after: int
    name_kept: bool
    lines: int
    seconds: float
    cpu_seconds: float

    @property
    def p99(self) -> float:
        return sorted(self.waits)[int(0.99 * (len(self.waits) - 1))]

    def faults(self, library: str) -> list[str]:
        minutes = max(1.0, self.seconds / 60)
        found = {
            "off the bus": not self.name_kept,
            "stall": self.worked_seconds > MOST_STALL_SECONDS,
            "others waited": max(self.waits) > MOST_WAIT_SECONDS[library],
            f"others were refused ({', '.join(sorted(set(self.errors)))})": bool(self.errors),
            "memory": self.memory_peak - self.memory_before > MOST_GROWTH_MIB * MIB,
            "log": self.lines / minutes > MOST_LINES_PER_MINUTE,
        }
        return [what for what, true in found.items() if true]


class Daemon:
    """The daemon on one bus, seen from outside."""

    def __init__(self, folder: Path, bus: PrivateBus, library: str, scenario: str) -> None:
        self.bus = bus
        self.log = folder / "log"
        (folder / "pulse").write_bytes(bytes(16))
        self.pulse = Pulse(folder / "pulse")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.bus.heartbeat", str(folder / "pulse")),
                    *("--bus", bus.address, "--simulate", scenario, "--state-dir", str(folder / "state")),
                ],
                cwd=REPOSITORY,
                env=os.environ | {"GPUWHYD_DBUS_LIBRARY": library},
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.owner():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the daemon does not start:\n{self.log.read_text()}")
            time.sleep(0.05)

    def owner(self) -> str:
        client = RawClient(self.bus.address, OTHER_UID)
        try:
            serial = client.send(
                MessageKind.METHOD_CALL, **BUS, member="GetNameOwner", signature="s", body=["org.gpuwhyd1"]
            )
            answer = client.answer_to(serial)
            return "" if answer.header.error_name else answer.body[4:-1].decode()
        finally:
            client.close()

    def status(self, key: str) -> int:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
        raise RuntimeError(f"no {key}")

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def lines(self) -> int:
        return self.log.read_bytes().count(b"\n")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


SUMMARY = {
    "destination": "org.gpuwhyd1",
    "path": ROOT,
    "interface": "org.gpuwhyd1.Manager",
    "member": "GetSummary",
}
GET_ID = {**BUS, "member": "GetId"}


class Asker(threading.Thread):
    """Another user's client, which asks 40 times a second; `waits` are the seconds until each answer."""

    def __init__(self, address: str, question: dict[str, str]) -> None:
        super().__init__(daemon=True)
        self._question = question
        self.waits: list[float] = []
        self.errors: list[str] = []
        self._client = RawClient(address, OTHER_UID)
        self._client.sock.settimeout(60)
        self._end = threading.Event()

    def run(self) -> None:
        while not self._end.wait(0.025):
            before = time.monotonic()
            serial = self._client.send(MessageKind.METHOD_CALL, **self._question)
            try:
                answer = self._client.answer_to(serial)
            except (OSError, EOFError) as error:
                self.waits.append(time.monotonic() - before)
                self.errors.append(repr(error))
                return
            self.waits.append(time.monotonic() - before)
            if answer.header.error_name:
                self.errors.append(answer.header.error_name)

    def end(self) -> None:
        self._end.set()
        self.join(70)
        self._client.close()


@contextlib.contextmanager
def attacking(address: str, attack: str) -> Iterator[None]:
    """The block runs when the attack is over, with its clients still there."""
    if attack == NOTHING:
        yield
        return
    with subprocess.Popen(
        [sys.executable, "-m", "tests.bus.attackers", address, attack, str(ATTACKER_UID)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        if process.stdout.readline() != b"done\n":
            raise RuntimeError(f"the attack '{attack}' failed")
        yield


def measure(daemon: Daemon, attack: str, quiet_seconds: float) -> Result:
    owner, lines, began = daemon.owner(), daemon.lines(), time.monotonic()
    memory_before, cpu_before = daemon.status("VmRSS"), daemon.cpu_seconds()
    daemon.forget_peak()
    daemon.pulse.reset()
    asker = Asker(daemon.bus.address, SUMMARY)
    bus_asker = Asker(daemon.bus.address, GET_ID)
    asker.start()
    bus_asker.start()
    with attacking(daemon.bus.address, attack):
        time.sleep(quiet_seconds)
        asker.end()
        bus_asker.end()
        stall, worked = daemon.pulse.read()
        peak = daemon.status("VmHWM")
        cpu_seconds = daemon.cpu_seconds() - cpu_before
        name_kept = daemon.owner() == owner
    time.sleep(0.5)
    return Result(
        attack=attack,
        stall_seconds=stall,
        worked_seconds=worked,
        waits=tuple(asker.waits),
        bus_wait_seconds=max(bus_asker.waits),
        errors=tuple(asker.errors),
        memory_before=memory_before,
        memory_peak=peak,
        memory_after=daemon.status("VmRSS"),
        name_kept=name_kept,
        lines=daemon.lines() - lines,
        seconds=time.monotonic() - began,
        cpu_seconds=cpu_seconds,
    )


def large_machine() -> str:
    """A scenario with 8 cards and 200 programs on them."""
    cards = "".join(f'[[card]]\nname = "NVIDIA H100 80GB HBM3 ({number})"\n' for number in range(8))
    programs = "".join(
        f'[[program]]\nname = "worker-{number}"\ncard = {number % 8}\nunit = "worker-{number}.service"\n'
        f'load = [["0s", {4 + number % 3}]]\nmemory_mib = 500\ncommand = ["/opt/worker", "--number", "{number}"]\n'
        for number in range(200)
    )
    return f"speed = 10\n{cards}{programs}"


HEADER = (
    "attack                  bus          library    stall ms (own)  others' answer ms p99/max (bus itself)   "
    "MiB before/peak/after  CPU s  log lines  name"
)


def row(bus: str, library: str, result: Result) -> str:
    faults = result.faults(library)
    memory = "/".join(
        f"{size / MIB:.1f}" for size in (result.memory_before, result.memory_peak, result.memory_after)
    )
    return (
        f"{result.attack:<23} {bus:<12} {library:<10} {result.stall_seconds * 1e3:>6.0f} ({result.worked_seconds * 1e3:.0f})"
        f"{result.p99 * 1e3:>16.1f}/{max(result.waits) * 1e3:.1f} ({result.bus_wait_seconds * 1e3:.1f})   {memory:>24}  {result.cpu_seconds:>5.1f}"
        f" {result.lines:>7}     {'kept' if result.name_kept else 'LOST'}"
        f"{'   <-- ' + ', '.join(faults) if faults else ''}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="script/attack", description=__doc__)
    parser.add_argument("--bus", choices=BUSES, action="append", help="only on this bus")
    parser.add_argument("--library", choices=LIBRARIES, action="append", help="only with this library")
    parser.add_argument("--attack", choices=ATTACKS, action="append", help="only this attack")
    parser.add_argument(
        "--simulate", metavar="SCENARIO", help="instead of a machine with 8 cards and 200 programs on them"
    )
    parser.add_argument(
        "--repeat", type=int, default=1, help="attack so often and show the best, on a busy machine"
    )
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="how long to go on measuring after each attack"
    )
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("must be root, to attack as another user")
    bad = 0
    print(HEADER, flush=True)
    for library in options.library or LIBRARIES:
        for bus_name in options.bus or BUSES:
            with (
                tempfile.TemporaryDirectory(prefix="gpuwhyd-attack-") as name,
                contextlib.ExitStack() as stack,
            ):
                folder = Path(name)
                scenario = folder / "large.toml"
                scenario.write_text(large_machine())
                bus = stack.enter_context(
                    BUSES[bus_name]("system", policy_files=[REPOSITORY / "dbus/org.gpuwhyd1.conf"])
                )
                daemon = Daemon(folder, bus, library, options.simulate or str(scenario))
                stack.callback(daemon.stop)
                time.sleep(2)
                for attack in (NOTHING, *(options.attack or ATTACKS)):
                    results = [measure(daemon, attack, options.seconds) for _ in range(options.repeat)]
                    result = min(results, key=lambda result: max(result.waits))
                    bad += bool(result.faults(library))
                    print(row(bus_name, library, result), flush=True)
                if "Traceback" in daemon.log.read_text():
                    bad += 1
                    print(daemon.log.read_text()[-3000:])
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
