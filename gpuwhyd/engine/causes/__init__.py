"""The causes: each a function from the facts of one card at one moment to a finding, or `None` when it does not hold.

They are asked in the order of CAUSES; the first that holds is the answer. `docs/causes.md` says what each needs.
A confidence is the chance that cause and leading suspect are right, measured on scenarios where the truth is known as far
as these have the cause.
"""

from collections.abc import Callable

from gpuwhyd.engine.causes.ambient import ambient
from gpuwhyd.engine.causes.driver_event import driver_event
from gpuwhyd.engine.causes.facts import Facts, Finding
from gpuwhyd.engine.causes.fan_fault import fan_fault
from gpuwhyd.engine.causes.hotspot import hotspot
from gpuwhyd.engine.causes.idle_clocks import idle_clocks
from gpuwhyd.engine.causes.load import hidden_workload, residual_heat, workload, workload_mixed
from gpuwhyd.engine.causes.manual_fan import manual_fan
from gpuwhyd.engine.causes.monitor import monitor
from gpuwhyd.engine.causes.neighbour_heat import neighbour_heat
from gpuwhyd.engine.causes.quiet import quiet
from gpuwhyd.engine.causes.shared_cooler import shared_cooler
from gpuwhyd.model import Cause


def unknown(_facts: Facts) -> Finding:
    """None of the others holds."""
    return Finding(cause=Cause.UNKNOWN, confidence=0.2, suspects=())


CAUSES: tuple[Callable[[Facts], Finding | None], ...] = (
    fan_fault,
    manual_fan,
    driver_event,
    neighbour_heat,
    monitor,
    idle_clocks,
    quiet,
    shared_cooler,
    hotspot,
    residual_heat,
    ambient,
    workload,
    workload_mixed,
    hidden_workload,
    unknown,
)


def find(facts: Facts) -> Finding:
    """The first cause that holds."""
    for cause in CAUSES:
        if (finding := cause(facts)) is not None:
            return finding
    raise AssertionError("`unknown` always holds")
