"""Which key of rocm-smi's answer each quantity of a card comes from, and why one is missing. Pure."""

from gpuwhyd.backends.program_answer import Told
from gpuwhyd.backends.rocm_smi_json import PLACES, place_of
from gpuwhyd.model import FieldSource, Lack

_OF_FANS = ("fan_percent", "fan_rpm")
_PROCESSES = "--showpids"


def sources_of(told: Told) -> tuple[FieldSource, ...]:
    """Of an awake card: one for each quantity that rocm-smi can tell."""
    return (*(_source(told, quantity) for quantity in PLACES), _of_processes(told))


def _source(told: Told, quantity: str) -> FieldSource:
    reading, texts = told
    lack, advice = None, ""
    key = place_of(texts, quantity)
    if getattr(reading, quantity) is None:
        lack = Lack.NO_SENSOR if key is None or _is_not_told(texts[key.lower()]) else Lack.UNREADABLE
        if lack is Lack.UNREADABLE:
            advice = "rocm-smi gives no number that can be true"
        elif quantity in _OF_FANS:
            advice = "rocm-smi is silent on a fan that stands still"
    return FieldSource(
        gpu_id=reading.gpu.id,
        backend=reading.backend,
        quantity=quantity,
        source=key or PLACES[quantity][0],
        lack=lack,
        advice=advice,
    )


def _of_processes(told: Told) -> FieldSource:
    reading = told.reading
    lack = None if reading.processes is not None else Lack.NO_SENSOR
    return FieldSource(
        gpu_id=reading.gpu.id,
        backend=reading.backend,
        quantity="processes",
        source=_PROCESSES,
        lack=lack,
        advice="it tells those that compute, and of one card only" if lack else "",
    )


def _is_not_told(text: str) -> bool:
    """Also `N/A (Secondary die)`."""
    return text.lower() in {"", "none"} or text.lower().startswith("n/a")
