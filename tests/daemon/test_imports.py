"""What the daemon loads on a machine whose only card is NVIDIA's: each module costs time at the start, and memory for ever."""

import os
import re
import sys
from pathlib import Path

import pytest

from tests.daemon.running import Machine, machine, until
from tests.fake_nvml.control import FakeDriver, FakeProcess

NEEDLESS = re.compile(
    r"gpuwhyd\.(client|install|recording|record|replay)(\..*)?"
    r"|gpuwhyd\.backends\.(amd|intel|nvidia_smi|rocm|simulated|program).*"
    r"|_ssl|hashlib|_hashlib"  # OpenSSL, 4 MiB
    r"|dbus_fast|dbus_fast\.(introspection|message_bus|service|proxy_object|aio.*)"
    r"|dbus_next|dbus_next\.(introspection|message_bus|service|proxy_object|aio.*|glib.*)"
    r"|amdsmi.*|psutil.*|importlib\.metadata.*|email.*|zipfile.*|unittest.*|multiprocessing.*"
)


def loaded(log: str) -> set[str]:
    """By the lines of `python -X importtime`."""
    return set(re.findall(r"^import time:.*\|\s*([\w.]+)$", log, re.MULTILINE))


@pytest.mark.parametrize("library", ["dbus-fast", "dbus-next"])
def test_only_what_an_nvidia_card_needs_is_loaded(tmp_path: Path, library: str) -> None:
    with machine(tmp_path, FakeDriver.build(tmp_path / "driver")) as here:
        card = here.add_card()
        card.set(power_instant_mw=210_000, temperature=76, utilization=97, pstate=2)
        card.set_fan(0, percent=70)
        card.set_processes(FakeProcess(pid=os.getpid(), memory_bytes=4 << 30, sm=95))
        start(here, library)
        until(lambda: here.answer().get("spike_id"), "an event, answers, and what a call needs")
        modules = loaded(here.log)
    assert {"gpuwhyd.daemon", "gpuwhyd.backends.nvml_card", f"{library.replace('-', '_')}.message"} <= modules
    assert not {module for module in modules if NEEDLESS.fullmatch(module)}


def start(here: Machine, library: str) -> None:
    here.run(
        *(sys.executable, "-m", "gpuwhyd", "--bus", here.address, "--config", str(here.config)),
        *("--state-dir", str(here.folder / "state"), "--path.sysfs", str(here.folder / "sys")),
        PYTHONPROFILEIMPORTTIME="1",
        GPUWHYD_DBUS_LIBRARY=library,
    )
