"""One GPU as `gpuwhy doctor` tells it: what is missing and why, first; then where each reading comes from."""

from collections.abc import Iterable, Sequence
from typing import cast

from gpuwhyd.client.ask import Plain
from gpuwhyd.client.terminal import Terminal, wrap, wrap_below

_TITLE_COLUMNS = 14
_GROUPS = {
    "Fan": ("fans", "fan_percent", "fan_rpm", "fan_mode", "fan_control"),
    "Temperature": (
        "temperature_celsius",
        "hotspot_celsius",
        "memory_temperature_celsius",
        "temperature_limit_celsius",
    ),
    "Power": ("power_watts", "power_average_watts", "energy_joules", "power_limit_watts"),
    "Use": ("utilization_percent", "memory_utilization_percent", "encoder_percent", "decoder_percent"),
    "Memory": ("memory_used_bytes", "memory_total_bytes"),
    "Clocks": (
        "core_clock_mhz",
        "core_clock_max_mhz",
        "memory_clock_mhz",
        "memory_clock_max_mhz",
        "performance_state",
        "throttle_reasons",
    ),
    "Processes": ("processes",),
}
_GROUP_OF = {quantity: title for title, quantities in _GROUPS.items() for quantity in quantities}
_OTHER = "Other"
_NO_QUANTITIES = frozenset({"can_suspend"})
"""Known only while there is something to know."""
_OF_ITS_OWN_FAN = frozenset({"fans", "fan_percent", "fan_rpm", "fan_mode", "fan_control"})

_WORDS = {
    "no-permission": "no permission",
    "old-driver": "the driver is too old",
    "unreadable": "cannot be read",
    "asleep": "the card sleeps",
    "no-sensor": "not offered by the card or its driver",
}
"""By `lack`, the one that somebody can do something about first: it is told where two backends lack a quantity."""
_NOT_TOLD = "nothing here reads it on this card"
_SEE_BACKENDS = "what the backends say, above, may tell why"
_NO_VALUE = "it is read, but what comes cannot be true"

LET_ALONE = "idle, and not read for up to two minutes at a time, so that it can fall asleep"


def gpu_lines(gpu: Plain, terminal: Terminal) -> list[str]:
    """`gpu`: as doctor.gpu_form gives it, fit to be shown."""
    identity = cast("Plain", gpu.get("identity") or {})
    number = "" if gpu.get("number") is None else f"GPU {gpu['number']} "
    known = [str(identity[key]) for key in ("id", "driver") if identity.get(key)]
    head = f"{number}{identity.get('name') or gpu.get('gpu')} ({', '.join([*known, str(gpu.get('state'))])})"
    lines = [terminal.paint(line, "bold") for line in wrap(head, terminal.columns, "  ")]
    for title, text in _told(gpu):
        lines += wrap_below(f"  {title:<{_TITLE_COLUMNS - 2}}", text, terminal, " " * _TITLE_COLUMNS)
    return lines


def _told(gpu: Plain) -> list[tuple[str, str]]:
    """Title and text of each line; a title that is the same as the one before is left empty."""
    sources = sources_of(gpu)
    unread = [one for one in sources if not one.get("quantity")]
    lines: list[tuple[str, str]] = []
    for title, key in (("Kept awake", "kept_awake_by"), ("Kept busy", "kept_busy_by")):
        if watchers := cast("Sequence[object]", gpu.get(key) or ()):
            lines.append((title, f"by {', '.join(map(str, watchers))}"))
    if gpu.get("let_alone"):
        lines.append(("Let alone", LET_ALONE))
    lines += [
        ("Not read", f"by {one.get('backend')}: {reason_words(one, place=False)}")
        for one in unread
        if not (gpu.get("let_alone") and one.get("lack") == "asleep")
    ]
    if gpu.get("state") == "awake":
        lines += [("Missing", text) for text in _missing_words(gpu)]
        lines += _origins(gpu, sources)
    elif not unread and not gpu.get("let_alone"):
        asleep = gpu.get("state") == "asleep"
        lines.append(("Not read", "it sleeps, and is not woken to be read" if asleep else _SEE_BACKENDS))
    return [
        ("" if place and lines[place - 1][0] == title else title, text)
        for place, (title, text) in enumerate(lines)
    ]


def sources_of(gpu: Plain) -> list[Plain]:
    """Empty also where the daemon does not tell them."""
    return cast("list[Plain]", gpu.get("sources") or [])


def missing_of(gpu: Plain) -> dict[str, Plain]:
    """Quantity without a value -> the source to tell of: the one whose lack can be mended, `{}` where others have one and
    it has none. Where no source is told of at all, the card offers no more than what it gives.
    """
    sources = [one for one in sources_of(gpu) if one.get("quantity")]
    read = {str(one["quantity"]) for one in sources if one.get("lack") is None}
    without_value = [str(name) for name in cast("Sequence[object]", gpu.get("missing") or ())]
    names = [*without_value, *(str(one["quantity"]) for one in sources)]
    no_loss = _NO_QUANTITIES | (_OF_ITS_OWN_FAN if gpu.get("fan_mode") == "none" else frozenset())
    is_fan_alone = cast("Plain", gpu.get("identity") or {}).get("vendor") == "chassis"
    nothing: Plain = {} if sources else {"lack": "no-sensor"}
    found: dict[str, Plain] = {}
    for name in dict.fromkeys(names):
        if name in no_loss or (name in read and name not in without_value):
            continue
        lacking = [one for one in sources if one["quantity"] == name]
        if not lacking and is_fan_alone:
            continue  # a fan of the machine has no memory, and nobody misses it
        found[name] = min(lacking, key=_how_far_from_mending, default=nothing)
    return found


def reason_words(source: Plain, *, place: bool = True) -> str:
    """Why there is no value and what to do. `place`: with the file or function, where that helps."""
    if not source:
        return _NOT_TOLD
    lack = source.get("lack")
    advice = source.get("advice")
    if lack == "asleep" and advice:
        return str(advice)
    words = _NO_VALUE if lack is None else _WORDS.get(str(lack), str(lack))
    where = f" ({source['source']})" if place and lack != "no-sensor" and source.get("source") else ""
    return words + where + (f"; {advice}" if advice else "")


def _how_far_from_mending(source: Plain) -> int:
    lack = str(source.get("lack"))
    return list(_WORDS).index(lack) if lack in _WORDS else len(_WORDS)


def _missing_words(gpu: Plain) -> list[str]:
    """Not of what the card's driver does not tell, and its processes do: how much an Intel card works."""
    missing = {name: source for name, source in missing_of(gpu).items() if gpu.get(name) is None}
    by_reason: dict[str, list[str]] = {}
    for name, source in sorted(missing.items(), key=lambda item: _how_far_from_mending(item[1])):
        by_reason.setdefault(reason_words(source), []).append(name)
    return [f"{', '.join(names)}: {reason}" for reason, names in by_reason.items()] or [
        "nothing; every reading is there"
    ]


def _origins(gpu: Plain, sources: Sequence[Plain]) -> list[tuple[str, str]]:
    """`Fan: hwmon/hwmon4/fan1_input, pwm1`, for each group; with the backend's name where there are several."""
    backends = list(dict.fromkeys(str(one.get("backend")) for one in sources)) or [str(gpu.get("backend"))]
    by_title: dict[str, dict[str, list[str]]] = {}
    for one in sources:
        if one.get("lack") is None and one.get("used") and one.get("source"):
            title = _GROUP_OF.get(str(one.get("quantity")), _OTHER)
            by_title.setdefault(title, {}).setdefault(str(one.get("backend")), []).append(
                str(one.get("source"))
            )
    lines = [("Read by", ", ".join(backends))]
    if gpu.get("fan_mode") == "none":
        lines.append(("Fan", "it has none of its own"))
    for title in (*_GROUPS, _OTHER):
        parts = [
            ", ".join(shortened(names)) + (f" ({backend})" if len(backends) > 1 else "")
            for backend, names in by_title.get(title, {}).items()
        ]
        if parts:
            lines.append((title, "; ".join(parts)))
    return lines


def shortened(names: Iterable[str]) -> list[str]:
    """Each once; of files in one directory only the first with it."""
    short, directory = [], ""
    for name in dict.fromkeys(names):
        before, slash, file = name.rpartition("/")
        short.append(file if slash and before == directory else name)
        directory = before if slash else ""
    return short
