"""What is right and what is wrong: the truth of a sample as a cause, and the marks that an engine or the oracle gets."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from script.evaluate_world import HIDDEN, Sample, Scenario

RISE_PERCENT, SETTLE_PERCENT = 8.0, 3.0
"""What a person hears as a fan that is up, and as back at rest."""
NEARLY_PERCENT = 6.5
"""A fan that goes up by so much may be told: sensors round, and waver by a point, at rest and at the top."""
WORK_PART = 0.06
"""Of the power limit: less than this above idle is no work that heats."""
DOMINANT, MIXED = 0.62, 0.45
"""A program with more of the heat dominates, with less it does not; in between either answer is right."""
SETTLE_SECONDS = 12.0
"""After work began or ended nobody can know it at once: such samples are not judged."""
SMOOTH_SECONDS = 40.0
"""Work in pulses is work: over so long it is looked whether there was any."""
LATE_SAMPLES = 2
SLIGHT_PART, MOST_PART = 0.25, 0.6
"""Of a fan's rise: what a fault makes of it that nobody would name for it, and what makes it the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Swing:
    """The fan goes up and comes back, in truth."""

    onset: float
    """When it was RISE_PERCENT above rest, or began to turn."""
    left_rest: float
    end: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What somebody says at one sample."""

    cause: str
    leading: str | None
    shares: dict[str, float]
    confidence: float
    quiet_in_seconds: float | None


def swings(scenario: Scenario, samples: list[Sample], rise: float = RISE_PERCENT) -> list[Swing]:
    """From the fan's own speed, without noise. Rests of less than a minute do not part two swings."""
    rest = scenario.kind.rest_percent
    found: list[Swing] = []
    left: float | None = None
    onset: float | None = None
    low_since: float | None = None
    before = 0.0
    for sample in samples:
        above = sample.true_percent - rest
        if above <= SETTLE_PERCENT:
            since = before if sample.resumed else sample.seconds  # a fan at rest after a sleep rested in it
            low_since = since if low_since is None else low_since
            if onset is None:
                left = None
            elif sample.seconds - low_since >= 60:
                found.append(Swing(onset=onset, left_rest=left or onset, end=low_since))
                left = onset = None
            before = sample.seconds
            continue
        low_since, before = None, sample.seconds
        left = sample.seconds if left is None else left
        if onset is None and above >= rise:
            onset = sample.seconds
    if onset is not None:
        found.append(Swing(onset=onset, left_rest=left or onset, end=low_since))
    return found


def shares(heat: dict[str, float], visible: set[str]) -> dict[str, float]:
    """Parts of all heat, by program; what nobody can see is one, HIDDEN."""
    total = sum(heat.values())
    if total <= 0:
        return {}
    parts: dict[str, float] = defaultdict(float)
    for name, kelvin in heat.items():
        parts[name if name in visible else HIDDEN] += kelvin / total
    return dict(parts)


def right_causes(
    parts: dict[str, float], *, works: bool, outside: float = 0.0, heat: dict[str, float] | None = None
) -> set[str]:
    """The causes that are right for these shares of the heat; more than one near the borders.

    `outside` and `heat`: how many kelvin something beside the card has added, and each program.
    """
    own = sum((heat or {}).values())
    if not works and outside > 1 and own < outside:
        return {"neighbour-heat", "residual-heat"} if own > outside / 4 else {"neighbour-heat"}
    if not works and heat is not None and own < 0.5:
        return {"driver-event"}  # nothing else spins up a fan in this world
    unseen = parts.get(HIDDEN, 0.0)
    best = sorted((part for name, part in parts.items() if name != HIDDEN), reverse=True)
    if not works:
        return {"residual-heat"}
    causes = set()
    if unseen >= 0.5 - 0.05:
        causes.add("hidden-workload")
    if unseen <= 0.5 + 0.05 and best:
        if best[0] >= MIXED:
            causes.add("workload")
        if best[0] <= DOMINANT and len(best) > 1:
            causes.add("workload-mixed")
    return causes


def sound_fan_rests(scenario: Scenario, samples: list[Sample], swing: Swing) -> bool:
    """All through the swing, on the same card without its fault: one that only rises later is up for the load."""
    until = float("inf") if swing.end is None else swing.end
    speeds = [
        sample.true_sound_percent
        for sample in samples
        if swing.left_rest <= sample.seconds <= until and sample.true_sound_percent is not None
    ]
    return max(speeds, default=0.0) - scenario.kind.rest_percent <= SETTLE_PERCENT


def with_fault(
    causes: set[str], scenario: Scenario, sample: Sample, *, works: bool, sound_rests: bool
) -> set[str]:
    """The causes that are right for a card with a fault; `causes`: those that would be without.

    The same card without it, at the same work, decides. If its fan rests all the time, the fault is the cause. If it is up as well, but
    by less, both may be said, and a hot spot must be where it makes most of the rise: then it is what the fan runs for,
    while a cooler that is worse only makes a load louder. When the load is over what is left of its heat is right as well.
    """
    if scenario.fault is None or sample.true_sound_percent is None:
        return causes
    rest = scenario.kind.rest_percent
    rise, sound_rise = sample.true_percent - rest, sample.true_sound_percent - rest
    made = 1 - max(0.0, sound_rise) / rise if rise > 0 else 0.0
    mine = scenario.fault.cause
    if made < SLIGHT_PART:
        return causes
    alone = sound_rests or (mine == "hotspot" and made >= MOST_PART)
    return {mine} if alone and works else {mine, *causes}


@dataclass(slots=True)
class Marks:
    """Everything that is counted, over all scenarios."""

    name: str
    swings: int = 0
    found: int = 0
    missed: list[str] = field(default_factory=list)
    invented: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    strictly_found: int = 0
    strictly_invented: list[str] = field(default_factory=list)
    """The same if a swing were RISE_PERCENT and nothing less: without the leeway of NEARLY_PERCENT."""
    delays: list[float] = field(default_factory=list)
    rest_hours: float = 0.0
    leading_right: int = 0
    leading_wrong: Counter[str] = field(default_factory=Counter)
    cause_right: int = 0
    cause_wrong: Counter[str] = field(default_factory=Counter)
    confusion: Counter[tuple[str, str]] = field(default_factory=Counter)
    share_errors: list[float] = field(default_factory=list)
    share_errors_by_story: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    quiet_errors: list[float] = field(default_factory=list)
    tenths: dict[int, list[bool]] = field(default_factory=lambda: defaultdict(list))

    def judge(
        self, where: str, story: str, answer: Answer, causes: set[str], parts: dict[str, float]
    ) -> None:
        """One answer against the truth."""
        right = answer.cause in causes
        self.cause_right += right
        self.confusion["/".join(sorted(causes)), answer.cause] += 1
        if not right:
            self.cause_wrong[where] += 1
        seen = {name: part for name, part in parts.items() if name != HIDDEN}
        leads = True
        if seen and causes != {"hidden-workload"} and parts.get(HIDDEN, 0.0) < 0.45:
            best = max(seen.values())
            leads = answer.leading in {name for name, part in seen.items() if part >= best - 0.05}
            self.leading_right += leads
            if not leads:
                self.leading_wrong[where] += 1
        if parts:
            names = seen.keys() | answer.shares.keys()
            error = sum(abs(seen.get(n, 0.0) - answer.shares.get(n, 0.0)) for n in names) / max(1, len(names))
            self.share_errors.append(error)
            self.share_errors_by_story[story].append(error)
        self.tenths[min(9, int(answer.confidence * 10))].append(right and leads)
