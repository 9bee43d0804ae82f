"""What is told of the sources of a card that is not read: one line in place of one for each quantity."""

from gpuwhyd.model import FieldSource, GpuReading, GpuState, Lack

_POWER_STATE = "power/runtime_status"


def unread_source(reading: GpuReading, complaint: str = "") -> FieldSource:
    """`complaint`: why the card cannot be read; empty while it is asleep or let alone."""
    if reading.state is GpuState.ASLEEP:
        source, lack = _POWER_STATE, Lack.ASLEEP
        advice = "it sleeps, and is not woken to be read: use it, and its readings come"
    elif complaint:
        source, lack, advice = reading.backend, Lack.UNREADABLE, complaint
    else:
        source, lack = _POWER_STATE, Lack.ASLEEP
        advice = "it is idle and let alone, so that it can fall asleep: use it, or wait for two minutes"
    return FieldSource(
        gpu_id=reading.gpu.id, backend=reading.backend, quantity="", source=source, lack=lack, advice=advice
    )
