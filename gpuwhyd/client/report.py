"""`gpuwhy report`: what a bug report needs, as Markdown, without what names anybody; see anonymous.py for what that is."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from gpuwhyd import __version__
from gpuwhyd.client import anonymous
from gpuwhyd.client.answer import Answer, Options
from gpuwhyd.client.ask import AskError, Daemon, Plain, if_told
from gpuwhyd.client.doctor import gpu_form, problems_of
from gpuwhyd.client.gpus import chosen_gpus, gpus_of
from gpuwhyd.client.machine import Machine, this_machine
from gpuwhyd.client.report_text import report_lines
from gpuwhyd.client.terminal import printable

_BUSES = frozenset({"system", "session"})


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuAnswers:
    """What the daemon answers of one GPU; `None` where it does not."""

    metrics: Plain
    number: int | None = None
    sources: Sequence[Plain] | None = None
    explanation: Plain | None = None
    processes: Sequence[Plain] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """All that the daemon answers. `trouble`: why it does not, for a person; empty when it does."""

    health: Plain = field(default_factory=dict)
    gpus: Sequence[GpuAnswers] = ()
    trouble: str = ""


async def answer(daemon: Daemon, options: Options) -> Answer:
    """Also when it does not run or does not answer: then that is what there is to report."""
    try:
        answers = await _ask(daemon)
    except AskError as error:
        return answer_of(Answers(trouble=str(error)), options)
    if options.gpu is not None:
        answers = replace(answers, gpus=_only(answers.gpus, options.gpu))
    return answer_of(answers, options)


def answer_of(answers: Answers, options: Options) -> Answer:
    document = report_of(answers, this_machine(), options.bus)
    if options.as_json:
        return Answer(document=document)
    return Answer(lines=tuple(report_lines(cast("Plain", printable(document)))))


def _only(gpus: Sequence[GpuAnswers], wanted: str) -> list[GpuAnswers]:
    """Raises AskError when there is no such GPU: that is no fault of the daemon's to report."""
    known = [
        {
            **cast("Plain", one.metrics.get("identity") or {}),
            "gpu": one.metrics.get("gpu"),
            "number": one.number,
        }
        for one in gpus
    ]
    [chosen] = chosen_gpus({"gpus": known}, wanted)
    return [one for one in gpus if one.metrics.get("gpu") == chosen["gpu"]]


async def _ask(daemon: Daemon) -> Answers:
    health = await daemon.health()
    numbers = {
        gpu.get("gpu"): cast("int", gpu["number"]) for gpu in gpus_of(await if_told(daemon.summary()) or {})
    }

    async def of_gpu(metrics: Plain) -> GpuAnswers:
        path = metrics.get("gpu")
        if path is None:
            return GpuAnswers(metrics=metrics)
        sources, explanation, processes = await asyncio.gather(
            if_told(daemon.sources(str(path))),
            if_told(daemon.explain(str(path))),
            if_told(daemon.processes(str(path))),
        )
        return GpuAnswers(
            metrics=metrics,
            number=numbers.get(path),
            sources=sources,
            explanation=explanation,
            processes=processes,
        )

    metrics = await if_told(daemon.metrics()) or []
    return Answers(health=health, gpus=await asyncio.gather(*map(of_gpu, metrics)))


def report_of(answers: Answers, machine: Machine, bus: str) -> Plain:
    """The whole report as a document, free of identifiers. Pure."""
    told = [(one.metrics, one.explanation, one.processes) for one in answers.gpus]
    private = machine.private | anonymous.names_in([told, answers.health])
    forms = [
        gpu_form(one.metrics, one.sources, one.explanation) | {"number": one.number} for one in answers.gpus
    ]
    health = anonymous.health(answers.health, private)
    problems = [] if answers.trouble else problems_of(answers.health | {"notes": []}, forms)
    return {
        "gpuwhy": __version__,
        "python": machine.python,
        "bus_library": machine.bus_library,
        "kernel": anonymous.scrubbed(machine.kernel, private),
        "distribution": machine.distribution and anonymous.scrubbed(machine.distribution, private),
        "bus": bus if bus in _BUSES else "of an address",
        "trouble": anonymous.scrubbed(answers.trouble, private | set(re.split("[=,;]", bus)) - _BUSES),
        "gpuwhyd": None if answers.trouble else health,
        "problems": [anonymous.scrubbed(problem, private) for problem in problems],
        "gpus": [
            anonymous.gpu(form, one.explanation, one.processes, private)
            for form, one in zip(forms, answers.gpus, strict=True)
        ],
    }
