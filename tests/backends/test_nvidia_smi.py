"""nvidia-smi in NVML's place: one child, that nothing of is left when it should be gone."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gpuwhyd.backends import nvidia_smi_loop as loop
from gpuwhyd.backends.base import BackendReadings, Probe
from gpuwhyd.backends.nvidia_smi import NvidiaSmi
from gpuwhyd.backends.program_backend import ProgramBackend
from gpuwhyd.errors import BackendError, NoCardError
from gpuwhyd.model import BackendState, FanMode, GpuReading, GpuState, Lack
from tests.backends.fake_programs import FakeProgram, is_alive, until
from tests.backends.golden_readings import GOLDEN, assert_golden
from tests.backends.nvidia_smi_documents import document, gpu, process
from tests.fake_nvml.sysfs import FakeSysfs
from tests.samples import sample_folders

ADDRESS, SECOND = "0000:01:00.0", "0000:02:00.0"
ONCE = 'cat "$FOLDER/document"; exec sleep 1000'
BUSY = {"performance_state": "P2", "utilization/gpu_util": "65 %"}


class SmiRig:
    def __init__(self, folder: Path, body: str = ONCE) -> None:
        self.sysfs = FakeSysfs(folder / "sys")
        self.program = FakeProgram(folder / "bin", "nvidia-smi", f"PATH=/usr/bin:/bin\n{body}")
        self.program.put("document", document(gpu(BUSY)))
        self.time = 1000.0
        self.smi = NvidiaSmi(sysfs=self.sysfs.root, procfs=folder / "proc", path=self.program.path)
        self.backend = ProgramBackend(self.smi, sysfs=self.sysfs.root, monotonic=lambda: self.time)

    def read(self, seconds: float = 2.0) -> BackendReadings:
        self.time += seconds
        return self.backend.read()

    def reading(self, seconds: float = 2.0) -> GpuReading:
        return self.read(seconds).readings[0]

    def heard(self) -> GpuReading:
        """A tick in which a document has come, if there is a child: time here runs faster than a child does."""
        child = self.smi._loop._child
        assert child is None or child.wait_for_output(10.0)
        return self.reading()

    def add_battery(self, name: str = "BAT0", *, status: str, scope: str | None = None) -> None:
        folder = self.sysfs.root / "class/power_supply" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "type").write_text("Battery\n")
        (folder / "status").write_text(status + "\n")
        if scope is not None:
            (folder / "scope").write_text(scope + "\n")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[SmiRig]:
    rig = SmiRig(tmp_path)
    yield rig
    rig.backend.close()
    assert rig.program.running == []


@pytest.fixture
def awake(rig: SmiRig) -> SmiRig:
    rig.sysfs.add(ADDRESS)
    return rig


@pytest.mark.parametrize("sample", sample_folders("nvidia-smi-xml"))
def test_a_real_card_reads_as_its_document_says(sample: Path, rig: SmiRig) -> None:
    text = sample.read_bytes()
    address = text[text.index(b'id="') + 8 :].split(b'"')[0].decode().lower()
    rig.sysfs.add(address)
    rig.program.put("document", text)
    assert_golden(rig.read().readings, GOLDEN / f"nvidia-smi/{sample.stem}.toml")


def test_without_the_program_it_waits_quietly(awake: SmiRig) -> None:
    awake.program.remove()
    result = awake.backend.probe()
    assert (result.answer, result.message) == (Probe.LATER, "the program nvidia-smi is not installed")


def test_a_driver_that_is_not_there_is_not_loaded_by_the_program(awake: SmiRig) -> None:
    """Run as root, nvidia-smi loads it."""
    awake.sysfs.unbind(ADDRESS)
    result = awake.backend.probe()
    assert (result.answer, result.no_card) == (Probe.LATER, False)
    assert "modprobe nvidia" in result.message
    with pytest.raises(BackendError, match="modprobe nvidia"):
        awake.read()
    assert awake.program.runs == []


def test_without_a_card_it_waits_quietly(rig: SmiRig) -> None:
    assert rig.backend.probe().answer is Probe.LATER
    with pytest.raises(NoCardError, match="no NVIDIA card"):
        rig.read()
    assert rig.program.runs == []


def test_a_bus_that_is_hidden_is_waited_for(awake: SmiRig, monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden(path: str) -> list[str]:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "listdir", hidden)
    assert "Permission denied" in awake.backend.probe().message
    with pytest.raises(BackendError, match="Permission denied"):
        awake.read()


def test_a_card_that_may_suspend_says_so(awake: SmiRig) -> None:
    assert awake.reading().can_suspend is False
    awake.sysfs.set_control(ADDRESS, "auto")
    awake.backend.close()
    assert awake.reading(30.0).can_suspend is True


def test_a_card_that_is_let_go_still_says_that_it_may_suspend_and_a_sleeping_one_says_nothing(
    awake: SmiRig,
) -> None:
    awake.sysfs.set_control(ADDRESS, "auto")
    awake.program.put("document", document(gpu()))
    awake.program.write('PATH=/usr/bin:/bin; while :; do cat "$FOLDER/document"; sleep 0.02; done')
    while (let_go := awake.heard()).state is GpuState.AWAKE:
        pass
    assert (let_go.state, let_go.can_suspend) == (GpuState.UNKNOWN, True)
    awake.sysfs.set_status(ADDRESS, "suspended")
    assert (awake.reading().state, awake.reading().can_suspend) == (GpuState.ASLEEP, None)


def test_one_child_serves_every_tick(awake: SmiRig) -> None:
    assert awake.backend.probe().answer is Probe.READY
    for _ in range(5):
        assert awake.reading().temperature_celsius == 35.0
    ((_, arguments),) = awake.program.runs
    assert arguments == "-q -x -l 5"


def test_a_child_has_no_input_no_translation_and_a_group_of_its_own(awake: SmiRig) -> None:
    ours, (out_of, into) = os.dup(0), os.pipe()
    os.dup2(out_of, 0)
    try:
        awake.read()
    finally:
        os.dup2(ours, 0)
        for descriptor in (ours, out_of, into):
            os.close(descriptor)
    ((pid, _),) = awake.program.runs
    assert awake.program.environment["LC_ALL"] == "C"
    assert "HOME" not in awake.program.environment
    assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
    assert os.getpgid(pid) == pid != os.getpgid(0)


def test_the_newest_document_counts(awake: SmiRig) -> None:
    awake.program.write(
        'PATH=/usr/bin:/bin; cat "$FOLDER/document"; while [ ! -e "$FOLDER/next" ]; do sleep 0.01; done; '
        'cat "$FOLDER/next"; touch "$FOLDER/said"; exec sleep 1000'
    )
    assert awake.reading().fan_percent == 30.0
    awake.program.put("next", document(gpu({"fan_speed": "40 %"})) + document(gpu({"fan_speed": "57 %"})))
    until((awake.program.folder / "said").exists)
    assert awake.reading().fan_percent == 57.0


def test_a_document_holds_until_two_more_should_have_come(awake: SmiRig) -> None:
    awake.read()
    assert awake.reading(loop.INTERVAL_SECONDS * 2 + 5.0).fan_percent == 30.0
    with pytest.raises(BackendError, match="silent"):
        awake.read(0.1)
    assert awake.program.running == []


def test_more_than_a_pipe_holds_comes_through(awake: SmiRig) -> None:
    cards = [
        gpu({**BUSY, "padding": "x" * 60_000}, address=f"00000000:{bus:02x}:00.0") for bus in range(1, 17)
    ]
    awake.program.put("document", document(*cards))
    for bus in range(2, 17):
        awake.sysfs.add(f"0000:{bus:02x}:00.0")
    readings = awake.read().readings
    assert [reading.temperature_celsius for reading in readings] == [35.0] * 16


# -- what goes wrong --------------------------------------------------------------------------------------------------


def test_a_child_that_ends_is_an_error_with_what_it_says(awake: SmiRig) -> None:
    awake.program.write('echo; echo "NVIDIA-SMI has failed because it couldn\'t communicate"; exit 9')
    with pytest.raises(BackendError, match="ended with 9: NVIDIA-SMI has failed"):
        awake.read()


def test_a_child_that_crashes_later_is_an_error(awake: SmiRig) -> None:
    awake.read()
    ((pid, _),) = awake.program.runs
    os.kill(pid, signal.SIGSEGV)
    until(lambda: not is_alive(pid))
    with pytest.raises(BackendError, match="ended with -11"):
        awake.read()


def test_a_child_that_fails_each_time_is_started_ever_more_seldom(awake: SmiRig) -> None:
    awake.program.write("exit 1")
    for _ in range(1000):
        with pytest.raises(BackendError, match="ended with 1"):
            awake.read()
        awake.backend.close()
    assert len(awake.program.runs) <= 10, "in 2,000 s"


def test_a_child_that_never_answers_is_ended(awake: SmiRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "FIRST_DOCUMENT_SECONDS", 0.05)
    awake.program.write("PATH=/usr/bin:/bin; exec sleep 1000")
    waiting = awake.read()
    assert [reading.state for reading in waiting.readings] == [GpuState.UNKNOWN]
    assert "not answered yet" in waiting.message
    awake.read(loop.START_SECONDS)
    with pytest.raises(BackendError, match="silent"):
        awake.read()


def test_what_a_child_has_started_is_ended_with_it(awake: SmiRig) -> None:
    awake.program.write(
        'PATH=/usr/bin:/bin; sleep 1000 & echo $! > "$FOLDER/grandchild"; cat "$FOLDER/document"; wait'
    )
    awake.read()
    grandchild = int((awake.program.folder / "grandchild").read_text())
    assert is_alive(grandchild)
    awake.backend.close()
    until(lambda: not is_alive(grandchild))


def test_a_child_that_closes_its_output_and_lives_on_is_ended(
    awake: SmiRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "FIRST_DOCUMENT_SECONDS", 0.05)
    awake.program.write("PATH=/usr/bin:/bin; exec sleep 1000 >/dev/null")
    awake.read()
    with pytest.raises(BackendError, match="silent"):
        awake.read(loop.START_SECONDS + 1)


@pytest.mark.parametrize(
    "text",
    [
        b"<nvidia_smi_log><gpu id='0000:01:00.0'></nvidia_smi_log>",
        b"<nvidia_smi_log>\0</nvidia_smi_log>",
        b'<!DOCTYPE a [<!ENTITY b "b">]><nvidia_smi_log>&b;</nvidia_smi_log>',
    ],
)
def test_a_document_that_is_none_is_an_error(awake: SmiRig, text: bytes) -> None:
    awake.program.put("document", text)
    with pytest.raises(BackendError, match="not understood"):
        awake.read()


def test_endless_garbage_is_an_error_and_not_kept(awake: SmiRig) -> None:
    awake.program.write("PATH=/usr/bin:/bin; exec yes 'no document at all, and ever more of it'")
    with pytest.raises(BackendError, match="does not end"):
        read_often(awake)


def read_often(rig: SmiRig) -> None:
    for _ in range(100):
        rig.read(0.0)


def test_a_truncated_document_waits_for_its_end(awake: SmiRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "FIRST_DOCUMENT_SECONDS", 0.2)
    awake.program.write(
        'PATH=/usr/bin:/bin; head -c 700 "$FOLDER/document"; while [ ! -e "$FOLDER/go" ]; do sleep 0.01; '
        'done; tail -c +701 "$FOLDER/document"; touch "$FOLDER/said"; exec sleep 1000'
    )
    assert awake.reading().state is GpuState.UNKNOWN
    awake.program.put("go", b"")
    until((awake.program.folder / "said").exists)
    assert awake.reading().fan_percent == 30.0


def test_a_card_that_the_document_does_not_name_is_unknown(awake: SmiRig) -> None:
    awake.sysfs.add(SECOND)
    states = [reading.state for reading in awake.read().readings]
    assert states == [GpuState.AWAKE, GpuState.UNKNOWN]


def test_a_program_that_cannot_be_run_is_an_error(awake: SmiRig) -> None:
    (awake.program.folder / "nvidia-smi").write_bytes(b"\x7fELF no program")
    with pytest.raises(BackendError, match="cannot be run"):
        awake.read()


def test_a_card_that_is_plugged_in_gets_a_new_child(awake: SmiRig) -> None:
    awake.read()
    awake.sysfs.add(SECOND)
    awake.program.put("document", document(gpu(BUSY), gpu(BUSY, address=f"0000{SECOND}")))
    assert [reading.state for reading in awake.read().readings] == [GpuState.AWAKE] * 2
    assert len(awake.program.runs) == 2
    assert len(awake.program.running) == 1


# -- sleep ------------------------------------------------------------------------------------------------------------


def test_no_child_in_an_hour_while_a_card_sleeps(awake: SmiRig) -> None:
    awake.sysfs.set_status(ADDRESS, "suspended")
    for _ in range(1800):
        answer = awake.read()
        assert (answer.state, answer.readings[0].state) == (BackendState.ASLEEP, GpuState.ASLEEP)
    assert awake.program.runs == []


@pytest.mark.parametrize("status", ["suspended", "suspending", "resuming"])
def test_the_child_is_ended_as_soon_as_one_of_the_cards_sleeps(awake: SmiRig, status: str) -> None:
    awake.sysfs.add(SECOND)
    awake.read()
    awake.sysfs.set_status(SECOND, status)
    answer = awake.read()
    assert awake.program.running == []
    assert [reading.state for reading in answer.readings] == [GpuState.UNKNOWN, GpuState.ASLEEP]
    assert answer.state is BackendState.READY
    awake.sysfs.set_status(SECOND, "active")
    assert awake.reading().state is GpuState.AWAKE


def test_idle_cards_are_let_go_after_a_minute_and_looked_at_again_after_a_pause(awake: SmiRig) -> None:
    awake.sysfs.set_control(ADDRESS, "auto")
    awake.program.put("document", document(gpu()))
    awake.program.write('PATH=/usr/bin:/bin; while :; do cat "$FOLDER/document"; sleep 0.02; done')
    states = []
    for _ in range(150):
        states.append(awake.heard().state)
        if states[-1] is GpuState.UNKNOWN:
            assert awake.program.running == []
    assert states[:30] == [GpuState.AWAKE] * 30
    assert states.count(GpuState.AWAKE) < 40
    assert 2 <= len(awake.program.runs) <= 4


@pytest.mark.parametrize("changes", [BUSY, {"processes": process(4242)}, {"utilization/encoder_util": "3 %"}])
def test_cards_at_work_are_held(awake: SmiRig, changes: dict[str, str]) -> None:
    awake.sysfs.set_control(ADDRESS, "auto")
    awake.program.put("document", document(gpu(changes)))
    awake.program.write('PATH=/usr/bin:/bin; while :; do cat "$FOLDER/document"; sleep 0.02; done')
    for _ in range(60):
        assert awake.heard().state is GpuState.AWAKE
    assert len(awake.program.runs) == 1


def test_while_one_card_works_its_idle_neighbour_is_held_too(awake: SmiRig) -> None:
    awake.sysfs.add(SECOND)
    awake.sysfs.set_control(SECOND, "auto")
    awake.program.put("document", document(gpu(BUSY), gpu(address=f"0000{SECOND}")))
    awake.program.write('PATH=/usr/bin:/bin; while :; do cat "$FOLDER/document"; sleep 0.02; done')
    for _ in range(60):
        assert awake.heard().state is GpuState.AWAKE
    assert len(awake.program.runs) == 1


# -- battery ----------------------------------------------------------------------------------------------------------


def test_on_battery_documents_come_more_seldom(awake: SmiRig) -> None:
    awake.read()
    awake.add_battery(status="Discharging")
    awake.read(loop.BATTERY_SECONDS / 2)
    assert len(awake.program.runs) == 1, "it is looked at now and then only"
    awake.read(loop.BATTERY_SECONDS / 2)
    assert [arguments for _, arguments in awake.program.runs] == ["-q -x -l 5", "-q -x -l 15"]
    assert len(awake.program.running) == 1
    assert awake.reading(2 * 15 + 5.0).fan_percent == 30.0


@pytest.mark.parametrize(("status", "scope"), [("Charging", None), ("Full", None), ("Discharging", "Device")])
def test_a_mouse_or_a_charging_battery_changes_nothing(awake: SmiRig, status: str, scope: str | None) -> None:
    awake.add_battery(status=status, scope=scope)
    awake.read()
    assert awake.program.runs[0][1] == "-q -x -l 5"


# -- what is learned of a card ----------------------------------------------------------------------------------------


def test_a_passive_board_has_no_fan_though_it_says_0_percent(awake: SmiRig) -> None:
    awake.program.put("document", document(gpu({"product_name": "NVIDIA A40", "fan_speed": "0 %"})))
    reading = awake.reading()
    assert (reading.fan_mode, reading.fans) == (FanMode.NONE, ())


def test_a_fan_that_cannot_be_read_is_not_taken_for_none(awake: SmiRig) -> None:
    awake.program.put("document", document(gpu({"fan_speed": "[Unknown Error]"})))
    assert awake.reading().fan_mode is FanMode.UNKNOWN


def test_a_limit_that_is_a_sum_of_two_readings_does_not_flicker(awake: SmiRig) -> None:
    awake.program.write(
        'PATH=/usr/bin:/bin; for n in 1 2 3; do while [ ! -e "$FOLDER/$n" ]; do sleep 0.01; done; '
        'cat "$FOLDER/$n"; touch "$FOLDER/said$n"; done; exec sleep 1000'
    )
    limits = []
    for number, margin in ((1, "48 C"), (2, "49 C"), (3, "40 C")):
        changes = {"temperature/gpu_temp_slow_threshold": "N/A", "temperature/gpu_temp_tlimit": margin}
        awake.program.put(str(number), document(gpu(changes)))
        if number > 1:
            until((awake.program.folder / f"said{number}").exists)
        limits.append(awake.reading().temperature_limit_celsius)
    assert limits == [83.0, 83.0, 75.0]


def test_a_sleeping_cards_name_is_remembered(awake: SmiRig) -> None:
    gpu_identity = awake.reading().gpu
    awake.sysfs.set_status(ADDRESS, "suspended")
    assert awake.reading().gpu == replace(gpu_identity, name="NVIDIA GeForce RTX 3070")


# -- where it comes from ----------------------------------------------------------------------------------------------


def told_of(rig: SmiRig) -> list[tuple[str, str, Lack | None, str]]:
    return [(one.gpu_id, one.quantity, one.lack, one.advice) for one in rig.backend.sources()]


def test_before_the_first_look_nothing_is_told_of_sources(awake: SmiRig) -> None:
    assert awake.backend.sources() == ()


def test_of_cards_that_are_read_each_quantity_has_its_source(awake: SmiRig) -> None:
    awake.sysfs.add(SECOND)
    awake.program.put("document", document(gpu(BUSY), gpu(BUSY, address=f"0000{SECOND}")))
    awake.read()
    sources = awake.backend.sources()
    assert [one.gpu_id for one in sources if one.quantity == "fan_percent" and one.lack is None] == [
        "pci_0000_01_00_0",
        "pci_0000_02_00_0",
    ]
    assert {one.backend for one in sources} == {"nvidia-smi"}


def test_a_fan_that_was_judged_to_be_none_is_missing_for_that_reason(awake: SmiRig) -> None:
    awake.program.put("document", document(gpu({"product_name": "NVIDIA A40", "fan_speed": "0 %"})))
    awake.read()
    (fan,) = (one for one in awake.backend.sources() if one.quantity == "fan_percent")
    assert (fan.lack, fan.advice) == (Lack.NO_SENSOR, "it has no fan of its own")


def test_a_card_beside_a_sleeping_one_says_why_it_is_not_read(awake: SmiRig) -> None:
    awake.sysfs.add(SECOND)
    awake.read()
    awake.sysfs.set_status(SECOND, "suspended")
    awake.read()
    (beside, asleep) = told_of(awake)
    assert beside[:3] == ("pci_0000_01_00_0", "", Lack.UNREADABLE)
    assert "would wake the sleeping card" in beside[3]
    assert asleep[:3] == ("pci_0000_02_00_0", "", Lack.ASLEEP)


def test_a_card_that_is_let_go_is_let_alone(awake: SmiRig) -> None:
    awake.sysfs.set_control(ADDRESS, "auto")
    awake.program.put("document", document(gpu()))
    awake.program.write('PATH=/usr/bin:/bin; while :; do cat "$FOLDER/document"; sleep 0.02; done')
    while awake.heard().state is GpuState.AWAKE:
        pass
    ((_, quantity, lack, advice),) = told_of(awake)
    assert (quantity, lack) == ("", Lack.ASLEEP)
    assert "let alone" in advice


def test_while_nothing_was_heard_that_is_what_is_told(awake: SmiRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "FIRST_DOCUMENT_SECONDS", 0.05)
    awake.program.write("PATH=/usr/bin:/bin; exec sleep 1000")
    awake.read()
    assert told_of(awake) == [
        ("pci_0000_01_00_0", "", Lack.UNREADABLE, "nvidia-smi was started and has not answered yet")
    ]


def test_a_card_that_is_lost_or_not_listed_says_so(awake: SmiRig) -> None:
    awake.sysfs.add(SECOND)
    lost = {"temperature/gpu_temp": "GPU is lost", "performance_state": "GPU is lost"}
    awake.program.put("document", document(gpu(lost)))
    awake.read()
    assert [(lack, advice) for _, _, lack, advice in told_of(awake)] == [
        (Lack.UNREADABLE, "nvidia-smi says that it is lost"),
        (Lack.UNREADABLE, "nvidia-smi does not list it"),
    ]
