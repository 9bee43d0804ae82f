"""What was measured of a daemon over time, cut into equal slices; and whether it grew."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, linear_regression, median

MEMORY_GROWTH_KIB = 1024.0
"""Median resident memory of the last quarter above that of the second: more is a leak. glibc's and pymalloc's arenas
alone move it by some hundred KiB."""
STATE_GROWTH_BYTES = 4096.0
"""The state file holds numbers whose digits vary, and the spikes that are open."""
VOLUME_GROWTH = 1.5
"""Journal entries and bytes of the last quarter, as a multiple of the second's. The load repeats itself."""
DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One look at the daemon. Counters count from its start."""

    seconds: float
    """Since the start, as the daemon's clock runs (simulated seconds in a simulation)."""
    resident_kib: int
    peak_kib: int
    anonymous_kib: int
    descriptors: int
    """But for the pidfds of GPU processes that live."""
    threads: int
    cpu_seconds: float
    samples: int
    journal_entries: int
    journal_bytes: int
    state_bytes: int
    spikes_started: int
    spikes_ended: int
    processes: int
    """GPU processes started so far."""
    changes: int
    """PropertiesChanged heard."""
    answers: int
    """Calls answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Moments that follow each other, and how the counters moved since the slice before."""

    moments: tuple[Moment, ...]
    before: Moment

    @property
    def last(self) -> Moment:
        return self.moments[-1]

    def typical(self, name: str) -> float:
        return float(median(getattr(moment, name) for moment in self.moments))

    def lowest(self, name: str) -> int:
        return min(getattr(moment, name) for moment in self.moments)

    def highest(self, name: str) -> int:
        return max(getattr(moment, name) for moment in self.moments)

    def gained(self, name: str) -> float:
        """How much a counter rose."""
        return float(getattr(self.last, name) - getattr(self.before, name))


def slices(moments: Sequence[Moment], count: int) -> tuple[Slice, ...]:
    """`count` slices of equal duration. Raises ValueError when one of them would be empty."""
    first, last = moments[0], moments[-1]
    length_seconds = (last.seconds - first.seconds) / count
    parts: list[list[Moment]] = [[] for _ in range(count)]
    for moment in moments[1:]:
        place = int((moment.seconds - first.seconds) / length_seconds) if length_seconds else 0
        parts[min(place, count - 1)].append(moment)
    if not all(parts):
        raise ValueError(f"{len(moments)} moments are too few for {count} slices")
    befores = [first, *(part[-1] for part in parts)]
    return tuple(
        Slice(moments=tuple(part), before=before) for part, before in zip(parts, befores, strict=False)
    )


def growth(moments: Sequence[Moment], name: str, per_seconds: float = DAY_SECONDS) -> float:
    """The slope of a gauge over all but the first quarter, per `per_seconds`, by least squares."""
    settled = moments[len(moments) // 4 :]
    times = [moment.seconds for moment in settled]
    return linear_regression(times, [getattr(moment, name) for moment in settled]).slope * per_seconds


def faults(moments: Sequence[Moment], *, most_threads: int) -> list[str]:
    """What grew from the second quarter to the last one, as sentences; none when all lines are flat.

    Descriptors are judged by the fewest of a quarter: some are open only for a moment, a leaked one always. Threads may
    become more up to `most_threads`: a pool is filled when calls meet, which chance decides.
    """
    _, second, _, last = slices(moments, 4)
    found = []
    for name, limit, unit in (
        ("resident_kib", MEMORY_GROWTH_KIB, "KiB"),
        ("anonymous_kib", MEMORY_GROWTH_KIB, "KiB"),
        ("state_bytes", STATE_GROWTH_BYTES, "bytes"),
    ):
        grown = last.typical(name) - second.typical(name)
        if grown > limit:
            found.append(f"{name} grew by {grown:.0f} {unit} from the second quarter to the last")
    more = last.lowest("descriptors") - second.lowest("descriptors")
    if more > 0:
        found.append(f"{more} more descriptors in the last quarter than in the second")
    if last.highest("threads") > most_threads:
        found.append(f"{last.highest('threads')} threads, of {most_threads} at most")
    found += [
        f"{name} rose by {last.gained(name):.0f} in the last quarter, by {second.gained(name):.0f} in the second"
        for name, few in (("journal_entries", 10), ("journal_bytes", 50_000))
        if last.gained(name) > VOLUME_GROWTH * second.gained(name) + few
    ]
    if not all(part.gained("samples") for part in (second, last)):
        found.append("the daemon does not sample")
    return found


def alternation_faults(events: Sequence[tuple[str, str]]) -> list[str]:
    """`events`: (GPU, kind) in order. On each GPU a spike starts, is told anew at will, ends, and only then another
    one starts; the last may be open.
    """
    found = []
    is_open: dict[str, bool] = {}
    for gpu, kind in events:
        expected = {"spike-started": False, "spike-updated": True, "spike-ended": True}.get(kind)
        if expected is None:
            continue
        if is_open.get(gpu, False) is not expected:
            found.append(f"{gpu}: {kind} while {'a' if is_open.get(gpu) else 'no'} spike is open")
        is_open[gpu] = kind != "spike-ended"
    return found


def table(moments: Sequence[Moment], count: int) -> str:
    """The slices as a Markdown table."""
    head = (
        "until", "RSS MiB", "anon MiB", "peak MiB", "fds", "threads", "state B", "samples", "s/sample", "CPU ms/sample",
        "processes", "journal entries", "KiB", "spikes +/-", "changes heard", "answers",
    )  # fmt: skip
    rows = [head, ("---:",) * len(head), *(_row(part) for part in slices(moments, count))]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _row(part: Slice) -> tuple[str, ...]:
    samples = max(part.gained("samples"), 1.0)
    length_seconds = part.last.seconds - part.before.seconds
    return (
        _time(part.last.seconds),
        f"{part.typical('resident_kib') / 1024:.2f}",
        f"{part.typical('anonymous_kib') / 1024:.2f}",
        f"{part.last.peak_kib / 1024:.2f}",
        _range(part.lowest("descriptors"), part.highest("descriptors")),
        _range(part.lowest("threads"), part.highest("threads")),
        f"{part.typical('state_bytes'):.0f}",
        f"{part.gained('samples'):.0f}",
        f"{length_seconds / samples:.2f}",
        f"{part.gained('cpu_seconds') / samples * 1000:.2f}",
        f"{part.gained('processes'):.0f}",
        f"{part.gained('journal_entries'):.0f}",
        f"{part.gained('journal_bytes') / 1024:.0f}",
        f"{part.gained('spikes_started'):.0f}/{part.gained('spikes_ended'):.0f}",
        f"{part.gained('changes'):.0f}",
        f"{part.gained('answers'):.0f}",
    )


def summary(moments: Sequence[Moment]) -> str:
    """Slopes and means, one line."""
    last = moments[-1]
    settled = moments[len(moments) // 4 :]
    return (
        f"After the first quarter: resident memory {fmean(m.resident_kib for m in settled) / 1024:.2f} MiB "
        f"(slope {growth(moments, 'resident_kib'):+.0f} KiB per day), "
        f"anonymous {fmean(m.anonymous_kib for m in settled) / 1024:.2f} MiB "
        f"({growth(moments, 'anonymous_kib'):+.0f} KiB per day), "
        f"peak {last.peak_kib / 1024:.2f} MiB, journal {last.journal_bytes / max(last.journal_entries, 1):.0f} bytes an entry."
    )


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}-{high}"


def _time(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60}:{minutes % 60:02d}"
