"""Readings of one card by several backends -> one reading, with the better value of each quantity. Pure."""

from collections.abc import Sequence
from dataclasses import fields, replace

from gpuwhyd.model import CHASSIS, FanMode, GpuIdentity, GpuReading, GpuState

_ALWAYS_OF_THE_FIRST = frozenset({"gpu", "backend", "state", "fan_mode", "fans"})
_QUANTITIES = tuple(field.name for field in fields(GpuReading) if field.name not in _ALWAYS_OF_THE_FIRST)
_IDENTITY = tuple(field.name for field in fields(GpuIdentity) if field.name not in {"id", "name", "vendor"})


def merged(readings: Sequence[GpuReading]) -> tuple[GpuReading, ...]:
    """One reading for each GPU, in the order in which people and the sentences number cards: by PCI address, as the
    vendors' tools do, and the fans of the machine, which have no number, behind them.

    `readings` are in the order of the backends, the better one first: what it says holds, and what it does not offer is
    taken from the next. A backend that sees the card asleep is believed, whatever another one still remembers of it;
    otherwise one that reads the card is better than one that does not.

    A fan of the machine that belongs to a card is known to be its fan: it stands in for what the card's own driver says
    of fans (none, or ones that are not plugged in), and turns also while the card sleeps.
    """
    by_gpu: dict[str, list[GpuReading]] = {}
    for reading in readings:
        by_gpu.setdefault(reading.gpu.id, []).append(reading)
    if len(by_gpu) == len(readings):  # nearly always
        return tuple(sorted(readings, key=_place))
    return tuple(sorted((_one(same) for same in by_gpu.values()), key=_place))


def _place(reading: GpuReading) -> tuple[bool, str]:
    return reading.gpu.vendor == CHASSIS, reading.gpu.pci_address or reading.gpu.id


def _one(readings: list[GpuReading]) -> GpuReading:
    chassis = next((r for r in readings if r.backend == CHASSIS and r.fans), None)
    first = next((r for r in readings if r.state is GpuState.ASLEEP), None)
    if first is not None:
        asleep = replace(first, gpu=_identity(first, readings))
        return asleep if chassis is None else replace(asleep, fans=chassis.fans, fan_mode=chassis.fan_mode)
    awake = [reading for reading in readings if reading.state is GpuState.AWAKE]
    first, *others = awake or readings
    better = {
        name: value
        for name in _QUANTITIES
        if getattr(first, name) is None
        and (value := next((v for r in others if (v := getattr(r, name)) is not None), None)) is not None
    }
    fans = chassis or next((r for r in (first, *others) if r.fans), first)
    mode = fans.fan_mode
    if chassis is None:
        # who has no fan cannot say of another's how it is regulated
        modes = (r.fan_mode for r in (fans, first, *others) if r.fans or not fans.fans)
        mode = next((m for m in modes if m is not FanMode.UNKNOWN), mode)
    return replace(first, gpu=_identity(first, readings), fan_mode=mode, fans=fans.fans, **better)


def _identity(first: GpuReading, readings: list[GpuReading]) -> GpuIdentity:
    gpu = first.gpu
    missing = {
        name: value
        for name in _IDENTITY
        if getattr(gpu, name) is None
        and (value := next((v for r in readings if (v := getattr(r.gpu, name)) is not None), None))
        is not None
    }
    return replace(gpu, **missing) if missing else gpu
