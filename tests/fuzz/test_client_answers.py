"""The command beside a daemon of another version: keys missing, new, or of another type. It shows what it knows."""

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwhyd.bus.codec import body_of
from gpuwhyd.client import cli, json_form
from gpuwhyd.client.answer import Options
from gpuwhyd.client.ask import AskError, Daemon
from gpuwhyd.client.happenings import from_alert_signal, from_gpu_signal, from_spike_signal
from gpuwhyd.client.quantities import clock_and_date
from gpuwhyd.client.shape import shaped
from gpuwhyd.client.since import since_usec
from gpuwhyd.client.table import Column, table
from gpuwhyd.client.terminal import Terminal, cut, pad, printable, text_width, wrap
from gpuwhyd.client.watch import event_lines
from gpuwhyd.client.waybar import waybar_form
from gpuwhyd.model import as_plain
from gpuwhyd.outputs.dbus_privacy import Viewer
from gpuwhyd.outputs.dbus_sources import sources_view
from gpuwhyd.outputs.dbus_views import (
    alert_signal,
    explanation_view,
    metrics,
    processes,
    spike_signal,
    summary,
)
from gpuwhyd.outputs.journal_entries import record
from tests.bus.scripted_bus import Peer, scripted_bus
from tests.client import reports
from tests.fuzz.mutation import HOSTILE_TEXTS, damaged_text, damaged_tree, examples, places
from tests.fuzz.test_process_names import assert_harmless

REPORT = reports.loud_report(events=(*reports.whole_spike(), reports.alert()))
ROOT = Viewer(uid=0)
ANSWERS = json.loads(
    json.dumps(
        as_plain(
            {
                "GetSummary": summary(REPORT, 2.0, ROOT),
                "Explain": explanation_view(REPORT, REPORT.explanations[reports.GPU.id], ROOT),
                "GetProcesses": processes(REPORT, reports.GPU.id, ROOT),
                "GetMetrics": metrics(REPORT),
                "GetSources": sources_view(reports.reading(), reports.sources()),
                "GetHealth": reports.health(),
                "GetEvents": [record(event) for event in REPORT.events],
            }
        )
    )
)
SIGNALS = json.loads(
    json.dumps(
        {
            "spike": [
                reports.SPIKE_ID,
                "/org/gpuwhyd1/gpus/a",
                spike_signal(REPORT, reports.whole_spike()[0]),
            ],
            "alert": ["overheating", "/org/gpuwhyd1/gpus/a", alert_signal(REPORT, reports.alert())],
        }
    )
)
NOW = datetime(2026, 7, 23, 12, 0, tzinfo=UTC)
OPTIONS = Options(
    command="", bus="system", spike_id=reports.SPIKE_ID, terminal=Terminal(columns=100), now=NOW
)


def form_of(value: object) -> str:
    """As another version might send it."""
    if isinstance(value, Mapping):
        return "a{sv}"
    if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        return "aa{sv}"
    return "v"


@examples(70)
@given(damaged_tree([ANSWERS], most=6), st.sampled_from([None, "0", reports.GPU.id]))
def test_every_command_answers_or_says_in_one_line_why_not(answers: object, gpu: str | None) -> None:
    async def play(peer: Peer) -> None:
        await peer.greet()
        while True:
            call = await peer.message()
            member = call.header.member
            answer = answers.get(member) if isinstance(answers, dict) else answers
            answer = "another answer" if answer is None else answer
            signature = form_of(answer)
            try:
                body = body_of(signature, [answer])
            except TypeError:  # nothing that any daemon can send
                signature, body = "", []
            peer.answer(call, signature, body, sender=":1.5")

    async def run() -> None:
        async with scripted_bus(play) as address, await Daemon.reach(address) as daemon:
            for command in cli._COMMANDS.values():
                for as_json in (False, True):
                    options = dataclasses.replace(OPTIONS, gpu=gpu, as_json=as_json)
                    try:
                        answer = await command(daemon, options)
                    except AskError as error:
                        assert_harmless(str(printable(str(error))))
                        continue
                    for line in answer.lines:
                        assert_harmless(line)
                    assert json_form.several_lines(answer.document).isascii()
            try:
                form = waybar_form(await daemon.summary())
            except AskError:
                return
            json_form.one_line(form)
            assert 0 <= form["percentage"] <= 100  # type: ignore[operator]

    asyncio.run(run())


class Recorded(Daemon):
    """Answers come as they stand, past any bus and codec: a peer may send what ours would clean."""

    def __init__(self, answers: dict[str, object]) -> None:
        self.answers = answers

    async def _ask(self, member: str, signature: str, body: tuple[object, ...]) -> object:
        return self.answers[member]


OTHER_FORMS = ("\x1b[2J\u202e\ud800", 5, [5], {"a": 5}, float("nan"))


SHOWN_BY = {
    "GetSummary": ("why", "status", "top"),
    "Explain": ("why", "top", "doctor", "report"),
    "GetProcesses": ("top", "report"),
    "GetMetrics": ("doctor", "report"),
    "GetSources": ("doctor", "report"),
    "GetHealth": ("doctor", "report"),
    "GetEvents": ("history", "spike"),
}


@pytest.mark.parametrize("member", ANSWERS)
def test_any_one_value_may_have_any_other_form(member: str) -> None:
    async def show() -> None:
        for command in SHOWN_BY[member]:
            for line in (await cli._COMMANDS[command](daemon, OPTIONS)).lines:
                assert_harmless(line)

    async def run() -> None:
        for container, key in places(answers[member]):
            known = container[key]
            for other in OTHER_FORMS:
                container[key] = other
                with contextlib.suppress(AskError):  # no GPU that could be asked for
                    await show()
                json_form.one_line(waybar_form(await daemon.summary()))
            container[key] = known

    answers = json.loads(json.dumps(ANSWERS))
    del answers["GetEvents"][1:-1]
    daemon = Recorded(answers)
    asyncio.run(run())


@examples(180)
@given(damaged_tree([SIGNALS], most=4))
def test_a_signal_of_another_form_is_a_line_or_a_value_error(signals: object) -> None:
    if not isinstance(signals, dict):
        return
    for name, read in (
        ("spike", from_spike_signal),
        ("alert", from_alert_signal),
        ("spike", from_gpu_signal),
    ):
        body = signals.get(name)
        if not isinstance(body, list):
            continue
        try:
            event = read("spike-started", body)
        except ValueError:
            continue
        for line in event_lines(event, Terminal(columns=80), NOW):
            assert_harmless(line)
        json_form.one_line(json_form.event(event))


@examples(180)
@given(damaged_tree([ANSWERS], most=5))
def test_what_has_the_known_form_stays_and_all_of_it_stays_so(answers: object) -> None:
    once = shaped(answers)
    assert shaped(once) == once
    assert shaped(ANSWERS) == ANSWERS


def test_keys_of_a_newer_daemon_stay() -> None:
    assert shaped({"newer": {"evidence": [1, 2], "gpu": "/a"}, "evidence": [{"newer": [1]}]}) == {
        "newer": {"gpu": "/a"},
        "evidence": [{"newer": [1]}],
    }


SPANS = [
    "2h",
    "1h 30min",
    "3 days ago",
    "today",
    "yesterday",
    "14:30",
    "2026-07-22",
    "2026-07-22 14:30",
    "2026-07-22T14:30:05",
    "0.5h",
]
SPAN_PIECES = [
    "9" * 50,
    "9" * 400,
    "9" * 5000,
    "\u0663",
    "ago",
    "e5",
    "-",
    "0001-01-01",
    "9999-12-31",
    "0000",
    "1w",
    " ",
    ".",
    "µs",
]


@examples(360)
@given(damaged_text(SPANS, pieces=SPAN_PIECES))
def test_a_time_in_the_past_or_what_would_be_right(text: str) -> None:
    try:
        usec = since_usec(text, NOW)
    except ValueError as error:
        assert "write" in str(error)  # noqa: PT017 - either is right
        return
    assert 0 <= usec <= NOW.timestamp() * 1e6


@pytest.mark.parametrize("text", ["0001-01-01", "9999-12-31", "0001-01-01 00:00", "9999-12-31 23:59:59"])
@pytest.mark.parametrize("zone", ["UTC", "America/Los_Angeles", "Pacific/Kiritimati"])
def test_the_ends_of_the_calendar_are_no_traceback(
    text: str, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", zone)
    try:
        assert since_usec(text, NOW) == 0
    except ValueError as error:
        assert "write" in str(error)  # noqa: PT017 - either is right


@examples(180)
@given(st.floats(0, 4e9))
def test_a_point_in_time_that_is_shown_can_be_asked_for(seconds: float) -> None:
    shown = clock_and_date(seconds * 1e6)
    now = datetime.fromtimestamp(seconds + 86_400, tz=UTC)
    assert abs(since_usec(shown, now) / 1e6 - seconds) <= 1


WORDS = ["status", "top", "watch", "history", "doctor", "report", reports.SPIKE_ID, "1764000000000000", "--json", "--gpu", "0", "--since", "2h", "--limit", "5", "--exit-code", "--once", "--format", "waybar", "--bus", "system", "--color", "never", "--", "-1"]  # fmt: skip


@examples(240)
@given(st.lists(damaged_text(WORDS, pieces=["9" * 5000, "\u0663" * 12, "-", "=", "@"], most=1), max_size=5))
def test_any_command_line_is_options_or_one_line(words: list[str]) -> None:
    if {"-h", "--help", "--version"} & {word.partition("=")[0] for word in words}:
        return
    try:
        options = cli.parse(words)
    except AskError as error:
        assert_harmless(str(printable(str(error))))
        return
    assert options.command in {*cli._COMMANDS, "watch"}
    assert (options.command == "spike") == (options.spike_id is not None)
    assert 1 <= options.limit <= 1000
    assert options.since_usec >= 0


@pytest.mark.parametrize("number", ["0", "1001", "-1", "", " 5", "5.0", "\u0665", "9" * 5000, "0x5"])
def test_a_limit_that_is_none_is_one_line(number: str) -> None:
    with pytest.raises(AskError, match="no number from 1 to 1000") as caught:
        cli.parse(["history", f"--limit={number}"])
    assert_harmless(str(caught.value))


TEXTS = st.text(st.characters(categories=None), max_size=40) | st.sampled_from(HOSTILE_TEXTS)


@examples(300)
@given(TEXTS, st.integers(1, 60))
def test_a_shown_text_fits_and_harms_nothing(text: str, columns: int) -> None:
    shown = printable(text)
    assert isinstance(shown, str)
    assert_harmless(shown)
    assert printable(shown) == shown
    assert len(shown) == len(text)
    assert text_width(cut(shown, columns)) <= columns
    assert text_width(pad(cut(shown, columns), columns)) == columns
    lines = wrap(shown, columns, "  ")
    assert "".join("".join(lines).split()) == "".join(shown.split())
    assert all(text_width(line) <= columns or len(line.split()) == 1 for line in lines)


@examples(120)
@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS), min_size=1, max_size=5), st.none() | st.integers(1, 60))
def test_a_table_of_any_texts_fits(rows: list[tuple[str, str, str]], columns: int | None) -> None:
    layout = (
        Column(title="A", shrinks_to=6),
        Column(title="B", right=True, drop=1),
        Column(title="C", shrinks_to=3),
    )
    shown = [tuple(str(printable(text)) for text in row) for row in rows]
    lines = table(layout, shown, Terminal(columns=columns))
    assert len(lines) == len(rows) + 1
    for line in lines:
        assert_harmless(line)
        assert columns is None or text_width(line) <= columns
