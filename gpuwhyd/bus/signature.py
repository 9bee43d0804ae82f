"""D-Bus type signatures, read without the library."""

import functools
from dataclasses import dataclass

LONGEST_BYTES = 255  # specification: "The maximum length of a signature is 255"
_DEEPEST_NESTING = 64  # specification: 32 arrays and 32 structs
_BASIC = "ybnqiuxtdsogh"


class SignatureError(ValueError):
    """This is no signature."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WireType:
    """One complete type: `code` is its first character, `text` all of it; an array has one child, a dict entry two."""

    code: str
    text: str
    children: tuple["WireType", ...] = ()


@functools.lru_cache(maxsize=128)
def parse(signature: str) -> tuple[WireType, ...]:
    """The complete types of `signature`. SignatureError when it is none."""
    if len(signature) > LONGEST_BYTES:
        raise SignatureError(f"a signature of {len(signature)} characters")
    types = []
    position = 0
    while position < len(signature):
        type_ = _parse_one(signature, position, 0)
        types.append(type_)
        position += len(type_.text)
    return tuple(types)


def _parse_one(signature: str, start: int, depth: int, *, in_array: bool = False) -> WireType:
    code = signature[start : start + 1]
    if not code or depth > _DEEPEST_NESTING:
        raise SignatureError(f"'{signature}' ends too early or is too deep")
    if code in _BASIC or code == "v":
        return WireType(code=code, text=code)
    if code == "a":
        element = _parse_one(signature, start + 1, depth + 1, in_array=True)
        return WireType(code=code, text="a" + element.text, children=(element,))
    if code not in "({" or (code == "{" and not in_array):
        raise SignatureError(f"'{code}' in '{signature}' begins no type there")
    closing = ")" if code == "(" else "}"
    children: list[WireType] = []
    position = start + 1
    while signature[position : position + 1] != closing:
        child = _parse_one(signature, position, depth + 1)
        children.append(child)
        position += len(child.text)
    if not children or (code == "{" and (len(children) != 2 or children[0].code not in _BASIC)):
        raise SignatureError(f"'{signature}' has an empty struct or a wrong dict entry")
    return WireType(code=code, text=signature[start : position + 1], children=tuple(children))
