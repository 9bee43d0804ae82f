"""A recording, damaged: each line is taken or refused as documented, and what is taken the engine survives."""

import contextlib
import json

from hypothesis import given

from gpuwhyd.engine.engine import Engine
from gpuwhyd.engine.settings import EngineSettings
from gpuwhyd.errors import RecordingError
from gpuwhyd.recording.reader import snapshots
from gpuwhyd.recording.writer import RecordingWriter
from tests.fuzz.mutation import damaged_bytes, damaged_tree, examples
from tests.recording.rows import AFTER, FULL

_WRITER = RecordingWriter()
HEADER = _WRITER.header(FULL.wall_usec)
LINES = [_WRITER.line(FULL), _WRITER.line(AFTER)]
FILE = (HEADER + "".join(LINES)).encode()


def lives_on(text: str) -> None:
    """Anything but a RecordingError is a fault."""
    engine = Engine(EngineSettings(), boot_id="recording")
    with contextlib.suppress(RecordingError):
        for snapshot in snapshots(text.splitlines(keepends=True), "r"):
            engine.feed(snapshot)


@examples(300)
@given(damaged_bytes([FILE]))
def test_damaged_bytes(data: bytes) -> None:
    lives_on(data.decode("utf-8", "replace"))


@examples(300)
@given(damaged_tree([json.loads(line) for line in LINES]))
def test_wrong_values(tree: object) -> None:
    lives_on(HEADER + json.dumps(tree) + "\n" + LINES[1])
