"""One card, one daemon and one story, told in phases, in which a fault can strike at any of them."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

from tests.containers.bench import LOUD_PERCENT, PLACE, REST_PERCENT, Bench, plain
from tests.containers.harness import Debian, wait_for
from tests.containers.shim import Shim
from tests.fake_nvml.control import DESKTOP_CARD, FakeDriver, FakeProcess

BURNER = "burner.service"
INTERVAL_SECONDS = 0.4
CONFIGURATION = f"""
[sampling]
interval = "{INTERVAL_SECONDS * 1000:.0f}ms"
fast_interval = "{INTERVAL_SECONDS * 1000:.0f}ms"
asleep_interval = "1s"
deadline = "1s"
[spike]
settle = "1s"
merge = "0s"
"""
STATE = "/var/lib/gpuwhyd"
NEWER_VERSION = "560.35.03"
OUT_OF_RANGE = 2**32 - 1
"""NVML has integers only: what stands for "no number" there is all bits set, or a value beyond all sense."""
_SENSORS = (
    *("temperature", "power_usage_mw", "power_instant_mw", "power_average_mw", "utilization"),
    *("memory_utilization", "encoder", "decoder", "core_clock", "memory_clock", "pstate", "throttle_reasons"),
    *("energy_mj", "memory_used", "memory_total"),
)
_PATIENCE_SECONDS = 40.0
"""A backend that waits is asked every 10 s, and the machine may be busy."""
_ANSWER_SECONDS = 3
_FIELDS = "MESSAGE,GPUWHY_EVENT,GPUWHY_EVENT_ID,GPUWHY_SPIKE_ID,GPUWHY_SUSPECT_UNIT"
_SPAWNER = """
import contextlib, os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who ends is gone at once, never a zombie
pids = []
for line in sys.stdin:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    pids = [os.posix_spawn("/bin/sleep", ["sleep", "3600"], {}) for _ in range(int(line))]
    print(*pids, flush=True)
"""


class Phase(StrEnum):
    QUIET = "quiet"
    ONSET = "onset"
    SPIKE = "in a spike"
    AFTER_RUN = "after-run"


class Site:
    """The daemon is started once and lives through every cell; its StateDirectory is a small file system of its own."""

    def __init__(self, debian: Debian, library: Path, folder: Path) -> None:
        """`folder`: of the host, for what is built."""
        self.debian = debian
        self._folder = folder
        self.bench = Bench(debian, library)
        self.library = debian.path(PLACE) / library.name
        self.shim = Shim(debian.path(PLACE))
        for unit in ("gpuwhyd", "systemd-journald"):
            debian.write(f"/etc/systemd/system/{unit}.service.d/shim.conf", Shim.drop_in(PLACE))
        debian.write("/etc/gpuwhyd/gpuwhyd.toml", CONFIGURATION)
        debian.run("systemctl", "stop", "gpuwhyd")
        debian.shell(f"mkdir -p {STATE} && mount -t tmpfs -o size=1m,mode=700 gpuwhyd-state {STATE}")
        debian.run("systemctl", "daemon-reload")
        debian.run("systemctl", "restart", "systemd-journald")
        self._spawner = subprocess.Popen(
            debian.enter("python3", "-c", _SPAWNER), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._burner: int | None = None
        self._others: tuple[FakeProcess, ...] = ()
        self._fan_percent: float = REST_PERCENT
        self.garbled = False
        """The card's sensors say nothing of sense, whatever it does."""
        self.vanished_at: list[int] = []
        """How many steps of /proc a process was killed before, each time."""
        self._newer: Path | None = None

    @property
    def driver(self) -> FakeDriver:
        return self.bench.driver

    def start(self) -> None:
        """A daemon that has learned nothing, and a card at rest; from here on it is never restarted."""
        self.debian.shell(
            f"systemctl stop {BURNER} gpuwhyd; rm -rf {STATE}/*; systemctl reset-failed", check=False
        )
        self.garbled, self._others = False, ()
        self.driver.reset()
        self.bench.card = self.driver.add_card("0000:01:00.0")
        self.rest()
        self.debian.run("systemctl", "start", "gpuwhyd")
        self.bench.wait_for_samples(6)

    def close(self) -> None:
        self._spawner.terminate()
        self._spawner.communicate()
        self.debian.shell(f"systemctl stop {BURNER} gpuwhyd; umount {STATE}", check=False)
        self.bench.close()
        self.debian.shell("rm -r /etc/systemd/system/systemd-journald.service.d; systemctl daemon-reload")
        self.debian.run("systemctl", "restart", "systemd-journald")
        self.shim.close()

    # -- the card -------------------------------------------------------------------------------------------------

    def show(self) -> None:
        """The card as it is now. It has no tachometer, so that it takes two samples to confirm a rise, and a fault can fall between them."""
        self.bench.card.set(**{name: DESKTOP_CARD[name] for name in _SENSORS})
        if self._burner is None:
            self.bench.idle()
            self.bench.card.set(temperature=35)
            self.bench.card.set_processes(*self._others)
        else:
            self.bench.work(self._burner)
            self.bench.card.set_processes(FakeProcess(pid=self._burner, sm=95), *self._others)
        fan = OUT_OF_RANGE if self.garbled else self._fan_percent
        self.bench.card.set_fan(0, percent=fan, target=fan, rpm=None)
        if self.garbled:
            self.bench.card.set(**dict.fromkeys(_SENSORS, OUT_OF_RANGE))

    def list_besides(self, *others: FakeProcess) -> None:
        """From now on the driver lists these besides whoever works on the card."""
        self._others = others
        self.show()

    def rest(self) -> None:
        self._burner, self._fan_percent = None, REST_PERCENT
        self.show()

    def burn(self) -> None:
        """A real unit loads the card, and the fan rises."""
        self._burner, self._fan_percent = self.bench.run_unit(BURNER), LOUD_PERCENT
        self.show()

    def stop_burning(self) -> None:
        """The load is over; the fan is left as it is."""
        self.debian.run("systemctl", "stop", BURNER, check=False)
        self._burner = None
        self.show()

    def newer_library(self) -> bytes:
        if self._newer is None:
            self._newer = FakeDriver.build(self._folder, version=NEWER_VERSION)
        return self._newer.read_bytes()

    def programs(self, number: int) -> list[int]:
        """So many new processes outside of every unit; those of the last call are killed. Their pids."""
        assert self._spawner.stdin is not None
        assert self._spawner.stdout is not None
        self._spawner.stdin.write(f"{number}\n")
        self._spawner.stdin.flush()
        return [int(word) for word in self._spawner.stdout.readline().split()]

    # -- the story ------------------------------------------------------------------------------------------------

    def begin(self, phase: Phase) -> None:
        """The card comes into the phase. At the onset the fan has risen this moment and no sample has confirmed it."""
        if phase is Phase.QUIET:
            return
        self.burn()
        if phase is Phase.ONSET:
            return
        self.wait_until_told("spike-started")
        if phase is Phase.AFTER_RUN:
            self.stop_burning()
            self.bench.wait_for_cause("residual-heat")

    def during(self, phase: Phase) -> None:
        """What happens while the fault lasts: the fan comes to rest where it was on its way there."""
        if phase is Phase.AFTER_RUN:
            self.rest()

    def finish(self, phase: Phase) -> None:
        """The story's end after the fault; where nothing had begun, a whole one."""
        if phase is Phase.QUIET:
            self.burn()
        if phase is not Phase.AFTER_RUN:
            self.wait_until_told("spike-started")
            self.stop_burning()
            self.rest()
        self.wait_until_told("spike-ended")

    # -- what is seen ---------------------------------------------------------------------------------------------

    def mark(self) -> None:
        """What the journal has from here on belongs to this cell."""
        self._earlier = {entry["__CURSOR"] for entry in self._journal()}

    def entries(self) -> list[dict[str, str]]:
        """What the daemon has written since the mark: events, which have a GPUWHY_EVENT, and log lines."""
        return [entry for entry in self._journal() if entry["__CURSOR"] not in self._earlier]

    def _journal(self) -> list[dict[str, str]]:
        """Everything, because the journal's order is no order where its clock was set."""
        lines = self.debian.journal(
            "--output=json", "--all", f"--output-fields={_FIELDS}", "SYSLOG_IDENTIFIER=gpuwhyd"
        )
        return [json.loads(line) for line in lines.splitlines()]

    def wait_until_told(self, kind: str) -> None:
        wait_for(
            lambda: any(entry.get("GPUWHY_EVENT") == kind for entry in self.entries()),
            _PATIENCE_SECONDS,
            f"{kind} in the journal",
        )

    def wait_until_logged(self, line: str) -> None:
        wait_for(
            lambda: any(entry["MESSAGE"] == line for entry in self.entries()),
            _PATIENCE_SECONDS,
            f"log: {line}",
        )

    def summary(self):
        return self.bench.ask("GetSummary")

    def answer(self) -> tuple[str, str, str] | None:
        """State of the backend, state of the card, cause; `None` when nobody answers."""
        call = ("org.gpuwhyd1", "/org/gpuwhyd1", "org.gpuwhyd1.Manager", "GetSummary")
        options = ("--json=short", "--auto-start=no", f"--timeout={_ANSWER_SECONDS}")
        answer = self.debian.run("busctl", *options, "call", *call, check=False)
        if answer.status != 0:
            return None
        [summary] = plain(json.loads(answer.output))
        gpus = summary["gpus"]
        card = gpus[0] if gpus else {"state": "no card", "cause": "-"}
        return summary["backends"].get("nvml", "-"), card["state"], card.get("cause", "-")

    def wait_until_well(self) -> float:
        """Until the card is read again; in how many seconds it was."""
        began = time.monotonic()
        wait_for(
            lambda: (answer := self.answer()) is not None and answer[:2] == ("ready", "awake"),
            _PATIENCE_SECONDS,
            "the card is read again",
        )
        return time.monotonic() - began

    def wait_until_unwell(self) -> None:
        wait_for(
            lambda: (answer := self.answer()) is not None and answer[0] != "ready",
            _PATIENCE_SECONDS,
            "the daemon notices",
        )

    def pid(self) -> int:
        return int(self.bench.unit("MainPID"))

    def has_an_old_library(self) -> bool:
        """Whether a file of the driver's library that was since replaced is in the daemon."""
        maps = self.debian.path(f"/proc/{self.pid()}/maps").read_text().splitlines()
        return any("libnvidia-ml" in line and line.endswith("(deleted)") for line in maps)

    def descriptors(self) -> list[str]:
        """What the daemon holds open, without what changes from one socket to the next."""
        listed = self.debian.shell(f"ls -l /proc/{self.pid()}/fd").output.splitlines()
        return sorted(line.split(" -> ", 1)[1].split(":[", 1)[0] for line in listed if " -> " in line)

    def status(self, field: str) -> int:
        """A number of /proc/PID/status: VmRSS in KiB, Threads."""
        text = self.debian.path(f"/proc/{self.pid()}/status").read_text()
        [value] = [line.split()[1] for line in text.splitlines() if line.startswith(f"{field}:")]
        return int(value)

    @contextmanager
    def signals(self) -> Iterator[dict[str, int]]:
        """How often each spike signal was heard on the bus by an ordinary user, filled in at the end."""
        heard: dict[str, int] = {}
        match = "type='signal',interface='org.gpuwhyd1.Manager'"
        with self.debian.background("dbus-monitor", "--system", match, user=65534) as output:
            wait_for(lambda: "NameAcquired" in output(), 10, "a listener on the bus")
            yield heard
            for name in ("SpikeStarted", "SpikeEnded"):
                heard[name] = output().count(f"member={name}")
