"""What a backend is: one way to read GPUs."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from gpuwhyd.model import BackendState, FieldSource, GpuReading


class Probe(StrEnum):
    READY = "ready"
    LATER = "later"  # not now, but a driver or library may still appear
    NEVER = "never"  # not on this machine


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    answer: Probe
    message: str = ""
    """One line for a person: what is missing and what to do."""
    no_card: bool = False
    """With LATER: it looked, and no card of its kind is there. A driver or library that is missing tells nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendReadings:
    """What one read gave. `state` is READY, or ASLEEP when every GPU of the backend sleeps and it let go of them."""

    readings: tuple[GpuReading, ...]
    state: BackendState = BackendState.READY
    message: str = ""


class Backend(Protocol):
    """One way to read GPUs. All methods run in one worker thread of its own and may block; the sampler sets deadlines.

    `probe` never raises. `read` raises BackendError when nothing can be said this time; the sampler then calls
    `close`, waits with backoff, and starts over with `probe`. It raises NoCardError when its last card has gone, which
    is the same without being a failure. After a call that was late the sampler waits with backoff, too, but closes
    nothing: the answer is dropped, and what the backend holds stays. A card that a `read` leaves out has gone: one that
    cannot be read now is listed in state `unknown`. `close` frees library and device nodes and may be called twice. None
    of them ever wakes a suspended GPU.

    `sources` is the exception: it is asked from the event loop while the thread may be at work, so it gives a tuple
    that the last `read` has left behind.
    """

    @property
    def name(self) -> str: ...

    def probe(self) -> ProbeResult: ...

    def read(self) -> BackendReadings: ...

    def close(self) -> None: ...

    def sources(self) -> tuple[FieldSource, ...]: ...
