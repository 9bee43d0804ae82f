"""Values: plain Python on our side, D-Bus types on the wire.

The rest of gpuwhyd hands over dicts, lists, texts and numbers and gets the same back; no other layer sees a Variant.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from gpuwhyd.bus.library import Variant
from gpuwhyd.bus.signature import WireType, parse

_RANGES = {
    "y": (0, 2**8 - 1),
    "n": (-(2**15), 2**15 - 1),
    "q": (0, 2**16 - 1),
    "i": (-(2**31), 2**31 - 1),
    "u": (0, 2**32 - 1),
    "x": (-(2**63), 2**63 - 1),
    "t": (0, 2**64 - 1),
}

# A bus hangs up on who sends more than 64 containers in each other, variants counted (specification, "Valid
# Signatures"). A level of ours has at most four (aa{sv} in a variant); GetManagedObjects has six around them.
_DEEPEST_VARIANTS = 14

# Texts that are arguments of their own, such as the XML of Introspect, may be this long and have lines.
_ARGUMENT_LIMIT = 1 << 20

_SURROGATES = re.compile("[\ud800-\udfff]")
# Controls (C0, C1), line and paragraph separators, and the marks that reverse what a terminal shows.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_CONTROLS_BUT_LINES = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_OBJECT_PATH = re.compile(r"/|(/[A-Za-z0-9_]+)+")


class ObjectPath(str):
    """A text that goes over the bus as an object path."""

    __slots__ = ()


def clean_text(text: str, limit: int = 4096) -> str:
    """`text` as it may be shown and sent: valid UTF-8, one line, no controls, at most `limit` characters.

    A process names itself: NUL makes the bus hang up on us, a lone surrogate (undecodable bytes of an argument list)
    cannot be encoded, an escape sequence rewrites the reader's terminal.
    """
    return _cleaned(text, limit, _CONTROLS)


def _cleaned(text: str, limit: int, controls: re.Pattern[str]) -> str:
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    if not text.isprintable():
        text = controls.sub(" ", _SURROGATES.sub("\ufffd", text))
    return str(text)


def plain(value: object) -> object:
    """A value from the bus without its Variants; arrays and structs alike as lists, byte arrays as bytes."""
    if isinstance(value, Variant):
        return plain(value.value)
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bytearray):
        return bytes(value)
    return value


def dict_body(plain: Mapping[str, object]) -> object:
    """A body slot of signature `a{sv}` from plain values.

    None is left out, keys and texts are cleaned. bool is b, int is x (t or d where that is too small), float is d, str
    is s, ObjectPath is o, a list of texts is as, of mappings aa{sv}, of object paths ao, any other av, an empty one as,
    a mapping a{sv}. TypeError for anything else, and for what is nested deeper than a bus takes: a bug of the caller.
    """
    return {clean_text(key): _variant(value, 0) for key, value in plain.items() if value is not None}


def typed(signature: str, value: object) -> object:
    """A plain value for a slot of type v or a{sv} that goes over the bus as exactly this type, such as `a{ss}`."""
    (type_,) = parse(signature)
    return Variant(signature, _value(type_, value, 0))


def body_of(signature: str, values: Sequence[object]) -> list[Any]:
    """The library's values for a body of `signature`, from plain ones. Numbers are clamped to what their type holds.

    TypeError when number or kind of the values do not fit the signature: a bug of the caller.
    """
    types = parse(signature)
    if len(types) != len(values):
        raise TypeError(f"signature '{signature}' with {len(values)} values")
    return [
        _cleaned(value, _ARGUMENT_LIMIT, _CONTROLS_BUT_LINES)
        if type_.code == "s" and isinstance(value, str)
        else _value(type_, value, 0)
        for type_, value in zip(types, values, strict=True)
    ]


def _value(type_: WireType, value: object, depth: int) -> Any:
    """`depth`: how many variants of ours this lies in."""
    code = type_.code
    if code == "v":
        return _variant(value, depth)
    if code == "s" and isinstance(value, str):
        return clean_text(value)
    if code == "o" and isinstance(value, str) and _OBJECT_PATH.fullmatch(value):
        return str(value)
    if code == "g" and isinstance(value, str):
        return str(value)
    if code == "b" and isinstance(value, bool):
        return value
    if code == "d" and isinstance(value, int | float) and not isinstance(value, bool):
        return _double(value)
    if code in _RANGES and isinstance(value, int) and not isinstance(value, bool):
        low, high = _RANGES[code]
        return min(max(int(value), low), high)
    if code == "(" and isinstance(value, list | tuple) and len(value) == len(type_.children):
        return [_value(child, item, depth) for child, item in zip(type_.children, value, strict=True)]
    if code == "a":
        return _array(type_.children[0], value, depth)
    raise TypeError(f"{type(value).__name__} {value!r:.100} cannot be sent as D-Bus type '{type_.text}'")


def _array(element: WireType, value: object, depth: int) -> Any:
    if element.code == "{" and isinstance(value, Mapping):
        key_type, value_type = element.children
        return {
            _value(key_type, key, depth): _value(value_type, item, depth)
            for key, item in value.items()
            if item is not None or value_type.code != "v"
        }
    if element.code == "y" and isinstance(value, bytes | bytearray):
        return bytes(value)
    if element.code not in "{y" and isinstance(value, list | tuple):
        return [_value(element, item, depth) for item in value]
    raise TypeError(f"{type(value).__name__} {value!r:.100} cannot be sent as D-Bus type 'a{element.text}'")


def _double(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _variant(value: object, depth: int) -> Any:
    if isinstance(value, Variant):
        return value
    if depth == _DEEPEST_VARIANTS:
        raise TypeError("a value nested too deeply cannot be sent over D-Bus")
    signature = _signature_of(value)
    if signature == "av":
        assert isinstance(value, list | tuple)
        value = [item for item in value if item is not None]
    return Variant(signature, _value(parse(signature)[0], value, depth + 1))


def _signature_of(value: object) -> str:
    match value:
        case bool():
            return "b"
        case int():
            return next((code for code in "xt" if _RANGES[code][0] <= value <= _RANGES[code][1]), "d")
        case float():
            return "d"
        case ObjectPath():
            return "o"
        case str():
            return "s"
        case Mapping():
            return "a{sv}"
        case list() | tuple():
            return _list_signature(value)
        case _:
            raise TypeError(f"{type(value).__name__} {value!r:.100} has no D-Bus type here")


def _list_signature(items: Sequence[object]) -> str:
    if all(isinstance(item, Mapping) for item in items) and items:
        return "aa{sv}"
    if all(isinstance(item, ObjectPath) for item in items) and items:
        return "ao"
    return "as" if all(isinstance(item, str) for item in items) else "av"
