"""One cell of the matrix: a fault in a phase, and what is judged of it afterwards."""

import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.containers.fault_kinds import Fault
from tests.containers.fault_site import BURNER, INTERVAL_SECONDS, Phase, Site
from tests.containers.harness import wait_for

_UNHANDLED = re.compile(
    r"Traceback \(most recent|a fault of gpuwhyd|never retrieved|never awaited|Exception ignored|Fatal Python"
)
_BACK_SECONDS = 10.0


@dataclass(slots=True)
class Cell:
    fault: Fault
    phase: Phase
    during: str = ""
    after: str = ""
    written: str = ""
    descriptors: int = 0
    memory_kib: int = 0
    log_lines: int = 0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)
    """What must not be: nothing, in a good cell."""


def run(site: Site, fault: Fault, phase: Phase) -> Cell:
    """Tells the story once with the fault in it. Never raises for what the daemon does: that stands in `wrong`."""
    cell = Cell(fault, phase)
    began = time.monotonic()
    with _judged(site, cell), site.signals() as heard:
        site.begin(phase)
        with fault.strike(site):
            struck = time.monotonic()
            site.during(phase)
            time.sleep(max(0.0, fault.lasts_seconds - (time.monotonic() - struck)))
            answer = site.answer()
            cell.during = "no answer" if answer is None else ", ".join(answer)
            if (answer is None) is not fault.silent:
                cell.wrong.append("answers" if fault.silent else "no answer while it lasts")
        seconds = site.wait_until_well()
        answer = site.answer()
        cell.after = f"{answer[2] if answer else '-'} ({seconds:.1f} s)"
        site.finish(phase)
        site.bench.wait_for_cause("quiet")
        time.sleep(2 * INTERVAL_SECONDS)  # so that what would be told twice has been
    if not fault.breaks_bus and heard.keys() and set(heard.values()) != {1}:
        cell.wrong.append(f"signals heard: {heard}")
    cell.seconds = time.monotonic() - began
    return cell


@contextmanager
def _judged(site: Site, cell: Cell) -> Iterator[None]:
    """Compares the process and the journal before and after."""
    pid, before, memory = site.pid(), Counter(site.descriptors()), site.status("VmRSS")
    site.mark()
    told_before = _told(site)
    try:
        yield
    except (AssertionError, subprocess.TimeoutExpired) as error:
        cell.wrong.append(_first_line(error))
    entries = site.entries()
    _judge_written(site, cell, entries)
    _judge_history(site, cell, entries, told_before)
    if site.pid() != pid or site.bench.unit("NRestarts") != "0":
        cell.wrong.append(f"restarted ({site.bench.unit('Result')})")
        return
    try:
        wait_for(lambda: Counter(site.descriptors()) <= before, _BACK_SECONDS, "descriptors given back")
    except AssertionError:
        cell.wrong.append(f"leaked {dict(Counter(site.descriptors()) - before)}")
    cell.descriptors = len(site.descriptors()) - before.total()
    cell.memory_kib = site.status("VmRSS") - memory


def _judge_written(site: Site, cell: Cell, entries: list[dict[str, str]]) -> None:
    events = [entry for entry in entries if "GPUWHY_EVENT" in entry]
    logged = [str(entry["MESSAGE"]) for entry in entries if "GPUWHY_EVENT" not in entry]
    cell.log_lines = len(logged)
    cell.wrong += [f"log: {line}" for line in logged if _UNHANDLED.search(line)]

    kinds = Counter(entry["GPUWHY_EVENT"] for entry in events)
    del kinds["spike-updated"]
    cell.written = ", ".join(
        kind if number == 1 else f"{kind} x{number}"
        for kind, number in sorted(kinds.items(), key=_story_first)
    )
    started = [entry["GPUWHY_SPIKE_ID"] for entry in events if entry["GPUWHY_EVENT"] == "spike-started"]
    ended = [entry["GPUWHY_SPIKE_ID"] for entry in events if entry["GPUWHY_EVENT"] == "spike-ended"]
    if len(started) != 1 or ended != started:
        cell.wrong.append(f"started {started}, ended {ended}")
    doubled = [key for key, number in Counter(e["GPUWHY_EVENT_ID"] for e in events).items() if number > 1]
    if doubled:
        cell.wrong.append(f"written twice: {doubled}")
    expected = Counter(("spike-started", "spike-ended", *cell.fault.tells))
    cell.wrong += [f"{kind} x{number} not expected" for kind, number in (kinds - expected).items()]
    cell.wrong += [f"{kind} x{number} missing" for kind, number in (expected - kinds).items()]
    if not any(
        entry.get("GPUWHY_SUSPECT_UNIT") == BURNER
        for entry in events
        if entry["GPUWHY_EVENT"] == "spike-ended"
    ):
        cell.wrong.append(f"the end does not name {BURNER}")


def _judge_history(
    site: Site, cell: Cell, entries: list[dict[str, str]], told_before: Counter[tuple[str, str]]
) -> None:
    """GetEvents gives what was written, no more and no less."""
    written = Counter(
        (entry["GPUWHY_EVENT"], entry["MESSAGE"]) for entry in entries if "GPUWHY_EVENT" in entry
    )
    try:
        told = _told(site) - told_before
    except AssertionError as error:
        cell.wrong.append(_first_line(error))
        return
    if told != written:
        cell.wrong.append(f"GetEvents gives also {told - written}, and not {written - told}")


def _told(site: Site) -> Counter[tuple[str, str]]:
    """All that GetEvents gives: kind and message of each event."""
    history = site.bench.ask("GetEvents", "tua{sv}", "0", "1000", "0")
    return Counter((event["event"], event["message"]) for event in history)


def _first_line(error: Exception) -> str:
    return (str(error) or repr(error)).splitlines()[0]


def _story_first(item: tuple[str, int]) -> tuple[int, str]:
    order = ("backend-failing", "gpu-lost", "backend-recovered", "spike-started", "spike-ended")
    return (order.index(item[0]) if item[0] in order else len(order), item[0])
