"""The daemon hears the kernel: a card that comes is looked for at once, however rarely it looks by itself."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bus.buses import private_bus
from tests.daemon.running import command, until
from tests.netlink import card_uevent, in_network, sender, through_the_kernel

CONFIG = '[sampling]\ninterval = "60s"\nfast_interval = "60s"\nasleep_interval = "60s"\n'


@pytest.mark.root
def test_a_uevent_brings_the_next_sample_forward(tmp_path: Path) -> None:
    (tmp_path / "gpuwhyd.toml").write_text(CONFIG)
    with private_bus() as bus, (tmp_path / "log").open("wb") as log:
        daemon = subprocess.Popen(
            [
                *("unshare", "--net"),
                *(str(Path(sys.executable).with_name("gpuwhyd")), "--bus", bus.address),
                *("--config", str(tmp_path / "gpuwhyd.toml"), "--state-dir", str(tmp_path / "state")),
                *("--journal", "off"),
            ],
            stdout=log,
            stderr=log,
        )

        def samples() -> int:
            said = command("gpuwhy", "--bus", bus.address, "doctor", "--json").stdout
            return json.loads(said)["health"]["samples"] if said.strip() else 0

        try:
            until(lambda: samples() == 1, "the first sample")
            with in_network(sender, of_pid=daemon.pid) as netlink:
                through_the_kernel(netlink, card_uevent("bind", address="0000:0b:00.0"))
            until(lambda: samples() >= 2, "a sample long before its time")
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(10) == 0
        finally:
            daemon.kill()
            daemon.wait()
