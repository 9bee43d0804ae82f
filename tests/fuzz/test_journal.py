"""The journal: any event becomes fields that journald keeps as they are, and any record in it can be read back."""

import json
import string
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwhyd.bus.codec import dict_body
from gpuwhyd.model import (
    AlertEvent,
    BackendEvent,
    Cause,
    Event,
    EventKind,
    Evidence,
    Explanation,
    GpuEvent,
    GpuIdentity,
    Outlook,
    Program,
    ProgramKind,
    Severity,
    Spike,
    SpikeEvent,
    Suspect,
)
from gpuwhyd.outputs import history
from gpuwhyd.outputs.dbus_privacy import redacted_event
from gpuwhyd.outputs.journal_entries import DETAIL_LIMIT, FIELD_NAME, TEXT_LIMIT, entry, event_id, record
from gpuwhyd.outputs.journal_socket import encode
from tests.client import reports
from tests.fuzz.mutation import HOSTILE_TEXTS, damaged_tree, examples

TEXTS = st.sampled_from(HOSTILE_TEXTS) | st.text(st.characters(categories=None), max_size=20)
NUMBERS = st.none() | st.floats() | st.floats(0, 1000)
WHOLE = st.integers(0, 2**53)


def built(of: type, **known: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """A value of the model with any texts and numbers."""
    return st.builds(of, **known)


PROGRAMS = built(
    Program,
    kind=st.sampled_from(ProgramKind),
    key=TEXTS,
    name=TEXTS,
    unit=st.none() | TEXTS,
    user_unit=st.none() | TEXTS,
    user=st.none() | TEXTS,
)
SUSPECTS = built(
    Suspect,
    program=PROGRAMS,
    share=st.floats(),
    process_name=st.none() | TEXTS,
    power_watts=NUMBERS,
    pids=st.lists(WHOLE, max_size=60).map(tuple),
    alive=st.booleans(),
)
EXPLANATIONS = built(
    Explanation,
    gpu_id=TEXTS,
    gpu_label=TEXTS,
    cause=st.sampled_from(Cause),
    confidence=st.floats(),
    sentence=TEXTS,
    suspects=st.lists(SUSPECTS, max_size=14).map(tuple),
    evidence=st.lists(
        built(Evidence, quantity=TEXTS, value=st.floats() | TEXTS, unit=TEXTS), max_size=30
    ).map(tuple),
    outlook=st.just(Outlook()),
    fan_percent=NUMBERS,
    power_watts=NUMBERS,
)
GPUS = built(GpuIdentity, id=TEXTS, name=TEXTS, vendor=TEXTS, pci_address=st.none() | TEXTS)
COMMON = {"wall_usec": WHOLE, "boottime_seconds": st.floats(0, 1e9)}
SPIKES = built(
    Spike,
    spike_id=TEXTS,
    gpu_id=TEXTS,
    began_usec=WHOLE,
    began_boottime_seconds=st.floats(0, 1e9),
    peak_fan_percent=NUMBERS,
)
EVENTS = st.one_of(
    built(
        SpikeEvent,
        kind=st.sampled_from([EventKind.SPIKE_STARTED, EventKind.SPIKE_UPDATED, EventKind.SPIKE_ENDED]),
        gpu=GPUS,
        spike=SPIKES,
        explanation=EXPLANATIONS,
        **COMMON,
    ),
    built(
        AlertEvent,
        kind=st.sampled_from([EventKind.ALERT_RAISED, EventKind.ALERT_CLEARED]),
        gpu=GPUS,
        rule=TEXTS,
        severity=st.sampled_from(Severity),
        metric=TEXTS,
        value=st.floats(),
        threshold=st.floats(),
        for_seconds=st.floats(),
        explanation=EXPLANATIONS,
        sentence=TEXTS,
        **COMMON,
    ),
    built(GpuEvent, kind=st.just(EventKind.GPU_LOST), gpu=GPUS, sentence=TEXTS, **COMMON),
    built(BackendEvent, kind=st.just(EventKind.BACKEND_FAILING), backend=TEXTS, sentence=TEXTS, **COMMON),
)


def received(data: bytes) -> Iterator[tuple[str, bytes]]:
    """https://systemd.io/JOURNAL_NATIVE_PROTOCOL/, from journald's side."""
    while data:
        line, _, rest = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = struct.unpack_from("<Q", rest)[0]
            value, rest = rest[8 : 8 + size], rest[8 + size :]
            assert rest.startswith(b"\n")
            rest = rest[1:]
        yield name.decode(), value
        data = rest


@examples(150)
@given(EVENTS, st.booleans())
def test_any_event_arrives_as_the_fields_it_was_given(event: Event, object_pid: bool) -> None:
    fields = entry(event, object_pid=object_pid)
    arrived = list(received(encode(fields)))

    assert arrived == [(name, value.encode("utf-8", "replace")) for name, value in fields]
    for name, value in fields:
        assert FIELD_NAME.fullmatch(name)
        assert value
        if name != "GPUWHY_DETAIL":
            assert len(value) <= TEXT_LIMIT
            assert not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in value)
    named = dict(fields)
    assert named["PRIORITY"] in set("234567")
    assert len(named["GPUWHY_EVENT_ID"]) == 32
    assert set(named["GPUWHY_EVENT_ID"]) <= set(string.hexdigits)
    for name in ("GPUWHY_FAN_PERCENT", "GPUWHY_CONFIDENCE", "GPUWHY_VALUE", "GPUWHY_DURATION_SECONDS"):
        assert named.get(name) not in {"nan", "inf", "-inf"}


@examples(150)
@given(EVENTS)
def test_any_record_is_bounded_and_read_back_as_it_was(event: Event) -> None:
    written = record(event)
    text = dict(entry(event, object_pid=False))["GPUWHY_DETAIL"]

    assert len(text) <= DETAIL_LIMIT
    assert text.isascii()
    assert json.loads(text, parse_constant=pytest.fail) == written
    read = history._parsed(text)
    assert read == written
    dict_body(read)
    dict_body(redacted_event(read))


@examples(150)
@given(EVENTS)
def test_an_event_has_one_id_and_another_at_another_time(event: Event) -> None:
    assert event_id(event) == event_id(event)
    if isinstance(event, GpuEvent):
        later = GpuEvent(
            kind=event.kind,
            wall_usec=event.wall_usec + 1,
            boottime_seconds=event.boottime_seconds,
            gpu=event.gpu,
            sentence=event.sentence,
        )
        assert event_id(later) != event_id(event)


RECORDS = [record(event) for event in (*reports.whole_spike(), reports.alert())]


@examples(360)
@given(damaged_tree(RECORDS))
def test_a_damaged_record_is_left_out_or_can_be_sent(damaged: object) -> None:
    """Whoever runs as our user can write one: it must not take the history from everybody."""
    read = history._parsed(json.dumps(damaged))
    if read is None:
        return
    assert isinstance(read["event"], str)
    hash(history._identity(read))
    dict_body(read)
    public = redacted_event(read)
    dict_body(public)
    names = {suspect["program"]["name"] for one in RECORDS for suspect in one["explanation"]["suspects"]}  # type: ignore[index, union-attr]
    if not (isinstance(damaged, dict) and damaged.keys() - RECORDS[0].keys() - RECORDS[-1].keys()):
        assert not any(name in json.dumps(public) for name in names)
