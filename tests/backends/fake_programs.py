"""Programs that a test writes: scripts in place of nvidia-smi and rocm-smi, which tell when and how they were run."""

import os
import shlex
import time
from pathlib import Path


class FakeProgram:
    """`path` is what a backend gets for PATH. `body` is shell; `$FOLDER` is where the test puts files for it."""

    def __init__(self, folder: Path, name: str, body: str) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path = str(folder)
        self._name = name
        self.write(body)

    def write(self, body: str) -> None:
        script = self.folder / self._name
        script.write_text(
            f"#!/bin/sh\nFOLDER={shlex.quote(str(self.folder))}\n"
            'echo "$$ $@" >> "$FOLDER/runs"\nenv > "$FOLDER/environment"\n' + body + "\n"
        )
        script.chmod(0o755)

    def put(self, name: str, content: bytes) -> None:
        unfinished = self.folder / f".{name}"
        unfinished.write_bytes(content)
        unfinished.rename(self.folder / name)

    def remove(self) -> None:
        (self.folder / self._name).unlink()

    @property
    def runs(self) -> list[tuple[int, str]]:
        """(pid, arguments) of each run."""
        file = self.folder / "runs"
        lines = file.read_text().splitlines() if file.exists() else []
        return [(int(pid), arguments) for pid, _, arguments in (line.partition(" ") for line in lines)]

    @property
    def environment(self) -> dict[str, str]:
        lines = (self.folder / "environment").read_text().splitlines()
        return {name: value for name, _, value in (line.partition("=") for line in lines)}

    @property
    def running(self) -> list[int]:
        """Pids of its runs that have not ended."""
        return [pid for pid, _ in self.runs if is_alive(pid)]


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def until(condition: object, seconds: float = 10.0) -> None:
    """Waits for something that another process does."""
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it has not come to that"
        os.sched_yield()
        time.sleep(0.01)
