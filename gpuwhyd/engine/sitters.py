"""Of programs whose engine time nobody tells: who came with a load, and who had sat there before, holding memory."""

from collections.abc import Mapping
from dataclasses import dataclass, field

SITS_SECONDS = 30.0
"""A program that was there for so long while the card did nothing is no reason for what begins then, if another came."""
MOST_SECONDS = 60.0
FORGETS = 3.0
"""So much faster than an idle card makes a sitter a working one makes it a suspect again: a blip of work does not."""
SITTERS_PART = 0.05
"""What a byte of a sitter counts against one of a program that came with the load."""


@dataclass(slots=True)
class Sitters:
    """Feed it every tick in which somebody's engine time is unknown.

    Where a load begins and nobody came with it, all stay as they were: one of those who sit there works.
    """

    idle_seconds: dict[str, float] = field(default_factory=dict)
    """By program: how long it has been there while the card did nothing."""
    _sitting: set[str] = field(default_factory=set)
    _is_working: bool = False

    @property
    def are_known(self) -> bool:
        """Somebody sits there, so that the others came with a load."""
        return bool(self._sitting)

    def weigh(self, dt: float, held: Mapping[str, float], *, working: bool) -> Mapping[str, float]:
        """Bytes by program -> the same with less for those who only sit there. `working`: the card draws more than idle."""
        step = -FORGETS * dt if working else dt
        before = self.idle_seconds
        idle = {key: min(MOST_SECONDS, max(0.0, before.get(key, 0.0) + step)) for key in held}
        if working and not self._is_working:
            sitting = {key for key in held if before.get(key, 0.0) >= SITS_SECONDS}
            if len(sitting) < len(held):
                self._sitting |= sitting
        self.idle_seconds, self._is_working = idle, working
        self._sitting &= held.keys()
        if not self._sitting:
            return held
        return {
            key: SITTERS_PART * memory if key in self._sitting else memory for key, memory in held.items()
        }
