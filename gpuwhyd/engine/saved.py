"""What the engine keeps over a restart, read back with every type checked: a state file may be broken or foreign."""

from collections.abc import Mapping
from enum import StrEnum
from types import NoneType, UnionType
from typing import TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")

LARGEST_NUMBER = 1e15
"""Seconds, watts and percents stay far below; sums and products of larger ones could become infinite."""
LARGEST_WHOLE = 2**53
"""In microseconds since the epoch, the year 2255."""


def table(value: object) -> Mapping[str, object]:
    """The value as a table; TypeError when it is none."""
    if not isinstance(value, Mapping):
        raise TypeError(f"a table was expected in the saved state, not {_kind(value)}")
    return value


def optional_number(value: object) -> float | None:
    """A number of at most LARGEST_NUMBER or `None`; TypeError or ValueError for anything else."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"a number was expected in the saved state, not {_kind(value)}")
    if not -LARGEST_NUMBER <= value <= LARGEST_NUMBER:  # NaN, too
        raise ValueError("a number in the saved state is out of all bounds")
    return float(value)


def restore(kind: type[T], value: object) -> T:
    """A flat dataclass of strings, numbers and enums from its saved table; TypeError or ValueError when it does not fit."""
    hints = get_type_hints(kind)
    fields = {}
    for name, item in table(value).items():
        if name not in hints:
            raise TypeError(f"{kind.__name__} has no field {name[:40]!r}")
        fields[name] = _checked(hints[name], item)
    return kind(**fields)


def _checked(hint: object, item: object) -> object:
    choices = get_args(hint) if get_origin(hint) is UnionType else (hint,)
    for choice in choices:
        if choice is NoneType and item is None:
            return None
        if isinstance(choice, type) and issubclass(choice, StrEnum) and isinstance(item, str):
            return choice(item)
        if choice is float and (number := _number(item)) is not None:
            return number
        if choice is int and type(item) is int and abs(item) > LARGEST_WHOLE:
            raise ValueError("a whole number in the saved state is out of all bounds")
        if choice in {str, int, bool} and type(item) is choice:
            return item
    raise TypeError(f"{_kind(item)} does not fit in the saved state")


def _number(item: object) -> float | None:
    return None if item is None else optional_number(item)


def _kind(value: object) -> str:
    """Only what it is: the text of a deeply nested value cannot be made, and that of a large one is of no use."""
    return "nothing" if value is None else type(value).__name__
