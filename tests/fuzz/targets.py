"""What script/fuzz feeds with bytes: each target takes any input or fails an assertion. Names of modules to be measured
stand beside it, and inputs to begin with.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from gpuwhyd.bus.codec import clean_text
from gpuwhyd.bus.framing import Frame
from gpuwhyd.bus.header import Header, MessageKind
from gpuwhyd.config import parse
from gpuwhyd.errors import ConfigError
from gpuwhyd.model import ProgramKind
from gpuwhyd.processes import fdinfo as gpu_clients
from gpuwhyd.processes import procfs
from gpuwhyd.processes.cgroup import placement
from gpuwhyd.processes.hidepid import is_hidden_in
from gpuwhyd.processes.program import program_of
from tests.fuzz.libraries import both
from tests.fuzz.test_bus_stream import MESSAGES, SAMPLES, shown, taken, total_bytes
from tests.fuzz.test_bus_values import BODIES, encoded_body
from tests.fuzz.test_gpu_files import FDINFOS, bounded
from tests.fuzz.test_proc_files import CGROUPS, STATS, STATUSES, told
from tests.fuzz.test_settings_files import COMMENTS_TAKEN_OFF, CONFIG, RULES
from tests.fuzz.test_state import STATES, lives_on, restored
from tests.processes.test_hidepid import DEBIAN

SIGNATURES = [signature for signature, *_ in BODIES]


@dataclass(frozen=True, kw_only=True)
class Target:
    run: Callable[[bytes], None]
    seeds: list[bytes]
    measured: tuple[str, ...]


def stream(data: bytes) -> None:
    """The first byte says how the rest is cut."""
    if len(data) < 2:
        return
    cut, data = data[0] + 1, data[1:]
    whole, lost = taken(data, [len(data)])
    pieces, lost_too = taken(data, [cut])
    assert (shown(pieces), lost_too) == (shown(whole), lost)
    position = 0
    for found in whole:
        position += total_bytes(found, data[position:])
        if isinstance(found, Frame):
            _read_alike(found.header, found.body)


def body(data: bytes) -> None:
    """The first byte says of which signature and in which byte order the rest is."""
    if len(data) < 2:
        return
    signature = SIGNATURES[data[0] // 2 % len(SIGNATURES)]
    header = Header(
        little_endian=bool(data[0] & 1), kind=MessageKind.SIGNAL, flags=0, serial=1, signature=signature
    )
    _read_alike(header, data[1:])


def _read_alike(header: Header, raw: bytes) -> None:
    read = []
    for one in both():
        try:
            values = one.library.unmarshal_body(header, raw)
        except one.library.MarshalError:
            continue
        read.append(repr([one.codec.plain(value) for value in values]))
    assert len(set(read)) <= 1


def cgroup(data: bytes) -> None:
    text = data.decode(errors="surrogateescape")
    found = program_of(placement(text), pid=7, start_ticks=9, name="x", uid=5, user="u")
    assert found.key
    assert found.name
    assert all(word.isprintable() for word in told(found))
    assert (found.kind is ProgramKind.PROCESS) == (found.key == "process:7:9")
    below = placement("0::/user.slice/user-1000.slice/user@1000.service/" + text.split("\n", 1)[0])
    assert (below.unit, below.owner_uid) == ("user@1000.service", 1000)
    key = program_of(below, pid=7, start_ticks=9, name="x", uid=1000, user="eva").key
    assert re.match(r"process:7:9$|user-unit:1000:|app:1000:|container:[a-z-]+:user-1000:", key)


def proc(data: bytes) -> None:
    stat = procfs.parse_stat(data)
    assert stat is None or 0 <= stat.start_ticks < 10**20
    uid = procfs.parse_uid(data)
    assert uid is None or b"%d" % uid in data
    words = procfs.parse_command_line(data)
    assert sum(map(len, words)) <= procfs.COMMAND_LINE_LIMIT_BYTES
    text = data.decode(errors="surrogateescape")
    assert is_hidden_in(text) in (True, False, None)
    assert procfs.printable(text).isprintable()
    cleaned = clean_text(text)
    assert clean_text(cleaned) == cleaned


def fdinfo(data: bytes) -> None:
    found = gpu_clients.parse(data)
    if found is not None:
        bounded(found)


def configuration(data: bytes) -> None:
    try:
        parse(data.decode(errors="replace"), "f.toml")
    except ConfigError as error:
        assert str(error).isprintable()  # noqa: PT017 - either is right


def state(data: bytes) -> None:
    try:
        saved = json.loads(data)
    except (ValueError, RecursionError):
        return
    engine = restored(saved, "boot")
    if engine is not None:
        lives_on(engine, "boot")


TARGETS = {
    "stream": Target(
        run=stream,
        seeds=[b"\x10" + sample for sample in (*SAMPLES, *MESSAGES[:7])],
        measured=("gpuwhyd.bus", "dbus_next"),
    ),
    "body": Target(
        run=body,
        seeds=[bytes([2 * index + 1]) + encoded_body(*one) for index, one in enumerate(BODIES)],
        measured=("gpuwhyd.bus", "dbus_next"),
    ),
    "cgroup": Target(
        run=cgroup,
        seeds=[text.encode(errors="surrogateescape") for text in CGROUPS],
        measured=("gpuwhyd.processes",),
    ),
    "proc": Target(
        run=proc,
        seeds=[*STATS, *STATUSES, b"a\0-b\0", DEBIAN.format(options=",hidepid=2").encode()],
        measured=("gpuwhyd.processes", "gpuwhyd.bus"),
    ),
    "fdinfo": Target(run=fdinfo, seeds=FDINFOS, measured=("gpuwhyd.processes",)),
    "configuration": Target(
        run=configuration,
        seeds=[text.encode() for text in (CONFIG, COMMENTS_TAKEN_OFF, RULES)],
        measured=("gpuwhyd.tables", "gpuwhyd.config", "gpuwhyd.config_rules", "tomli"),
    ),
    "state": Target(
        run=state, seeds=[json.dumps(one).encode() for one in STATES], measured=("gpuwhyd.engine",)
    ),
}
