"""Who sees what, without a bus."""

import json

from gpuwhyd.model import EventKind
from gpuwhyd.outputs import dbus_views as views
from gpuwhyd.outputs.dbus_privacy import ANYONE, Viewer, redacted_event
from gpuwhyd.outputs.journal_entries import record
from tests.outputs.dbus_reports import (
    OTHER_UID,
    PRIVATE_NAMES,
    SECRET,
    alert_event,
    reading,
    report,
    spike_event,
)

ROOT = Viewer(uid=0)
OWNER = Viewer(uid=OTHER_UID)
STRANGER = Viewer(uid=65534)


def text(value: object) -> str:
    return json.dumps(value, default=str)


def test_a_command_line_goes_to_root_and_to_its_own_user_only():
    def command_lines(viewer):
        shown = views.processes(report(), "pci_0000_01_00_0", viewer)
        return {process["pid"]: process.get("command_line") for process in shown}

    root_line, owners_line = ["ollama", "serve", SECRET], ["blender", "-b", "scene.blend"]
    assert command_lines(ROOT) == {4242: root_line, 4343: owners_line}
    assert command_lines(OWNER) == {4242: None, 4343: owners_line}
    assert command_lines(STRANGER) == command_lines(ANYONE) == {4242: None, 4343: None}


def test_an_ordinary_user_sees_names_but_no_executable():
    (first, _) = views.processes(report(), "pci_0000_01_00_0", STRANGER)
    assert (first["name"], first["unit"], first["share"]) == ("ollama", "ollama.service", 0.81)
    assert "executable" not in first


def test_under_hidepid_nothing_that_anyone_gets_holds_a_name():
    hidden = report(hidden=True, events=(spike_event(), alert_event()))
    card = hidden.snapshot.readings[0]
    (answer,) = hidden.explanations.values()
    for viewer in (ANYONE, STRANGER):
        shown = [
            views.manager_properties(hidden, 2.0),
            views.gpu_properties(hidden, card),
            views.gpu_topic(hidden, card.gpu.id),
            views.summary(hidden, 2.0, viewer),
            views.metrics(hidden),
            views.processes(hidden, card.gpu.id, viewer),
            views.explanation_view(hidden, answer, viewer),
            views.spike_signal(hidden, spike_event()),
            views.alert_signal(hidden, alert_event()),
        ]
        for one in shown:
            assert not [name for name in PRIVATE_NAMES if name in text(one)], one


def test_under_hidepid_the_answer_still_says_why():
    hidden = report(hidden=True)
    properties = views.gpu_properties(hidden, reading())
    assert properties["Cause"] == "workload"
    assert "a program made 81 % of its heat" in properties["Sentence"]
    assert "fan at 57 %" in views.manager_properties(hidden, 2.0)["Headline"]


def test_under_hidepid_a_user_sees_their_own_process_and_root_sees_all():
    hidden = report(hidden=True)
    assert [p["pid"] for p in views.processes(hidden, "pci_0000_01_00_0", OWNER)] == [4343]
    assert [p["pid"] for p in views.processes(hidden, "pci_0000_01_00_0", ROOT)] == [4242, 4343]
    assert "ollama.service" in views.summary(hidden, 2.0, ROOT)["headline"]
    (answer,) = hidden.explanations.values()
    assert "ollama" in text(views.explanation_view(hidden, answer, ROOT))


def test_a_past_event_loses_all_names_but_not_what_happened():
    for event in (spike_event(EventKind.SPIKE_ENDED), alert_event()):
        public = redacted_event(record(event))
        assert not [name for name in PRIVATE_NAMES if name in text(public)]
        assert public["event"] == event.kind.value
        assert public["explanation"]["cause"] == "workload"
        assert public["message"].startswith("NVIDIA GeForce RTX 3070: ")


def test_a_key_that_is_added_to_events_later_is_private():
    assert "parent_process" not in redacted_event({"event": "spike-started", "parent_process": "bash"})


def test_an_event_of_the_hardware_keeps_its_message():
    event = {"event": "backend-failing", "backend": "nvml", "message": "nvml did not answer within 5 s"}
    assert redacted_event(event) == event
