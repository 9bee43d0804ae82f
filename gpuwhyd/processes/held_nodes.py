"""The descriptors of GPUs' nodes that are watched: not more than do good, whatever anybody opens.

Anybody may open a node, or what is called like one, as often as they like, and each descriptor takes time: it is met
anew after each full walk, and a client of its own is read each tick. Hence three bounds. What is beyond them is not
watched: its work is nobody's, and may look like that of somebody unknown.

- Of one process and node, OF_ONE_NODE.
- Of one sharer, OF_ONE_SHARER. A sharer is a login user, with all their sessions and all subordinate user ids, or a
  system unit; cgroups tell, which nobody leaves without root. So a flood takes from its own programs only.
- Of all together, OF_ALL. Then who comes first stays. It takes several sharers to get there.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gpuwhyd.processes.cgroup import placement
from gpuwhyd.processes.procfs import printable

_log = logging.getLogger(__name__)

OF_ONE_NODE = 64
"""A program opens a node a few times; copies of a descriptor (dup) have the same client, of which one would do."""
OF_ONE_SHARER = 1024
"""Room for 64 processes that compute on eight cards, with two descriptors of each, all in one unit as batch systems start
them. A flood of so many takes 0.1 s a tick when each is a client of its own that works: 0.1 ms each, measured."""
OF_ALL = 4096
"""Four such floods, with 0.5 s of the 5 that a tick may take (sampler.py) and 20 MiB of the 256 that the unit allows."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Descriptor:
    """A descriptor of a process that is open on a GPU's node. A later walk makes a new one, because a number is soon
    used again: the same object means that nobody has looked since.
    """

    pid: int
    number: int
    node: str
    """`renderD128`, `card0`, `nvidia0`, `kfd`."""
    absent_at_seconds: float | None
    """When it was not there yet; None: it may have been there long before anybody looked."""


class HeldNodes:
    """By process."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[Descriptor, ...]] = {}
        self._sharers: dict[int, str] = {}
        self._numbers: Counter[str] = Counter()
        """By sharer."""
        self._has_told = False

    def __iter__(self) -> Iterator[Descriptor]:
        for held in self._held.values():
            yield from held

    def of(self, pid: int) -> tuple[Descriptor, ...]:
        return self._held.get(pid, ())

    def keep(self, pid: int, descriptors: Sequence[Descriptor], sharer: str) -> bool:
        """In place of what was known of the process: all of them, or as many as there is room for. Whether it was all."""
        self.drop(pid)
        room = min(OF_ONE_SHARER - self._numbers[sharer], OF_ALL - self._numbers.total())
        if kept := tuple(descriptors[:room]):
            self._held[pid] = kept
            self._sharers[pid] = sharer
            self._numbers[sharer] += len(kept)
        if len(kept) == len(descriptors):
            return True
        # once: with as many processes as they like, anybody could make it come again and again
        if not self._has_told:
            _log.info(
                "%s has nodes of GPUs open too often to watch them all: what it does there may be told of nobody",
                printable(sharer),
            )
            self._has_told = True
        return False

    def drop(self, pid: int) -> None:
        if held := self._held.pop(pid, ()):
            sharer = self._sharers.pop(pid)
            self._numbers[sharer] -= len(held)
            if not self._numbers[sharer]:
                del self._numbers[sharer]

    def clear(self) -> None:
        self._held, self._sharers, self._numbers = {}, {}, Counter()


def sharer_of(cgroup: str | None) -> str:
    """Whose descriptors count together, by /proc/PID/cgroup: `user-1000.slice`, `ollama.service`, `docker 3f2a9c81d0e4`.
    What nothing is known of counts together too.
    """
    place = placement(cgroup or "")
    if place.slice is not None and place.slice.startswith("user-"):
        return place.slice
    if place.unit is not None:
        return place.unit
    return f"{place.container.runtime} {place.container.id}" if place.container is not None else "somebody"
