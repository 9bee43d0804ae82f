"""From NVML's samples of what each process made a card work to percent since the last tick."""

import math
from collections.abc import Collection, Iterable
from operator import itemgetter
from typing import NamedTuple

Sample = tuple[int, int, int, int, int, int]
"""(pid, stamp in Unix microseconds, engine, memory, encoder, decoder), the last four in percent of a sample period."""

_stamp = itemgetter(1)

_LONGEST_PERIOD_US = 1_000_000
_SHORTEST_PERIOD_US = 150_000
"""Sample periods run from 1/6 s to 1 s by product (nvidia-smi's help text)."""
_JITTER = 1.5
_STEPS_TO_LEARN_FROM = 1000
"""A product's period does not change, and the shortest of so many steps is one period."""
_LONGEST_GAP_US = 30_000_000
"""After a longer silence (suspend, a hung driver) what was sampled meanwhile belongs to no tick."""
_CLOCK_TOLERANCE_US = 1_000_000


class Busy(NamedTuple):
    """Percent of the time since the last tick that a process kept each engine busy."""

    engine: float = 0.0
    memory: float = 0.0
    encoder: float = 0.0
    decoder: float = 0.0


class SampleWindow:
    """The time since the last tick on one card, and what processes did in it.

    A sample says how busy a process kept an engine in the period that ends with its stamp; a period without work
    leaves none. It counts from the process's sample before, but, once two samples in one answer have shown how long
    a period is, not for longer than that. The window ends with the newest sample, so that what one tick misses the
    next one has; when that is older than a period, nobody worked since and it ends now. A tick that falls between
    two samples repeats the answer of the last one.
    """

    def __init__(self) -> None:
        self._end_us: int | None = None
        self._newest_us = 0
        self._longest_cover_us = math.inf
        self._steps_to_learn_from = _STEPS_TO_LEARN_FROM
        self._answer: dict[int, Busy] = {}

    def restart(self) -> None:
        self._end_us = None
        self._answer = {}

    def begin(self, wall_us: int) -> int:
        """Where this tick's window begins: the driver is asked for later samples only."""
        end = self._end_us
        if end is None or not -_CLOCK_TOLERANCE_US <= wall_us - end <= _LONGEST_GAP_US:
            self._end_us = end = wall_us - _LONGEST_PERIOD_US
            self._answer = {}
        return end

    def weigh(self, samples: Iterable[Sample], known: Collection[int], wall_us: int) -> dict[int, Busy]:
        """By pid, those that worked. `known`: pids in this or the last process list."""
        begin = self.begin(wall_us)
        latest = wall_us + _CLOCK_TOLERANCE_US
        # drivers give values over 100, pids that nobody has and stamps of long ago
        valid = [
            sample
            for sample in samples
            if begin < sample[1] <= latest and sample[2] <= 100 and sample[0] in known
        ]
        valid.sort(key=_stamp)
        self._learn_period(valid)
        if valid:
            self._newest_us = valid[-1][1]
        still_fresh_us = min(self._longest_cover_us, _LONGEST_PERIOD_US * _JITTER)
        if wall_us - self._newest_us > still_fresh_us:
            end = max(wall_us, begin)
        elif self._newest_us > begin:
            end = self._newest_us
        else:
            return self._answer
        self._answer = self._shares(valid, begin, end) if end > begin else {}
        self._end_us = end
        return self._answer

    def _shares(self, ordered: list[Sample], begin: int, end: int) -> dict[int, Busy]:
        sums: dict[int, list[float]] = {}
        """By pid: its last stamp, then each engine's percent times microseconds."""
        longest = self._longest_cover_us
        for pid, stamp, engine, memory, encoder, decoder in ordered:
            if (total := sums.get(pid)) is None:
                total = sums[pid] = [begin, 0.0, 0.0, 0.0, 0.0]
            covered = stamp - total[0]
            if covered > longest:
                covered = longest
            total[0] = stamp
            total[1] += engine * covered
            if 0 < memory <= 100:
                total[2] += memory * covered
            if 0 < encoder <= 100:
                total[3] += encoder * covered
            if 0 < decoder <= 100:
                total[4] += decoder * covered
        whole = end - begin
        return {pid: Busy(*[min(part / whole, 100.0) for part in total[1:]]) for pid, total in sums.items()}

    def _learn_period(self, ordered: list[Sample]) -> None:
        if self._steps_to_learn_from <= 0:
            return
        last: dict[int, int] = {}
        for pid, stamp, _, _, _, _ in ordered:
            step = stamp - last.get(pid, stamp)
            if _SHORTEST_PERIOD_US <= step <= _LONGEST_PERIOD_US:
                self._steps_to_learn_from -= 1
                self._longest_cover_us = min(self._longest_cover_us, step * _JITTER)
            last[pid] = stamp
