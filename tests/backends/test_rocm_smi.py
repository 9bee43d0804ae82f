"""rocm-smi in amdgpu's place: one bounded run now and then, none while a card sleeps."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuwhyd.backends.base import BackendReadings, Probe
from gpuwhyd.backends.program_backend import ProgramBackend
from gpuwhyd.backends.programs import output_of
from gpuwhyd.backends.rocm_smi import RUN_SECONDS, RocmSmi
from gpuwhyd.backends.rocm_smi_json import ANSWER_LIMIT_BYTES, AnswerError, cards
from gpuwhyd.errors import BackendError
from gpuwhyd.model import BackendState, FanMode, GpuReading, GpuState, Lack
from gpuwhyd.sampler import SamplingSettings
from tests.backends.fake_programs import FakeProgram, is_alive, until
from tests.backends.golden_readings import GOLDEN, assert_golden
from tests.fake_nvml.sysfs import AMD, FakeSysfs
from tests.samples import bind, sample_folders

ADDRESS = "0000:07:00.0"
CARD = {
    "Temperature (Sensor edge) (C)": "45.0",
    "Temperature (Sensor junction) (C)": "47.0",
    "Fan speed (level)": "102",
    "Fan speed (%)": "40",
    "Fan RPM": "1530",
    "Average Graphics Package Power (W)": "36.0",
    "Max Graphics Package Power (W)": "211.0",
    "GPU use (%)": "55",
    "sclk clock speed:": "(500Mhz)",
    "VRAM Total Memory (B)": "12868124672",
    "VRAM Total Used Memory (B)": "1572757504",
    "VBIOS version": "113-67XA6SSB1-D01",
    "Card series": "Navi 22 [Radeon RX 6700 XT]",
    "PCI Bus": "0000:07:00.0",
}
IDLE = {**CARD, "GPU use (%)": "0"}


def answer(*cards: dict[str, str], system: dict[str, str] | None = None) -> bytes:
    table = {f"card{number}": card for number, card in enumerate(cards)}
    return json.dumps({**table, "system": {"Driver version": "6.3.6", **(system or {})}}).encode()


def readings(answer: bytes) -> tuple[GpuReading, ...]:
    return tuple(card.reading for card in cards(answer))


def one(changes: dict[str, str] | None = None, system: dict[str, str] | None = None) -> GpuReading:
    (reading,) = readings(answer({**CARD, **(changes or {})}, system=system))
    return reading


# -- the answer -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sample", sample_folders("rocm-smi-json"))
def test_a_real_answer_reads_as_it_says(sample: Path) -> None:
    assert_golden(readings(sample.read_bytes()), GOLDEN / f"rocm-smi/{sample.stem}.toml")


def test_a_fan_has_its_exact_level_and_a_tachometer() -> None:
    (fan,) = one().fans
    assert (fan.percent, fan.rpm, fan.rpm_is_measured) == (40.0, 1530.0, True)


def test_a_fan_without_level_has_the_rounded_percent() -> None:
    (fan,) = one({"Fan speed (level)": "N/A", "Fan RPM": "N/A"}).fans
    assert (fan.percent, fan.rpm, fan.rpm_is_measured) == (40.0, None, False)


def test_a_fan_at_rest_is_not_told_and_not_taken_for_none() -> None:
    still = {key: text for key, text in CARD.items() if not key.startswith("Fan")}
    (reading,) = readings(answer(still))
    assert (reading.fans, reading.fan_mode) == ((), FanMode.UNKNOWN)


@pytest.mark.parametrize(
    ("told", "watts", "average"),
    [
        ({}, 36.0, 36.0),
        ({"Current Socket Graphics Package Power (W)": "41.0"}, 41.0, 36.0),
        ({"Average Graphics Package Power (W)": "N/A (Secondary die)"}, None, None),
        ({"Average Graphics Package Power (W)": "-3"}, None, None),
        ({"Average Graphics Package Power (W)": "0.0"}, None, None),
    ],
)
def test_power_under_all_its_names(told: dict[str, str], watts: float | None, average: float | None) -> None:
    reading = one(told)
    assert (reading.power_watts, reading.power_average_watts) == (watts, average)


def test_keys_in_other_letters_are_the_same_keys() -> None:
    (reading,) = readings(answer({key.upper(): text for key, text in CARD.items()}))
    assert reading == one()


@pytest.mark.parametrize("text", ["N/A", "", "None", "unknown", "1e9", "nan", "0x10", "٣", "9" * 400])
def test_what_is_no_number_is_none(text: str) -> None:
    reading = one(dict.fromkeys(set(CARD) - {"PCI Bus", "Card series"}, text))
    assert (reading.temperature_celsius, reading.utilization_percent, reading.fans) == (None, None, ())
    assert (reading.memory_used_bytes, reading.core_clock_mhz) == (None, None)


def test_processes_of_the_only_card() -> None:
    pids = {
        "PID4242": "python3, 1, 1048576, 0, 12",
        "PID17": "a, b, c, 1, 2048, 0, unknown",
        "PIDx": "a, 1, 1, 0, 0",
    }
    found = one(system={**pids, "PID18": "too, few"}).processes
    assert [(p.pid, p.kind, p.memory_used_bytes) for p in found or ()] == [
        (17, "compute", 2048),
        (4242, "compute", 1048576),
    ]


def test_which_of_two_cards_a_process_uses_is_not_told() -> None:
    both = readings(answer(CARD, {**CARD, "PCI Bus": "0000:08:00.0"}, system={"PID1": "a, 1, 1, 0, 0"}))
    assert [reading.processes for reading in both] == [None, None]


def test_nobody_who_computes_does_not_mean_nobody() -> None:
    assert one().processes is None


@pytest.mark.parametrize(
    ("name", "shown"),
    [("0xc1e", "AMD GPU"), ("N/A", "AMD GPU"), ("AMD Radeon VII", "AMD Radeon VII"), ("\x1b[2J", "AMD GPU")],
)
def test_names(name: str, shown: str) -> None:
    assert one({"Card series": name}).gpu.name == shown


@pytest.mark.parametrize("address", ["", "N/A", "07:00.0", "nonsense"])
def test_a_card_without_an_address_is_left_out(address: str) -> None:
    assert readings(answer({**CARD, "PCI Bus": address})) == ()


def test_warnings_before_the_answer_are_passed_over() -> None:
    assert readings(b"WARNING: no permission\n\n" + answer(CARD)) == (one(),)


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"no AMD GPU",
        b"[1]",
        b'{"card0": ',
        b'{"a":' * 100_000,
        b"{" + b" " * ANSWER_LIMIT_BYTES,
        answer(CARD)[:-1],
    ],
)
def test_an_answer_that_is_none_is_refused(garbage: bytes) -> None:
    with pytest.raises(AnswerError):
        readings(garbage)


@pytest.mark.parametrize("odd", [b"{}", b'{"card0": 7}', b'{"card0": {"PCI Bus": 7}}', b'{"system": []}'])
def test_an_answer_without_cards_has_none(odd: bytes) -> None:
    assert readings(odd) == ()


# -- the runs ---------------------------------------------------------------------------------------------------------


class RocmRig:
    def __init__(self, folder: Path) -> None:
        self.sysfs = FakeSysfs(folder / "sys")
        self.program = FakeProgram(folder / "bin", "rocm-smi", 'exec /bin/cat "$FOLDER/answer"')
        self.program.put("answer", answer(CARD))
        self.time = 1000.0
        self.smi = RocmSmi(sysfs=self.sysfs.root, path=self.program.path, run_seconds=5.0)
        self.backend = ProgramBackend(self.smi, sysfs=self.sysfs.root, monotonic=lambda: self.time)

    def add(self, address: str = ADDRESS) -> None:
        self.sysfs.add(address, vendor=AMD, driver=None)
        bind(self.sysfs.root, address, "amdgpu")

    def read(self, seconds: float = 2.0) -> BackendReadings:
        self.time += seconds
        return self.backend.read()

    def reading(self, seconds: float = 2.0) -> GpuReading:
        return self.read(seconds).readings[0]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[RocmRig]:
    rig = RocmRig(tmp_path)
    rig.add()
    yield rig
    rig.backend.close()
    assert rig.program.running == []


def test_it_is_run_every_ten_seconds_at_most(rig: RocmRig) -> None:
    assert rig.backend.probe().answer is Probe.READY
    for _ in range(30):
        assert rig.reading().temperature_celsius == 45.0
    assert len(rig.program.runs) == 6


def add_battery(rig: RocmRig) -> None:
    battery = rig.sysfs.root / "class/power_supply/BAT1"
    battery.mkdir(parents=True)
    (battery / "type").write_text("Battery\n")
    (battery / "status").write_text("Discharging\n")


def test_on_battery_it_is_run_every_minute_at_most(rig: RocmRig) -> None:
    add_battery(rig)
    for _ in range(60):
        rig.read()
    assert len(rig.program.runs) == 2


def test_a_run_has_no_translation_and_asks_for_json(rig: RocmRig) -> None:
    rig.read()
    assert rig.program.environment["LC_ALL"] == "C"
    assert rig.program.runs[0][1].endswith("--showpids --json")


def test_without_program_or_card_it_waits_quietly(tmp_path: Path) -> None:
    rig = RocmRig(tmp_path)
    assert "amdgpu" in rig.backend.probe().message
    rig.add()
    rig.program.remove()
    result = rig.backend.probe()
    assert (result.answer, result.message) == (Probe.LATER, "the program rocm-smi is not installed")


def test_what_the_answer_tells_of_a_card_is_kept(rig: RocmRig) -> None:
    gpu = rig.reading().gpu
    assert (gpu.id, gpu.vendor, gpu.driver) == ("pci_0000_07_00_0", "amd", "amdgpu 6.3.6")
    assert (gpu.vbios_version, gpu.name) == ("113-67XA6SSB1-D01", "AMD GPU")
    rig.sysfs.set_status(ADDRESS, "suspended")
    assert rig.reading().gpu == gpu


def test_an_answer_holds_although_the_program_misses_something(rig: RocmRig) -> None:
    """It ends with 2 on every card without HBM."""
    rig.program.write('/bin/cat "$FOLDER/answer"; exit 2')
    assert rig.reading().temperature_celsius == 45.0


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("echo; echo 'ROCm is not loaded'; exit 2", "failed with 2: ROCm is not loaded"),
        ("exit 1", "failed with 1: it says nothing"),
        ("kill -SEGV $$", "failed with -11"),
        ("echo garbage", "not understood"),
        ("echo '{\"system\": {}}'; exit 2", "failed with 2"),
        ('/bin/cat "$FOLDER/answer"; kill -SEGV $$', "failed with -11"),
        ("exec /bin/cat /dev/zero", "writes more than"),
    ],
)
def test_a_run_that_fails_is_an_error_and_not_repeated_at_once(
    rig: RocmRig, body: str, complaint: str
) -> None:
    rig.program.write(body)
    for _ in range(20):
        with pytest.raises(BackendError, match=complaint):
            rig.read()
        rig.backend.close()
    assert len(rig.program.runs) == 1, "in 40 s"
    rig.program.write('exec /bin/cat "$FOLDER/answer"')
    assert rig.reading(30.0).temperature_celsius == 45.0


def test_a_run_that_hangs_is_ended_with_all_that_it_started(rig: RocmRig) -> None:
    rig.program.write('/bin/sleep 1000 & echo $! > "$FOLDER/grandchild"; wait')
    rig.smi._run_seconds = 0.3
    with pytest.raises(BackendError, match=r"not ended within 0\.3 s"):
        rig.read()
    grandchild = int((rig.program.folder / "grandchild").read_text())
    until(lambda: not is_alive(grandchild))


def test_a_run_that_closes_its_output_and_hangs_is_ended(rig: RocmRig) -> None:
    rig.program.write('/bin/cat "$FOLDER/answer"; exec /bin/sleep 1000 >/dev/null')
    rig.smi._run_seconds = 0.3
    with pytest.raises(BackendError, match="not ended"):
        rig.read()


def test_a_program_that_writes_to_the_last_byte_is_heard(tmp_path: Path) -> None:
    program = FakeProgram(tmp_path, "x", 'exec /bin/cat "$FOLDER/answer"')
    program.put("answer", b"a" * 3_000_000)
    assert len(output_of([f"{program.path}/x"], seconds=10.0, most_bytes=3_000_000)) == 3_000_000
    with pytest.raises(BackendError, match="more than"):
        output_of([f"{program.path}/x"], seconds=10.0, most_bytes=2_999_999)


def test_no_run_in_an_hour_while_a_card_sleeps(rig: RocmRig) -> None:
    rig.add("0000:08:00.0")
    rig.sysfs.set_status("0000:08:00.0", "suspended")
    for _ in range(1800):
        assert rig.reading().state is GpuState.UNKNOWN
    rig.sysfs.set_status(ADDRESS, "suspended")
    assert rig.read().state is BackendState.ASLEEP
    assert rig.program.runs == []


def test_an_idle_card_is_let_go(rig: RocmRig) -> None:
    rig.sysfs.set_control(ADDRESS, "auto")
    rig.program.put("answer", answer(IDLE))
    states = [rig.reading().state for _ in range(90)]
    assert states[:30] == [GpuState.AWAKE] * 30
    assert states[32:60] == [GpuState.UNKNOWN] * 28
    assert len(rig.program.runs) <= 9


def test_a_card_that_was_let_go_and_is_woken_is_looked_at_anew(rig: RocmRig) -> None:
    rig.sysfs.set_control(ADDRESS, "auto")
    add_battery(rig)
    rig.program.put("answer", answer(IDLE))
    while rig.reading().state is GpuState.AWAKE:
        pass
    before = len(rig.program.runs)
    rig.sysfs.set_status(ADDRESS, "suspended")
    rig.read()
    rig.sysfs.set_status(ADDRESS, "active")
    assert rig.reading().state is GpuState.AWAKE
    assert len(rig.program.runs) == before + 1


@pytest.mark.parametrize("told", [answer(CARD), answer(IDLE, system={"PID7": "a, 1, 1, 0, 0"})])
def test_a_card_at_work_is_held(rig: RocmRig, told: bytes) -> None:
    rig.sysfs.set_control(ADDRESS, "auto")
    rig.program.put("answer", told)
    assert {rig.reading().state for _ in range(60)} == {GpuState.AWAKE}


def test_a_card_that_the_answer_does_not_name_is_unknown(rig: RocmRig) -> None:
    rig.add("0000:08:00.0")
    assert [reading.state for reading in rig.read().readings] == [GpuState.AWAKE, GpuState.UNKNOWN]


def test_the_deadline_of_the_sampler_is_longer_than_a_run() -> None:
    assert SamplingSettings().deadline_seconds > RUN_SECONDS


def test_each_quantity_of_a_card_that_is_read_has_its_source_and_a_sleeping_one_has_one_line(
    rig: RocmRig,
) -> None:
    rig.read()
    found = {source.quantity: source for source in rig.backend.sources()}
    assert (found["fan_rpm"].source, found["fan_rpm"].lack) == ("Fan RPM", None)
    assert found["memory_temperature_celsius"].lack is Lack.NO_SENSOR
    rig.sysfs.set_status(ADDRESS, "suspended")
    rig.read()
    (source,) = rig.backend.sources()
    assert (source.backend, source.quantity, source.lack) == ("rocm-smi", "", Lack.ASLEEP)
