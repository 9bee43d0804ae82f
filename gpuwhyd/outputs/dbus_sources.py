"""What GetSources answers: where the quantities of one GPU come from, and which source of several is used. Pure."""

from collections.abc import Iterable
from dataclasses import replace

from gpuwhyd.backends.unread import unread_source
from gpuwhyd.model import FanMode, FieldSource, GpuReading, GpuState, Lack

Plain = dict[str, object]

_NOTHING = (None, FanMode.UNKNOWN)


def sources_view(reading: GpuReading, sources: Iterable[FieldSource]) -> list[Plain]:
    """`sources` of all GPUs, those of the better backend first; `reading` is what was made of all backends."""
    own: list[FieldSource] = []
    for backend, told in _by_backend(reading.gpu.id, sources).items():
        own += [_unread(reading, told, backend)] if _rests(reading, told) else told
    users: dict[str, str] = {}
    for source in own:
        if source.lack is None and _has(reading, source.quantity):
            users.setdefault(source.quantity, source.backend)
    return [
        {
            "backend": source.backend,
            "quantity": source.quantity or None,
            "source": source.source,
            "lack": source.lack.value if source.lack is not None else None,
            "advice": source.advice or None,
            "used": source.lack is None and users.get(source.quantity) == source.backend,
        }
        for source in own
    ]


def _by_backend(gpu_id: str, sources: Iterable[FieldSource]) -> dict[str, list[FieldSource]]:
    found: dict[str, list[FieldSource]] = {}
    for source in sources:
        if source.gpu_id == gpu_id:
            found.setdefault(source.backend, []).append(source)
    return found


def _rests(reading: GpuReading, told: list[FieldSource]) -> bool:
    """Nothing is read of a card that sleeps, whatever a backend still remembers."""
    lacks = {source.lack for source in told}
    return reading.state is GpuState.ASLEEP or (Lack.ASLEEP in lacks and None not in lacks)


def _unread(reading: GpuReading, told: list[FieldSource], backend: str) -> FieldSource:
    """One for all quantities."""
    own = (source for source in told if not source.quantity)
    return next(own, unread_source(replace(reading, backend=backend)))


def _has(reading: GpuReading, quantity: str) -> bool:
    """What the card shows nothing of in the end is used by nobody: a fan that is none, or one fan's speed in RPM where
    another backend's fans, which are taken whole, have percents only.
    """
    value = getattr(reading, quantity, None)
    return value not in _NOTHING and (quantity != "fans" or bool(reading.fans))
