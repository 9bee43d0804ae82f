"""What gpuwhyd remembers over a restart: one JSON file, replaced as a whole."""

import asyncio
import json
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)

STATE_VERSION = 1
"""Goes up when a section changes its meaning; a file of another version is set aside."""
SIZE_LIMIT = 32 * 1024 * 1024
"""Eight times the outbox's limit: a larger file is not ours, and would cost its memory several times over."""


class StateStore:
    """Sections by name, each collected from its owner when the file is written, so that all are of one moment."""

    def __init__(self, path: Path | None) -> None:
        """`path` `None` keeps nothing (tests, simulation). A missing directory is made, with mode 0700."""
        self._path = path
        self._collectors: dict[str, Callable[[], object]] = {}
        self._lock = threading.Lock()
        self._collected = 0
        self._written = 0
        self._failing = False

    def load(self) -> dict[str, object]:
        """The sections as they were saved; empty when there are none.

        A file that cannot be understood is moved aside to NAME.corrupt: it costs the state, not the start.
        """
        if self._path is None:
            return {}
        try:
            with self._path.open("rb") as file:
                data = file.read(SIZE_LIMIT + 1)
        except FileNotFoundError:
            return {}
        except OSError as error:
            log.warning("State in %s cannot be read, starting without it: %s", self._path, error.strerror)
            return {}
        try:
            return _sections(data)
        except (ValueError, RecursionError) as error:
            self._set_aside(self._path, str(error))
            return {}

    def register(self, section: str, collect: Callable[[], object]) -> None:
        """`collect` gives the section's present value, as JSON takes it. It is called in the thread that calls `save` or
        `save_in_thread`, and so sees its owner at rest: never in the one that writes.
        """
        self._collectors[section] = collect

    def save(self) -> bool:
        """Replace the file by the present state, on disk when this returns.

        False when the disk does not take it; that is logged once until it works again.
        """
        number, text = self._collect()
        return self._write(number, text)

    async def save_in_thread(self) -> bool:
        """As `save`: collects at once, in the caller's thread; only the disk is waited for in another."""
        number, text = self._collect()
        return await asyncio.to_thread(self._write, number, text)

    def _collect(self) -> tuple[int, bytes]:
        self._collected += 1
        if self._path is None:
            return self._collected, b""
        sections = {name: collect() for name, collect in self._collectors.items()}
        text = json.dumps({"version": STATE_VERSION, "sections": sections}, separators=(",", ":"))
        return self._collected, text.encode()

    def _write(self, number: int, text: bytes) -> bool:
        if self._path is None:
            return True
        with self._lock:
            if number < self._written:
                return not self._failing  # a later state was written while this one waited
            self._written = number
            try:
                _replace(self._path, text)
            except OSError as error:
                if not self._failing:
                    log.warning(
                        "State cannot be saved in %s, a restart will begin without it: %s",
                        self._path,
                        error.strerror,
                    )
                self._failing = True
                return False
            if self._failing:
                log.info("State is saved in %s again", self._path)
            self._failing = False
            return True

    def _set_aside(self, path: Path, reason: str) -> None:
        aside = path.with_name(path.name + ".corrupt")
        try:
            path.replace(aside)
        except OSError as error:
            log.warning("State in %s is unusable (%s) and stays in the way: %s", path, reason, error.strerror)
            return
        log.warning("State in %s is unusable (%s), moved to %s; starting without it", path, reason, aside)


def _sections(data: bytes) -> dict[str, object]:
    if len(data) > SIZE_LIMIT:
        raise ValueError(f"larger than {SIZE_LIMIT} bytes")
    state = json.loads(data)
    if not isinstance(state, dict) or not isinstance(state.get("sections"), dict):
        raise ValueError("not a state of gpuwhyd")  # noqa: TRY004 - the file is wrong, not the caller
    if state.get("version") != STATE_VERSION:
        raise ValueError(f"of another version than {STATE_VERSION}")
    sections: dict[str, object] = state["sections"]
    return sections


def _replace(path: Path, data: bytes) -> None:
    """Old or new is there after a crash, never half: written beside it, synced, renamed, and the directory synced."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(beside, flags, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    beside.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
