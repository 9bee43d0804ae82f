"""JSON tables -> the model's frozen values, every type checked. Made once for each class, because replay is to be quick."""

import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from enum import StrEnum
from typing import Any, TypeVar

T = TypeVar("T")

Check = Callable[[Any], Any]
"""A JSON value -> the value of a field. Raises WrongFieldError."""

LARGEST_NUMBER = 1e15
"""Sums and products of larger ones could become infinite; also keeps NaN and infinities out."""
LARGEST_WHOLE = 2**53
"""Larger integers are not the same in every JSON parser (RFC 8259, section 6)."""


class WrongFieldError(ValueError):
    """What is wrong with a value: `fans: percent must be a number, not "30 %"`."""


def decoder(kind: type[T], **own: Check) -> Callable[[object], T]:
    """How to make a `kind` from its table; `own` overrides how some fields are read. Fields with a default may be absent."""
    hints = typing.get_type_hints(kind)
    checks: dict[str, Check] = {
        field.name: own.get(field.name) or check_for(hints[field.name])
        for field in fields(kind)  # type: ignore[arg-type]  # every T here is a dataclass
    }
    required = tuple(
        field.name
        for field in fields(kind)  # type: ignore[arg-type]  # as above
        if field.default is MISSING and field.default_factory is MISSING
    )

    def decode(table: object) -> T:
        if not isinstance(table, dict):
            raise WrongFieldError(f"must be a table, not {show(table)}")
        values, name = {}, ""
        try:
            for name, item in table.items():
                values[name] = checks[name](item)
        except KeyError:
            raise WrongFieldError(f"{name[:40]!r} is not known; known are {', '.join(checks)}") from None
        except WrongFieldError as error:
            raise WrongFieldError(f"{name}: {error}") from None
        for name in required:
            if name not in values:
                raise WrongFieldError(f"{name} is missing")
        return kind(**values)

    return decode


def check_for(hint: Any) -> Check:
    """The check for a type hint of the model: numbers, strings, booleans, enums, dataclasses, tuples and unions of them."""
    origin = typing.get_origin(hint)
    if origin is types.UnionType:
        choices = typing.get_args(hint)
        present = [check_for(choice) for choice in choices if choice is not types.NoneType]
        return _optional(_one_of(present), optional=types.NoneType in choices)
    if origin is tuple:
        return many(check_for(typing.get_args(hint)[0]))
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return _enum(hint)
    simple = _SIMPLE.get(hint)
    return simple if simple is not None else decoder(hint)


def number(item: Any) -> float:
    if (type(item) is float or type(item) is int) and -LARGEST_NUMBER <= item <= LARGEST_NUMBER:
        return float(item)
    raise WrongFieldError(f"must be a number, not {show(item)}")


def optional_number(item: Any) -> float | None:
    """Most fields are one: without a call more."""
    if type(item) is float and -LARGEST_NUMBER <= item <= LARGEST_NUMBER:
        return item
    return None if item is None else number(item)


def whole(item: Any) -> int:
    if type(item) is int and -LARGEST_WHOLE <= item <= LARGEST_WHOLE:
        return item
    raise WrongFieldError(f"must be a whole number, not {show(item)}")


def text(item: Any) -> str:
    if type(item) is str:
        return item
    raise WrongFieldError(f"must be a string, not {show(item)}")


def boolean(item: Any) -> bool:
    if type(item) is bool:
        return item
    raise WrongFieldError(f"must be true or false, not {show(item)}")


def many(check: Check) -> Check:
    def read(item: Any) -> tuple[Any, ...]:
        if type(item) is not list:
            raise WrongFieldError(f"must be an array, not {show(item)}")
        return tuple([check(one) for one in item])

    return read


def show(item: object) -> str:
    """A JSON value in an error: short, and on one line."""
    if isinstance(item, Mapping):
        return "a table"
    if isinstance(item, list):
        return "an array"
    if item is None:
        return "null"
    said = ascii(item)
    return said if len(said) <= 40 else f"{said[:37]}..."


_SIMPLE: dict[Any, Check] = {float: number, int: whole, str: text, bool: boolean}


def _optional(check: Check, *, optional: bool) -> Check:
    if not optional:
        return check
    if check is number:
        return optional_number
    return lambda item: None if item is None else check(item)


def _one_of(checks: list[Check]) -> Check:
    if len(checks) == 1:
        return checks[0]

    def read(item: Any) -> Any:
        for check in checks:
            try:
                return check(item)
            except WrongFieldError:  # another choice may fit
                continue
        raise WrongFieldError(f"{show(item)} does not fit")

    return read


def _enum(kind: type[StrEnum]) -> Check:
    members: dict[object, StrEnum] = {member.value: member for member in kind}

    def read(item: Any) -> StrEnum:
        member = members.get(item) if type(item) is str else None
        if member is None:
            raise WrongFieldError(f"must be one of {', '.join(map(str, members))}, not {show(item)}")
        return member

    return read
