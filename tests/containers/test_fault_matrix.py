"""A few cells of the fault matrix, those whose faults no other test has; script/fault-matrix runs all of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers import fault_cell
from tests.containers.fault_kinds import FAULTS
from tests.containers.fault_site import Phase, Site
from tests.containers.harness import Debian, booted

pytestmark = [pytest.mark.root, pytest.mark.container]


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Debian]:
    """One of its own, because its journal gets entries of a clock that runs ahead; the matrix itself runs on both."""
    with booted("trixie", tmp_path_factory.mktemp("trixie-clocks")) as debian:
        debian.make_environment()
        yield debian


@pytest.fixture(scope="module")
def site(debian: Debian, fake_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(debian, fake_library, tmp_path_factory.mktemp("newer"))
    try:
        site.start()
        yield site
    finally:
        site.close()


@pytest.mark.parametrize(
    ("name", "phase"),
    [
        ("driver slow every time", Phase.SPIKE),
        ("suspended for an hour", Phase.ONSET),
        ("clock a day back, and forward", Phase.SPIKE),
        ("StateDirectory read-only", Phase.AFTER_RUN),
        ("process ends at each step of /proc", Phase.SPIKE),
    ],
)
def test_nothing_is_lost_doubled_leaked_or_restarted(site: Site, name: str, phase: Phase) -> None:
    [fault] = (fault for fault in FAULTS if fault.name == name)
    assert fault_cell.run(site, fault, phase).wrong == []
