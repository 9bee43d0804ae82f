"""TOML text and tables -> plain values, with errors that a person can act on.

The configuration and the simulation's scenarios are read through it. A table is described by a row of `Key`s; every
mistake becomes a ConfigError of one line: source, line or key, what is wrong, what would be right.
"""

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, TypeVar

import tomli

from gpuwhyd.errors import ConfigError

Value = TypeVar("Value")
Reader = Callable[[object], object]
"""A TOML value -> the value of a settings field. Raises WrongValueError."""

_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|min|h) ?)+", re.ASCII)
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|min|h)", re.ASCII)

_DECLARED_TWICE = re.compile(r"Cannot declare \((.+)\) twice \(at line (\d+),", re.DOTALL)
_SET_TWICE = re.compile(r"Cannot overwrite a value \(at (?:line (\d+),|end of document)")


class WrongValueError(ValueError):
    """What a value must be and is not: `must be ..., not ...`. The caller adds source and key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key of a table, and the settings field that it fills."""

    name: str
    field: str
    read: Reader
    required: bool = False


def read_file(path: Path) -> str:
    """The text of a TOML file. Raises ConfigError when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")  # editors of Windows put a byte order mark before it
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}: line {line}: not UTF-8 text; save the file as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """The top table of a TOML text. Raises ConfigError with the line of a syntax error."""
    try:
        return tomli.loads(text)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError; int() of over 4300 digits; deep nesting
        said = _twice(str(error), text) or f"not valid TOML: {' '.join(str(error).split())}"
        raise ConfigError(f"{source}: {said}") from None


def _twice(said: str, text: str) -> str | None:
    """What tomli says of a thing that stands in a file twice, in words of the file; `None` for its other errors."""
    if match := _DECLARED_TWICE.match(said):
        name = ".".join(re.findall(r"'([^']*)'", match[1]))
        shown_name = _clean(name)
        more = f"write [[{shown_name}]], as above" if f"[[{name}]]" in text else "keep one"
        return f"line {match[2]}: [{shown_name}] stands there twice; {more}"
    if match := _SET_TWICE.match(said):
        lines = text.rstrip().split("\n")
        number = int(match[1] or len(lines))  # the last one is not counted
        key = lines[number - 1].partition("=")[0].strip()
        return f"line {number}: {shown(key)} stands there twice; keep one"
    return None


def read_table(table: object, keys: Iterable[Key], *, source: str, where: str = "") -> dict[str, Any]:
    """The values of a table by settings field, only for the keys that it has.

    `where` names the table in errors (`sampling`, `rule "hot"`), empty for the top of the file.
    """
    if not isinstance(table, Mapping):
        raise ConfigError(f"{source}: {where}: must be a table, [{where}], not {kind_of(table)}")
    known = {key.name: key for key in keys}
    prefix = f"{where}: " if where else ""
    for name in table:
        if name not in known:
            raise ConfigError(f"{source}: {prefix}unknown key {shown(name)}; {suggestion(name, known)}")
    values = {}
    for key in known.values():
        if key.name not in table:
            if key.required:
                raise ConfigError(f"{source}: {prefix}{key.name} is missing")
            continue
        try:
            values[key.field] = key.read(table[key.name])
        except WrongValueError as error:
            raise ConfigError(f"{source}: {prefix}{key.name} {error}") from None
    return values


def tables(value: object, name: str, *, source: str) -> list[object]:
    """An array of tables, as `[[name]]` writes it; empty when absent."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise ConfigError(
            f"{source}: {name}: must be written [[{name}]], once for each, not as {kind_of(value)}"
        )
    return value


def suggestion(name: str, known: Collection[str]) -> str:
    """`did you mean "interval"?`, or all that would do."""
    import difflib  # noqa: PLC0415 - only mistakes need it

    close = difflib.get_close_matches(name[:100], known, n=1)
    return f"did you mean {shown(close[0])}?" if close else f"known are {', '.join(known)}"


def shown(text: str) -> str:
    """A text of the user in quotes, on one line and not too long."""
    return f'"{_clean(text)}"'


def _clean(text: str) -> str:
    clean = "".join(char if char.isprintable() else "?" for char in text)
    return clean if len(clean) <= 60 else clean[:57] + "..."


def kind_of(value: object) -> str:
    """What a TOML value is, for `must be ..., not ...`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        number = f"{value:g}" if isinstance(value, float) or abs(value) < 10**15 else "a huge integer"
        return f"the number {number}"
    if isinstance(value, str):
        return f"the string {shown(value)}"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, datetime | date | time):
        return "a date or time"
    return "a table"


def boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise WrongValueError(f"must be true or false, not {kind_of(value)}")
    return value


def text(pattern: str, meaning: str) -> Callable[[object], str]:
    """A string that `pattern` matches as a whole; `meaning` says in errors what it must be."""
    compiled = re.compile(pattern)

    def read(value: object) -> str:
        if not isinstance(value, str) or not compiled.fullmatch(value):
            raise WrongValueError(f"must be {meaning}, not {kind_of(value)}")
        return value

    return read


def choice(*names: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if not isinstance(value, str):
            raise WrongValueError(f"must be one of {', '.join(names)}, not {kind_of(value)}")
        if value not in names:
            raise WrongValueError(f"is {shown(value)}, which is not known; {suggestion(value, names)}")
        return value

    return read


def number(minimum: float, maximum: float, unit: str = "") -> Callable[[object], float]:
    unit = f" {unit}" if unit else ""

    def read(value: object) -> float:
        is_nan = isinstance(value, float) and math.isnan(value)  # math.isnan has no answer for a huge integer
        if isinstance(value, bool) or not isinstance(value, int | float) or is_nan:
            raise WrongValueError(
                f"must be a number from {minimum:g} to {maximum:g}{unit}, not {kind_of(value)}"
            )
        if not minimum <= value <= maximum:
            raise WrongValueError(
                f"must be from {minimum:g} to {maximum:g}{unit}, not {kind_of(value).removeprefix('the number ')}"
            )
        return float(value)

    return read


def whole_number(minimum: int, maximum: int, unit: str = "") -> Callable[[object], int]:
    in_range = number(minimum, maximum, unit)

    def read(value: object) -> int:
        if not isinstance(value, int):
            raise WrongValueError(f"must be a whole number from {minimum} to {maximum}, not {kind_of(value)}")
        return int(in_range(value))

    return read


def duration(minimum_seconds: float, maximum_seconds: float) -> Callable[[object], float]:
    """Seconds from a string such as "10s", "500ms", "2min" or "1h30min"."""
    span = f"from {show_duration(minimum_seconds)} to {show_duration(maximum_seconds)}"

    def read(value: object) -> float:
        if not isinstance(value, str) or not _DURATION.fullmatch(value[:100]):
            raise WrongValueError(
                f'must be a duration such as "10s", "500ms", "2min" or "1h30min", not {kind_of(value)}'
            )
        seconds = sum(float(amount) * _UNIT_SECONDS[unit] for amount, unit in _DURATION_PART.findall(value))
        if not minimum_seconds <= seconds <= maximum_seconds:
            raise WrongValueError(f"must be {span}, not {shown(value)}")
        return seconds

    return read


def show_duration(seconds: float) -> str:
    """As the files write it: `500ms`, `10s`, `1h30min`."""
    if seconds < 1 and seconds:
        return f"{seconds * 1000:g}ms"
    hours, rest = divmod(seconds, 3600)
    minutes, rest = divmod(rest, 60)
    parts = [
        f"{hours:g}h" if hours else "",
        f"{minutes:g}min" if minutes else "",
        f"{rest:g}s" if rest else "",
    ]
    return "".join(parts) or "0s"


def array(item: Callable[[object], Value], meaning: str) -> Callable[[object], tuple[Value, ...]]:
    """A tuple of what `item` reads."""

    def read(value: object) -> tuple[Value, ...]:
        if not isinstance(value, list):
            raise WrongValueError(f"must be an array of {meaning}, not {kind_of(value)}")
        values = []
        for index, element in enumerate(value, start=1):
            try:
                values.append(item(element))
            except WrongValueError as error:
                raise WrongValueError(f"entry {index} {error}") from None
        return tuple(values)

    return read
