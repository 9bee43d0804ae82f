"""`journalctl -x` explains every event: the catalog as systemd's own compiler takes it."""

import re
import subprocess

import pytest

from gpuwhyd.outputs.journal_entries import MESSAGE_IDS, entry
from gpuwhyd.resources import resource
from tests.outputs.events import one_of_each

CATALOG = resource("systemd/gpuwhyd.catalog").read_text()
ENTRIES = dict(re.findall(r"^-- (\w{32})\n(.*?)(?=^-- |\Z)", CATALOG, flags=re.MULTILINE | re.DOTALL))


def test_catalog_and_code_have_the_same_ids():
    assert sorted(ENTRIES) == sorted(MESSAGE_IDS.values())


@pytest.mark.parametrize("event", one_of_each(), ids=lambda event: event.kind.value)
def test_every_field_that_the_text_shows_is_in_the_entry(event):
    text = ENTRIES[MESSAGE_IDS[event.kind]]
    shown = set(re.findall(r"@(\w+)@", text))
    assert shown <= {name for name, _ in entry(event, object_pid=False)}
    assert "Defined-By: gpuwhyd\n" in text
    assert "Documentation: man:gpuwhyd(8)" in text


def test_journalctl_compiles_it(tmp_path):
    catalogs = tmp_path / "usr/lib/systemd/catalog"
    catalogs.mkdir(parents=True)
    (tmp_path / "var/lib/systemd/catalog").mkdir(parents=True)
    (catalogs / "gpuwhyd.catalog").write_text(CATALOG)
    root = f"--root={tmp_path}"
    update = subprocess.run(
        ["journalctl", root, "--update-catalog"], capture_output=True, text=True, check=True
    )
    assert update.stderr == ""
    listing = subprocess.run(
        ["journalctl", root, "--list-catalog"], capture_output=True, text=True, check=True
    )
    assert sorted(line.split()[0] for line in listing.stdout.splitlines()) == sorted(MESSAGE_IDS.values())
