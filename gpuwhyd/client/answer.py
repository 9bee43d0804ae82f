"""What a command hands to the command line: the same answer as lines for a person and as one JSON document."""

from dataclasses import dataclass
from datetime import datetime

from gpuwhyd.client.terminal import Terminal


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The command line, checked."""

    command: str
    bus: str
    spike_id: str | None = None
    gpu: str | None = None
    as_json: bool = False
    exit_code: bool = False
    once: bool = False
    waybar: bool = False
    since_usec: int = 0
    limit: int = 20
    all_events: bool = False
    terminal: Terminal
    now: datetime
    """With its zone: times are shown in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    lines: tuple[str, ...] = ()
    document: object = None
    """Built only for --json."""
    fan_up: bool = False
    """For --exit-code."""
    healthy: bool = True
    """False: something is wrong that the answer names; the exit code is 2."""
