"""What each command writes, from the dicts that arrive over D-Bus."""

import dataclasses
import re
from datetime import UTC, datetime

import pytest

from gpuwhyd.client.doctor import doctor_lines, problems_of
from gpuwhyd.client.happenings import from_alert_signal, from_spike_signal
from gpuwhyd.client.history import grouped, history_lines
from gpuwhyd.client.json_form import metrics
from gpuwhyd.client.past_spike import past_spike_lines
from gpuwhyd.client.status import status_lines
from gpuwhyd.client.terminal import Terminal, text_width
from gpuwhyd.client.top import top_lines
from gpuwhyd.client.watch import event_lines
from gpuwhyd.client.waybar import waybar_form
from gpuwhyd.client.why import explanation_lines
from gpuwhyd.model import (
    AlertEvent,
    BackendEvent,
    Cause,
    EventKind,
    Evidence,
    GpuEvent,
    Outlook,
    Program,
    ProgramKind,
    Suspect,
)
from gpuwhyd.outputs.dbus_privacy import ANYONE
from gpuwhyd.outputs.dbus_views import alert_signal, processes, spike_signal, summary
from gpuwhyd.outputs.dbus_views import metrics as metrics_view
from gpuwhyd.outputs.journal_entries import record
from tests.client import reports
from tests.client.test_terminal_text import HOSTILE

NOW = datetime.fromtimestamp(reports.WALL_USEC / 1e6 + 60, tz=UTC)
PIPE = Terminal()
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def gpus(report=None):
    return [
        {"number": i, **gpu}
        for i, gpu in enumerate(summary(report or reports.loud_report(), 2.0, ANYONE)["gpus"])
    ]


def events_of(*events):
    return [reports.plain(record(event)) for event in events]


def every_text(terminal, *, name="ollama.service", sentence=reports.SENTENCE):
    """The lines of every command, with `name` and `sentence` wherever a stranger's text can stand."""
    program = Program(kind=ProgramKind.PROCESS, key="process:1:1", name=name, user=name)
    suspects = (
        Suspect(program=program, share=0.8, power_watts=200.0, pids=(1,)),
        Suspect(program=program, share=0.1, alive=False, stopped_seconds_ago=9.0),
    )
    loud = reports.explanation(sentence=sentence, suspects=suspects)
    report = reports.loud_report(cause_of_first=loud, uses=(reports.use(name=name, program=program),))
    first = gpus(report)[0] | {"name": name}
    event = reports.spike_event(EventKind.SPIKE_STARTED, 1, why=loud)
    health = reports.health(
        notes=[sentence], backends=[{"name": name, "state": "failing", "message": sentence}]
    )
    remembered = [reports.plain(record(event)) | {"message": sentence, "gpu_name": name}]
    remembered[0]["explanation"] = reports.plain(loud)
    card = metrics(metrics_view(report)[0])
    card["identity"] = card["identity"] | {"name": name}
    lacking = {"quantity": "hotspot_celsius", "source": name, "lack": "unreadable", "advice": sentence}
    card["sources"] = [
        {"backend": name, **lacking, "used": False},
        {"backend": name, "quantity": "fan_rpm", "source": name, "lack": None, "used": True},
        {"backend": name, "quantity": None, "source": name, "lack": sentence, "used": False},
    ]
    card["kept_awake_by"] = [name]
    return {
        "why": explanation_lines(reports.plain(loud), terminal, NOW),
        "status": status_lines([first], terminal),
        "top": top_lines(first, processes(report, reports.GPU.id, ANYONE), reports.plain(loud), terminal),
        "history": history_lines(grouped(remembered), terminal, {}),
        "spike": past_spike_lines(remembered, terminal, NOW, None),
        "doctor": doctor_lines(health, [card], "system", terminal),
        "watch": event_lines(remembered[0], terminal, NOW),
    }


def test_the_first_line_of_the_answer_is_the_sentence():
    assert explanation_lines(reports.plain(reports.explanation()), PIPE, NOW)[0] == reports.SENTENCE


def test_suspects_follow_with_share_power_and_whether_they_live():
    lines = explanation_lines(reports.plain(reports.explanation()), PIPE, NOW)
    assert lines[2:6] == [
        "  SUSPECT         SHARE  MEAN POWER  STATE              MEMORY  USER    PIDS",
        "  ollama.service   81 %       212 W  working           6.0 GiB  ollama  4242 4243 4244 +2",
        "  blender           9 %           -  exited 2 min ago        -  eva     812",
        "  nobody visible   10 %",
    ]


def test_evidence_outlook_and_confidence_are_in_words():
    text = "\n".join(explanation_lines(reports.plain(reports.explanation()), PIPE, NOW))
    assert "Outlook:    still getting hotter" in text
    assert "average power 212 W since" in text
    assert "average over 3 min; engine times unknown" in text
    assert "Confidence: 92 %" in text
    falling = reports.explanation(outlook=Outlook(trend="falling", quiet_in_seconds=240.0))
    assert "cooling down, quiet in about 4 min" in "\n".join(
        explanation_lines(reports.plain(falling), PIPE, NOW)
    )


def test_a_fan_that_was_up_at_the_start_is_told_in_words():
    mark = Evidence(quantity="began_before_start", value=1.0, since_usec=reports.WALL_USEC)
    text = "\n".join(explanation_lines(reports.plain(reports.explanation(evidence=(mark,))), PIPE, NOW))
    assert re.search(r"up already when gpuwhyd started at (\S+ )?\d\d:\d\d:\d\d$", text, re.MULTILINE)


def test_a_load_that_is_over_does_not_keep_the_card_as_it_is():
    over = reports.explanation(
        cause=Cause.RESIDUAL_HEAT, outlook=Outlook(trend="steady", quiet_in_seconds=60.0)
    )
    text = "\n".join(explanation_lines(reports.plain(over), PIPE, NOW))
    assert "Outlook:    cooling down, quiet in about 1 min" in text


def test_a_fan_that_somebody_set_is_not_said_to_stay_with_a_load():
    manual = reports.explanation(cause=Cause.MANUAL_FAN, suspects=(), outlook=Outlook(trend="steady"))
    text = "\n".join(explanation_lines(reports.plain(manual), PIPE, NOW))
    assert "Outlook:    stays until the fan is set back to automatic" in text
    assert "SUSPECT" not in text


def test_who_does_a_little_is_as_busy_in_the_answer_as_in_top():
    little = dataclasses.replace(
        reports.explanation().suspects[0], stopped_seconds_ago=40.0, engine_percent=2.0
    )
    idle = dataclasses.replace(little, engine_percent=0.0)
    answer = reports.plain(reports.explanation(suspects=(little, idle)))
    rows = explanation_lines(answer, PIPE, NOW)[3:5]
    assert "  busy 2 %  " in rows[0]
    assert "  idle for 40 s  " in rows[1]


def test_a_height_above_the_present_one_is_told_as_getting_hotter():
    coming = reports.explanation(outlook=Outlook(trend="steady", peak_fan_percent=65.0))
    text = "\n".join(explanation_lines(reports.plain(coming), PIPE, NOW))
    assert "Outlook:    still getting hotter slowly, settles at about 65 %" in text


def test_a_quiet_card_is_one_line():
    assert explanation_lines(reports.plain(reports.quiet_explanation()), PIPE, NOW) == [
        reports.QUIET_SENTENCE
    ]


def test_a_shared_cooler_says_what_the_cpu_made_of_each_programs_heat():
    first = reports.explanation().suspects[0]
    shared = reports.explanation(
        cause=Cause.SHARED_COOLER, suspects=(dataclasses.replace(first, share=0.81, cpu_share=0.6),)
    )
    lines = explanation_lines(reports.plain(shared), PIPE, NOW)
    titles = ["SUSPECT", "SHARE", "BY CPU", "MEAN POWER", "STATE", "MEMORY", "USER", "PIDS"]
    assert lines[2].split() == " ".join(titles).split()
    assert "81 %    60 %" in lines[3]


def test_who_only_watches_a_card_is_not_said_to_work_on_it():
    watcher = dataclasses.replace(reports.explanation().suspects[0], share=0.0, power_watts=None)
    watched = reports.explanation(cause=Cause.MONITOR, suspects=(watcher,), unattributed_share=0.0)
    text = "\n".join(explanation_lines(reports.plain(watched), PIPE, NOW))
    assert "watching" in text
    assert "working" not in text


def test_a_cpus_load_that_is_over_does_not_keep_the_fan_as_it_is():
    over = reports.explanation(
        cause=Cause.SHARED_COOLER, outlook=Outlook(trend="steady", quiet_in_seconds=60.0)
    )
    text = "\n".join(explanation_lines(reports.plain(over), PIPE, NOW))
    assert "Outlook:    cooling down, quiet in about 1 min" in text


def test_a_fan_of_the_machine_is_listed_with_the_programs_that_heat_it():
    fan = gpus()[0] | {"vendor": "chassis", "name": "ThinkPad P53 fan", "fan_percent": None}
    lines = top_lines(fan, [], reports.plain(reports.explanation()), PIPE)
    assert lines[0].startswith("Fan 0 ThinkPad P53 fan: 1450 RPM, 78 degC")
    assert "ollama.service" in lines[2]
    assert "(working)" in lines[2]


@pytest.mark.parametrize(
    "cause",
    ["shared-cooler", "monitor", "idle-clocks", "fan-fault", "hotspot", "neighbour-heat", "driver-event"],
)
def test_history_tells_the_reason_of_the_rise_and_not_the_heat_that_it_left(cause):
    why = reports.explanation(cause=Cause(cause))
    after = reports.explanation(cause=Cause.RESIDUAL_HEAT)
    rise = reports.spike_event(EventKind.SPIKE_STARTED, 2, why=why)
    over = reports.spike_event(EventKind.SPIKE_UPDATED, 100, why=after)
    assert f"  {cause}  " in history_lines(grouped(events_of(rise, over)), PIPE, {})[1]


def test_suspects_without_names_are_shown_as_hidden():
    plain = reports.plain(reports.explanation())
    for suspect in plain["suspects"]:
        del suspect["program"]
    assert any("(another user's)" in line for line in explanation_lines(plain, PIPE, NOW))


def test_status_has_one_line_per_gpu_and_a_dash_where_a_card_knows_nothing():
    assert status_lines(gpus(), PIPE) == [
        "GPU            FAN     SPEED     TEMP  POWER  BUSY          MEMORY  CAUSE",
        "0 RTX 3070    57 %  1450 RPM  78 degC  235 W  95 %  6.1 of 8.0 GiB  workload",
        "1 A40       no fan         -        -   30 W     -               -  quiet",
    ]


def test_status_shows_a_sleeping_card_and_a_manual_fan():
    first, second = gpus()
    text = "\n".join(status_lines([first | {"fan_mode": "manual"}, second | {"state": "asleep"}], PIPE))
    assert "57 % manual" in text
    assert "asleep" in text


def test_top_puts_the_hottest_first_and_keeps_the_exited_whose_heat_is_still_there():
    report = reports.loud_report(
        uses=(
            reports.use(900, "idle", Program(kind=ProgramKind.PROCESS, key="process:900:1", name="idle")),
            reports.use(),
        )
    )
    listed = processes(report, reports.GPU.id, ANYONE)
    lines = top_lines(gpus()[0], listed[::-1], reports.plain(reports.explanation()), PIPE)
    assert lines[0] == "GPU 0 RTX 3070: fan 57 %, 78 degC, 235 W, busy 95 %, memory 6.1 of 8.0 GiB"
    place = lines[1].index("PROCESS")
    assert [line[place:].split()[0] for line in lines[2:]] == ["ollama", "blender", "idle"]
    assert lines[3].endswith("blender  (exited 2 min ago)")
    narrow = top_lines(gpus()[0], listed, reports.plain(reports.explanation()), Terminal(columns=40))
    assert any("blender" in line for line in narrow)


def test_top_says_so_when_nobody_uses_the_card():
    assert top_lines(gpus()[1], [], {}, PIPE) == ["GPU 1 A40: no fan, 30 W", "  no process uses it"]


def test_history_has_one_row_per_spike_newest_last_with_the_cause_of_its_load():
    lines = history_lines(grouped(events_of(*reports.whole_spike(), reports.alert())), PIPE, {})
    assert len(lines) == 3
    assert "5 min 33 s  71 %  workload  ollama.service   81 %  " + reports.SPIKE_ID in lines[1]
    assert "ALERT overheating" in lines[2]


def test_history_names_in_its_last_columns_who_led_or_nobody():
    nobody = dataclasses.replace(reports.alert(), explanation=reports.explanation(suspects=()))
    added = GpuEvent(
        kind=EventKind.GPU_ADDED,
        wall_usec=reports.WALL_USEC,
        boottime_seconds=1.0,
        gpu=reports.GPU,
        sentence="GPU 0 (RTX 3070): found.",
    )
    failing = BackendEvent(
        kind=EventKind.BACKEND_FAILING,
        wall_usec=reports.WALL_USEC,
        boottime_seconds=1.0,
        backend="nvml",
        sentence="nvml: the driver does not answer.",
    )
    lines = history_lines(grouped(events_of(reports.alert(), nobody, added, failing)), PIPE, {})
    assert [re.split(r" {2,}", line)[2:] for line in lines] == [
        ["WHAT", "BY", "SHARE"],
        ["ALERT overheating", "ollama.service", "81 %"],
        ["ALERT overheating", "-", "-"],
        ["GPU added", "-", "-"],
        ["FAILING nvml", "-", "-"],
    ]


@pytest.mark.parametrize(
    ("columns", "one_card", "titles"),
    [
        (40, True, "WHEN WHAT BY"),
        (40, False, "WHEN GPU WHAT BY"),
        (60, False, "WHEN GPU WHAT PEAK BY"),
        (80, True, "WHEN WHAT LASTED PEAK BY SPIKE"),
        (80, False, "WHEN GPU WHAT LASTED BY SPIKE"),
        (100, False, "WHEN GPU WHAT LASTED PEAK CAUSE BY SPIKE"),
        (200, True, "WHEN WHAT LASTED PEAK CAUSE BY SHARE SPIKE"),
    ],
)
def test_history_keeps_what_matters_most_in_a_narrow_terminal(columns, one_card, titles):
    entries = grouped(events_of(*reports.whole_spike(), reports.alert()))
    lines = history_lines(entries, Terminal(columns=columns), {}, one_card=one_card)
    assert lines[0].split() == titles.split()
    assert "olla" in lines[1]
    assert (reports.SPIKE_ID.rpartition("-")[2] in lines[1]) == ("SPIKE" in titles)
    assert lines[1].startswith("2025-11-" if columns >= 120 else "11-")


def test_history_tells_cards_of_one_name_apart():
    twin = dataclasses.replace(reports.SECOND_GPU, name=reports.GPU.name)
    first, *_ = reports.whole_spike()
    other = dataclasses.replace(first, gpu=twin, spike=dataclasses.replace(first.spike, spike_id="other"))
    lines = history_lines(grouped(events_of(first, other)), PIPE, {})
    assert ["01:00.0 RTX 3070" in lines[1], "41:00.0 RTX 3070" in lines[2]] == [True, True]


def test_history_puts_a_spike_that_began_before_it_where_it_began():
    _, update, _ = reports.whole_spike()
    events = events_of(reports.alert(seconds=-60), update)
    assert [entry[0]["event"] for entry in grouped(events)] == ["spike-updated", "alert-raised"]


def test_an_open_spike_is_shown_as_high_as_it_has_come_since_it_was_written_down():
    events = events_of(reports.whole_spike()[0])
    risen = Evidence(quantity="peak_fan_percent", value=91.0, unit="%", since_usec=reports.WALL_USEC)
    now = reports.plain(reports.explanation(evidence=(risen,), temperature_celsius=84.0))
    row = history_lines(grouped(events), PIPE, {reports.SPIKE_ID: now})[1]
    assert "  not over  91 %  " in row
    head = past_spike_lines(events, PIPE, NOW, now)[0]
    assert "fan up since " in head
    assert ", at most 91 %, 84 degC; it is not over." in head


def test_a_spike_that_the_daemon_does_not_know_and_nobody_saw_end_is_not_said_to_last():
    events = events_of(*reports.whole_spike()[:2])
    assert "  end unknown  " in history_lines(grouped(events), PIPE, {})[1]
    assert "; how it ended is unknown." in past_spike_lines(events, PIPE, NOW, None)[0]


def test_history_says_when_nothing_happened():
    assert history_lines([], PIPE, {}) == ["Nothing happened: no spike, no alert."]


def test_a_past_spike_tells_its_course_its_suspects_and_its_events():
    lines = past_spike_lines(events_of(*reports.whole_spike()), PIPE, NOW, None)
    assert re.search(
        r"fan up at .* for 5 min 33 s, at most 71 %, 82 degC; the fan is back at rest\.", lines[0]
    )
    assert any(line.startswith("  ollama.service   81 %") for line in lines)
    assert [line.split("  ")[2].strip() for line in lines[-3:]] == ["fan up", "update", "quiet"]


def test_a_spike_that_is_over_shows_the_suspects_of_its_hottest_moment_without_a_state():
    started, updated, ended = reports.whole_spike()
    evidence = (
        Evidence(quantity="ended_after_seconds", value=261.5, unit="s", since_usec=reports.WALL_USEC),
        Evidence(quantity="ended_by", value="rest"),
        Evidence(quantity="peak_fan_percent", value=71.0, unit="%"),
    )
    told = dataclasses.replace(ended, explanation=reports.explanation(evidence=evidence))
    text = "\n".join(past_spike_lines(events_of(started, updated, told), PIPE, NOW, None))
    assert "\n  At its hottest:\n\n  SUSPECT         SHARE  MEAN POWER   MEMORY" in text
    assert "working" not in text
    assert "exited" not in text
    assert "Evidence" not in text
    open_still = "\n".join(
        past_spike_lines(events_of(started), PIPE, NOW, reports.plain(reports.explanation()))
    )
    assert re.search(r"\n  As it was at [-0-9: ]+:\n\n  SUSPECT +SHARE +MEAN POWER +STATE", open_still)


def test_a_spike_and_an_alert_signal_read_like_the_events_that_are_remembered():
    started, report = reports.whole_spike()[0], reports.loud_report()
    body = (
        reports.SPIKE_ID,
        "/org/gpuwhyd1/gpus/" + reports.GPU.id,
        reports.plain(spike_signal(report, started)),
    )
    heard, remembered = from_spike_signal("spike-started", body), events_of(started)[0]
    for key in ("event", "wall_usec", "gpu_id", "spike_id", "cause", "confidence", "message"):
        assert heard[key] == remembered[key]
    raised = reports.alert()
    body = ("overheating", body[1], reports.plain(alert_signal(report, raised)))
    heard, remembered = from_alert_signal("alert-raised", body), events_of(raised)[0]
    for key in ("event", "wall_usec", "gpu_id", "rule", "severity", "message", "value", "threshold"):
        assert heard[key] == remembered[key]
    assert isinstance(raised, AlertEvent)


def test_watch_writes_one_line_for_an_event_into_a_pipe():
    (line,) = event_lines(events_of(reports.whole_spike()[0])[0], PIPE, NOW)
    assert line.endswith(f"fan up     {reports.SENTENCE}")


def test_an_event_of_a_newer_daemon_is_shown_under_its_own_name():
    assert "coil-whine" in event_lines({"event": "coil-whine", "message": "eek"}, PIPE, NOW)[0]


def test_waybar_shows_the_loudest_card_and_escapes_markup():
    sentence = """<b>"Tom" & 'Jerry'</b>"""
    loud = reports.explanation(sentence=sentence)
    form = waybar_form(summary(reports.loud_report(cause_of_first=loud), 2.0, ANYONE))
    assert set(form) == {"text", "tooltip", "class", "percentage"}
    assert (form["text"], form["class"], form["percentage"]) == ("57%", "workload", 57)
    assert form["tooltip"].split("\n") == [
        "&lt;b&gt;&quot;Tom&quot; &amp; &#39;Jerry&#39;&lt;/b&gt;",
        reports.QUIET_SENTENCE,
    ]


def test_waybar_hides_without_a_gpu():
    assert waybar_form({"gpus": []}) == {
        "text": "",
        "tooltip": "No GPU found",
        "class": "no-gpu",
        "percentage": 0,
    }


def test_doctor_finds_nothing_when_all_is_well():
    cards = [metrics(one) for one in metrics_view(reports.loud_report())]
    lines = doctor_lines(reports.health(), cards, "system", PIPE)
    assert lines[0] == "Nothing is wrong."
    text = "\n".join(lines)
    assert "nvml: ready" in text
    assert re.search("Missing +hotspot_celsius, .*: not offered by the card", text)
    assert "29.0 MiB of memory, 12 s of CPU time, 3 threads" in text


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"backends": [{"name": "nvml", "state": "failing", "message": "driver lost"}]},
            "nvml fails: driver lost",
        ),
        ({"backends": [{"name": "nvml", "state": "waiting", "message": "load it"}]}, "nvml: load it"),
        ({"backends": []}, "No GPU found. Does lspci show the card"),
        ({"last_sample_seconds_ago": 95.0}, "No sample for 1 min 35 s"),
        ({"journal": {"state": "ready", "queued": 0, "dropped": 2}}, "2 events were lost"),
        ({"version": "0.0.9"}, "systemctl restart gpuwhyd"),
        (
            {"notes": ['configuration not taken over: f.toml: unknown key "x"']},
            'Configuration not taken over: f.toml: unknown key "x"',
        ),
    ],
)
def test_doctor_names_each_problem(changes, named):
    cards = [metrics(one) for one in metrics_view(reports.loud_report())]
    problems = problems_of(reports.health(**changes), cards)
    assert any(named in problem for problem in problems)


def test_doctor_says_without_a_card_what_to_look_at_and_lists_the_backends_once():
    names = ("nvml", "amdgpu", "i915")
    backends = [
        {"name": name, "state": "waiting", "message": f"no card for {name}", "has_no_card": True}
        for name in names
    ]
    text = "\n".join(doctor_lines(reports.health(backends=backends), [], "system", PIPE))
    assert text.startswith("1 problem:\n  - No GPU found. Does lspci show the card")
    assert all(text.count(f"no card for {name}") == 1 for name in names)
    backends.append({"name": "xe", "state": "waiting", "message": "load the module xe"})
    assert problems_of(reports.health(backends=backends), []) == [
        "No GPU can be read. xe: load the module xe"
    ]


def test_doctor_takes_a_missing_or_lost_card_as_a_problem():
    assert any("No GPU found" in problem for problem in problems_of(reports.health(), []))
    card = metrics(metrics_view(reports.loud_report())[0]) | {"state": "lost"}
    assert any("RTX 3070 is lost" in problem for problem in problems_of(reports.health(), [card]))


def test_doctor_tells_a_note_once_and_the_defaults_where_there_is_no_file():
    cards = [metrics(one) for one in metrics_view(reports.loud_report())]
    health = reports.health(notes=["configuration not taken over: f.toml: line 1"])
    del health["config_file"]
    text = "\n".join(doctor_lines(health, cards, "system", PIPE))
    assert text.startswith("1 problem:\n")
    assert text.count("not taken over") == 1
    assert "Settings     the defaults, no file" in text


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_no_line_is_wider_than_the_terminal_unless_one_word_of_it_is(columns):
    for command, lines in every_text(Terminal(columns=columns)).items():
        for line in lines:
            has_long_word = max(map(len, line.split()), default=0) > columns - len("  Confidence: ")
            assert text_width(line) <= columns or has_long_word, (command, line)


@pytest.mark.parametrize("columns", [None, 40, 80, 200])
@pytest.mark.parametrize("color", [True, False])
def test_a_hostile_name_cannot_steer_the_terminal(columns, color):
    terminal = Terminal(columns=columns, color=color)
    for command, lines in every_text(terminal, name=HOSTILE, sentence=f"GPU: {HOSTILE}").items():
        for line in lines:
            assert ESCAPES.sub("", line).isprintable(), (command, line)


def test_colour_changes_nothing_but_colour():
    plain, colored = every_text(Terminal(columns=80)), every_text(Terminal(columns=80, color=True))
    for command, lines in plain.items():
        assert [ESCAPES.sub("", line) for line in colored[command]] == lines
        assert any("\x1b[" in line for line in colored[command])
        assert not any("\x1b" in line for line in lines)


@pytest.mark.parametrize("cause", [*Cause, "a-cause-of-a-newer-daemon"])
def test_every_cause_can_be_shown_also_with_nothing_else_known(cause):
    bare = {"gpu_id": "g", "cause": str(cause), "sentence": "GPU 0: something."}
    assert explanation_lines(bare, Terminal(columns=80), NOW)[0] == "GPU 0: something."
