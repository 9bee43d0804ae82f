"""The command in a process of its own, on a private bus with the daemon's real D-Bus service."""

import contextlib
import dataclasses
import json
import os
import pty
import re
import signal
import subprocess
import time
from functools import partial

import pytest

from gpuwhyd.model import EventKind, GpuEvent
from tests.bus.buses import private_bus
from tests.client import reports
from tests.client.daemon import DEADLINE_SECONDS, GPUWHY, gpuwhy, gpuwhy_running, serving

COMMANDS = ([], ["status"], ["top"], ["history"], ["doctor"], [reports.SPIKE_ID])


@pytest.fixture(scope="module")
def loud():
    """A daemon with one loud and one quiet GPU, a past spike and an alert."""
    report = reports.loud_report(events=(*reports.whole_spike(), reports.alert()))
    with private_bus() as bus, serving(bus.address, report) as daemon:
        yield daemon


@pytest.fixture
def bus():
    with private_bus() as bus:
        yield bus


def test_the_answer_begins_with_the_sentence(loud):
    answer = gpuwhy(loud.address)
    assert answer.returncode == 0
    assert answer.stdout.splitlines()[0] == reports.SENTENCE
    assert answer.stdout.splitlines()[-1] == reports.QUIET_SENTENCE
    assert answer.stderr == ""


@pytest.mark.parametrize("arguments", COMMANDS)
def test_every_command_answers_without_escape_codes_when_piped(loud, arguments):
    answer = gpuwhy(loud.address, *arguments)
    assert answer.returncode == 0, answer.stderr
    assert "ollama" in answer.stdout or "0 RTX 3070" in answer.stdout or "0 NVIDIA" in answer.stdout
    assert "\x1b" not in answer.stdout


@pytest.mark.parametrize("arguments", COMMANDS)
def test_every_command_answers_one_json_document_with_null_for_what_is_not_known(loud, arguments):
    answer = gpuwhy(loud.address, "--json", *arguments)
    assert answer.returncode == 0, answer.stderr
    assert "null" in answer.stdout
    json.loads(answer.stdout)


def test_json_has_every_field_of_the_model(loud):
    first, second = json.loads(gpuwhy(loud.address, "--json").stdout)["explanations"]
    assert set(reports.plain(reports.explanation())) <= set(first)
    assert first["fan_rpm"] is None
    assert first["suspects"][0]["program"]["container"] is None
    assert second["suspects"] == []
    assert set(second) == set(first)
    status = json.loads(gpuwhy(loud.address, "status", "--json").stdout)
    assert [gpu["temperature_celsius"] for gpu in status["gpus"]] == [78.0, None]


def test_top_and_history_and_doctor_give_their_facts_as_json(loud):
    top = json.loads(gpuwhy(loud.address, "top", "--json").stdout)
    assert top["gpus"][0]["processes"][0]["pid"] == 4242
    assert top["gpus"][0]["suspects"][1]["alive"] is False
    history = json.loads(gpuwhy(loud.address, "history", "--json").stdout)
    assert [event["event"] for event in history["events"]] == [
        "spike-started", "spike-updated", "spike-ended", "alert-raised",
    ]  # fmt: skip
    doctor = json.loads(gpuwhy(loud.address, "doctor", "--json").stdout)
    assert doctor["problems"] == []
    assert "hotspot_celsius" in doctor["gpus"][0]["missing"]


def test_of_a_spike_without_an_end_it_is_told_whether_it_lasts(bus):
    started = reports.whole_spike()[0]
    lost = dataclasses.replace(
        started, spike=dataclasses.replace(started.spike, spike_id=f"{reports.GPU.id}-1700000000000001")
    )
    with serving(bus.address, reports.loud_report(events=(lost, started))):
        table = gpuwhy(bus.address, "history").stdout
        document = json.loads(gpuwhy(bus.address, "history", "--json").stdout)
        one = json.loads(gpuwhy(bus.address, lost.spike.spike_id, "--json").stdout)
    first, second = table.splitlines()[1:]
    assert "  end unknown  " in first
    assert "  not over  " in second
    assert document["spike_states"] == {
        lost.spike.spike_id: "end-unknown",
        started.spike.spike_id: "open",
    }
    assert one["spike_states"] == {lost.spike.spike_id: "end-unknown"}


def test_doctor_tells_of_each_card_where_it_is_read_and_why_something_is_missing(bus):
    with serving(bus.address, reports.loud_report(), sources=reports.sources()):
        text = gpuwhy(bus.address, "doctor").stdout
        document = json.loads(gpuwhy(bus.address, "doctor", "--json", "--gpu", "0").stdout)
    assert "\nGPU 0 NVIDIA GeForce RTX 3070 (pci_0000_01_00_0, nvidia 550.54.14, awake)\n" in text
    assert "\nGPU 1 NVIDIA A40 (pci_0000_41_00_0, awake)\n" in text
    assert "  Power       NVML_FI_DEV_POWER_INSTANT\n" in text
    assert "  Missing     temperature_limit_celsius: the driver is too old" in text
    (gpu,) = document["gpus"]
    old_driver = next(one for one in gpu["sources"] if one["lack"] == "old-driver")
    assert old_driver == {
        "backend": "nvml",
        "quantity": "temperature_limit_celsius",
        "source": "nvmlDeviceGetMarginTemperature",
        "lack": "old-driver",
        "advice": "NVIDIA driver 570 or newer has it",
        "used": False,
    }
    assert gpu["sources"][0]["lack"] is None
    assert (gpu["kept_awake_by"], gpu["kept_busy_by"], gpu["let_alone"]) == ([], [], False)


def test_doctor_lists_every_backend_with_its_message_where_no_gpu_is_found(bus):
    backends = [
        {"name": "nvml", "state": "waiting", "message": "no NVIDIA card on the PCI bus"},
        {"name": "amdgpu", "state": "waiting", "message": "no card has the kernel driver amdgpu"},
        {"name": "amdsmi", "state": "absent", "message": "the Python package amdsmi is missing"},
    ]
    with serving(bus.address, reports.empty_report(), health=reports.health(backends=backends)):
        lines = gpuwhy(bus.address, "doctor").stdout.splitlines()
    begin = next(i for i, line in enumerate(lines) if line.startswith("Backends"))
    assert [line[13:] for line in lines[begin : begin + 3]] == [
        "nvml: waiting. no NVIDIA card on the PCI bus",
        "amdgpu: waiting. no card has the kernel driver amdgpu",
        "amdsmi: absent. the Python package amdsmi is missing",
    ]


def test_one_gpu_is_chosen_by_id_address_or_number(loud):
    for name in ("pci_0000_41_00_0", "0000:41:00.0", "41:00.0", "1"):
        assert gpuwhy(loud.address, "--gpu", name).stdout == reports.QUIET_SENTENCE + "\n"
    assert "Nothing happened" in gpuwhy(loud.address, "history", "--gpu", "1").stdout
    assert reports.SPIKE_ID in gpuwhy(loud.address, "history", "--gpu", "0").stdout


@pytest.mark.parametrize("command", [[], ["status"], ["top"], ["history"], ["doctor"], ["watch"]])
def test_an_unknown_gpu_is_answered_with_those_that_are_known(loud, command):
    answer = gpuwhy(loud.address, *command, "--gpu", "7")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert (
        answer.stderr
        == "gpuwhy: There is no GPU 7. Known: pci_0000_01_00_0 (0 RTX 3070), pci_0000_41_00_0 (1 A40)\n"
    )


def test_a_spike_is_found_by_the_short_id_of_a_narrow_history_too(loud):
    assert (
        gpuwhy(loud.address, reports.SPIKE_ID.rpartition("-")[2]).stdout
        == gpuwhy(loud.address, reports.SPIKE_ID).stdout
    )
    assert gpuwhy(loud.address, "1111111111111111").returncode == 2


def test_an_unknown_spike_points_to_the_history(loud):
    answer = gpuwhy(loud.address, "pci_0000_01_00_0-1111111111111111")
    assert answer.returncode == 2
    assert "gpuwhy history" in answer.stderr


def test_the_exit_code_tells_whether_a_fan_is_up_when_asked_to(loud):
    assert gpuwhy(loud.address, "status").returncode == 0
    assert gpuwhy(loud.address, "status", "--exit-code").returncode == 1
    assert gpuwhy(loud.address, "--exit-code", "--json").returncode == 1
    assert gpuwhy(loud.address, "--exit-code", "--gpu", "1").returncode == 0


def test_history_goes_back_no_further_than_asked(loud):
    assert "Nothing happened" in gpuwhy(loud.address, "history", "--since", "10s").stdout
    assert len(gpuwhy(loud.address, "history", "--limit", "1").stdout.splitlines()) == 2


def test_a_daemon_that_does_not_run_is_one_line_and_exit_code_3(bus):
    for command in (*COMMANDS, ["watch"]):
        answer = gpuwhy(bus.address, *command)
        assert (answer.returncode, answer.stdout) == (3, "")
        assert answer.stderr == f"gpuwhy: gpuwhyd is not running. Start it: gpuwhyd --bus {bus.address}\n"


def test_on_the_system_bus_systemctl_is_what_starts_it(bus):
    answer = gpuwhy("system", DBUS_SYSTEM_BUS_ADDRESS=bus.address)
    assert answer.returncode == 3
    assert answer.stderr == (
        "gpuwhy: gpuwhyd is not running. Start it: systemctl enable --now gpuwhyd. "
        "If it does not stay up: systemctl status gpuwhyd\n"
    )


def test_where_there_is_no_session_bus_it_says_how_to_get_one():
    answer = gpuwhy("session", DBUS_SESSION_BUS_ADDRESS="", XDG_RUNTIME_DIR="")
    assert answer.returncode == 2
    assert "dbus-run-session bash" in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_history_leaves_out_what_is_neither_spike_nor_alert_unless_all_is_asked_for(bus):
    added = GpuEvent(
        kind=EventKind.GPU_ADDED,
        wall_usec=reports.WALL_USEC,
        boottime_seconds=1.0,
        gpu=reports.GPU,
        sentence="GPU 0 (RTX 3070): found.",
    )
    with serving(bus.address, reports.loud_report(events=(added, reports.alert()))):
        for form in ([], ["--json"]):
            assert "added" not in gpuwhy(bus.address, "history", *form).stdout
            assert "added" in gpuwhy(bus.address, "history", "--all", *form).stdout


def test_no_gpu_leads_to_the_doctor_who_says_what_is_missing(bus):
    waiting = {"name": "nvml", "state": "waiting", "message": "install the NVIDIA driver"}
    with serving(bus.address, reports.empty_report(), health=reports.health(backends=[waiting])):
        for command in ([], ["status"], ["top"]):
            answer = gpuwhy(bus.address, *command)
            assert answer.returncode == 2
            assert answer.stderr.startswith("gpuwhy: No GPU found.")
            assert "gpuwhy doctor" in answer.stderr
        doctor = gpuwhy(bus.address, "doctor")
        assert doctor.returncode == 2
        assert "install the NVIDIA driver" in doctor.stdout.splitlines()[1]


def test_no_permission_on_the_bus_is_said(tmp_path):
    policy = tmp_path / "deny.conf"
    policy.write_text(
        '<busconfig><policy context="mandatory"><deny send_destination="org.gpuwhyd1"/></policy></busconfig>'
    )
    with private_bus(policy_files=[policy]) as bus, serving(bus.address, reports.loud_report()):
        answer = gpuwhy(bus.address)
    assert answer.returncode == 2
    assert answer.stderr.startswith("gpuwhy: No permission to ask gpuwhyd")


def test_a_reader_that_goes_away_is_no_error(loud):
    with subprocess.Popen(
        [*GPUWHY, "status"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "GPUWHYD_BUS": loud.address},
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(DEADLINE_SECONDS) == 0


def test_watch_ends_when_its_reader_goes_away_though_nothing_happens(loud):
    with subprocess.Popen(
        [*GPUWHY, "watch"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "GPUWHYD_BUS": loud.address},
    ) as process:
        try:
            assert reports.SENTENCE.encode() in process.stdout.readline()
            process.stdout.close()
            assert process.wait(DEADLINE_SECONDS) == 0
            assert process.stderr.read() == b""
        finally:
            process.kill()


def test_watch_writes_a_line_for_each_event_as_it_happens(bus):
    with (
        serving(bus.address, reports.loud_report()) as daemon,
        gpuwhy_running(bus.address, "watch") as output,
    ):
        output.line_with("now        " + reports.SENTENCE)
        daemon.publish(reports.loud_report(events=(*reports.whole_spike(), reports.alert())))
        output.line_with("ALERT overheating  GPU 0 (RTX 3070): 2 degC below")
        assert [line.split("  ")[1].strip() for line in output.lines] == [
            "now",
            "fan up",
            "update",
            "quiet",
            "ALERT overheating",
        ]
        output.process.send_signal(signal.SIGINT)
        assert output.process.wait(DEADLINE_SECONDS) == 0
        assert output.process.stderr.read() == ""


def test_watch_gives_json_lines(bus):
    with (
        serving(bus.address, reports.loud_report()) as daemon,
        gpuwhy_running(bus.address, "watch", "--json") as output,
    ):
        output.line_with('"watching"')
        daemon.publish(reports.loud_report(events=reports.whole_spike()))
        ended = json.loads(output.line_with('"spike-ended"'))
        assert ended["spike"]["ended_by"] == "rest"
        assert ended["duration_seconds"] == 333
        assert ended["explanation"]["suspects"] == []
        assert all(json.loads(line)["event"] for line in output.lines)


def test_watch_tells_that_the_daemon_went_and_came_and_shows_what_was_missed_once(bus):
    started, updated, ended = reports.whole_spike()
    now = time.time_ns() // 1000

    def at(event, offset_usec):
        return dataclasses.replace(event, wall_usec=now + offset_usec)

    with (
        serving(bus.address, reports.loud_report()) as daemon,
        gpuwhy_running(bus.address, "watch") as output,
    ):
        output.line_with("now ")
        daemon.publish(reports.loud_report(events=(at(started, 10_000_000),)))
        output.line_with("fan up")
        daemon.stop()
        output.line_with("gpuwhyd has stopped")
        missed = reports.loud_report(events=(at(updated, 20_000_000), at(ended, 30_000_000)))
        with serving(bus.address, missed, history=daemon.history):
            output.line_with("gpuwhyd is back")
            output.line_with("quiet again")
            words = [line.split("  ")[1].strip() for line in output.lines]
            assert words == ["now", "fan up", "stopped", "started", "update", "quiet"]


def test_watch_tells_of_a_gpu_that_comes_and_goes(bus):
    both = reports.loud_report()
    one = dataclasses.replace(
        both, snapshot=dataclasses.replace(both.snapshot, readings=(reports.reading(),))
    )
    with serving(bus.address, one) as daemon, gpuwhy_running(bus.address, "watch") as output:
        output.line_with("now ")
        daemon.publish(both)
        output.line_with("GPU added  pci_0000_41_00_0 is there")
        daemon.publish(one)
        output.line_with("pci_0000_41_00_0 is gone")
        assert len(output.lines) == 3


def test_watch_survives_a_restart_of_the_bus(tmp_path):
    address = f"unix:path={tmp_path}/bus"
    with contextlib.ExitStack() as first:
        bus = first.enter_context(private_bus(socket_path=tmp_path / "bus"))
        with serving(address, reports.loud_report()) as daemon, gpuwhy_running(address, "watch") as output:
            output.line_with("now ")
            bus.kill()
            output.line_with("bus lost")
            first.close()
            with private_bus(socket_path=tmp_path / "bus"):
                output.line_with("bus back")
                daemon.wait_until_serving()
                daemon.publish(reports.loud_report(events=(reports.spike_event(EventKind.SPIKE_STARTED, 5),)))
                output.line_with("fan up")


def test_waybar_waits_for_the_daemon_and_writes_a_line_at_each_change(bus):
    with gpuwhy_running(bus.address, "watch", "--format", "waybar") as output:
        assert json.loads(output.line_with("unavailable"))["text"] == ""
        with serving(bus.address, reports.loud_report()) as daemon:
            assert json.loads(output.line_with("workload"))["percentage"] == 57
            quiet = reports.quiet_explanation(gpu_id=reports.GPU.id)
            # The daemon samples on; it tells changes of a GPU at most once a second.
            sample = partial(daemon.publish, reports.loud_report(cause_of_first=quiet))
            assert json.loads(output.line_with('"quiet"', meanwhile=sample))["class"] == "quiet"
        output.line_with("unavailable", after='"quiet"')


def in_a_terminal(address, *arguments, columns=80, keys=b"", until=b""):
    """What the command writes to a terminal of this width; `keys` are typed when `until` has been seen."""
    child, terminal = pty.fork()
    if child == 0:
        environment = {**os.environ, "GPUWHYD_BUS": address, "TERM": "xterm", "COLUMNS": str(columns)}
        environment.pop("NO_COLOR", None)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs are started with it ignored
        os.execve(GPUWHY[0], [*GPUWHY, *arguments], environment)
    written = b""
    with contextlib.suppress(OSError):  # EIO is how Linux says that the other side of a pty has closed
        while chunk := os.read(terminal, 65536):
            written += chunk
            if keys and until in written:
                os.write(terminal, keys)
                keys = b""
    os.close(terminal)
    return written.decode(), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_terminal_gets_colour_and_lines_that_fit(loud, columns):
    written, code = in_a_terminal(loud.address, "status", columns=columns)
    assert code == 0
    assert "\x1b[1;33m" in written
    lines = re.sub(r"\x1b\[[0-9;]*m", "", written).splitlines()
    assert all(len(line) <= columns for line in lines)
    assert ("6.1 of 8.0 GiB" in written) is (columns > 60)


@pytest.mark.parametrize("key", [b"q", b"\x03"])
def test_top_is_live_in_a_terminal_and_gives_it_back_when_it_is_ended(loud, key):
    written, code = in_a_terminal(loud.address, "top", keys=key, until=b"blender")
    assert code == 0
    assert written.startswith("\x1b[?1049h")
    assert written.endswith("\x1b[?25h\x1b[?1049l")


def test_top_once_leaves_the_terminal_as_it_is(loud):
    written, code = in_a_terminal(loud.address, "top", "--once")
    assert code == 0
    assert "\x1b[?" not in written
