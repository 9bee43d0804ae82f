"""`gpuwhy status`: one line per GPU."""

from collections.abc import Sequence
from typing import cast

from gpuwhyd.client.answer import Answer, Options
from gpuwhyd.client.ask import Daemon, Plain
from gpuwhyd.client.gpus import chosen_gpus, fan_is_up, gpu_name
from gpuwhyd.client.quantities import UNKNOWN, celsius, number, percent, rpm, size, watts
from gpuwhyd.client.table import Column, table
from gpuwhyd.client.terminal import Terminal, printable

_COLUMNS = (
    Column(title="GPU", shrinks_to=16),
    Column(title="FAN", right=True),
    Column(title="SPEED", right=True, drop=4),
    Column(title="TEMP", right=True),
    Column(title="POWER", right=True, drop=1),
    Column(title="BUSY", right=True, drop=2),
    Column(title="MEMORY", right=True, drop=3),
    Column(title="CAUSE"),
)


async def answer(daemon: Daemon, options: Options) -> Answer:
    summary = await daemon.summary()
    gpus = chosen_gpus(summary, options.gpu)
    if options.as_json:
        from gpuwhyd.client import json_form  # noqa: PLC0415 - only --json needs the model's field names

        return Answer(document=json_form.summary(summary, gpus), fan_up=fan_is_up(gpus))
    return Answer(lines=tuple(status_lines(gpus, options.terminal)), fan_up=fan_is_up(gpus))


def status_lines(gpus: Sequence[Plain], terminal: Terminal) -> list[str]:
    gpus = cast("Sequence[Plain]", printable(gpus))
    rows = [
        (
            gpu_name(gpu),
            fan_words(gpu),
            rpm(gpu.get("fan_rpm")),
            celsius(gpu.get("temperature_celsius")),
            watts(gpu.get("power_watts")),
            percent(gpu.get("utilization_percent")),
            memory_words(gpu),
            _cause_words(gpu),
        )
        for gpu in gpus
    ]

    def style(row: int) -> tuple[str, ...]:
        if gpus[row].get("spike_active"):
            return ("bold", "yellow")
        return ("dim",) if gpus[row].get("state") == "asleep" else ()

    return table(_COLUMNS, rows, terminal, row_style=style)


def fan_words(gpu: Plain) -> str:
    """`57 %`, `57 % manual`, `no fan`."""
    if gpu.get("fan_mode") == "none":
        return "no fan"
    shown = percent(gpu.get("fan_percent"))
    return f"{shown} manual" if gpu.get("fan_mode") == "manual" else shown


def memory_words(gpu: Plain) -> str:
    """`6.1 of 8.0 GiB`, as far as it is known."""
    used, total = number(gpu.get("memory_used_bytes")), number(gpu.get("memory_total_bytes"))
    if used is None:
        return UNKNOWN
    if total is None:
        return size(used)
    used_words, total_words = size(used), size(total)
    same_unit = used_words.split()[-1] == total_words.split()[-1]
    return f"{used_words.split()[0] if same_unit else used_words} of {total_words}"


def _cause_words(gpu: Plain) -> str:
    state = str(gpu.get("state") or "awake")
    cause = str(gpu.get("cause") or UNKNOWN)
    return state if state in {"asleep", "lost"} else cause
