"""From AMD's violation counters to why clocks are held down. Pure.

Cards since the Instinct MI300 count how many of the firmware's control steps each limit was violated in. The library's own
amdsmi_get_violation_status takes the difference of two such readings and sleeps 100 ms between them, each time and for
each card; here the difference is over the whole tick, which misses nothing and waits for nothing.
"""

from collections.abc import Mapping

STEPS = "accumulation_counter"
REASONS = {
    "ppt_residency_acc": "power-cap",  # the package's power limit
    "socket_thm_residency_acc": "sw-thermal",
    "hbm_thm_residency_acc": "sw-thermal",
    "vr_thm_residency_acc": "hw-thermal",  # voltage regulators: a wire says so, as of PROCHOT
    "prochot_residency_acc": "hw-thermal",  # PROCHOT: a signal from the board
}
"""Field of amdsmi_gpu_metrics_t -> its generic name, in the order and with the words of amdgpu_metrics.py, which reads the
same counters from the kernel's table."""
COUNTERS = (STEPS, *REASONS)

_UNSUPPORTED = 0xFFFF_FFFF_FFFF_FFFF
_LEAST_PERCENT = 1
"""As the library does: below one percent of the steps a limit does not count as violated."""


def supported(counters: Mapping[str, int]) -> bool:
    """The card counts at all: one that does not has all bits set everywhere."""
    return counters.get(STEPS, _UNSUPPORTED) != _UNSUPPORTED and any(
        counters.get(name, _UNSUPPORTED) != _UNSUPPORTED for name in REASONS
    )


class Violations:
    """Keeps the counters of the last tick."""

    def __init__(self) -> None:
        self._before: Mapping[str, int] = {}

    def restart(self) -> None:
        """After a gap: what was counted meanwhile belongs to no tick."""
        self._before = {}

    def reasons(self, counters: Mapping[str, int]) -> tuple[str, ...] | None:
        """What held the clocks down since the last call; None when that is not known: the first time, after a reset."""
        before, self._before = self._before, counters
        if not supported(counters) or not supported(before):
            return None
        steps = counters[STEPS] - before[STEPS]
        if steps <= 0:
            return None
        found = []
        for name, reason in REASONS.items():
            now, then = counters.get(name, _UNSUPPORTED), before.get(name, _UNSUPPORTED)
            if _UNSUPPORTED in (now, then) or reason in found:
                continue
            if not 0 <= now - then <= steps:
                return None
            if (now - then) * 100 // steps >= _LEAST_PERCENT:
                found.append(reason)
        return tuple(found)
