"""What a process calls itself, all the way: /proc, the engine's sentence, D-Bus, the journal, systemd, the terminal."""

import asyncio
import dataclasses
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwhyd.bus.codec import clean_text
from gpuwhyd.client import json_form
from gpuwhyd.client.history import grouped, history_lines
from gpuwhyd.client.past_spike import past_spike_lines
from gpuwhyd.client.terminal import Terminal, text_width
from gpuwhyd.client.top import top_lines
from gpuwhyd.client.waybar import waybar_form
from gpuwhyd.client.why import explanation_lines
from gpuwhyd.engine.engine import Engine
from gpuwhyd.engine.settings import EngineSettings
from gpuwhyd.model import EventKind, ProcessIdentity, Report
from gpuwhyd.outputs.dbus_privacy import Viewer
from gpuwhyd.outputs.dbus_views import explanation_view, processes, spike_signal, summary
from gpuwhyd.outputs.history import RecentHistory
from gpuwhyd.outputs.journal_entries import DETAIL_LIMIT, entry
from gpuwhyd.outputs.journal_socket import encode
from gpuwhyd.outputs.notify import NotifyOutput
from gpuwhyd.processes.table import ProcessTable
from gpuwhyd.processes.users import UserNames
from tests.bus.buses import private_bus
from tests.client.daemon import gpuwhy, serving
from tests.engine.rig import GPU, Rig
from tests.fuzz.libraries import both
from tests.fuzz.mutation import HOSTILE_TEXTS, examples
from tests.fuzz.test_bus_values import over_the_wire
from tests.fuzz.test_proc_files import COMMS, SEGMENTS
from tests.processes.fake_procfs import add_process
from tests.processes.real_processes import running, until

ROOT = Viewer(uid=0)
NOW = datetime.now(UTC)
ARGUMENTS = st.lists(
    st.binary(max_size=40)
    | st.sampled_from([text.encode("utf-8", "surrogatepass") for text in HOSTILE_TEXTS]),
    max_size=5,
).map(lambda words: b"".join(word.replace(b"\0", b"?") + b"\0" for word in words))
BASES = st.sampled_from(
    [
        "/user.slice/user-1000.slice/user@1000.service/app.slice",
        "/system.slice",
        "/machine.slice",
        "/lxc",
        "",
        "/user.slice/user-1000.slice/session-2.scope",
    ]
)


def assert_harmless(text: str) -> None:
    """One line that steers no terminal and no reader: no controls, no marks that turn the writing round, valid UTF-8."""
    text.encode()
    steering = {char for char in text if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}}
    assert not steering, ascii(text)


def texts_of(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from texts_of(key)
            yield from texts_of(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from texts_of(item)


def identified(comm: bytes, arguments: bytes, cgroup: str, executable: bytes, user: str) -> ProcessIdentity:
    with tempfile.TemporaryDirectory() as directory:
        process = add_process(Path(directory), comm="x", command_line=arguments, uid=1000)
        raw = (process / "stat").read_bytes()
        (process / "stat").write_bytes(raw.replace(b"(x)", b"(" + comm + b")", 1))
        (process / "cgroup").write_bytes(f"0::{cgroup}\n".encode("utf-8", "surrogatepass"))
        (process / "exe").unlink()
        (process / "exe").symlink_to(os.fsdecode(executable))
        table = ProcessTable(Path(directory), users=UserNames(lookup=lambda _uid: user))
        found = table.identify(4242)
        table.close()
    assert found is not None
    return found


def loud(process: ProcessIdentity) -> tuple[Rig, Report]:
    """A spike that this process made, up to its end, and the report of its loudest moment."""
    rig = Rig(engine=Engine(EngineSettings(), boot_id="boot"))
    rig.run(20, fan=0.0, busy=0.0)
    rig.run(40, {process: 95.0}, fan=57.0, watts=210.0, celsius=84.0)
    report = rig.report
    assert report is not None
    rig.tick({}, ended=(process,), fan=50.0, busy=0.0)
    rig.run(200, fan=0.0, busy=0.0)
    return rig, report


def decoded(data: bytes) -> Iterator[tuple[str, bytes]]:
    """https://systemd.io/JOURNAL_NATIVE_PROTOCOL/ as a receiver reads it."""
    while data:
        line, _, rest = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = struct.unpack_from("<Q", rest)[0]
            value, rest = rest[8 : 8 + size], rest[8 + size :]
            assert rest[:1] == b"\n"
            rest = rest[1:]
        yield name.decode(), value
        data = rest


def check_journal(rig: Rig) -> None:
    assert {event.kind for event in rig.events} >= {EventKind.SPIKE_STARTED, EventKind.SPIKE_ENDED}
    for event in rig.events:
        fields = entry(event, object_pid=True)
        read = list(decoded(encode(fields)))
        assert read == [(name, value.encode()) for name, value in fields]
        assert sum(len(name) + len(value) for name, value in read) < 3 * DETAIL_LIMIT
        for name, value in read:
            if name != "GPUWHY_DETAIL":
                assert_harmless(value.decode())
            if name.startswith("OBJECT_SYSTEMD"):
                assert value.isascii()
        names = [name for name, _ in read if not name.startswith("OBJECT_SYSTEMD")]
        assert len(set(names)) == len(names)
        detail = json.loads(dict(read)["GPUWHY_DETAIL"])
        assert detail["event"] == event.kind
        assert_harmless(detail["message"])


def check_bus(report: Report, rig: Rig) -> dict[str, object]:
    answers: dict[str, object] = {
        "explain": explanation_view(report, report.explanations[GPU.id], ROOT),
        "processes": processes(report, GPU.id, ROOT),
        "summary": summary(report, 2.0, ROOT),
        "signal": spike_signal(report, rig.spikes[0]),
    }
    first, second = both()
    (arrived,) = over_the_wire(first, second, "a{sv}", [answers])
    (again,) = over_the_wire(second, first, "a{sv}", [answers])
    assert arrived == again
    assert isinstance(arrived, dict)
    for text in texts_of(arrived):
        assert clean_text(text) == text
        assert len(text) <= 4096
    return arrived


def check_terminal(arrived: dict[str, object], columns: int | None) -> None:
    terminal = Terminal(columns=columns)
    gpu = arrived["summary"]["gpus"][0]  # type: ignore[index, call-overload]
    history = asyncio.run(_history(arrived))
    tables = [
        *top_lines(gpu, arrived["processes"], arrived["explain"], terminal),  # type: ignore[arg-type]
        *history_lines(grouped(history), terminal, {}),
    ]
    lines = [
        *explanation_lines(arrived["explain"], terminal, NOW),  # type: ignore[arg-type]
        *past_spike_lines(history, terminal, NOW, None),
    ]
    for line in (*tables, *lines):
        assert_harmless(line)
    if columns is not None:
        assert all(text_width(line) <= columns for line in tables)
    form = waybar_form(arrived["summary"])  # type: ignore[arg-type]
    for text in texts_of(form):
        assert_harmless(text.replace("\n", ""))
        assert not set(text) & set("<>\"'")
    assert json_form.several_lines(arrived).isascii()


async def _history(arrived: dict[str, object]) -> list[dict[str, object]]:
    signal = arrived["signal"]
    assert isinstance(signal, dict)
    return [
        {
            "event": "spike-started",
            "explanation": signal,
            "spike": signal["spike"],
            "message": signal["sentence"],
        }
    ]


def check_systemd(report: Report) -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver,
    ):
        receiver.bind(f"{directory}/notify")
        asyncio.run(NotifyOutput(address=f"{directory}/notify").publish(report))
        ready, status = receiver.recv(1 << 16).decode().split("\n")
    assert ready == "READY=1"
    assert_harmless(status)


@examples(70)
@given(
    COMMS,
    ARGUMENTS,
    BASES,
    st.lists(
        SEGMENTS.map(lambda text: text.replace("/", "").replace("\0", "").replace("\n", "")), max_size=3
    ),
    st.binary(min_size=1, max_size=40).map(lambda path: b"/" + path.replace(b"\0", b"?")),
    st.sampled_from(["eva", "", "\x1b[31mroot", "DOMAIN\\eva\n", "\u202eeva", "x" * 4096]),
    st.none() | st.integers(20, 160),
)
def test_no_name_harms_any_reader(
    comm: bytes,
    arguments: bytes,
    base: str,
    below: list[str],
    executable: bytes,
    user: str,
    columns: int | None,
) -> None:
    process = identified(comm, arguments, "/".join([base, *below]), executable, user)
    rig, report = loud(process)

    assert process.name == process.name.strip() != ""
    assert_harmless(report.headline)
    for explanation in report.explanations.values():
        assert_harmless(explanation.sentence)
    check_journal(rig)
    check_systemd(report)
    check_terminal(check_bus(report, rig), columns)


HOSTILE_COMMS = [b"\x1b[2J\x1b]0;x\x07", b") R 1 1\nUid:\t0", "\u202egpj".encode() + b"\xff\x80", b" "]


@pytest.mark.parametrize("comm", HOSTILE_COMMS, ids=ascii)
def test_a_real_process_with_such_a_name_is_shown_without_harm(comm: bytes) -> None:
    """From the kernel's own /proc over a real bus to what the command writes."""
    rename = "import sys; open('/proc/self/comm', 'wb').write(bytes.fromhex(sys.argv[1])); input()"
    hostile = ["\x1b[31m", "\u202e", b"\xff\xfe", "x" * 4096, "line\nfeed", ""]
    with running([sys.executable, "-c", rename, comm.hex(), *hostile], stdin=subprocess.PIPE) as child:
        until(lambda: Path(f"/proc/{child.pid}/comm").read_bytes() == comm + b"\n")
        table = ProcessTable(Path("/proc"))
        process = table.identify(child.pid)
        table.close()
    assert process is not None
    # as a bare process, wherever this test runs, so that the name itself is shown
    program = dataclasses.replace(process.program, name=process.name, unit=None, key=f"process:{child.pid}:1")
    process = dataclasses.replace(process, program=program)
    rig, report = loud(process)
    check_journal(rig)
    history = RecentHistory()
    events = tuple(rig.events)
    with (
        private_bus() as bus,
        serving(bus.address, dataclasses.replace(report, events=events), history=history),
    ):
        for arguments in (
            [],
            ["top"],
            ["history"],
            ["status"],
            [rig.spikes[0].spike.spike_id],
        ):
            answer = gpuwhy(bus.address, *arguments)
            assert answer.returncode == 0, answer.stderr
            assert process.name in answer.stdout or arguments == ["status"]
            for line in answer.stdout.splitlines():
                assert_harmless(line)
        private = json.loads(gpuwhy(bus.address, "top", "--json").stdout)["gpus"][0]["processes"][0]
    assert private["pid"] == child.pid
    assert private["name"] == process.name
    assert process.command_line is not None
    assert private["command_line"] == [clean_text(word) for word in process.command_line]
    assert len(private["command_line"]) > 3
