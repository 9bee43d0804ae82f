"""The terminal that an answer is written for: its width, its colours, and text that can do no harm in it."""

import os
import shutil
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TextIO

# SGR codes of ECMA-48; only the eight basic colours, so that the user's own palette decides how they look.
_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_STEERING = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Categories of Unicode that steer instead of show: controls, bidirectional overrides, surrogates, line separators."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminal:
    """`columns` is None when the answer goes to a pipe or file: then nothing is wrapped, cut or coloured."""

    columns: int | None = None
    color: bool = False

    def paint(self, text: str, *styles: str) -> str:
        """`text` in these styles (`bold`, `dim`, `red`, `green`, `yellow`, `cyan`); unchanged without colour."""
        if not self.color or not text or not styles:
            return text
        return f"\x1b[{';'.join(_CODES[style] for style in styles)}m{text}\x1b[0m"


def terminal_of(stream: TextIO, color: str = "auto") -> Terminal:
    """What `stream` is. `color` is `auto`, `always` or `never`; `auto` respects NO_COLOR (https://no-color.org) and
    TERM=dumb. `always` colours a pipe too, but its width stays unlimited.
    """
    is_terminal = stream.isatty()
    wanted = color == "always" or (
        color == "auto"
        and is_terminal
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM") != "dumb"
    )
    return Terminal(columns=shutil.get_terminal_size().columns if is_terminal else None, color=wanted)


def printable(value: object) -> object:
    """The same dicts, lists and strings, with every character that could steer a terminal replaced by `?`.

    A process may call itself anything, escape sequences included; every text that is shown passes here.
    """
    if isinstance(value, str):
        if value.isascii() and value.isprintable():
            return value
        return "".join("?" if unicodedata.category(char) in _STEERING else char for char in value)
    if isinstance(value, Mapping):
        return {str(key): printable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [printable(item) for item in value]
    return value


def text_width(text: str) -> int:
    """Columns that `text` takes in a terminal: East Asian wide characters take two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(map(_char_width, text))


def _char_width(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in {"Mn", "Me"}:
        return 0
    return 2 if unicodedata.east_asian_width(char) in {"W", "F"} else 1


def cut(text: str, columns: int) -> str:
    """`text` in at most so many columns; `...` shows that something is left out, where there is room for it."""
    if text_width(text) <= columns:
        return text
    ending = "..." if columns > 6 else ""
    room = columns - len(ending)
    kept: list[str] = []
    for char in text:
        room -= _char_width(char)
        if room < 0:
            break
        kept.append(char)
    return "".join(kept) + ending


def pad(text: str, columns: int, *, right: bool = False) -> str:
    """`text` filled with blanks to so many columns; `right` puts it at the right end."""
    blanks = " " * max(0, columns - text_width(text))
    return blanks + text if right else text + blanks


def wrap(text: str, columns: int | None, indent: str = "", *, head: str = "") -> list[str]:
    """`head` and `text` in lines of at most so many columns, those after the first indented; one line when `columns`
    is None. `head` stays as it is.

    A word longer than a line stays whole: a unit name or spike id that was cut could not be copied.
    """
    if columns is None or text_width(head + text) <= columns:
        return [head + text]
    lines: list[str] = []
    line, is_empty = head, True
    for word in text.split():
        longer = line + word if is_empty else f"{line} {word}"
        if not is_empty and text_width(longer) > columns:
            lines.append(line)
            longer = indent + word
        line, is_empty = longer, False
    return [*lines, line]


def wrap_below(
    head: str, text: str, terminal: Terminal, indent: str, styles: tuple[str, ...] = ("dim",)
) -> list[str]:
    """As `wrap`, with `head` in these styles."""
    first, *rest = wrap(text, terminal.columns, indent, head=head)
    return [terminal.paint(head, *styles) + first[len(head) :], *rest]
