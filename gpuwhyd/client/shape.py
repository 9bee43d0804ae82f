"""Answers of a daemon of any version, in the form that this command knows.

A key that is not there is a quantity that is not known. A value of another form than the key has here is as good as not
there, so it is left out, once, where answers come in: nobody behind has to look again.
"""

import re
from collections.abc import Callable, Mapping

_OBJECT_PATH = re.compile(r"(/[A-Za-z0-9_]+)+")


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping)


def _is_list(value: object) -> bool:
    return isinstance(value, list)


def _is_list_of_tables(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, Mapping) for item in value)


def _is_single(value: object) -> bool:
    return isinstance(value, str | int | float)


def _is_path(value: object) -> bool:
    return isinstance(value, str) and _OBJECT_PATH.fullmatch(value) is not None


_FORMS: Mapping[str, Callable[[object], bool]] = {
    **dict.fromkeys(("explanation", "identity", "journal", "outlook", "spike"), _is_table),
    **dict.fromkeys(("evidence", "fans", "gpus", "suspects"), _is_list_of_tables),
    **dict.fromkeys(("command_line", "notes", "pids", "throttle_reasons"), _is_list),
    **dict.fromkeys(
        ("cause", "ended_by", "event", "fan_mode", "gpu_id", "id", "name", "quantity"), _is_single
    ),
    **dict.fromkeys(("advice", "backend", "lack", "source"), _is_single),
    **dict.fromkeys(("rule", "severity", "spike_id", "state", "trend", "unit", "wall_usec"), _is_single),
    "gpu": _is_path,
}
"""By the names of the model and of `dbus/*.xml`; names that are not here are only shown, and may be anything."""

_FORMS_IN: Mapping[str, Mapping[str, Callable[[object], bool]]] = {
    "suspects": {**_FORMS, "program": _is_table}
}
"""By the name that the table itself has: in GetProcesses `program` is a text."""


def shaped(value: object, name: str = "") -> object:
    """The same tables and lists without what has another form than its key; keys of a newer daemon stay."""
    if isinstance(value, Mapping):
        forms = _FORMS_IN.get(name, _FORMS)
        return {
            str(key): shaped(item, str(key))
            for key, item in value.items()
            if (fits := forms.get(str(key))) is None or fits(item)
        }
    if isinstance(value, list):
        return [shaped(item, name) for item in value]
    return value


def tables_in(items: list[object]) -> list[dict[str, object]]:
    """Those of the items that are tables."""
    return [item for item in items if isinstance(item, dict)]
