"""Spikes of which no end was written down: whether they last, and how high they have come since."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import cast

from gpuwhyd.client.ask import Daemon, Plain, if_told
from gpuwhyd.client.gpus import gpus_of
from gpuwhyd.client.quantities import number

SPIKE_EVENTS = frozenset({"spike-started", "spike-updated", "spike-ended"})
OVER, OPEN, END_UNKNOWN = "over", "open", "end-unknown"
"""The last: a daemon that went without a word, or whose state was lost, has not seen how it ended."""
_PEAKS = {
    "peak_fan_percent": "fan_percent",
    "peak_fan_rpm": "fan_rpm",
    "peak_temperature_celsius": "temperature_celsius",
}


async def open_spikes(daemon: Daemon, events: Sequence[Plain]) -> dict[str, Plain]:
    """The daemon's answer now for each of their spikes that it has open, by the spike's id."""
    without_end = {spike_id for spike_id, state in states(events, {}).items() if state != OVER}
    if not without_end:
        return {}
    gpu_ids = {event.get("gpu_id") for event in events if event.get("spike_id") in without_end}
    gpus = [gpu for gpu in gpus_of(await daemon.summary()) if gpu.get("id") in gpu_ids]
    answers = await asyncio.gather(*(if_told(daemon.explain(str(gpu["gpu"]))) for gpu in gpus))
    return {str(answer["spike_id"]): answer for answer in answers if answer and _is_one(answer, without_end)}


def _is_one(answer: Plain, spike_ids: set[str]) -> bool:
    return answer.get("spike_id") in spike_ids


def states(events: Sequence[Plain], lasting: Mapping[str, Plain]) -> dict[str, str]:
    """OVER, OPEN or END_UNKNOWN of each spike in `events`. `lasting`: as `open_spikes` gives them."""
    found: dict[str, str] = {}
    for event in events:
        spike_id = event.get("spike_id")
        if event.get("event") not in SPIKE_EVENTS or not isinstance(spike_id, str):
            continue
        if event.get("event") == "spike-ended":
            found[spike_id] = OVER
        else:
            found.setdefault(spike_id, OPEN if spike_id in lasting else END_UNKNOWN)
    return found


def as_high_as_known(spike: Plain, now: Plain | None) -> Plain:
    """The spike with its peaks as of now; `now`: the daemon's answer for it while it lasts."""
    if now is None:
        return spike
    evidence = cast("Sequence[Plain]", now.get("evidence") or ())
    risen = dict(spike)
    for peak, present in _PEAKS.items():
        told = [one.get("value") for one in evidence if one.get("quantity") == peak]
        known = [number(value) for value in (spike.get(peak), now.get(present), *told)]
        risen[peak] = max((value for value in known if value is not None), default=None)
    return risen
