"""`shared-cooler`: a fan that CPU and GPU share runs because of the CPU."""

from gpuwhyd.engine.causes.facts import Facts, Finding
from gpuwhyd.engine.shared_heat import CpuSide
from gpuwhyd.engine.suspects import VISIBLE_SHARE
from gpuwhyd.model import Cause

CPU_SHARE = 0.5
"""With less of the heat in the cooler the CPU is not what the fan runs for."""
WARM_WATTS = 3.0
"""Laptops' fans answer to less than cards' do; below this nothing is worth naming."""
HOT_CELSIUS = 60.0
"""Where nobody reads the CPU: laptops start their fans at about this temperature of it (ThinkPad P53)."""

CPU_LOAD_IS_OVER = "cpu_load_is_over"
"""The mark of a CPU that has stopped working, and whose heat is still there."""


def shared_cooler(facts: Facts) -> Finding | None:
    """The CPU made at least half of the heat; or nobody reads it, and nothing else is hot."""
    cpu = facts.cpu
    if cpu is None or not facts.fan_is_up:
        return None
    if not cpu.known:
        return _inferred(facts, cpu)
    if cpu.heat_watts < WARM_WATTS or cpu.share < CPU_SHARE:
        return None
    confidence = (0.4 + 0.5 * cpu.share) * (0.8 if cpu.is_estimated else 1.0)
    if not cpu.programs_known or cpu.unattributed_share >= VISIBLE_SHARE:
        confidence *= 0.85
    if cpu.fan_is_a_gpus:
        confidence *= 0.8
    marks = () if cpu.programs_known else ("cpu_programs_unknown",)
    if not cpu.working:
        marks = (*marks, CPU_LOAD_IS_OVER)
    return Finding(
        cause=Cause.SHARED_COOLER,
        confidence=confidence,
        marks=marks,
        suspects=cpu.suspects,
        unattributed_share=cpu.unattributed_share,
    )


def _inferred(facts: Facts, cpu: CpuSide) -> Finding | None:
    hot = cpu.celsius is not None and cpu.celsius >= HOT_CELSIUS
    if cpu.fan_is_a_gpus or facts.working or facts.warm or not hot:
        return None
    return Finding(cause=Cause.SHARED_COOLER, confidence=0.4)
