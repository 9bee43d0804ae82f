"""A booted Debian with gpuwhyd enabled, one NVIDIA card of the fake driver in it, and something that burns on it."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

from tests.containers.harness import Debian, wait_for
from tests.fake_nvml.control import FakeDriver, FakeProcess
from tests.fake_nvml.sysfs import FakeSysfs

PCI_ADDRESS = "0000:01:00.0"
GPU = "/org/gpuwhyd1/gpus/pci_0000_01_00_0"
PLACE = "/srv/gpu"
REST_PERCENT, LOUD_PERCENT = 30, 62
INTERVAL_SECONDS = 0.3
CONFIGURATION = f"""
[sampling]
interval = "{INTERVAL_SECONDS * 1000:.0f}ms"
fast_interval = "{INTERVAL_SECONDS * 1000:.0f}ms"
asleep_interval = "1s"
deadline = "2s"
[spike]
settle = "2s"
merge = "0s"
"""
_DROP_IN = f"""
[Service]
Environment=LD_LIBRARY_PATH={PLACE}
Environment="GPUWHYD_OPTIONS=--path.sysfs {PLACE}/sys"
"""
_REACTION_SECONDS = 20.0
"""For a person's "soon" on a busy machine; what must be quick is measured in the test that says so."""


class Bench:
    def __init__(self, debian: Debian, library: Path) -> None:
        """Installs gpuwhyd, with `library` as the machine's libnvidia-ml.so.1."""
        self.debian = debian
        debian.run("/root/venv/bin/gpuwhyd", "install")
        debian.run("systemctl", "stop", "gpuwhyd", check=False)
        place = debian.path(PLACE)
        place.mkdir(parents=True, exist_ok=True)
        (place / library.name).write_bytes(library.read_bytes())
        self.sysfs = FakeSysfs(place / "sys")
        self.sysfs.add(PCI_ADDRESS)
        self.driver = FakeDriver(place)
        debian.write("/etc/systemd/system/gpuwhyd.service.d/fake.conf", _DROP_IN)
        debian.write("/etc/gpuwhyd/gpuwhyd.toml", CONFIGURATION)
        debian.run("systemctl", "daemon-reload")

    def start(self) -> None:
        """A card at rest, a daemon that has learned nothing yet, no event counted."""
        self.driver.reset()
        self.card = self.driver.add_card(PCI_ADDRESS)
        self.rest()
        self.debian.shell(
            "systemctl stop gpuwhyd; rm -rf /var/lib/gpuwhyd; systemctl reset-failed gpuwhyd || true"
        )
        self.debian.run("systemctl", "start", "gpuwhyd")
        self.wait_for_samples(6)
        last = self.debian.journal("--lines=1", "--output=json")
        # not its cursor: `--after-cursor` passes over one entry too many where the cursor's own does not match
        self._since_usec = int(json.loads(last)["__REALTIME_TIMESTAMP"])

    def stop(self) -> None:
        self.debian.shell(
            "systemctl stop gpuwhyd 'burner*'; systemctl reset-failed 'burner*' gpuwhyd", check=False
        )

    def close(self) -> None:
        self.debian.run("/root/venv/bin/gpuwhyd", "uninstall", "--purge", check=False)
        self.debian.shell("rm -rf /etc/systemd/system/gpuwhyd.service.d && systemctl daemon-reload")
        self.driver.close()

    # -- the card -------------------------------------------------------------------------------------------------

    def rest(self) -> None:
        self.idle()
        self.fan(REST_PERCENT)
        self.card.set(temperature=35)

    def idle(self) -> None:
        """The load is over; the fan is left as it is."""
        self.card.set_processes()
        self.card.set(
            utilization=0, power_instant_mw=21_500, power_average_mw=22_000, pstate=8, core_clock=210
        )

    def work(self, pid: int) -> None:
        """This process uses the card at 95 %; the fan is left as it is."""
        self.card.set_processes(FakeProcess(pid=pid, sm=95))
        self.card.set(
            utilization=95, power_instant_mw=212_000, power_average_mw=212_000, pstate=2, core_clock=1900
        )
        self.card.set(temperature=74)

    def fan(self, percent: float) -> None:
        self.card.set_fan(0, percent=percent, target=percent, rpm=percent * 33)

    # -- what runs on it ------------------------------------------------------------------------------------------

    def run_unit(self, unit: str, *options: str, command: Sequence[str] = ("sleep", "3600")) -> int:
        """A real process in a real service; gives its pid."""
        self.debian.run("systemd-run", "--quiet", f"--unit={unit}", *options, *command)
        return int(self.debian.run("systemctl", "show", unit, "--property=MainPID", "--value").output)

    def burn(self, unit: str = "burner.service", *options: str) -> int:
        """The unit starts, loads the card, and the fan rises."""
        pid = self.run_unit(unit, *options)
        self.work(pid)
        self.fan(LOUD_PERCENT)
        return pid

    # -- what the daemon says -------------------------------------------------------------------------------------

    def ask(
        self, member: str, *arguments: str, user: int | None = None, interface: str = "org.gpuwhyd1.Manager"
    ):
        """The plain answer to a D-Bus call of the Manager."""
        answer = self.debian.run(
            *(
                "busctl",
                "--json=short",
                "--auto-start=no",
                "call",
                "org.gpuwhyd1",
                "/org/gpuwhyd1",
                interface,
                member,
            ),
            *arguments,
            user=user,
            check=False,
        )
        assert answer.status == 0, f"{member}: {answer.text}"
        [value] = plain(json.loads(answer.output))
        return value

    def explanation(self, user: int | None = None):
        return self.ask("Explain", "o", GPU, user=user)

    def answers(self) -> bool:
        ping = ("org.gpuwhyd1", "/org/gpuwhyd1", "org.freedesktop.DBus.Peer", "Ping")
        return self.debian.run("busctl", "--auto-start=no", "call", *ping, check=False).status == 0

    def wait_for_samples(self, number: int) -> None:
        """So many since now, or since the daemon came."""
        wait_for(self.answers, _REACTION_SECONDS, "the daemon answers")
        goal = self.ask("GetHealth")["samples"] + number
        wait_for(lambda: self.ask("GetHealth")["samples"] >= goal, _REACTION_SECONDS, f"{number} samples")

    def wait_for_cause(self, cause: str):
        def reached():
            explanation = self.explanation()
            return explanation if explanation["cause"] == cause else None

        return wait_for(reached, _REACTION_SECONDS, f"cause {cause}")

    def wait_for_event(self, kind: str, number: int = 1) -> dict[str, str]:
        """The last of so many events of a kind in the journal."""
        events = wait_for(
            lambda: found if len(found := self.events(kind)) >= number else None,
            _REACTION_SECONDS,
            f"{number} {kind} in the journal",
        )
        return events[-1]

    def events(self, *kinds: str, unit: str | None = None) -> list[dict[str, str]]:
        """The events since `start`, in the journal's order, as the journal has them."""
        where = ("SYSLOG_IDENTIFIER=gpuwhyd",) if unit is None else (f"--unit={unit}",)
        lines = self.debian.journal(
            "--output=json", "--all", f"--since=@{self._since_usec // 1_000_000}", *where
        ).splitlines()
        entries = [
            entry
            for entry in map(json.loads, lines)
            if "GPUWHY_EVENT" in entry and int(entry["__REALTIME_TIMESTAMP"]) > self._since_usec
        ]
        return [entry for entry in entries if not kinds or entry["GPUWHY_EVENT"] in kinds]

    def told(self, *leave_out: str) -> list[str]:
        """The kinds of the events since `start`, without updates, which are a matter of timing."""
        kinds = (entry["GPUWHY_EVENT"] for entry in self.events())
        return [kind for kind in kinds if kind not in {"spike-updated", *leave_out}]

    def unit(self, name: str) -> str:
        return self.debian.run("systemctl", "show", "gpuwhyd", f"--property={name}", "--value").output.strip()

    def quiet_down(self) -> None:
        """Back at rest, and the end of the spike in the journal."""
        ended = len(self.events("spike-ended"))
        self.rest()
        self.wait_for_event("spike-ended", ended + 1)


def plain(value: object) -> object:
    """busctl's JSON without its types: {"type": "s", "data": "x"} is "x"."""
    if isinstance(value, dict):
        if value.keys() == {"type", "data"}:
            return plain(value["data"])
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def seconds_until(condition, limit: float, what: str) -> float:
    started = time.monotonic()
    wait_for(condition, limit, what)
    return time.monotonic() - started
