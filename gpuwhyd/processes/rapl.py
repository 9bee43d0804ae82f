"""What the CPUs draw, from their energy counters: class/powercap/intel-rapl:N, which AMD's have too.

Documentation/power/powercap/powercap.rst. A package (`package-0`, `package-0-die-1`) holds its cores, graphics and memory
controller; `psys` is the whole machine, and intel-rapl-mmio:N the packages once more. Only root may read the counters.
"""

import os
import re
from dataclasses import dataclass

from gpuwhyd.kernel_files import read_text, read_whole_number

_ZONE = re.compile(r"intel-rapl:[0-9]{1,3}")
_MOST_WATTS = 2000.0
"""No package draws it. A counter that began anew (after a suspend) looks as if it had gone round, and so gives more."""
_SHORTEST_SECONDS, _LONGEST_SECONDS = 0.1, 60.0
"""Over less the counter's steps show; over more (2^32 steps of 15 uJ at 300 W: 220 s) it may have gone round twice."""
_SEARCH_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Package:
    counter: str
    range_microjoules: int


class CpuPower:
    """Power of all packages between two reads. `now` is seconds of a clock that goes on while the machine sleeps."""

    def __init__(self, powercap: str) -> None:
        self._powercap = powercap
        self._packages: tuple[_Package, ...] = ()
        self._searched_at = float("-inf")
        self._before: tuple[int, ...] | None = None
        self._read_at = float("-inf")
        self._watts: float | None = None

    def read(self, now: float) -> float | None:
        """Watts since the last read; `None` without counters, without the right to read them, and the first time."""
        if not self._packages:
            if now - self._searched_at < _SEARCH_SECONDS:
                return None
            self._searched_at = now
            self._packages = _packages(self._powercap)
        if 0 <= now - self._read_at < _SHORTEST_SECONDS:
            return self._watts
        read = [read_whole_number(package.counter) for package in self._packages]
        energies = tuple(energy for energy in read if energy is not None)
        if len(energies) != len(read) or not read:
            self.forget()  # not allowed, or the module was unloaded: looked for again in a while
            self._packages = ()
            return None
        before, seconds = self._before, now - self._read_at
        self._before, self._read_at = energies, now
        self._watts = None
        if before is not None and 0 < seconds <= _LONGEST_SECONDS:
            self._watts = self._power(before, energies, seconds)
        return self._watts

    def forget(self) -> None:
        """The next read is a first one."""
        self._before = self._watts = None

    def _power(self, before: tuple[int, ...], energies: tuple[int, ...], seconds: float) -> float | None:
        total = 0.0
        for package, old, new in zip(self._packages, before, energies, strict=True):
            spent = new - old if new >= old else new - old + package.range_microjoules
            watts = spent * 1e-6 / seconds
            if not 0 <= watts <= _MOST_WATTS:
                return None
            total += watts
        return total


def _packages(powercap: str) -> tuple[_Package, ...]:
    try:
        zones = sorted(name for name in os.listdir(powercap) if _ZONE.fullmatch(name))  # noqa: PTH208
    except OSError:  # no such hardware, no such driver
        return ()
    return tuple(
        _Package(
            counter=f"{zone}/energy_uj",
            range_microjoules=read_whole_number(f"{zone}/max_energy_range_uj") or 0,
        )
        for zone in (f"{powercap}/{name}" for name in zones)
        if read_text(f"{zone}/name").startswith("package-")
    )
