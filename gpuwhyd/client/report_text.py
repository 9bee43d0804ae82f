"""The report of `gpuwhy report` as Markdown. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from gpuwhyd.client.ask import Plain
from gpuwhyd.client.gpu_sources import LET_ALONE, missing_of, reason_words, shortened
from gpuwhyd.client.quantities import UNKNOWN, number, share, size, span

_LEFT_OUT = (
    "Left out: names of users, hosts and programs, process numbers, command lines, units, containers, UUIDs, paths of "
    "users, times of the clock. Read it before you send it all the same."
)


def report_lines(report: Plain) -> list[str]:
    """`report` as report.report_of gives it, fit to be shown."""
    health = cast("Plain | None", report.get("gpuwhyd"))
    lines = ["### gpuwhyd report", "", _LEFT_OUT, ""]
    if health is None:
        lines.append(f"- gpuwhyd: no answer. {_text(report.get('trouble'))}")
    else:
        lines += [f"- {text}" for text in _daemon(health, str(report.get("bus")))]
    lines += [
        f"- gpuwhy {report.get('gpuwhy')}, Python {report.get('python')}, {report.get('bus_library')}",
        f"- {_text(report.get('distribution') or 'distribution unknown')}, Linux {_text(report.get('kernel'))}",
    ]
    if health is not None:
        lines += [
            "",
            "#### Problems",
            "",
            *_bullets(cast("Sequence[object]", report.get("problems") or ["none"])),
        ]
        backends = [_backend(one) for one in cast("Sequence[Plain]", health.get("backends") or ())]
        lines += ["", "#### Backends", "", *_bullets(backends or ["none"])]
    for gpu in cast("Sequence[Plain]", report.get("gpus") or ()):
        lines += ["", *_gpu(gpu)]
    return lines


def _daemon(health: Plain, bus: str) -> list[str]:
    journal = cast("Plain", health.get("journal") or {})
    costs = f"{size(health.get('memory_bytes'))}, {span(health.get('cpu_seconds'))} of CPU time"
    age, notes = health.get("last_sample_seconds_ago"), health.get("notes_left_out")
    built = f"{health.get('version', UNKNOWN)}, Python {health.get('python', UNKNOWN)}"
    last = f", the last {span(age)} ago" if age is not None else ""
    every = f"every {span(health.get('sample_interval_seconds'))}"
    events = f"{journal.get('queued') or 0} events waiting, {journal.get('dropped') or 0} lost"
    state = "kept" if health.get("keeps_state") else "not kept"
    settings = "a file" if health.get("has_config_file") else "the defaults"
    parts = [
        f"gpuwhyd {built}, {health.get('bus_library', UNKNOWN)}, bus: {bus}",
        f"up {span(health.get('uptime_seconds'))}, {health.get('samples', UNKNOWN)} samples{last}, {every}",
        f"costs: {costs}, {health.get('threads', UNKNOWN)} threads",
        f"journal: {journal.get('state', UNKNOWN)}, {events}; state: {state}; settings: {settings}",
    ]
    if health.get("processes_hidden"):
        parts.append("/proc is mounted with hidepid")
    if notes:
        parts.append(f"notes for the owner of the machine, left out: {notes}; see `gpuwhy doctor`")
    return [_text(part) for part in parts]


def _backend(one: Plain) -> str:
    return f"{one.get('name')}: {one.get('state')}" + (f". {one['message']}" if one.get("message") else "")


def _gpu(gpu: Plain) -> list[str]:
    what = [
        gpu.get("vendor"),
        gpu.get("pci_id") and f"PCI id {gpu['pci_id']}",
        gpu.get("pci_address") and f"at {gpu['pci_address']}",
        gpu.get("driver") and f"driver {gpu['driver']}",
        gpu.get("vbios_version") and f"VBIOS {gpu['vbios_version']}",
        gpu.get("state"),
        f"fan mode {gpu.get('fan_mode')}",
    ]
    number_of = "" if gpu.get("number") is None else f" {gpu['number']}"
    facts = [", ".join(str(item) for item in what if item)]
    facts += [
        f"{key.replace('_', ' ')} {gpu[f'{key}_programs']} program(s)"
        for key in ("kept_awake_by", "kept_busy_by")
        if gpu.get(f"{key}_programs")
    ]
    if gpu.get("let_alone"):
        facts.append(f"let alone: {LET_ALONE}")
    facts += [_unread(one) for one in _sources(gpu) if not one.get("quantity")]
    lines = [f"#### GPU{number_of}: {_text(gpu.get('name') or 'without a name')}", "", *_bullets(facts)]
    lines += _bullets(_fan_words(fan) for fan in cast("Sequence[Plain]", gpu.get("fans") or ()))
    if gpu.get("processes") is not None:
        kinds = cast("Mapping[str, object]", gpu["processes"])
        lines += _bullets([f"processes: {', '.join(f'{n} {kind}' for kind, n in kinds.items()) or 'none'}"])
    lines += ["", "| quantity | value | from, or why there is none |", "|---|---|---|", *_rows(gpu)]
    return lines + _answer(cast("Plain", gpu.get("explanation") or {}))


def _rows(gpu: Plain) -> list[str]:
    readings = cast("Mapping[str, object]", gpu.get("readings") or {})
    missing = missing_of(gpu)
    reasons = cast("Sequence[object] | None", gpu.get("throttle_reasons"))
    values = {name: value for name, value in readings.items() if value is not None}
    if reasons is not None:
        values["throttle_reasons"] = ", ".join(map(str, reasons)) or "none"
    rows = [_row(name, _value(value), _origin(gpu, name)) for name, value in values.items()]
    return rows + [
        _row(name, UNKNOWN, reason_words(source)) for name, source in missing.items() if name not in values
    ]


def _origin(gpu: Plain, name: str) -> str:
    used = [one for one in _sources(gpu) if one.get("quantity") == name and one.get("used")]
    if not used:
        return ""
    return f"{', '.join(shortened(str(one.get('source')) for one in used))} ({used[0].get('backend')})"


def _unread(one: Plain) -> str:
    return f"not read by {one.get('backend')}: {reason_words(one, place=False)}"


def _sources(gpu: Plain) -> list[Plain]:
    return cast("list[Plain]", gpu.get("sources") or [])


def _fan_words(fan: Plain) -> str:
    known = [
        f"{key.replace('_', ' ')} {_value(value)}"
        for key, value in fan.items()
        if key != "index" and value is not None
    ]
    return f"fan {fan.get('index')}: {', '.join(known)}"


def _answer(explanation: Plain) -> list[str]:
    if not explanation:
        return []
    outlook = cast("Plain", explanation.get("outlook") or {})
    facts = [
        f"cause {explanation.get('cause')}, confidence {share(explanation.get('confidence'))}",
        f"fan up for {span(explanation.get('for_seconds'))}"
        if explanation.get("for_seconds") is not None
        else "",
        f"trend {outlook.get('trend')}"
        + (
            f", quiet in {span(quiet_in)}"
            if (quiet_in := outlook.get("quiet_in_seconds")) is not None
            else ""
        ),
        f"heat of nobody visible {share(explanation.get('unattributed_share'))}",
    ]
    lines = ["", *_bullets(fact for fact in facts if fact)]
    lines += _bullets(map(_suspect, cast("Sequence[Plain]", explanation.get("suspects") or ())))
    evidence = cast("Sequence[Plain]", explanation.get("evidence") or ())
    told = [
        f"{one.get('quantity')} {_value(one.get('value'))} {one.get('unit') or ''}".rstrip()
        for one in evidence
    ]
    return lines + (_bullets([f"evidence: {'; '.join(told)}"]) if told else [])


def _suspect(suspect: Plain) -> str:
    known = [
        f"{key.replace('_', ' ')} {_value(value)}"
        for key, value in suspect.items()
        if key != "program" and value is not None
    ]
    return f"{suspect.get('program')}: {', '.join(known)}"


def _value(value: object) -> str:
    """A number as it was told, without false digits; anything else as it stands."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    known = number(value)
    if known is not None:
        return str(value) if isinstance(value, int) else f"{known:.3f}".rstrip("0").rstrip(".")
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {_value(item)}" for key, item in value.items() if item is not None)
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value)) or "none"
    return str(value)


def _row(*cells: object) -> str:
    return f"| {' | '.join(_text(cell) for cell in cells)} |"


def _bullets(texts: Iterable[object]) -> list[str]:
    return [f"- {_text(text)}" for text in texts]


def _text(text: object) -> str:
    """Neither a table's border nor a tag to Markdown."""
    return str(text).replace("|", "\\|").replace("<", "&lt;")
