"""`gpuwhy doctor`: whether gpuwhyd can do its work here, and what to do where it cannot."""

import asyncio
from collections.abc import Sequence
from typing import cast

from gpuwhyd import __version__
from gpuwhyd.client.answer import Answer, Options
from gpuwhyd.client.ask import Daemon, Plain, if_told
from gpuwhyd.client.gpu_sources import gpu_lines
from gpuwhyd.client.gpus import chosen_gpus, gpus_of
from gpuwhyd.client.quantities import UNKNOWN, number, size, span
from gpuwhyd.client.terminal import Terminal, printable, wrap, wrap_below

_INDENT = " " * 13
_LATE_FACTOR, _LATE_SECONDS = 5, 30
"""A last sample older than so many intervals, and so many seconds, is a daemon that hangs."""
_LOOK_FOR_IT = (
    "Does lspci show the card (lspci -d ::0300 and lspci -d ::0302)? Does lspci -k show its driver in use: nvidia, amdgpu, "
    "i915 or xe?"
)


async def answer(daemon: Daemon, options: Options) -> Answer:
    from gpuwhyd.client import json_form  # noqa: PLC0415 - the other commands do not pay for loading the model

    health = await daemon.health()
    summary = await daemon.summary()
    metrics = await daemon.metrics()
    if options.gpu is not None:
        wanted = chosen_gpus(summary, options.gpu)[0]["gpu"]
        metrics = [one for one in metrics if one.get("gpu") == wanted]
    gpus = await asyncio.gather(*(_gpu(daemon, one) for one in metrics))
    problems = problems_of(health, gpus)
    if options.as_json:
        document = {
            "client_version": __version__,
            "bus": options.bus,
            "problems": problems,
            "health": json_form.health(health),
            "gpus": gpus,
        }
        return Answer(document=document, healthy=not problems)
    numbers = {gpu.get("gpu"): cast("int", gpu["number"]) for gpu in gpus_of(summary)}
    numbered = [gpu | {"number": numbers.get(gpu.get("gpu"))} for gpu in gpus]
    return Answer(
        lines=tuple(doctor_lines(health, numbered, options.bus, options.terminal)), healthy=not problems
    )


async def _gpu(daemon: Daemon, metrics: Plain) -> Plain:
    path = metrics.get("gpu")
    if path is None:
        return gpu_form(metrics, None, None)
    sources, explanation = await asyncio.gather(
        if_told(daemon.sources(str(path))), if_told(daemon.explain(str(path)))
    )
    return gpu_form(metrics, sources, explanation)


def gpu_form(metrics: Plain, sources: Sequence[Plain] | None, explanation: Plain | None) -> Plain:
    """All that doctor tells of a GPU: its readings and what is `missing` of them, `sources` (`None`: the daemon does
    not tell them), the names of what only watches it and keeps it awake or busy, and whether gpuwhyd lets it alone.
    """
    from gpuwhyd.client import json_form  # noqa: PLC0415 - as above

    evidence = cast("Sequence[Plain]", (explanation or {}).get("evidence") or ())
    return json_form.metrics(metrics) | {
        "sources": None if sources is None else [json_form.source(one) for one in sources],
        "kept_awake_by": [
            *(one.get("value") for one in evidence if one.get("quantity") == "kept_awake_by"),
            *("gpuwhyd" for one in evidence if one.get("quantity") == "kept_awake_by_gpuwhyd"),
        ],
        "kept_busy_by": [one.get("value") for one in evidence if one.get("quantity") == "kept_busy_by"],
        "let_alone": any(one.get("quantity") == "let_go" for one in evidence),
    }


def problems_of(health: Plain, gpus: Sequence[Plain]) -> list[str]:
    """What keeps gpuwhyd from giving answers, one line each with what to do; empty when all is well.

    A backend that waits or is absent is no problem while another one is ready or rests.
    """
    backends = cast("Sequence[Plain]", health.get("backends") or ())
    found = [
        f"{backend.get('name')} fails: {backend.get('message') or 'no reason given'}"
        for backend in backends
        if backend.get("state") == "failing"
    ]
    if not any(backend.get("state") in {"ready", "asleep"} for backend in backends):
        lacks = [
            f"{backend.get('name')}: {backend['message']}"
            for backend in backends
            if backend.get("state") == "waiting" and backend.get("message") and not backend.get("has_no_card")
        ]
        found.append(f"No GPU can be read. {'; '.join(lacks)}" if lacks else f"No GPU found. {_LOOK_FOR_IT}")
    elif not gpus:
        found.append(f"No GPU found, although a driver answers. {_LOOK_FOR_IT}")
    for gpu in gpus:
        if gpu.get("state") == "lost":
            name = cast("Plain", gpu.get("identity") or {}).get("name") or gpu.get("gpu")
            found.append(
                f"{name} is lost: it fell off the bus or needs a reset. See: journalctl -k -g 'NVRM|Xid|amdgpu|i915|xe'"
            )
    age, interval = (
        number(health.get("last_sample_seconds_ago")),
        number(health.get("sample_interval_seconds")),
    )
    if age is not None and age > max(_LATE_SECONDS, _LATE_FACTOR * (interval or 0.0)):
        found.append(f"No sample for {span(age)}: a driver call may hang. See: journalctl -u gpuwhyd")
    journal = cast("Plain", health.get("journal") or {})
    if journal.get("state") in {"stalled", "away"}:  # absent or off: there is no journal to take them
        found.append(
            f"The journal takes no events, {journal.get('queued', 0)} wait. See: systemctl status systemd-journald"
        )
    if number(journal.get("dropped")):
        found.append(f"{journal['dropped']} events were lost, because the journal was away for too long")
    found += [
        f"{text[:1].upper()}{text[1:]}"
        for text in map(str, cast("Sequence[object]", health.get("notes") or ()))
    ]
    version = health.get("version")
    if version is not None and version != __version__:
        found.append(
            f"gpuwhyd is {version}, gpuwhy is {__version__}. After an update: systemctl restart gpuwhyd"
        )
    return found


def doctor_lines(health: Plain, gpus: Sequence[Plain], bus: str, terminal: Terminal) -> list[str]:
    """`gpus` as `gpu_form` gives them, each with its `number`."""
    problems = cast("list[str]", printable(problems_of(health, gpus)))
    health, gpus = cast("tuple[Plain, list[Plain]]", printable((health, gpus)))
    lines: list[str] = []

    def tell(title: str, text: str) -> None:
        lines.extend(wrap_below(f"{title:<{len(_INDENT)}}", text, terminal, _INDENT))

    head = (
        "Nothing is wrong." if not problems else f"{len(problems)} problem{'s' if len(problems) > 1 else ''}:"
    )
    lines.append(terminal.paint(head, "bold", "red" if problems else "green"))
    for problem in problems:
        lines += wrap(f"  - {problem}", terminal.columns, "    ")
    lines.append("")
    tell(
        "Daemon",
        f"{health.get('version', UNKNOWN)}, up {span(health.get('uptime_seconds'))}, on the {_bus_words(bus)}",
    )
    age = health.get("last_sample_seconds_ago")
    interval = number(health.get("sample_interval_seconds"))
    every = f", every {interval:g} s" if interval is not None else ""
    last = f", the last {span(age)} ago" if age is not None else ""
    tell("Samples", f"{health.get('samples', UNKNOWN)}{last}{every}")
    for place, backend in enumerate(cast("Sequence[Plain]", health.get("backends") or ())):
        state, message = str(backend.get("state") or "unknown"), str(backend.get("message") or "")
        text = f"{backend.get('name')}: {state}" + (f". {message}" if message else "")
        tell("" if place else "Backends", text)
    journal = cast("Plain", health.get("journal") or {})
    counts = f"{journal.get('queued', 0)} events waiting, {journal.get('dropped', 0)} lost"
    tell("Journal", f"{journal.get('state', UNKNOWN)}, {counts}")
    tell("State", str(health.get("state_file") or "not kept"))
    tell("Settings", str(health.get("config_file") or "the defaults, no file"))
    used = (
        (health.get("memory_bytes"), f"{size(health.get('memory_bytes'))} of memory"),
        (health.get("cpu_seconds"), f"{span(health.get('cpu_seconds'))} of CPU time"),
        (health.get("threads"), f"{health.get('threads')} threads"),
    )
    tell("Costs", ", ".join(text for value, text in used if value is not None) or UNKNOWN)
    tell("Built on", f"Python {health.get('python', UNKNOWN)}, {health.get('bus_library', UNKNOWN)}")
    if health.get("processes_hidden"):
        tell("Notes", "/proc is mounted with hidepid: only root is told the names of other users' programs")
    for gpu in gpus:
        lines += ["", *gpu_lines(gpu, terminal)]
    return lines


def _bus_words(bus: str) -> str:
    return f"{bus} bus" if bus in {"system", "session"} else f"bus {bus}"
