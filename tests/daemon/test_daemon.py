"""The whole daemon as a process: what it answers, what it survives, what it says when something is wrong."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuwhyd import daemon
from tests.daemon.running import CONFIG, PCI, FakeProcess, Machine, command, machine, until
from tests.fake_nvml.control import FakeDriver


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FakeDriver.build(tmp_path_factory.mktemp("driver"))


@pytest.fixture
def here(tmp_path: Path, library: Path) -> Iterator[Machine]:
    with machine(tmp_path, library) as built:
        yield built


@contextlib.contextmanager
def burner(*arguments: bytes) -> Iterator[subprocess.Popen[bytes]]:
    """A real process that lives until it is told to end."""
    words = [sys.executable, "-c", "import sys; sys.stdin.read()", *arguments]
    process = subprocess.Popen(words, stdin=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdin is not None
        process.stdin.close()


def burn(card, pid: int, *, fan: int = 62) -> None:
    card.set(power_instant_mw=210_000, power_average_mw=210_000, temperature=76, utilization=97, pstate=2)
    card.set_fan(0, percent=fan)
    card.set_processes(FakeProcess(pid=pid, kind="compute", memory_bytes=4 << 30, sm=95))


def idle(card) -> None:
    card.set_processes()
    card.set(power_instant_mw=14_000, power_average_mw=14_000, utilization=0, pstate=8)


def rest(card, *, fan: int = 30) -> None:
    card.set(temperature=38)
    idle(card)
    card.set_fan(0, percent=fan)


def test_a_fan_that_spins_up_is_explained_by_the_process_that_heats(here: Machine) -> None:
    card = here.add_card()
    rest(card)
    here.start()
    until(lambda: here.answer().get("cause") == "quiet", "quiet")
    with burner() as process:
        burn(card, process.pid)
        until(lambda: here.answer().get("cause") == "workload", "the workload is named")
        answer = here.answer()
        assert answer["suspects"][0]["pids"] == [process.pid]
        assert here.gpuwhy("--exit-code").returncode == 1
        assert str(process.pid) in here.gpuwhy().stdout
        assert here.ask("status")["gpus"][0]["spike_active"]
    idle(card)
    until(lambda: here.answer().get("cause") == "residual-heat", "the after-run is explained")
    assert not here.answer()["suspects"][0]["alive"]
    rest(card)
    until(lambda: here.events("spike-ended"), "the spike ends")
    assert len(here.events("spike-started")) == len(here.events("spike-ended")) == 1
    assert here.end() == 0


def test_arguments_that_are_no_text_pass_through_the_whole_daemon(here: Machine) -> None:
    """Its bytes come from /proc and leave over D-Bus, in the state file, in gpuwhy's answers and in a recording."""
    card = here.add_card()
    recording = here.folder / "card.jsonl"
    with burner(b"caf\xe9.mp4") as process:
        burn(card, process.pid)
        here.start()
        until(lambda: here.answer().get("cause") == "workload", "the workload is named")
        [told] = here.ask("top")["gpus"][0]["processes"]
        assert told["command_line"][-1] == "caf\ufffd.mp4"
        plain = {"PATH": "/usr/bin", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
        for words in ((), ("top",), ("top", "--json"), ("history",), ("doctor",)):
            assert command("gpuwhy", "--bus", here.address, *words, env=plain).returncode != 2, words
        assert here.end() == 0
        json.loads(here.state_file.read_bytes())
        here.start("record", str(recording), wait=False)
        until(lambda: recording.exists() and recording.read_text().count("\n") > 2, "snapshots are recorded")
        assert here.end() == 0
    assert r"caf\udce9.mp4" in recording.read_text()
    assert "Traceback" not in here.log


def test_a_kill_in_mid_spike_goes_on_with_the_same_spike(here: Machine) -> None:
    card = here.add_card()
    rest(card)
    here.start()
    until(lambda: here.answer().get("cause") == "quiet", "quiet")
    with burner() as process:
        burn(card, process.pid)
        until(lambda: here.answer().get("spike_id"), "a spike opens")
        until(here.state_file.exists, "it is saved")
        here.end(signal.SIGKILL)
        here.start()
        until(lambda: here.answer().get("cause") == "workload", "the spike goes on")
        assert here.events("spike-started") == []
        assert here.events("gpu-added") == []
    rest(card)
    until(lambda: here.events("spike-ended"), "the spike ends")


def test_a_second_daemon_on_the_same_state_ends_with_one_line_and_changes_nothing(here: Machine) -> None:
    rest(here.add_card())
    here.start()
    until(lambda: here.answer().get("cause") == "quiet", "quiet")
    until(here.state_file.exists, "it is saved")
    assert here.process is not None
    before = here.state_file.stat().st_mtime_ns
    words = ("--bus", here.address, "--simulate", "demo", "--state-dir")
    done = command("gpuwhyd", *words, str(here.state_file.parent))
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert f"another gpuwhyd (pid {here.process.pid}) keeps its state in {here.state_file.parent}" in line
    assert here.state_file.stat().st_mtime_ns == before
    assert here.process.poll() is None
    here.end(signal.SIGKILL)
    here.start()  # at once, as systemd does
    assert here.end() == 0


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\0" * 100, b'{"version": 1, "sections": {"engine": {"cards": 5}}}', b"[]"]
)
def test_a_corrupt_state_file_costs_the_state_not_the_start(here: Machine, content: bytes) -> None:
    rest(here.add_card())
    here.state_file.parent.mkdir()
    here.state_file.write_bytes(content)
    here.start()
    until(lambda: here.answer().get("cause") == "quiet", "it works")
    assert "saved state" in here.log or "State in" in here.log
    assert here.end() == 0
    assert json.loads(here.state_file.read_text())


def test_a_reload_with_a_wrong_file_keeps_the_old_configuration_and_says_so(here: Machine) -> None:
    rest(here.add_card())
    here.start()
    here.config.write_text('[sampling]\ninterval = "quickly"\n')
    failed = command("gpuwhyd", "--bus", here.address, "reload")
    assert failed.returncode == 78
    assert len(failed.stderr.splitlines()) == 1
    assert "interval" in failed.stderr
    assert here.ask("status")["sample_interval_seconds"] == pytest.approx(0.2)
    here.config.write_text('[sampling]\ninterval = "300ms"\nfast_interval = "300ms"\n')
    assert command("gpuwhyd", "--bus", here.address, "reload").returncode == 0
    assert here.ask("status")["sample_interval_seconds"] == pytest.approx(0.3)
    here.config.write_text("nonsense")
    assert here.process is not None
    here.process.send_signal(signal.SIGHUP)
    until(lambda: here.log.count("configuration not taken over") == 2, "SIGHUP reloads too")
    assert here.ask("status")["sample_interval_seconds"] == pytest.approx(0.3)


def test_what_a_reload_cannot_change_and_whom_a_rule_cannot_watch_is_told_by_reload_and_doctor(
    here: Machine,
) -> None:
    rest(here.add_card())
    here.start()
    until(here.answer, "the card is there")
    fan = '[[fan]]\nchip = "nct6798"\nfan = 2\ngpu = "shared"\n'
    rule = '[[rule]]\nname = "hot"\nmetric = "temperature_celsius"\nabove = 80\ngpus = ["0000:01:00.0", "09:00.0"]\n'
    here.config.write_text(CONFIG.replace("[spike]", 'disabled_backends = ["xe"]\n[spike]') + fan + rule)
    notes = [
        "the change of disabled_backends takes effect at the next start: systemctl restart gpuwhyd",
        "the change of [[fan]] takes effect at the next start: systemctl restart gpuwhyd",
        'rule "hot" watches 0000:09:00.0, which is not there; there is pci_0000_01_00_0',
    ]
    for _ in range(2):  # it holds until the restart, however often it is read
        done = command("gpuwhyd", "--bus", here.address, "reload")
        assert (done.returncode, done.stdout.splitlines()) == (0, notes)
    assert here.ask("doctor")["health"]["notes"] == notes
    assert here.end() == 0
    here.start()
    until(here.answer, "the card is there again")
    assert here.ask("doctor")["health"]["notes"] == notes[2:]


def test_no_gpu_is_an_answer_not_an_error(here: Machine) -> None:
    here.start()
    done = here.gpuwhy("status")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "gpuwhy doctor" in done.stderr
    assert here.ask("doctor")["health"]["backends"][0]["state"] == "waiting"


def test_a_card_that_appears_later_is_taken_up(here: Machine) -> None:
    here.start()
    rest(here.add_card())
    until(lambda: here.answer().get("cause") == "quiet", "the card is found")


def test_a_sleeping_card_is_left_alone_from_the_start(here: Machine) -> None:
    here.sysfs.add(PCI, status="suspended", control="auto")
    here.driver.add_card(PCI)
    here.start()
    until(lambda: here.ask("status").get("gpus"), "the card is listed")
    status = here.ask("status")
    assert status["gpus"][0]["state"] == "asleep"
    assert status["backends"]["nvml"] == "asleep"
    assert here.gpuwhy("status").returncode == 0
    assert here.driver.calls() == 0
    assert here.driver.loads == 0


def test_a_driver_call_that_never_returns_is_told_and_the_daemon_still_answers_and_ends(
    here: Machine,
) -> None:
    rest(here.add_card())
    here.start()
    until(lambda: here.answer().get("cause") == "quiet", "quiet")
    here.driver.hang("nvmlDeviceGetUtilizationRates")
    until(lambda: here.ask("status")["backends"]["nvml"] == "failing", "it is failing")
    assert "has not returned" in here.gpuwhy("doctor").stdout
    here.driver.release()
    until(lambda: here.ask("status")["backends"]["nvml"] == "ready", "it recovers")
    here.driver.hang("nvmlDeviceGetUtilizationRates")
    until(lambda: here.ask("status")["backends"]["nvml"] == "failing", "it is failing again")
    assert here.end() == 0
    here.driver.release()


def test_a_daemon_at_rest_leaks_no_descriptors(here: Machine) -> None:
    card = here.add_card()
    rest(card)
    here.start()
    until(lambda: here.answer().get("cause") == "quiet", "quiet")
    assert here.process is not None
    descriptors = Path(f"/proc/{here.process.pid}/fd")
    before = len(list(descriptors.iterdir()))
    for _ in range(5):
        with burner() as process:
            burn(card, process.pid, fan=30)
            until(lambda pid=process.pid: pid in here.pids(), "it is seen")
        rest(card)
        until(lambda: not here.pids(), "it is gone")
    until(lambda: len(list(descriptors.iterdir())) <= before, "all descriptors are given back")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--config", "/nonexistent/x.toml"), 78, "/nonexistent/x.toml"),
        (("--simulate", "no-such-scenario"), 78, "no-such-scenario"),
        (("--check-config", "--config", "/nonexistent/x.toml"), 78, "/nonexistent/x.toml"),
        (("reload", "--bus", "unix:path=/nonexistent/bus"), 2, None),
        (("--bus", "unix:path=/nonexistent/bus", "reload"), 2, "/nonexistent/bus"),
        (("--bus", "foo", "reload"), 2, "'foo' is no D-Bus address; write system, session or for example"),
        (("--bus", "foo"), 2, "gpuwhyd: 'foo' is no D-Bus address; write system, session or for example"),
        (("dance",), 2, "dance"),
    ],
)
def test_a_wrong_command_line_is_one_clear_line(
    arguments: tuple[str, ...], status: int, said: str | None
) -> None:
    done = command("gpuwhyd", *arguments)
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert said is None or said in last


def test_reload_without_a_daemon_says_how_to_start_it(here: Machine) -> None:
    done = command("gpuwhyd", "--bus", here.address, "reload")
    assert done.returncode == 2
    assert done.stderr.strip() == f"gpuwhyd: gpuwhyd is not running. Start it: gpuwhyd --bus {here.address}"


def test_a_wrong_configuration_ends_the_start_with_one_line(here: Machine) -> None:
    here.config.write_text("[spike]\nrise_percnt = 5\n")
    here.start(wait=False)
    assert here.process is not None
    assert here.process.wait(20) == 78
    assert "rise_percent" in here.log
    assert len(here.log.splitlines()) == 1


def test_check_config_accepts_the_shipped_file() -> None:
    shipped = Path(__file__).parents[2] / "config" / "gpuwhyd.toml"
    done = command("gpuwhyd", "--check-config", "--config", str(shipped))
    assert (done.returncode, done.stdout) == (0, f"{shipped}: good\n")


def test_the_daemon_needs_no_home_and_no_terminal(here: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """As systemd starts it."""
    rest(here.add_card())
    for name in ("HOME", "TERM", "LANG"):
        monkeypatch.delenv(name, raising=False)
    here.start()
    until(lambda: here.answer().get("cause") == "quiet", "it works")


@pytest.mark.parametrize("bus", ["session", "unix:path=/run/my/bus"])
def test_a_daemon_on_another_bus_does_not_write_the_state_of_the_systems(
    bus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert daemon._state_path(daemon.Options(bus=bus)) == tmp_path / "gpuwhyd/state.json"
    if os.geteuid() == 0:
        assert daemon._state_path(daemon.Options()) == Path("/var/lib/gpuwhyd/state.json")
    assert daemon._state_path(daemon.Options(bus=bus, state_dir=tmp_path)) == tmp_path / "state.json"


def test_simulated_events_stay_out_of_the_journal_unless_asked_for(here: Machine) -> None:
    here.start("--simulate", "two-cards")
    assert here.ask("doctor")["health"]["journal"]["state"] == "off"
    until(lambda: here.events("gpu-added"), "history remembers them")
    here.end()
    here.start("--simulate", "two-cards", "--journal", "on")
    assert here.ask("doctor")["health"]["journal"]["state"] != "off"
