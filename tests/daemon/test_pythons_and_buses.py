"""The whole daemon with each D-Bus library on each bus while the bus dies again and again; and on other Pythons than this one."""

import contextlib
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from gpuwhyd.bus.header import MessageKind
from tests import pythons
from tests.bus.attackers import MANAGER, NAME, ROOT
from tests.bus.buses import private_broker, private_bus
from tests.bus.raw import BUS, raw_client
from tests.daemon.running import until

REPOSITORY = Path(__file__).parents[2]
BUSES = {"dbus-daemon": private_bus, "dbus-broker": private_broker}
POLICY = "system" if os.geteuid() == 0 else "session"
STRANGER = 65534 if os.geteuid() == 0 else None
TIMES = 4


@contextlib.contextmanager
def daemon(
    folder: Path,
    address: str,
    *,
    python: Sequence[str] = (sys.executable, "-W", "error", "-m", "gpuwhyd"),
    **environment: str,
) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*python, "--bus", address, "--simulate", "demo", "--state-dir", str(folder / "state")],
            cwd=REPOSITORY,
            env=os.environ | environment,
            stdout=log,
            stderr=log,
        )
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0, (folder / "log").read_text()
    finally:
        process.kill()
        process.wait()
    said = (folder / "log").read_text()
    assert "Traceback" not in said, said
    assert "Warning:" not in said, said


def serves(address: str) -> bool:
    """Whether a stranger gets an answer."""
    with raw_client(address, STRANGER) as client:
        serial = client.send(
            MessageKind.METHOD_CALL, **BUS, member="NameHasOwner", signature="s", body=[NAME]
        )
        if client.answer_to(serial).body != b"\1\0\0\0":
            return False
        call = {"destination": NAME, "path": ROOT, "interface": MANAGER, "member": "GetSummary"}
        return client.answer_to(client.send(MessageKind.METHOD_CALL, **call)).header.error_name is None


def descriptors(process: subprocess.Popen[bytes]) -> int:
    return len(os.listdir(f"/proc/{process.pid}/fd"))


def settled(process: subprocess.Popen[bytes]) -> int:
    """How many are open when none is for a moment only: the fewest of many looks while the daemon serves."""
    return min(descriptors(process) for _ in range(50))


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """pytest's own folders are closed to strangers."""
    with tempfile.TemporaryDirectory(prefix="bus-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize("library", ["dbus-next", "dbus-fast"])
@pytest.mark.parametrize("bus", BUSES)
def test_a_bus_that_dies_again_and_again_costs_the_daemon_nothing(tmp_path, open_folder, bus, library):
    path = open_folder / "bus"
    with daemon(tmp_path, f"unix:path={path}", GPUWHYD_DBUS_LIBRARY=library) as process:
        first: int | None = None
        for _ in range(TIMES):
            with BUSES[bus](
                POLICY, policy_files=[REPOSITORY / "dbus/org.gpuwhyd1.conf"], socket_path=path
            ) as running:
                until(lambda: serves(running.address), "the daemon is back")
                if first is None:
                    first = settled(process)
                # some are open for a moment only: what is left open never lets it be as few as at first
                until(lambda: descriptors(process) == first, "as many descriptors as at first")  # noqa: B023 - asked at once
                running.kill()

    assert f"with {library}" in (tmp_path / "log").read_text()


# The modules that are compiled for this Python only (systemd's) are missing on the others.
@pytest.mark.parametrize(
    "python", [sys.executable, *pythons.found().values()], ids=lambda path: Path(path).name
)
def test_the_daemon_answers_on_each_python_of_this_machine(tmp_path, python):
    libraries = os.pathsep.join((str(REPOSITORY), sysconfig.get_paths()["purelib"]))
    command = (python, "-W", "error", "-m", "gpuwhyd")
    with (
        private_bus() as bus,
        daemon(tmp_path, bus.address, python=command, PYTHONPATH=libraries, GPUWHYD_DBUS_LIBRARY="dbus-next"),
    ):
        until(lambda: serves(bus.address), f"the daemon answers on {python}")


LATER_PYTHON = """
import asyncio, sys, typing

def gone(*arguments):
    raise AttributeError("removed")

# 3.15 removes it; 3.16 removes the others, deprecated since 3.14. Without a loop get_event_loop fails since 3.14.
del typing.no_type_check_decorator
for name in ("iscoroutinefunction", "get_event_loop_policy", "set_event_loop_policy", "get_event_loop"):
    setattr(asyncio, name, gone)
from gpuwhyd.cli import main
sys.exit(main())
"""


def test_the_daemon_answers_on_a_python_that_has_removed_what_is_deprecated(tmp_path):
    command = (sys.executable, "-W", "error", "-c", LATER_PYTHON)
    with (
        private_bus() as bus,
        daemon(tmp_path, bus.address, python=command, GPUWHYD_DBUS_LIBRARY="dbus-next"),
    ):
        until(lambda: serves(bus.address), "the daemon answers")


@pytest.mark.root
def test_the_attacks_are_measured_on_the_real_daemon():
    """One of them here; `script/attack` does all, on both buses and with both libraries."""
    command = (
        "--bus",
        "dbus-broker",
        "--library",
        "dbus-next",
        "--attack",
        "30 MiB message",
        "--seconds",
        "0.2",
    )
    done = subprocess.run(
        [sys.executable, "-m", "script.attack_run", *command],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    (row,) = (line for line in done.stdout.splitlines() if line.startswith("30 MiB message"))
    # What depends on how busy this machine is (stall, waiting) is for people to read.
    assert " kept" in row, row
    assert not [
        word for word in ("off the bus", "memory", "log", "refused") if word in row.partition("<--")[2]
    ]
