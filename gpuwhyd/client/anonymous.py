"""The daemon's answers without whatever names a person, a machine or what runs on it. Pure.

What is let through is chosen by name, so that a key which a newer daemon adds stays out until somebody decides. Texts
are let through only where gpuwhyd itself or a driver wrote them, and those are searched for what must not be in them.

Out: users, hosts, the machine id, UUIDs and serial numbers, processes with pid, name, command line and executable,
units, containers, applications, rules, paths of the user's, times of the clock. In: what the hardware is (name,
vendor and device id, PCI address, driver, VBIOS), where it is read, what it measures, causes, shares, durations.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from gpuwhyd.client.ask import Plain
from gpuwhyd.client.quantities import number

LEFT_OUT = "(left out)"

_HARMLESS = frozenset({"root", "gpuwhyd", "localhost"})
"""They are the same everywhere."""
_NAMELESS = re.compile(
    # A folder may have any name, blanks and quotes in it: nobody can tell where a user's path ends.
    r"/(?:home|root|media|mnt)/(?s:.*)"
    r"|(?<=/run/user/)\d+"
    r"|\b(?:(?:GPU|MIG)-)?[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"
    r"|\b[0-9a-f]{12,}\b"
    r"|(?<=\bpid )\d+|(?<=\buid )\d+",
    re.IGNORECASE,
)
"""What is left out whatever it is called: users' paths and numbers, UUIDs, ids of containers and machines, processes."""
_IDENTITY = ("name", "vendor", "pci_id", "pci_address", "driver", "vbios_version")
_HEALTH = (
    "version",
    "uptime_seconds",
    "samples",
    "last_sample_seconds_ago",
    "sample_interval_seconds",
    "bus_library",
    "python",
    "processes_hidden",
    "memory_bytes",
    "cpu_seconds",
    "threads",
)
_EXPLANATION = (
    "cause",
    "confidence",
    "unattributed_share",
    "fan_percent",
    "fan_rpm",
    "temperature_celsius",
    "power_watts",
    "for_seconds",
)
_SUSPECT = (
    "share",
    "power_watts",
    "alive",
    "stopped_seconds_ago",
    "memory_used_bytes",
    "engine_percent",
)
_FAN = ("index", "percent", "rpm", "target_percent", "mode", "rpm_is_measured", "rpm_max", "label")
_PROGRAM_KINDS = frozenset({"unit", "container", "app", "process"})
_PROCESS_KINDS = frozenset({"compute", "graphics", "compute+graphics", "mps", "holder"})
_TEXTS_OF_EVIDENCE = frozenset({"ended_by", "performance_state", "fan_label"})
_SOURCE = ("backend", "quantity", "source", "lack", "used")
_NO_READINGS = frozenset({"number", "identity", "fans", "let_alone"})
_NAMES = frozenset(
    {"key", "name", "unit", "user_unit", "slice", "container", "app", "user", "program", "process_name"}
    | {"executable", "uuid", "state_file", "config_file"}
)
"""Of the words of a command line none is looked for: they may be any words, and no text that is let through has them."""


def scrubbed(text: object, private: Iterable[str]) -> str:
    """`text` of gpuwhyd or of a driver, with these names, paths below a home, UUIDs and long ids replaced."""
    names = sorted(
        (name for name in private if name.strip() and name not in _HARMLESS), key=len, reverse=True
    )
    parts = _NAMELESS.split(str(text))
    if names:
        any_name = re.compile("|".join(map(_as_a_word, names)), re.IGNORECASE)
        parts = [any_name.sub(LEFT_OUT, part) for part in parts]
    return LEFT_OUT.join(parts)


def _as_a_word(name: str) -> str:
    """Not where it is a piece of another word: `eva` is not in `evaluated`."""
    before, after = (r"(?<!\w)" if name[0].isalnum() else ""), (r"(?!\w)" if name[-1].isalnum() else "")
    return before + re.escape(name) + after


def names_in(value: object) -> set[str]:
    """Every text below a key that names somebody or something of theirs, in answers of any form."""
    if isinstance(value, list | tuple):
        return {name for item in value for name in names_in(item)}
    if not isinstance(value, Mapping):
        return set()
    found = {name for item in value.values() for name in names_in(item)}
    is_hardware = "vendor" in value or "message" in value  # a GPU, a backend
    for key in _NAMES - ({"name"} if is_hardware else set()):
        if isinstance(text := value.get(key), str) and text:
            found.add(text)
    return found


def health(plain: Plain, private: Iterable[str]) -> Plain:
    journal = cast("Plain", plain.get("journal") or {})
    return {
        **{key: plain[key] for key in _HEALTH if key in plain},
        "backends": [
            {
                "name": one.get("name"),
                "state": one.get("state"),
                "message": scrubbed(one.get("message") or "", private),
            }
            for one in cast("Sequence[Plain]", plain.get("backends") or ())
        ],
        "journal": {key: journal.get(key) for key in ("state", "queued", "dropped")},
        "keeps_state": plain.get("state_file") is not None,
        "has_config_file": plain.get("config_file") is not None,
        "notes_left_out": len(cast("Sequence[object]", plain.get("notes") or ())),
    }


def gpu(
    plain: Plain, explanation: Plain | None, processes: Sequence[Plain] | None, private: Iterable[str]
) -> Plain:
    """`plain`: as doctor.gpu_form gives it."""
    identity = cast("Plain", plain.get("identity") or {})
    return {
        "number": plain.get("number"),
        **{key: identity.get(key) for key in _IDENTITY},
        **{key: plain.get(key) for key in ("state", "backend", "fan_mode", "let_alone")},
        **{
            f"{key}_programs": len(cast("Sequence[object]", plain.get(key) or ()))
            for key in ("kept_awake_by", "kept_busy_by")
        },
        "readings": {
            key: _measured(value)
            for key, value in plain.items()
            if key not in _NO_READINGS and (value is None or isinstance(value, int | float | Mapping))
        },
        "throttle_reasons": plain.get("throttle_reasons"),
        "missing": plain.get("missing"),
        "fans": [
            {key: fan.get(key) for key in _FAN} for fan in cast("Sequence[Plain]", plain.get("fans") or ())
        ],
        "sources": [
            {key: source.get(key) for key in _SOURCE}
            | {"advice": scrubbed(source.get("advice") or "", private)}
            for source in cast("Sequence[Plain]", plain.get("sources") or ())
        ],
        "processes": None if processes is None else _kinds(processes),
        "explanation": None if explanation is None else _explanation(explanation),
    }


def _explanation(plain: Plain) -> Plain:
    outlook = cast("Plain", plain.get("outlook") or {})
    return {
        **{key: plain.get(key) for key in _EXPLANATION},
        "outlook": {key: outlook.get(key) for key in ("trend", "quiet_in_seconds")},
        "suspects": [
            {
                "program": f"program {place}",
                "kind": _one_of(cast("Plain", suspect.get("program") or {}).get("kind"), _PROGRAM_KINDS),
                "processes": len(cast("Sequence[object]", suspect.get("pids") or ())),
                **{key: suspect.get(key) for key in _SUSPECT},
            }
            for place, suspect in enumerate(cast("Sequence[Plain]", plain.get("suspects") or ()), start=1)
        ],
        "evidence": [
            {"quantity": one.get("quantity"), "value": _evidence(one), "unit": one.get("unit")}
            for one in cast("Sequence[Plain]", plain.get("evidence") or ())
        ],
    }


def _evidence(one: Plain) -> object:
    if one.get("quantity") in _TEXTS_OF_EVIDENCE:
        return one.get("value")
    known = number(one.get("value"))
    return LEFT_OUT if known is None else known


def _kinds(processes: Sequence[Plain]) -> dict[str, int]:
    return dict(Counter(_one_of(process.get("kind"), _PROCESS_KINDS) for process in processes))


def _one_of(value: object, known: frozenset[str]) -> str:
    return str(value) if str(value) in known else "unknown"


def _measured(value: object) -> object:
    """Numbers, and tables and lists of them."""
    if isinstance(value, Mapping):
        return {key: _measured(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_measured(item) for item in value]
    return value if isinstance(value, bool) else number(value)
