"""What libsystemd may give of a journal: a field is a text, bytes where it is no UTF-8, a list where it stands twice."""

import json
import sys
from types import ModuleType
from typing import Self
from unittest import mock

from hypothesis import example, given
from hypothesis import strategies as st

from gpuwhyd.outputs.history import DAMAGED_LIMIT, JournalHistory, open_history
from gpuwhyd.outputs.journal_entries import as_json, event_id, record
from tests.fuzz.mutation import HOSTILE_TEXTS, damaged_text, examples, hostile_values
from tests.outputs.events import WALL_USEC, one_of_each
from tests.outputs.test_history import remembering

Field = str | bytes | list[str]
Entry = dict[str, Field | int] | None
"""None: one in a damaged place of a journal file."""

EVENTS = one_of_each()
DETAILS = [as_json(record(event)) for event in EVENTS]
IDS = [event_id(event) for event in EVENTS]


def fields(whole: list[str]) -> st.SearchStrategy[Field]:
    text = st.sampled_from(whole) | damaged_text(whole, most=1) | st.sampled_from(HOSTILE_TEXTS)
    return st.one_of(text, text, text.map(lambda it: it.encode(errors="replace")), st.lists(text, max_size=3))


@st.composite
def details(draw: st.DrawFn) -> Field:
    """One of ours with one value of another kind, or damaged as a text."""
    if draw(st.booleans()):
        return draw(fields(DETAILS))
    item = json.loads(draw(st.sampled_from(DETAILS)))
    name = draw(st.sampled_from(["wall_usec", "wall_usec", *sorted(item)]))
    item[name] = draw(st.booleans() if name == "wall_usec" and draw(st.booleans()) else hostile_values())
    return json.dumps(item)


STAMP = {"__REALTIME_TIMESTAMP": st.integers(WALL_USEC - 10, WALL_USEC + 10**9)}
OURS = {"GPUWHY_DETAIL": details(), "GPUWHY_EVENT_ID": st.sampled_from(IDS) | fields(IDS)}
ENTRIES: st.SearchStrategy[list[Entry]] = st.lists(
    st.one_of(
        st.fixed_dictionaries(STAMP | OURS),
        st.fixed_dictionaries(STAMP | OURS),
        st.fixed_dictionaries(STAMP, optional=OURS),
        st.none(),
    ),
    max_size=8,
)


def libsystemd(entries: list[Entry]) -> dict[str, ModuleType]:
    """With a journal that has these entries, the newest first."""

    class Reader:
        def __init__(self, **_options: object) -> None:
            self._left = list(entries)

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_exception: object) -> None:
            self._left = []

        def has_persistent_files(self) -> bool:
            return True

        def add_match(self, match: str) -> None:
            match.encode()

        def seek_tail(self) -> None:
            pass

        def get_previous(self) -> dict[str, object]:
            entry = self._left.pop(0) if self._left else {}
            if entry is None:
                raise OSError(74, "Bad message")
            return dict(entry)

    journal = ModuleType("systemd.journal")
    journal.Reader = Reader
    return {"systemd": ModuleType("systemd"), "systemd.journal": journal}


@examples(150)
@given(ENTRIES, st.sampled_from([0, WALL_USEC, WALL_USEC + 10]), st.sampled_from([0, 1, 5, 100]))
@example(
    [None, {"__REALTIME_TIMESTAMP": WALL_USEC, "GPUWHY_DETAIL": DETAILS[0], "GPUWHY_EVENT_ID": IDS[0]}], 0, 5
)
def test_whatever_stands_in_the_journal_past_events_are_records(
    entries: list[Entry], since_usec: int, maximum: int
) -> None:
    recent = remembering(EVENTS[0])
    with mock.patch.dict(sys.modules, libsystemd(entries)):
        history, written_ids = open_history(recent)
        written = JournalHistory().read(since_usec=since_usec, maximum=maximum)
        told = history.read(since_usec=since_usec, maximum=maximum)
        ids = written_ids(IDS)
    assert len(written) <= len(told) <= maximum
    for item in (*written, *told):
        assert isinstance(item["event"], str)
        assert isinstance(item["message"], str) or "message" not in item
        assert type(item["wall_usec"]) is int
        assert since_usec <= item["wall_usec"] < 2**63
        json.dumps(item)
    assert ids <= set(IDS)
    if since_usec == 0 and maximum > len(entries):
        found = [entry.get("GPUWHY_EVENT_ID") for entry in entries if entry]
        for entry in entries:
            if entry and entry.get("GPUWHY_DETAIL") in DETAILS and entry.get("GPUWHY_EVENT_ID") in IDS:
                is_alone = found.count(entry["GPUWHY_EVENT_ID"]) == 1
                assert json.loads(entry["GPUWHY_DETAIL"]) in written or not is_alone


def test_a_journal_that_is_damaged_all_over_is_given_up() -> None:
    with mock.patch.dict(sys.modules, libsystemd([None] * (DAMAGED_LIMIT + 1))):
        assert JournalHistory().read(since_usec=0, maximum=5) == []
