"""Values of the model as dicts, lists, strings and numbers."""

import dataclasses
from collections.abc import Mapping
from enum import StrEnum


def as_plain(value: object, *, keep_none: bool = False) -> object:
    """A value as dicts, lists, strings and numbers under the model's field names.

    What is not known is left out, or `None` with `keep_none` (JSON). Enums become their strings. Properties such as
    `fan_percent` of a reading are not fields; whoever shows a reading adds them.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = (
            (f.name, as_plain(getattr(value, f.name), keep_none=keep_none)) for f in dataclasses.fields(value)
        )
        return {name: plain for name, plain in items if keep_none or plain is not None}
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, Mapping):
        plains = ((str(key), as_plain(item, keep_none=keep_none)) for key, item in value.items())
        return {key: plain for key, plain in plains if keep_none or plain is not None}
    if isinstance(value, tuple | list | frozenset | set):
        return [as_plain(item, keep_none=keep_none) for item in value]
    return value
