"""What happens around the daemon: crashes, restarts, a driver that fails. No event is lost or told twice, and nobody
has to restart anything.
"""

import random
import time

import pytest

from tests.containers.bench import CONFIGURATION, LOUD_PERCENT, PCI_ADDRESS, Bench
from tests.containers.harness import NOBODY, wait_for

pytestmark = [pytest.mark.root, pytest.mark.container]

WHOLE_SPIKE = ["spike-started", "spike-ended"]
JOURNALD = ("systemd-journald.socket", "systemd-journald-dev-log.socket", "systemd-journald-audit.socket")


def test_killed_in_mid_spike_it_goes_on_with_that_spike(bench: Bench) -> None:
    bench.burn()
    started = bench.wait_for_event("spike-started")
    bench.debian.run("systemctl", "kill", "--signal=KILL", "gpuwhyd")
    wait_for(lambda: bench.unit("NRestarts") == "1", 10, "systemd starts it again")
    bench.wait_for_samples(2)
    assert bench.explanation()["spike_id"] == started["GPUWHY_SPIKE_ID"]
    assert bench.explanation()["suspects"][0]["program"]["unit"] == "burner.service"
    bench.debian.run("systemctl", "stop", "burner.service")
    bench.quiet_down()
    assert bench.told() == WHOLE_SPIKE
    assert bench.events("spike-ended")[0]["GPUWHY_SPIKE_ID"] == started["GPUWHY_SPIKE_ID"]


def test_killed_at_any_moment_it_tells_each_event_once(bench: Bench) -> None:
    """The moments around a rise: before the sample, between engine and disk, between disk and journal, after."""
    moments = random.Random(7)
    spikes = 4
    pid = bench.run_unit("burner.service")
    for number in range(1, spikes + 1):
        bench.work(pid)
        bench.fan(LOUD_PERCENT)
        time.sleep(moments.uniform(0, 1.1))
        bench.debian.run("systemctl", "kill", "--signal=KILL", "gpuwhyd")
        bench.debian.run("systemctl", "reset-failed", "gpuwhyd", check=False)
        bench.wait_for_event("spike-started", number)
        bench.rest()
        bench.wait_for_event("spike-ended", number)
    assert bench.told() == WHOLE_SPIKE * spikes
    ids = [entry["GPUWHY_SPIKE_ID"] for entry in bench.events("spike-started")]
    assert len(set(ids)) == spikes


def test_the_bus_restarts_and_the_name_comes_back(bench: Bench) -> None:
    pid = bench.unit("MainPID")
    bench.burn()
    bench.wait_for_event("spike-started")
    bench.debian.run("systemctl", "restart", "dbus.service")
    wait_for(bench.answers, 20, "the name is back")
    signals = "type='signal',interface='org.gpuwhyd1.Manager'"
    with bench.debian.background("dbus-monitor", "--system", signals, user=NOBODY) as heard:
        wait_for(lambda: "NameAcquired" in heard(), 10, "the client listens")
        bench.quiet_down()
        wait_for(lambda: "member=SpikeEnded" in heard(), 5, "SpikeEnded")
    assert bench.told() == WHOLE_SPIKE
    assert bench.unit("MainPID") == pid
    assert bench.unit("ActiveState") == "active"


def test_what_happens_while_journald_is_stopped_is_written_when_it_is_back(bench: Bench) -> None:
    pid = bench.unit("MainPID")
    stopped = time.monotonic()
    bench.debian.run("systemctl", "stop", *JOURNALD, "systemd-journald.service")
    try:
        bench.burn()
        wait_for(lambda: "spike_id" in bench.explanation(), 10, "the spike is open")
        wait_for(lambda: bench.ask("GetHealth")["journal"]["queued"] == 1, 10, "the event waits")
        wait_for(lambda: time.monotonic() - stopped > 10, 15, "10 s without a journal")
        assert bench.ask("GetHealth")["journal"]["state"] == "away"
    finally:
        bench.debian.run("systemctl", "start", *JOURNALD, "systemd-journald.service")
    bench.wait_for_event("spike-started")
    bench.quiet_down()
    assert bench.told() == WHOLE_SPIKE
    settled = {"state": "ready", "queued": 0, "dropped": 0}
    wait_for(lambda: bench.ask("GetHealth")["journal"] == settled, 5, "journald has read all")
    assert bench.unit("MainPID") == pid


def test_a_stalled_journald_stops_nothing(bench: Bench) -> None:
    journald = bench.debian.run(
        "systemctl", "show", "systemd-journald", "--property=MainPID", "--value"
    ).output.strip()
    bench.debian.run("kill", "-STOP", journald)
    try:
        bench.burn()
        wait_for(lambda: "spike_id" in bench.explanation(), 10, "the spike is open")
        bench.wait_for_samples(8)
    finally:
        bench.debian.run("kill", "-CONT", journald)
    bench.wait_for_event("spike-started")
    bench.quiet_down()
    assert bench.told() == WHOLE_SPIKE


def test_a_lost_card_is_told_once_and_comes_back_with_a_rescan_of_the_bus(bench: Bench) -> None:
    pid = bench.unit("MainPID")
    bench.card.lose()
    lost = bench.wait_for_event("gpu-lost")
    assert lost["PRIORITY"] == "3"
    assert bench.ask("GetSummary")["gpus"][0]["state"] == "lost"
    bench.sysfs.remove(PCI_ADDRESS)
    try:
        bench.wait_for_samples(3)
    finally:
        bench.card.lose(lost=False)
        bench.sysfs.add(PCI_ADDRESS)
    wait_for(
        lambda: [gpu["state"] for gpu in bench.ask("GetSummary")["gpus"]] == ["awake"], 30, "the card is back"
    )
    bench.wait_for_samples(6)
    bench.burn()
    bench.wait_for_event("spike-started")
    assert bench.told().count("gpu-lost") == 1
    assert bench.unit("MainPID") == pid


def test_the_driver_is_unloaded_and_loaded_again(bench: Bench) -> None:
    pid = bench.unit("MainPID")
    bench.driver.unload()
    wait_for(lambda: bench.ask("GetSummary")["backends"]["nvml"] != "ready", 20, "the backend waits")
    bench.wait_for_samples(4)
    bench.driver.load()
    wait_for(lambda: bench.ask("GetSummary")["backends"]["nvml"] == "ready", 30, "the backend is back")
    bench.burn()
    bench.wait_for_event("spike-started")
    bench.quiet_down()
    assert [kind for kind in bench.told() if kind.startswith("spike")] == WHOLE_SPIKE
    assert bench.unit("MainPID") == pid


def test_a_driver_call_that_never_returns_is_told_and_mended(bench: Bench) -> None:
    pid = bench.unit("MainPID")
    bench.driver.hang("nvmlDeviceGetTemperature")
    try:
        failing = bench.wait_for_event("backend-failing")
        assert "nvml" in failing["MESSAGE"]
        assert bench.answers()
    finally:
        bench.driver.release()
    bench.wait_for_event("backend-recovered")
    bench.burn()
    bench.wait_for_event("spike-started")
    assert bench.told("gpu-added", "gpu-lost", "gpu-removed") == [
        "backend-failing",
        "backend-recovered",
        "spike-started",
    ]
    assert bench.unit("MainPID") == pid


def test_a_hanging_daemon_is_restarted_by_the_watchdog(bench: Bench) -> None:
    drop_in = "/etc/systemd/system/gpuwhyd.service.d/watchdog.conf"
    bench.debian.write(drop_in, "[Service]\nWatchdogSec=3s\n")
    try:
        bench.debian.run("systemctl", "daemon-reload")
        bench.debian.run("systemctl", "restart", "gpuwhyd")
        bench.wait_for_samples(8)
        assert bench.unit("NRestarts") == "0"  # it does answer the watchdog
        bench.debian.run("kill", "-STOP", bench.unit("MainPID"))
        wait_for(lambda: bench.unit("NRestarts") == "1", 20, "the watchdog bites")
        bench.wait_for_samples(2)
    finally:
        bench.debian.run("rm", drop_in)
        bench.debian.run("systemctl", "daemon-reload")


def test_reload_with_a_broken_file_fails_visibly_and_keeps_the_old(bench: Bench) -> None:
    configuration = "/etc/gpuwhyd/gpuwhyd.toml"
    pid = bench.unit("MainPID")
    interval = bench.ask("GetHealth")["sample_interval_seconds"]
    try:
        bench.debian.write(configuration, CONFIGURATION + "\n[spike\n")
        failed = bench.debian.run("systemctl", "reload", "gpuwhyd", check=False)
        assert failed.status != 0
        assert configuration in bench.debian.journal("--unit=gpuwhyd", "--lines=20")
        # Past the check, too: the daemon itself refuses, and the caller is told.
        refused = bench.debian.run("gpuwhyd", "reload", check=False)
        assert refused.status != 0
        assert configuration in refused.errors
        assert len(refused.errors.splitlines()) == 1
        assert bench.unit("ActiveState") == "active"
        bench.wait_for_samples(2)
        assert bench.ask("GetHealth")["sample_interval_seconds"] == interval

        bench.debian.write(configuration, CONFIGURATION.replace('"300ms"', '"700ms"'))
        bench.debian.run("systemctl", "reload", "gpuwhyd")
        assert bench.ask("GetHealth")["sample_interval_seconds"] == pytest.approx(0.7)
        assert bench.unit("ActiveState") == "active"
    finally:
        bench.debian.write(configuration, CONFIGURATION)
    bench.debian.run("systemctl", "reload", "gpuwhyd")
    assert bench.unit("MainPID") == pid


def test_started_with_a_broken_file_it_says_why_and_does_not_try_for_ever(bench: Bench) -> None:
    configuration = "/etc/gpuwhyd/gpuwhyd.toml"
    try:
        bench.debian.write(configuration, 'interval = "2s"\n')
        failed = bench.debian.run("systemctl", "restart", "gpuwhyd", check=False)
        assert failed.status != 0
        assert bench.unit("NRestarts") == "0"
        assert (
            configuration
            in bench.debian.run("systemctl", "status", "--no-pager", "gpuwhyd", check=False).output
        )
    finally:
        bench.debian.write(configuration, CONFIGURATION)
