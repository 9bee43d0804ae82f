"""The real daemon as a process: on a private bus, with the genuine NVML binding over the fake driver."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bus.buses import private_bus
from tests.fake_nvml.control import FakeDriver, FakeProcess
from tests.fake_nvml.sysfs import FakeSysfs

PCI = "0000:01:00.0"
GPU_PATH = "/org/gpuwhyd1/gpus/pci_0000_01_00_0"
PATIENCE_SECONDS = 20.0
CONFIG = """
[sampling]
interval = "200ms"
fast_interval = "200ms"
asleep_interval = "500ms"
deadline = "1s"
[spike]
settle = "1s"
merge = "0s"
"""


def until(condition: Callable[[], object], what: str) -> object:
    """What `condition` gives as soon as it is true; fails with `what` when it does not become so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {PATIENCE_SECONDS:g} s")


def command(name: str, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """One of our commands, to its end."""
    return subprocess.run(
        [str(Path(sys.executable).with_name(name)), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        **options,  # type: ignore[call-overload]
    )


@dataclass
class Machine:
    """A private bus, a fake card, a place for state; start and stop the daemon on it."""

    folder: Path
    address: str
    library: Path
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.sysfs = FakeSysfs(self.folder / "sys")
        self.config = self.folder / "gpuwhyd.toml"
        self.config.write_text(CONFIG)
        self.driver = FakeDriver(self.library)
        self.driver.reset()

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def state_file(self) -> Path:
        return self.folder / "state" / "state.json"

    def add_card(self, address: str = PCI, **sensors: object):
        self.sysfs.add(address)
        return self.driver.add_card(address, **sensors)

    def start(self, *arguments: str, wait: bool = True) -> None:
        self.run(
            str(Path(sys.executable).with_name("gpuwhyd")),
            *("--bus", self.address),
            *("--config", str(self.config)),
            *("--state-dir", str(self.folder / "state")),
            *("--path.sysfs", str(self.folder / "sys")),
            *arguments,
            wait=wait,
        )

    def run(self, *words: str, wait: bool = True, **variables: str) -> None:
        """This command line in gpuwhyd's place."""
        environment = {**os.environ, "LD_LIBRARY_PATH": str(self.library.parent), **variables}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([*words], env=environment, stdout=log, stderr=log)
        if wait:
            until(lambda: self.ask("doctor"), "the daemon answers")

    def end(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        status = self.process.wait(10)
        self.process = None
        return status

    def gpuwhy(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return command("gpuwhy", "--bus", self.address, *arguments)

    def ask(self, *arguments: str) -> dict:
        """What gpuwhy says as JSON; empty while it cannot."""
        said = self.gpuwhy(*arguments, "--json").stdout
        return json.loads(said) if said.strip() else {}

    def answer(self, gpu: int = 0) -> dict:
        """The explanation of one card; empty while there is none."""
        explanations = self.ask().get("explanations") or []
        return explanations[gpu] if len(explanations) > gpu else {}

    def pids(self) -> list[int]:
        """Of all processes on all cards."""
        return [process["pid"] for gpu in self.ask("top").get("gpus", ()) for process in gpu["processes"]]

    def events(self, kind: str) -> list[dict]:
        return [event for event in self.ask("history", "--all").get("events", ()) if event["event"] == kind]


@contextlib.contextmanager
def machine(folder: Path, library: Path) -> Iterator[Machine]:
    with private_bus() as bus:
        here = Machine(folder=folder, address=bus.address, library=library)
        try:
            yield here
        finally:
            if here.process is not None:
                here.process.kill()
                here.process.wait()


__all__ = ["FakeProcess", "Machine", "command", "machine", "until"]
