"""Every fault against every phase, on a booted Debian with the fake driver, printed as a table. See docs/fault-matrix.md.

script/fault-matrix [--suite bookworm] [--fault WORDS] [--phase PHASE] [--table FILE]
"""

import argparse
import platform
import signal
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from tests.containers import fault_cell, roots
from tests.containers.fault_cell import Cell
from tests.containers.fault_kinds import FAULTS, Fault
from tests.containers.fault_site import Phase, Site
from tests.containers.harness import booted
from tests.fake_nvml.control import FakeDriver

_HEAD = (
    "fault",
    "phase",
    "answered meanwhile",
    "answered then (s until well)",
    "written",
    "log lines",
    "lost, doubled, broken",
)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="script/fault-matrix", description="Does gpuwhyd hold, whatever fails?"
    )
    parser.add_argument("--suite", choices=roots.SUITES, default=roots.SUITES[0], help="default %(default)s")
    parser.add_argument(
        "--fault", action="append", metavar="WORDS", help="only those whose name has these words"
    )
    parser.add_argument("--phase", action="append", choices=list(Phase), help="only this one")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write the table there too, as Markdown")
    options = parser.parse_args()
    faults = [f for f in FAULTS if not options.fault or any(words in f.name for words in options.fault)]
    phases = [phase for phase in Phase if not options.phase or phase in options.phase]
    if not faults:
        parser.error("no such fault; there are: " + "; ".join(fault.name for fault in FAULTS))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="fault-matrix-") as name:
        text, good = _run(options.suite, Path(name), faults, phases)
    print("\n" + text)
    if options.table is not None:
        options.table.write_text(text)
    return 0 if good else 1


def _run(suite: str, folder: Path, faults: list[Fault], phases: list[Phase]) -> tuple[str, bool]:
    began, cells = time.monotonic(), []
    with booted(suite, folder / suite) as debian:
        debian.make_environment()
        site = Site(debian, FakeDriver.build(folder / "driver"), folder / "newer")
        try:
            site.start()
            before = _process(site)
            for fault in faults:
                for phase in phases:
                    cell = fault_cell.run(site, fault, phase)
                    cells.append(cell)
                    _tell(cell)
                    if cell.wrong:
                        print(
                            debian.journal("--lines=30", "--output=short-precise", "--unit=gpuwhyd"),
                            flush=True,
                        )
                        site.start()
            lines = [
                _heading(site),
                "",
                *_table(cells),
                "",
                f"The process before: {before}; after: {_process(site)}. Restarts: {site.bench.unit('NRestarts')}.",
                f"Steps of /proc at which a process ended: {site.vanished_at}.",
                f"{len(cells)} cells in {(time.monotonic() - began) / 60:.1f} minutes.",
            ]
        finally:
            site.close()
    return "\n".join(lines) + "\n", not any(cell.wrong for cell in cells)


def _tell(cell: Cell) -> None:
    verdict = "; ".join(cell.wrong) or "good"
    print(
        f"{cell.seconds:5.1f} s {cell.memory_kib:+6} KiB  {cell.fault.name}, {cell.phase}: {verdict}",
        flush=True,
    )


def _heading(site: Site) -> str:
    python = site.debian.run("python3", "--version").output.split()[1]
    systemd = site.debian.run("systemctl", "--version").output.split()[1]
    version = site.summary()["version"]
    return (
        f"gpuwhyd {version}, Debian {site.debian.suite} (systemd {systemd}, Python {python}), Linux {platform.release()},"
        f" {datetime.now(UTC):%Y-%m-%d}."
    )


def _process(site: Site) -> str:
    descriptors, threads = len(site.descriptors()), site.status("Threads")
    return f"{descriptors} descriptors, {threads} threads, {site.status('VmRSS') / 1024:.1f} MiB"


def _table(cells: list[Cell]) -> list[str]:
    rows = [_HEAD, *map(_row, cells)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return lines


def _row(cell: Cell) -> tuple[str, ...]:
    wrong = "; ".join(cell.wrong).replace("|", "/") or "nothing"
    return (
        cell.fault.name,
        str(cell.phase),
        cell.during,
        cell.after,
        cell.written,
        str(cell.log_lines),
        wrong,
    )


if __name__ == "__main__":
    sys.exit(main())
