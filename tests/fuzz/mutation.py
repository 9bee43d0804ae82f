"""Valid input with some damage: it gets deeper into a parser than noise does."""

import json
import os
from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st

_TIMES = int(os.environ.get("GPUWHYD_FUZZ_TIMES", "1"))


def examples(count: int) -> settings:
    """So many examples, the same ones each time; script/fuzz takes many times as many, and others each time."""
    return settings(max_examples=count * _TIMES, derandomize=_TIMES == 1)


HOSTILE_TEXTS = (
    "",
    " ",
    "\0",
    "\n",
    "a\nUid:\t0\t0\t0\t0",
    "\x1b[2J\x1b]0;owned\x07",
    "\u202egnp.exe",
    "\u2066\u2028\u2029\u0085",
    "\ud800",
    "\udcff\udc80",
    "\U000e0001\ufeff\u200b\ufff9",
    "日本語",
    "e" + "\u0301" * 40,
    "😀" * 3000,
    "x" * 4096,
    ") R 1 1",
    "=;,:/%%$()<>&'\"\\",
    "../../etc/shadow",
    "/opt/../../../etc/shadow",
    "-1",
    "1e999",
    "NaN",
)
"""What a process may call itself, and what may stand in a file that somebody else wrote."""


def nested(depth: int) -> object:
    value: object = 1
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


_HOSTILE_VALUES: tuple[object, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**52,
    2**53 + 1,
    2**63,
    -(2**63) - 1,
    2**64,
    10**30,
    10**400,
    -(10**400),
    0.0,
    -0.0,
    1e-320,
    1e15,
    -1e15,
    1e308,
    -1e308,
    float("nan"),
    float("inf"),
    float("-inf"),
    [],
    {},
    [None],
    [[]],
    [{}],
    {"": None},
    ["x", 1],
    nested(80),
    nested(500),
    *HOSTILE_TEXTS,
)
_AS_JSON = [json.dumps(value) for value in _HOSTILE_VALUES]


_NUMBERS = [
    text for text, value in zip(_AS_JSON, _HOSTILE_VALUES, strict=True) if isinstance(value, int | float)
]


def hostile_values(like: object = None) -> st.SearchStrategy[object]:
    """Values that JSON can hold and nobody expects; each time anew, so that a test may change them.

    Of the kind of `like` where that is a text or a number: those get further.
    """
    if isinstance(like, str):
        return st.sampled_from(HOSTILE_TEXTS)
    choices = _NUMBERS if isinstance(like, int | float) and not isinstance(like, bool) else _AS_JSON
    return st.integers(0, len(choices) - 1).map(lambda index: json.loads(choices[index]))


@st.composite
def damaged_bytes(
    draw: st.DrawFn, samples: Sequence[bytes], pieces: Sequence[bytes] = (), most: int = 5
) -> bytes:
    """One of the samples after up to `most` changes: bits, bytes, runs, numbers, `pieces`, parts of other samples."""
    data = bytearray(draw(st.sampled_from(list(samples))))
    for _ in range(draw(st.integers(0, most))):
        at = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 6)):
            case 0 if data:
                data[min(at, len(data) - 1)] ^= 1 << draw(st.integers(0, 7))
            case 1 if data:
                data[min(at, len(data) - 1)] = draw(st.sampled_from((0, 1, 0x20, 0x7F, 0x80, 0xFE, 0xFF)))
            case 2:
                del data[at : at + draw(st.integers(1, 40))]
            case 3:
                data[at:at] = draw(st.binary(min_size=1, max_size=12))
            case 4 if pieces:
                data[at:at] = draw(st.sampled_from(list(pieces)))
            case 5:
                data[at:at] = data[at : at + draw(st.integers(1, 60))]
            case _:
                other = draw(st.sampled_from(list(samples)))
                data[at:] = other[draw(st.integers(0, len(other))) :]
    return bytes(data)


@st.composite
def damaged_text(draw: st.DrawFn, samples: Sequence[str], pieces: Sequence[str] = (), most: int = 4) -> str:
    """One of the samples after up to `most` changes."""
    text = draw(st.sampled_from(list(samples)))
    for _ in range(draw(st.integers(0, most))):
        at = draw(st.integers(0, len(text)))
        end = draw(st.integers(at, min(len(text), at + 30)))
        match draw(st.integers(0, 3)):
            case 0:
                text = text[:at] + text[end:]
            case 1:
                text = text[:at] + draw(st.sampled_from([*pieces, *HOSTILE_TEXTS])) + text[end:]
            case 2:
                text = text[:at] + text[at:end] * draw(st.integers(2, 50)) + text[end:]
            case _:
                text = text[:at] + draw(st.text(st.characters(categories=None), max_size=4)) + text[end:]
    return text


@st.composite
def damaged_tree(draw: st.DrawFn, samples: Sequence[object], most: int = 3) -> object:
    """A tree of dicts and lists after up to `most` changes: values replaced, keys gone, added, renamed."""
    tree = json.loads(json.dumps(samples[draw(st.integers(0, len(samples) - 1))]))
    for _ in range(draw(st.integers(0, most))):
        found = places(tree)
        if not found:
            return draw(hostile_values())
        container, key = found[draw(st.integers(0, len(found) - 1))]
        match draw(st.integers(0, 7)):
            case 0 if isinstance(container, dict):
                del container[key]
            case 1 if isinstance(container, dict):
                container[draw(st.sampled_from(HOSTILE_TEXTS))] = container.pop(key)
            case 2 if isinstance(container, list):
                container.append(container[0])
            case 3:
                container[key] = draw(hostile_values())
            case _:
                container[key] = draw(hostile_values(like=container[key]))
    return tree


def places(tree: object) -> list[tuple[dict[object, object] | list[object], object]]:
    """Every value of the tree, as its table or list and its key there."""
    found: list[tuple[dict[object, object] | list[object], object]] = []
    waiting = [tree]
    while waiting:
        container = waiting.pop()
        if isinstance(container, dict):
            found += [(container, key) for key in container]
            waiting += container.values()
        elif isinstance(container, list):
            found += [(container, index) for index in range(len(container))]
            waiting += container
    return found
