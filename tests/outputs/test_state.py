import asyncio
import errno
import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from gpuwhyd.outputs.state import StateStore


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.json"


def saved(path: Path, **sections: object) -> StateStore:
    store = StateStore(path)
    for name, value in sections.items():
        store.register(name, lambda value=value: value)
    assert store.save()
    return store


def test_what_was_saved_is_loaded_by_section(path):
    saved(path, engine={"floor": 12.5}, outbox=[1, "\udcff"])
    assert StateStore(path).load() == {"engine": {"floor": 12.5}, "outbox": [1, "\udcff"]}


def test_only_its_owner_may_read_it(path):
    path.touch(0o666)
    saved(path, engine=1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["state.json"]


def test_a_missing_directory_is_made(tmp_path):
    saved(tmp_path / "gpuwhyd" / "state.json", engine=1)
    assert stat.S_IMODE((tmp_path / "gpuwhyd").stat().st_mode) == 0o700


def test_sections_are_collected_when_it_is_saved(path):
    values = [1]
    store = saved(path, engine=values)
    values.append(2)
    assert asyncio.run(store.save_in_thread())
    assert StateStore(path).load() == {"engine": [1, 2]}


def test_an_older_state_does_not_replace_a_newer_one(path):
    values = [1]
    store = saved(path, engine=values)
    older = store._collect()
    values.append(2)
    assert store.save()
    assert store._write(*older)
    assert StateStore(path).load() == {"engine": [1, 2]}


def test_no_path_keeps_nothing():
    store = StateStore(None)
    store.register("engine", lambda: 1)
    assert store.save()
    assert store.load() == {}


def test_no_file_is_an_empty_state_without_a_word(path, caplog):
    assert StateStore(path).load() == {}
    assert caplog.records == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\xff",
        b'{"version":1,"sections":{"engi',
        b"[]",
        b'{"version":1}',
        b'{"version":1,"sections":[]}',
        b'{"version":999,"sections":{}}',
        b"[" * 100_000,
    ],
)
def test_a_corrupt_file_costs_the_state_and_not_the_start(path, caplog, content):
    path.write_bytes(content)
    assert StateStore(path).load() == {}
    assert not path.exists()
    assert (path.parent / "state.json.corrupt").read_bytes() == content
    [line] = caplog.records
    assert "unusable" in line.getMessage()
    saved(path, engine=2)
    assert StateStore(path).load() == {"engine": 2}


def test_a_huge_file_is_not_read_into_memory(path, caplog):
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert StateStore(path).load() == {}
    assert "larger than" in caplog.text


def test_a_path_that_cannot_be_read_is_one_line(path, caplog):
    path.mkdir()
    assert StateStore(path).load() == {}
    [line] = caplog.records
    assert line.getMessage().endswith("Is a directory")


def test_failures_are_one_line_until_it_works_again(tmp_path, caplog):
    caplog.set_level("INFO")
    obstacle = tmp_path / "directory"
    obstacle.touch()
    store = StateStore(obstacle / "state.json")
    store.register("engine", lambda: 1)
    assert [store.save(), store.save(), store.save()] == [False, False, False]
    obstacle.unlink()
    assert store.save()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_a_failed_save_leaves_the_state_before_it(path):
    store = saved(path, engine=1)
    (path.parent / "state.json.new").mkdir()
    store.register("engine", lambda: 2)
    assert not store.save()
    assert json.loads(path.read_text())["sections"] == {"engine": 1}


@pytest.mark.root
@pytest.mark.parametrize(("options", "number"), [("ro", errno.EROFS), ("size=4k", errno.ENOSPC)])
def test_a_read_only_or_full_disk_is_survived(tmp_path, caplog, options, number):
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "gpuwhyd-test", str(tmp_path)], check=True)
    try:
        store = StateStore(tmp_path / "state.json")
        store.register("engine", lambda: "x" * 100_000)
        assert not store.save()
        assert os.strerror(number) in caplog.text
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_another_users_link_is_not_followed(tmp_path):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "state.json.new").symlink_to(tmp_path / "victim")
    store = StateStore(tmp_path / "state.json")
    assert not store.save()
    assert (tmp_path / "victim").read_text() == "precious"
