"""What holds for all tests: what needs root is left out without it and said; in CI nothing may be left out."""

import os
from collections import Counter
from collections.abc import Generator

import hypothesis
import pytest

from tests.samples import SAMPLES

# The same examples each time, so that a red test is red for everybody; machines under load are no failure.
# script/fuzz wants others each time, and more of them where a test does not say how many.
_TIMES = int(os.environ.get("GPUWHYD_FUZZ_TIMES", "1"))
hypothesis.settings.register_profile(
    "gpuwhyd", max_examples=100 * _TIMES, derandomize=_TIMES == 1, deadline=None, database=None
)
hypothesis.settings.load_profile("gpuwhyd")

IN_CI = os.environ.get("CI", "").lower() not in ("", "0", "false")
SAMPLES_ABSENT = "the samples are not here"
"""What tests say where SAMPLES is None. Where they are there, nobody may say so."""
NEEDS_ROOT = ("root", "container")
_left_out = pytest.StashKey[Counter[str]]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without root: those marked `root` or `container` are deselected; in CI that is an error."""
    if os.geteuid() == 0:
        return
    unable = [item for item in items if any(item.get_closest_marker(mark) for mark in NEEDS_ROOT)]
    if not unable:
        return
    if IN_CI:
        raise pytest.UsageError(f"CI must run all tests, and {len(unable)} need root: run as root")
    config.stash[_left_out] = Counter(item.location[0] for item in unable)
    config.hook.pytest_deselected(items=unable)
    items[:] = [item for item in items if item not in set(unable)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    left_out = config.stash.get(_left_out, None)
    if left_out:
        terminalreporter.section("left out, because they need root: run script/test as root for all")
        for file, tests in sorted(left_out.items()):
            terminalreporter.line(f"{file}: {tests}")


def _reason(report: pytest.TestReport) -> str:
    """Why a test was skipped."""
    place_and_reason = report.longrepr
    said = str(place_and_reason[2]) if isinstance(place_and_reason, tuple) else ""
    return said.removeprefix("Skipped: ")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skipped test is a failure: it proves nothing. But for samples of real machines, which are not the project's."""
    report = yield
    if (
        IN_CI
        and report.skipped
        and not hasattr(report, "wasxfail")
        and not (SAMPLES is None and _reason(report).startswith(SAMPLES_ABSENT))
    ):
        report.outcome = "failed"
        report.longrepr = f"skipped, and in CI nothing may be: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a module that skips itself as a whole."""
    report = yield
    if IN_CI and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped, and in CI nothing may be: {report.longrepr}"
    return report
