import dataclasses
import json
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwhyd.model import EventKind, Evidence, Program, ProgramKind, Severity, Suspect
from gpuwhyd.outputs.journal_entries import DETAIL_LIMIT, MESSAGE_IDS, Fields, entry, event_id, record
from gpuwhyd.outputs.journal_socket import encode
from tests.outputs.events import (
    BURNER,
    GPU,
    OLLAMA,
    alert_event,
    backend_event,
    explanation,
    gpu_event,
    one_of_each,
    spike_event,
)


def values(fields: Fields, name: str) -> list[str]:
    return [value for key, value in fields if key == name]


def test_a_spike_carries_the_documented_fields():
    fields = entry(spike_event(), object_pid=True)
    assert dict(fields) | {"GPUWHY_DETAIL": "", "GPUWHY_EVENT_ID": ""} == {
        "MESSAGE": "GPU 0 (RTX 3070): fan at 57 %.",
        "MESSAGE_ID": MESSAGE_IDS[EventKind.SPIKE_STARTED],
        "PRIORITY": "5",
        "SYSLOG_IDENTIFIER": "gpuwhyd",
        "SYSLOG_FACILITY": "3",
        "DOCUMENTATION": "man:gpuwhyd(8)",
        "GPUWHY_EVENT": "spike-started",
        "GPUWHY_EVENT_ID": "",
        "GPUWHY_SPIKE_ID": "pci_0000_01_00_0-1699999960000000",
        "GPUWHY_GPU": "0000:01:00.0",
        "GPUWHY_GPU_NAME": "NVIDIA GeForce RTX 3070",
        "GPUWHY_CAUSE": "workload",
        "GPUWHY_CONFIDENCE": "0.833",
        "GPUWHY_FAN_PERCENT": "57",
        "GPUWHY_TEMPERATURE_CELSIUS": "78",
        "GPUWHY_POWER_WATTS": "212",
        "GPUWHY_SUSPECT_PID": "4242",
        "GPUWHY_SUSPECT_NAME": "ollama.service",
        "GPUWHY_SUSPECT_UNIT": "ollama.service",
        "GPUWHY_SUSPECT_USER": "ollama",
        "GPUWHY_SUSPECT_SHARE": "0.81",
        "GPUWHY_DURATION_SECONDS": "40",
        "GPUWHY_DETAIL": "",
        "OBJECT_PID": "4242",
        "OBJECT_SYSTEMD_UNIT": "burner.service",
    }


def test_a_duration_is_told_to_a_tenth_of_a_second_and_kept_more_exactly():
    event = spike_event()
    event = dataclasses.replace(event, boottime_seconds=event.spike.began_boottime_seconds + 261.5324)
    assert values(entry(event, object_pid=False), "GPUWHY_DURATION_SECONDS") == ["261.5"]
    assert record(event)["duration_seconds"] == 261.532


def test_every_suspects_unit_is_named_alive_or_exited():
    fields = entry(spike_event(), object_pid=False)
    assert values(fields, "OBJECT_SYSTEMD_UNIT") == ["ollama.service", "burner.service"]


def test_a_users_own_unit_can_be_matched():
    program = dataclasses.replace(OLLAMA.program, unit="user@1000.service", user_unit="whisper.service")
    suspect = dataclasses.replace(OLLAMA, program=program)
    fields = entry(spike_event(answer=explanation(suspect)), object_pid=False)
    assert values(fields, "OBJECT_SYSTEMD_USER_UNIT") == ["whisper.service"]


def test_object_pid_stands_there_only_while_the_leader_lives_and_when_configured():
    exited = explanation(dataclasses.replace(BURNER, pids=(77,)))
    assert values(entry(spike_event(), object_pid=True), "OBJECT_PID") == ["4242"]
    assert values(entry(spike_event(), object_pid=False), "OBJECT_PID") == []
    assert values(entry(spike_event(answer=exited), object_pid=True), "OBJECT_PID") == []
    assert values(entry(spike_event(answer=exited), object_pid=True), "GPUWHY_SUSPECT_PID") == ["77"]


def test_priorities_follow_kind_and_severity():
    priorities = [values(entry(event, object_pid=False), "PRIORITY")[0] for event in one_of_each()]
    assert priorities == ["5", "6", "6", "3", "6", "6", "6", "3", "4", "6"]
    alerts = [values(entry(alert_event(severity=s), object_pid=False), "PRIORITY")[0] for s in Severity]
    assert alerts == ["5", "4", "3", "2"]


def test_each_kind_has_a_message_id_of_its_own():
    assert set(MESSAGE_IDS) == set(EventKind)
    assert len(set(MESSAGE_IDS.values())) == len(EventKind)


def test_event_ids_are_the_same_for_the_same_event_only():
    events = [*one_of_each(), spike_event(number=1), alert_event(rule="fan-stalled")]
    assert len({event_id(event) for event in events}) == len(events)
    assert event_id(spike_event()) == event_id(spike_event(answer=explanation(sentence="Other words.")))


def test_the_detail_is_the_record():
    for event in one_of_each():
        [detail] = values(entry(event, object_pid=False), "GPUWHY_DETAIL")
        assert json.loads(detail) == record(event)


def test_records_use_the_models_names_and_leave_out_what_is_not_known():
    spike = record(spike_event(EventKind.SPIKE_ENDED))
    assert spike["duration_seconds"] == 30.0  # an end is back-dated
    assert spike["gpu_pci"] == "0000:01:00.0"
    assert spike["explanation"]["suspects"][0]["program"]["unit"] == "ollama.service"
    assert "fan_rpm" not in spike["explanation"]
    alert = record(alert_event())
    assert (alert["rule"], alert["severity"], alert["threshold"]) == ("overheating", "error", 3.0)
    assert record(backend_event())["backend"] == "nvml"
    assert "gpu_id" not in record(backend_event())
    assert record(gpu_event())["message"] == "GPU 0 is lost."


def test_a_gpu_without_a_pci_address_is_named_by_its_id():
    chassis = dataclasses.replace(GPU, id="chassis_nct6798", pci_address=None)
    assert values(entry(spike_event(gpu=chassis), object_pid=False), "GPUWHY_GPU") == ["chassis_nct6798"]


@pytest.mark.parametrize("letter", ["x", "é", "\udcff", "\n", "\x00"])
def test_the_detail_stays_small_and_valid_whatever_the_programs_are_called(letter):
    monster = Suspect(
        program=Program(kind=ProgramKind.PROCESS, key="k", name=letter * 10_000, unit=letter * 10_000),
        share=float("nan"),
        pids=tuple(range(100_000)),
    )
    evidence = tuple(Evidence(quantity=letter * 5000, value=float("inf")) for _ in range(1000))
    answer = dataclasses.replace(explanation(*[monster] * 200, sentence=letter * 100_000), evidence=evidence)
    fields = entry(spike_event(answer=answer), object_pid=True)
    [detail] = values(fields, "GPUWHY_DETAIL")
    assert len(detail) <= DETAIL_LIMIT
    assert json.loads(detail)["event"] == "spike-started"
    assert len(encode(fields)) < 2 * DETAIL_LIMIT
    assert not any(ord(c) < 32 for name, value in fields if name != "GPUWHY_DETAIL" for c in value)


FIELD = st.tuples(st.from_regex(r"[A-Z][A-Z0-9_]{0,20}", fullmatch=True), st.text())


@given(st.lists(FIELD))
def test_no_value_can_pass_for_another_field(fields: list[tuple[str, str]]):
    expected = [(name, value.encode("utf-8", "replace")) for name, value in fields]
    assert list(decoded(encode(fields))) == expected


@pytest.mark.parametrize("name", ["", "lower", "_UID", "1ST", "A" * 65, "A=B", "A\nB", "Ä"])
def test_a_name_that_the_journal_does_not_know_is_an_error(name):
    with pytest.raises(ValueError, match="not a journal field name"):
        encode([(name, "value")])


def decoded(data: bytes) -> Iterable[tuple[str, bytes]]:
    """The native protocol as its documentation describes it to a receiver."""
    while data:
        line, data = data.split(b"\n", 1)
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(data[:8], "little")
            value, data = data[8 : 8 + size], data[8 + size :]
            assert data[:1] == b"\n"
            data = data[1:]
        yield name.decode(), value
