"""`gpuwhy report`: what helps to find a fault, and nothing that tells whose machine it is."""

import dataclasses
import json
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gpuwhyd.client.anonymous import LEFT_OUT, names_in, scrubbed
from gpuwhyd.client.doctor import gpu_form
from gpuwhyd.client.gpu_sources import gpu_lines
from gpuwhyd.client.machine import Machine, this_machine
from gpuwhyd.client.report import Answers, GpuAnswers, report_of
from gpuwhyd.client.report_text import report_lines
from gpuwhyd.client.terminal import Terminal
from gpuwhyd.model import (
    Evidence,
    FieldSource,
    GpuProcess,
    Lack,
    ProcessIdentity,
    Program,
    ProgramKind,
    Suspect,
)
from gpuwhyd.outputs.dbus_privacy import Viewer
from gpuwhyd.outputs.dbus_sources import sources_view
from gpuwhyd.outputs.dbus_views import explanation_view, metrics, processes
from tests.bus.buses import private_bus
from tests.client import reports
from tests.client.daemon import gpuwhy, serving
from tests.fuzz.mutation import HOSTILE_TEXTS, examples

MARKS = (
    "user",
    "unit",
    "program",
    "process",
    "container",
    "app",
    "uuid",
    "host",
    "home",
    "word",
    "rule",
    "slice",
)
FIRST_PID = 3_900_000


def machine(name=lambda kind: kind):
    return Machine(
        python="3.11.2",
        bus_library="dbus-next 0.2.3",
        kernel="6.1.0-18-amd64 x86_64",
        distribution="Debian GNU/Linux 12 (bookworm)",
        private=frozenset({name("host"), name("user"), f"/home/{name('user')}"}),
    )


def answers(name):
    """What the daemon answers root about a card, with `name(kind)` wherever a name of that kind can stand."""
    program = Program(
        kind=ProgramKind.CONTAINER,
        key=f"container:{name('container')}",
        name=name("program"),
        unit=name("unit"),
        user_unit=name("unit"),
        slice=name("slice"),
        container=f"docker:{name('container')}",
        app=name("app"),
        user=name("user"),
    )
    process = ProcessIdentity(
        pid=FIRST_PID,
        start_ticks=1,
        name=name("process"),
        uid=1000,
        user=name("user"),
        executable=f"/opt/{name('process')}",
        command_line=(name("process"), f"--key={name('word')}"),
        program=program,
    )
    suspect = Suspect(
        program=program,
        share=0.8,
        process_name=name("process"),
        power_watts=99.0,
        pids=(FIRST_PID, FIRST_PID + 1),
    )
    sentence = f"GPU 0: fan at 57 % because {name('program')} (pid {FIRST_PID}, user {name('user')})"
    explanation = reports.explanation(
        sentence=sentence,
        suspects=(suspect,),
        evidence=(
            Evidence(quantity="average_power_watts", value=212.5, unit="W", since_usec=reports.WALL_USEC),
            Evidence(quantity="last_spike_program", value=name("program")),
            Evidence(quantity="kept_awake_by", value=name("program")),
            Evidence(quantity="alert", value=name("rule")),
            Evidence(quantity="ended_by", value="new-rest"),
        ),
    )
    use = dataclasses.replace(reports.use(), process=process, use=GpuProcess(pid=FIRST_PID, kind="compute"))
    report = reports.loud_report(cause_of_first=explanation, uses=(use,))
    card = dataclasses.replace(
        report.snapshot.readings[0],
        gpu=dataclasses.replace(reports.GPU, uuid=name("uuid"), pci_id="10de:2484"),
    )
    report = dataclasses.replace(
        report, snapshot=dataclasses.replace(report.snapshot, readings=(card, report.snapshot.readings[1]))
    )
    broken = FieldSource(
        gpu_id=reports.GPU.id,
        backend="nvml",
        quantity="encoder_percent",
        source="nvmlDeviceGetEncoderUtilization",
        lack=Lack.UNREADABLE,
        advice=f"held by pid {FIRST_PID} of {name('user')} at {name('host')} with {name('program')} in {name('unit')}",
    )
    health = reports.health(
        notes=[f"configuration not taken over: /home/{name('user')}/g.toml: unknown key {name('word')!r}"],
        state_file=f"/home/{name('user')}/.local/state/gpuwhyd/state.json",
        config_file=f"/home/{name('user')}/{name('home')}.toml",
        backends=[
            {"name": "nvml", "state": "ready", "message": ""},
            {
                "name": "amdsmi",
                "state": "failing",
                "message": f"cannot open '/home/{name('user')}/my {name('home')}/lib.so' of {name('uuid')}",
            },
        ],
    )
    root = Viewer(uid=0)
    return Answers(
        health=reports.plain(health),
        gpus=[
            GpuAnswers(
                metrics=plain(shown),
                number=number,
                sources=[plain(one) for one in sources_view(reading, (*reports.sources(), broken))],
                explanation=plain(explanation_view(report, report.explanations[reading.gpu.id], root)),
                processes=[plain(one) for one in processes(report, reading.gpu.id, root)],
            )
            for number, (shown, reading) in enumerate(
                zip(metrics(report), report.snapshot.readings, strict=True)
            )
        ],
    )


def plain(value):
    return {key: item for key, item in reports.plain(value).items() if item is not None}


def both_forms(name):
    document = report_of(answers(name), machine(name), "system")
    return "\n".join(report_lines(document)), json.dumps(document, ensure_ascii=False)


def text_of(**changes):
    told = dataclasses.replace(answers(lambda kind: f"my-{kind}"), **changes)
    return "\n".join(report_lines(report_of(told, machine(), "system")))


EVERYBODYS = {"root", "gpuwhyd", "localhost"}
NAMES = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=24)
NAMES |= st.sampled_from([text for text in HOSTILE_TEXTS if 0 < len(text) < 100 and text.strip()])


@examples(150)
@example(dict.fromkeys(MARKS, "localhost"))
@given(st.fixed_dictionaries(dict.fromkeys(MARKS, NAMES)))
def test_no_identifier_comes_out_whatever_it_is(names):
    """One that a report with other names holds too (`0`, `nvml`, a blank) is told by nobody, nor is one that everybody has."""
    others = "".join(both_forms(lambda kind: f"another-{kind}-0123"))
    for form in both_forms(lambda kind: names[kind]):
        for kind, name in names.items():
            for spelling in {name, json.dumps(name, ensure_ascii=False)[1:-1]}:
                told = spelling not in EVERYBODYS and spelling not in LEFT_OUT and spelling not in others
                assert spelling not in form or not told, kind
        assert str(FIRST_PID) not in form


@examples(80)
@given(st.text("abcdefghijklmnopqrstuvwxyz-_.@:", min_size=8, max_size=30).map(lambda text: f"zq{text}"))
def test_no_mark_comes_out_and_the_report_stays_the_same(mark):
    marked = both_forms(lambda kind: f"{mark}-{kind}")
    assert mark not in "".join(marked)
    assert marked == both_forms(lambda kind: f"qz{mark[::-1]}-{kind}")


def test_it_tells_versions_hardware_readings_and_where_they_come_from():
    text = text_of()
    assert "- gpuwhyd 0.1.0, Python 3.11.2, dbus-next 0.2.3, bus: system" in text
    assert "- Debian GNU/Linux 12 (bookworm), Linux 6.1.0-18-amd64 x86_64" in text
    assert "- amdsmi: failing. cannot open '(left out)" in text
    assert "#### GPU 0: NVIDIA GeForce RTX 3070" in text
    assert (
        "- nvidia, PCI id 10de:2484, at 0000:01:00.0, driver nvidia 550.54.14, awake, fan mode auto" in text
    )
    assert "| power_watts | 235.4 | NVML_FI_DEV_POWER_INSTANT (nvml) |" in text
    assert "| memory_temperature_celsius | - | not offered by the card or its driver |" in text
    assert "| temperature_limit_celsius | - | the driver is too old" in text
    assert "- fan 0: percent 57, rpm 1450" in text


def test_it_tells_the_answer_without_who_it_was():
    text = text_of()
    assert "- cause workload, confidence 92 %" in text
    assert "- program 1: kind container, processes 2, share 0.8, power watts 99, alive yes" in text
    assert "average_power_watts 212.5 W; last_spike_program (left out)" in text
    assert "ended_by new-rest" in text
    assert "- kept awake by 1 program(s)" in text
    assert "- processes: 1 compute" in text


def test_an_outlook_without_an_end_has_none():
    [card, *_] = answers(lambda kind: kind).gpus
    outlook = {"trend": "steady"}
    gpus = [dataclasses.replace(card, explanation={"cause": "workload", "outlook": outlook})]
    assert "- trend steady\n" in text_of(gpus=gpus) + "\n"
    outlook["quiet_in_seconds"] = 90.0
    assert "- trend steady, quiet in 1 min 30 s" in text_of(gpus=gpus)


def test_notes_are_counted_because_they_may_quote_a_file_of_the_users():
    text = text_of()
    assert "notes for the owner of the machine, left out: 1" in text
    assert "not taken over" not in text


def test_problems_are_told():
    assert "#### Problems\n\n- amdsmi fails: cannot open '(left out)" in text_of()


def test_a_key_that_nobody_has_decided_about_stays_out():
    told = answers(lambda kind: f"my-{kind}")
    secret = {"owner": "secret-owner", "owner_table": {"x": "secret-inner"}, "owners": ["secret-list"]}
    for table in (
        told.health,
        told.gpus[0].metrics,
        told.gpus[0].metrics["identity"],
        told.gpus[0].explanation,
    ):
        table.update(secret)
    told.gpus[0].sources[0].update(secret)
    told.gpus[0].explanation["suspects"][0].update(secret)
    document = report_of(told, machine(), "system")
    assert "secret" not in json.dumps(document) + "\n".join(report_lines(document))


def test_times_of_the_clock_are_left_out():
    text, document = both_forms(lambda kind: f"my-{kind}")
    assert str(reports.WALL_USEC)[:9] not in text + document


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("cannot open /home/eva/x y/lib.so: denied", "cannot open (left out)"),
        ('in "/root/gpu.toml"', 'in "(left out)'),
        ("/run/user/1000/bus is gone", "/run/user/(left out)/bus is gone"),
        ("GPU-12345678-0000-4000-8000-123456789abc is lost", "(left out) is lost"),
        ("container 0123456789abcdef0123", "container (left out)"),
        ("held by pid 4242", "held by pid (left out)"),
        ("the GPU of EVA", "the GPU of (left out)"),
        ("evaluated as root", "evaluated as root"),
        ("GPU 0000:01:00.0 cannot be opened", "GPU 0000:01:00.0 cannot be opened"),
        ("driver 550.54.14, Linux 6.12.5", "driver 550.54.14, Linux 6.12.5"),
        ("/sys/class/drm/card0 has no fan1_input", "/sys/class/drm/card0 has no fan1_input"),
    ],
)
def test_a_text_loses_names_and_paths_of_users_and_keeps_the_hardware(text, told):
    assert scrubbed(text, {"eva", "root", "x"}) == told


def test_names_of_hardware_are_not_searched_for_as_names():
    assert names_in({"name": "RTX 3070", "vendor": "nvidia", "uuid": "GPU-1"}) == {"GPU-1"}
    assert names_in([{"program": {"name": "blender", "kind": "process"}}, {"name": "x", "message": "m"}]) == {
        "blender"
    }


def test_this_machine_knows_what_must_not_be_told(monkeypatch):
    monkeypatch.setenv("SUDO_USER", "carla")
    monkeypatch.setenv("HOME", "/srv/people/carla")
    here = this_machine()
    assert {"carla", "/srv/people/carla"} <= here.private
    assert "" not in here.private
    assert re.match(r"\d+\.\d+\.\S* \w+$", here.kernel)


@pytest.mark.parametrize("form", ["", "--json"])
def test_a_daemon_that_does_not_run_is_what_the_report_says(form):
    with private_bus() as bus:
        answer = gpuwhy(bus.address, "report", *filter(None, [form]))
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "gpuwhyd is not running" in answer.stdout
    assert "Linux" in answer.stdout
    assert bus.address not in answer.stdout


def test_a_bus_that_is_not_there_is_what_the_report_says():
    answer = gpuwhy("unix:path=/srv/carla/bus", "report")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "cannot be reached" in answer.stdout
    assert "carla" not in answer.stdout


def test_the_command_reports_a_running_daemon_and_names_nobody():
    with private_bus() as bus, serving(bus.address, reports.loud_report(), sources=reports.sources()):
        text = gpuwhy(bus.address, "report").stdout
        document = json.loads(gpuwhy(bus.address, "report", "--json").stdout)
    assert "#### GPU 1: NVIDIA A40" in text
    assert "| fan_percent | 57 | nvmlDeviceGetFanSpeed_v2 (nvml) |" in text
    for name in ("ollama", "blender", "eva", "4242", reports.SPIKE_ID):
        assert name not in text + json.dumps(document)
    assert document["gpus"][0]["sources"][0]["used"] is True


def test_the_report_of_one_card_is_of_no_other():
    with private_bus() as bus, serving(bus.address, reports.loud_report()):
        document = json.loads(gpuwhy(bus.address, "report", "--json", "--gpu", "1").stdout)
        unknown = gpuwhy(bus.address, "report", "--gpu", "7")
    assert [gpu["name"] for gpu in document["gpus"]] == ["NVIDIA A40"]
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "There is no GPU 7. Known: pci_0000_01_00_0 (0 RTX 3070)" in unknown.stderr


@pytest.mark.parametrize(
    "sources", [None, (), [{"quantity": "hotspot_celsius", "lack": "no-permission", "backend": "nvml"}]]
)
def test_report_and_doctor_give_one_reason_for_a_reading_that_is_missing(sources):
    [card, *_] = answers(lambda kind: kind).gpus
    card = dataclasses.replace(card, sources=sources)
    form = gpu_form(card.metrics, card.sources, None) | {"number": 0, "state": "awake"}
    told = " ".join(gpu_lines(form, Terminal()))
    rows = [line.split(" | ") for line in text_of(gpus=[card]).splitlines() if " | - | " in line]
    assert rows
    for name, _, reason in rows:
        words = reason.removesuffix(" |")
        assert re.search(rf"{name.removeprefix('| ')}[a-z_, ]*: {re.escape(words)}", told), (name, words)
