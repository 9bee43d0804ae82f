"""`gpuwhy top`: who heats each GPU, the hottest first."""

import asyncio
from collections.abc import Sequence
from typing import cast

from gpuwhyd.client.answer import Answer, Options
from gpuwhyd.client.ask import Daemon, Plain
from gpuwhyd.client.gpus import chosen_gpus, fan_is_up, gpu_name, loudest_first
from gpuwhyd.client.quantities import UNKNOWN, celsius, number, percent, rpm, share, size, watts
from gpuwhyd.client.status import fan_words, memory_words
from gpuwhyd.client.table import Column, table
from gpuwhyd.client.terminal import Terminal, printable, wrap
from gpuwhyd.client.why import state_words, suspect_name

_COLUMNS = (
    Column(title="HEAT", right=True),
    Column(title="BUSY", right=True),
    Column(title="MEMORY", right=True, drop=3),
    Column(title="PID", right=True),
    Column(title="USER", shrinks_to=8, drop=2),
    Column(title="PROCESS", shrinks_to=12),
    Column(title="OF", shrinks_to=16, drop=1),
)


async def answer(daemon: Daemon, options: Options) -> Answer:
    """One look. Suspects that have exited but whose heat is still in the cooler are rows too."""
    summary = await daemon.summary()
    gpus = loudest_first(chosen_gpus(summary, options.gpu))
    processes = await asyncio.gather(*(daemon.processes(str(gpu["gpu"])) for gpu in gpus))
    explanations = await asyncio.gather(*(daemon.explain(str(gpu["gpu"])) for gpu in gpus))
    if options.as_json:
        from gpuwhyd.client import json_form  # noqa: PLC0415 - only --json needs the model's field names

        document = json_form.summary(summary, gpus)
        for shown, ours, explanation in zip(document["gpus"], processes, explanations, strict=True):
            shown["processes"] = [json_form.process(process) for process in ours]
            shown["suspects"] = json_form.explanation(explanation)["suspects"]
        return Answer(document=document, fan_up=fan_is_up(gpus))
    lines: list[str] = []
    for gpu, ours, explanation in zip(gpus, processes, explanations, strict=True):
        lines += [""] if lines else []
        lines += top_lines(gpu, ours, explanation, options.terminal)
    return Answer(lines=tuple(lines), fan_up=fan_is_up(gpus))


def top_lines(gpu: Plain, processes: Sequence[Plain], explanation: Plain, terminal: Terminal) -> list[str]:
    """A head line for the card, then its processes by the heat that their program made."""
    gpu, processes, explanation = cast(
        "tuple[Plain, list[Plain], Plain]", printable((gpu, processes, explanation))
    )
    of_the_machine = gpu.get("vendor") == "chassis"
    quantities = (
        ("" if gpu.get("fan_mode") == "none" else "fan", fan_words(gpu)),
        ("", rpm(gpu.get("fan_rpm")) if of_the_machine else UNKNOWN),
        ("", celsius(gpu.get("temperature_celsius"))),
        ("", watts(gpu.get("power_watts"))),
        ("busy", percent(gpu.get("utilization_percent"))),
        ("memory", memory_words(gpu)),
    )
    known = ", ".join(f"{title} {text}".lstrip() for title, text in quantities if text != UNKNOWN)
    state = "asleep" if gpu.get("state") == "asleep" else known or "no readings"
    head = wrap(f"{'Fan' if of_the_machine else 'GPU'} {gpu_name(gpu)}: {state}", terminal.columns, "  ")
    lines = [terminal.paint(line, "bold") for line in head]
    suspects = cast("Sequence[Plain]", explanation.get("suspects") or ())
    rows = [
        *map(_process_row, processes),
        # no process uses a fan of the machine, and programs heat it all the same
        *(_suspect_row(one) for one in suspects if of_the_machine or not one.get("alive", True)),
    ]
    if not rows:
        return [*lines, "  no process uses it" if gpu.get("state") != "asleep" else "  nothing runs on it"]
    rows.sort(key=lambda row: (-row[0], -row[1]))

    def style(row: int) -> tuple[str, ...]:
        return ("dim",) if rows[row][2][3] == UNKNOWN else ()

    return [*lines, *table(_COLUMNS, [texts for _, _, texts in rows], terminal, indent="  ", row_style=style)]


_Row = tuple[float, float, tuple[str, ...]]
"""Share and memory, by which rows are sorted, and the texts."""


def _process_row(process: Plain) -> _Row:
    name = str(process.get("name") or UNKNOWN)
    program = str(process.get("program") or "")
    texts = (
        share(process.get("share")),
        percent(process.get("engine_percent")),
        size(process.get("memory_used_bytes")),
        str(process.get("pid", UNKNOWN)),
        str(process.get("user") or process.get("uid", UNKNOWN)),
        name,
        program if program != name else "",
    )
    return number(process.get("share")) or 0.0, number(process.get("memory_used_bytes")) or 0.0, texts


def _suspect_row(suspect: Plain) -> _Row:
    program = cast("Plain", suspect.get("program") or {})
    texts = (
        share(suspect.get("share")),
        UNKNOWN,
        UNKNOWN,
        UNKNOWN,
        str(program.get("user") or UNKNOWN),
        suspect_name(suspect),
        f"({state_words(suspect)})",
    )
    return number(suspect.get("share")) or 0.0, 0.0, texts
