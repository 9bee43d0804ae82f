"""The tick: every backend is asked off the event loop with a deadline, and joined with who the processes are."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSettings:
    interval_seconds: float = 2.0
    fast_interval_seconds: float = 1.0
    """While a fan moves."""
    asleep_interval_seconds: float = 10.0
    """While every GPU sleeps."""
    deadline_seconds: float = 5.0
    """A backend that has not answered by then is failing; everything else goes on."""
    disabled_backends: tuple[str, ...] = ()
