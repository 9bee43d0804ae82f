"""The daemon's own log lines on a stream to a real journald."""

import json
import logging
import os
import signal
from collections.abc import Iterator

import pytest

from gpuwhyd.outputs.journal_log import JournalLog, is_the_journal, open_stream
from tests.outputs.journald import Journald, running_journald, until


@pytest.fixture
def journald() -> Iterator[Journald]:
    with running_journald() as journald:
        yield journald


def stream_path(journald: Journald):
    return journald.root / "run/systemd/journal/stdout"


@pytest.fixture
def log(journald: Journald) -> Iterator[logging.Logger]:
    descriptor = open_stream(stream_path(journald)).detach()
    handler = JournalLog(descriptor, stream_path(journald))
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.Logger("daemon", level=logging.INFO)  # noqa: LOG001 - its own, which no other test sees
    logger.addHandler(handler)
    yield logger
    os.close(descriptor)


def written(journald: Journald) -> list[tuple[str, str]]:
    lines = journald.run("journalctl", "--quiet", "--output=json", "SYSLOG_IDENTIFIER=gpuwhyd").splitlines()
    return [(entry["MESSAGE"], entry["PRIORITY"]) for entry in map(json.loads, lines)]


@pytest.mark.root
def test_each_line_has_its_priority(journald: Journald, log: logging.Logger) -> None:
    log.info("one")
    log.warning("two\nlines")
    until(lambda: len(written(journald)) == 3)
    assert written(journald) == [("one", "6"), ("two", "4"), ("lines", "4")]


@pytest.mark.root
def test_after_journald_and_its_sockets_were_away_lines_arrive_again(
    journald: Journald, log: logging.Logger
) -> None:
    log.info("before")
    until(lambda: written(journald) == [("before", "6")])
    descriptors = len(os.listdir("/proc/self/fd"))
    journald.kill(signal.SIGTERM)
    log.info("lost")
    log.info("lost too")
    journald.start()
    log.error("after")
    expected = [("before", "6"), ("the journal was away; 2 log lines are lost", "4"), ("after", "3")]
    until(lambda: written(journald) == expected)
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_only_the_very_stream_that_systemd_named_is_the_journal(tmp_path) -> None:
    with (tmp_path / "file").open("w") as file:
        status = os.fstat(file.fileno())
        named = f"{status.st_dev}:{status.st_ino}"
        assert is_the_journal(file.fileno(), named)
        assert not is_the_journal(file.fileno(), "8:1")
        assert not is_the_journal(file.fileno(), None)
    assert not is_the_journal(-1, named)
