"""A cooler that CPU and GPU share: what heats it, summed up. Pure arithmetic on what each of them has put there.

Heat decays everywhere alike, so the heat in a shared cooler is the sum of the ledgers of those that share it: a program
that uses CPU and GPU has both its parts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from gpuwhyd.engine.cpu_heat import CpuHeat
from gpuwhyd.engine.heat import Heat
from gpuwhyd.engine.ledger import Account, Ledger
from gpuwhyd.engine.suspects import leading_suspects
from gpuwhyd.model import CHASSIS, FanMode, GpuReading, GpuState, Suspect

_MAYBE_PART_OF_THE_CPU = frozenset({"amd", "intel"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedGpu:
    """A GPU without a fan of its own, which heats the machine's."""

    heat: Heat
    reading: GpuReading


@dataclass(frozen=True, slots=True, kw_only=True)
class Cooler:
    """What heats a fan besides, or instead of, the card that it belongs to."""

    cpu: CpuHeat
    gpus: tuple[SharedGpu, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuSide:
    """The CPU's part of a shared cooler at one moment."""

    known: bool
    """Somebody tells how much the CPU heats."""
    working: bool = False
    heat_watts: float = 0.0
    """Heat of its still in the cooler, as the steady power that would hold it there."""
    share: float = 0.0
    """Of all heat in the cooler."""
    suspects: tuple[Suspect, ...] = ()
    """All programs that heat the cooler, with their `cpu_share`."""
    unattributed_share: float = 0.0
    programs_known: bool = True
    """Somebody looked at who keeps the CPU busy."""
    is_estimated: bool = False
    fan_is_a_gpus: bool = False
    """The fan belongs to a GPU, and the CPU shares its cooler only perhaps."""
    celsius: float | None = None


def cools_the_machine(reading: GpuReading) -> bool:
    """It is a fan of the machine itself."""
    return reading.gpu.vendor == CHASSIS


def has_a_fan_of_the_machine(reading: GpuReading) -> bool:
    """A GPU whose fan is one of the machine's: only those have a name and a tachometer."""
    return any(fan.label is not None and fan.rpm_is_measured for fan in reading.fans)


def has_no_fan(reading: GpuReading) -> bool:
    """No fan cools the GPU alone. The driver says so of laptops' GPUs also where the machine has a fan for them."""
    return reading.fan_mode is FanMode.NONE and not has_a_fan_of_the_machine(reading)


def is_part_of_the_cpu(reading: GpuReading) -> bool:
    """An integrated GPU, whose power the CPU's counters include: it has no power limit of its own."""
    return reading.gpu.vendor in _MAYBE_PART_OF_THE_CPU and reading.power_limit_watts is None


def summed(ledgers: Iterable[Ledger]) -> Ledger:
    """All heat of several ledgers in a new one; a program that is in more than one has it all."""
    total = Ledger()
    for ledger in ledgers:
        for key, account in ledger.accounts.items():
            known = total.accounts.get(key)
            if known is None:
                total.accounts[key] = replace(account, pids=set(account.pids), engine_percent=None)
            else:
                _add(known, account)
        _add(total.unattributed, ledger.unattributed)
        _add(total.guessed, ledger.guessed)
    total.sum_up()
    return total


def shared_reading(reading: GpuReading, cooler: Cooler) -> GpuReading:
    """The machine's fan with the power and use of all that heats it; `None` where nobody tells any."""
    watts, percents = [], []
    if cooler.cpu.watts is not None:
        watts.append(cooler.cpu.watts)
    if cooler.cpu.host is not None:
        percents.append(cooler.cpu.host.cpu_utilization_percent)
    for gpu in cooler.gpus:
        if gpu.reading.state is GpuState.AWAKE:
            if gpu.reading.power_watts is not None:
                watts.append(gpu.reading.power_watts)
            percents.append(gpu.reading.utilization_percent)
    return replace(
        reading,
        power_watts=sum(watts) if watts else None,
        utilization_percent=max((percent for percent in percents if percent is not None), default=None),
    )


def shared_ledger(cooler: Cooler) -> Ledger:
    """What programs have put into the cooler of the machine's fan."""
    return summed((cooler.cpu.heat.ledger, *(gpu.heat.ledger for gpu in cooler.gpus)))


def cpu_side(now: float, reading: GpuReading, own: Ledger, cooler: Cooler) -> CpuSide:
    """The CPU's part in the cooler of a fan. `own`: what the fan's own card knows; of a machine's fan, all of it."""
    cpu, is_chassis = cooler.cpu, cools_the_machine(reading)
    celsius = cpu.host.cpu_temperature_celsius if cpu.host is not None else None
    if celsius is None and is_chassis:
        celsius = reading.temperature_celsius
    if not cpu.is_known:
        return CpuSide(known=False, fan_is_a_gpus=not is_chassis, celsius=celsius)
    ledger = own if is_chassis else summed((own, cpu.heat.ledger))
    heat_watts = cpu.heat.ledger.heat_watts
    return CpuSide(
        known=True,
        working=cpu.heat.is_working,
        heat_watts=heat_watts,
        share=min(1.0, heat_watts / ledger.heat_watts) if ledger.heat_watts > 0 else 0.0,
        suspects=_with_cpu_shares(leading_suspects(ledger, now), cpu.heat.ledger, ledger.heat_watts),
        unattributed_share=ledger.share(ledger.unattributed),
        programs_known=cpu.host is not None and cpu.host.processes is not None,
        is_estimated=cpu.is_estimated,
        fan_is_a_gpus=not is_chassis,
        celsius=celsius,
    )


def _with_cpu_shares(suspects: Sequence[Suspect], on_cpu: Ledger, total_watts: float) -> tuple[Suspect, ...]:
    def cpu_share(suspect: Suspect) -> float:
        account = on_cpu.accounts.get(suspect.program.key)
        return 0.0 if account is None else int(10_000 * account.heat_watts / total_watts) / 10_000

    return tuple(replace(s, cpu_share=min(s.share, cpu_share(s))) for s in suspects)


def _add(to: Account, other: Account) -> None:
    if other.heat_watts > to.heat_watts:
        to.process_name = other.process_name
    to.set_heat(to.fast_watts + other.fast_watts, to.slow_watts + other.slow_watts)
    to.pids |= other.pids
    to.alive = to.alive or other.alive
    to.last_worked = _latest(to.last_worked, other.last_worked)
    to.stopped_at = None if to.alive else _latest(to.stopped_at, other.stopped_at)
    if other.memory_used_bytes is not None:
        to.memory_used_bytes = other.memory_used_bytes + (to.memory_used_bytes or 0)


def _latest(one: float | None, other: float | None) -> float | None:
    return other if one is None else one if other is None else max(one, other)
