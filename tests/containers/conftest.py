from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers import roots
from tests.containers.bench import Bench
from tests.containers.harness import Debian, booted
from tests.fake_nvml.control import FakeDriver


@pytest.fixture(scope="session", params=roots.SUITES)
def debian(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Debian]:
    """A booted Debian where a person has put gpuwhyd into a virtual environment, /root/venv, and no more."""
    with booted(request.param, tmp_path_factory.mktemp(request.param)) as debian:
        debian.make_environment()
        yield debian


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    """A failure shows what the system inside said."""
    report = yield
    debian = getattr(item, "funcargs", {}).get("debian")
    if report.failed and debian is not None:
        report.sections.append(
            ("journal of the container", debian.journal("--lines=80", "--output=short-precise"))
        )
    return report


@pytest.fixture(scope="session")
def fake_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FakeDriver.build(tmp_path_factory.mktemp("fake-nvml"))


@pytest.fixture(scope="module")
def installed_bench(debian: Debian, fake_library: Path) -> Iterator[Bench]:
    """Taken away again at the end of each module, because other modules test the installation itself."""
    bench = Bench(debian, fake_library)
    yield bench
    bench.close()


@pytest.fixture
def bench(installed_bench: Bench) -> Iterator[Bench]:
    """gpuwhyd runs, has seen its card at rest, and has told no spike yet."""
    installed_bench.start()
    yield installed_bench
    installed_bench.stop()
