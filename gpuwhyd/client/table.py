"""A table in as many columns as the terminal has: texts are shortened first, then columns go for which there is no room."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gpuwhyd.client.terminal import Terminal, cut, pad, text_width

_GAP = "  "
_LEAST_WIDTH = 6
"""Less of a name says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    title: str
    right: bool = False
    shrinks_to: int | None = None
    """Its texts may be cut to so many columns before anything is left out, and further when nothing more can be; None:
    never cut.
    """
    drop: int = 0
    """0 stays always; of the others, the lower one is first given room where there is some."""


def table(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    terminal: Terminal,
    *,
    indent: str = "",
    row_style: Callable[[int], tuple[str, ...]] = lambda _row: (),
) -> list[str]:
    """The lines of the table, its titles first; columns that are `-` or empty in every row are left out.

    `row_style` gives the styles of a row by its index.
    """
    shown = [i for i in range(len(columns)) if any(row[i] not in {"", "-"} for row in rows)]
    natural = [
        max(text_width(text) for text in (column.title, *(row[i] for row in rows)))
        for i, column in enumerate(columns)
    ]
    widths = _fitted(
        columns, shown, natural, None if terminal.columns is None else terminal.columns - len(indent)
    )
    lines = [_line(columns, widths, texts, indent) for texts in ([column.title for column in columns], *rows)]
    if terminal.columns is not None:
        lines = [cut(line, terminal.columns) for line in lines]
    return [
        terminal.paint(lines[0], "dim"),
        *(terminal.paint(line, *row_style(i)) for i, line in enumerate(lines[1:])),
    ]


def _fitted(
    columns: Sequence[Column], shown: Sequence[int], natural: Sequence[int], room: int | None
) -> dict[int, int]:
    """Which columns are shown, and how wide."""
    if room is None:
        return {i: natural[i] for i in shown}
    chosen = [i for i in shown if not columns[i].drop]
    for i in sorted((i for i in shown if columns[i].drop), key=lambda i: columns[i].drop):
        if _shrunk_to(room, columns, sorted([*chosen, i]), natural) is not None:
            chosen.append(i)
    chosen.sort()
    widths = _shrunk_to(room, columns, chosen, natural)
    if widths is None:  # nothing more can be left out
        widths = {i: natural[i] for i in chosen}
        least = {i: None if columns[i].shrinks_to is None else _LEAST_WIDTH for i in chosen}
        _shrunk(widths, least, min(_excess(widths, room), _spare(widths, least)))
    return widths


def _shrunk_to(
    room: int, columns: Sequence[Column], chosen: Sequence[int], natural: Sequence[int]
) -> dict[int, int] | None:
    """These columns with their texts cut as far as they may be; `None` where that does not do."""
    widths = {i: natural[i] for i in chosen}
    least = {i: columns[i].shrinks_to for i in chosen}
    return widths if _shrunk(widths, least, _excess(widths, room)) else None


def _excess(widths: dict[int, int], room: int) -> int:
    return sum(widths.values()) + len(_GAP) * (len(widths) - 1) - room


def _shrunk(widths: dict[int, int], least: dict[int, int | None], excess: int) -> bool:
    """Takes `excess` from the widest columns, none below its least width; False, and nothing is taken, if it cannot."""
    if _spare(widths, least) < excess:
        return False
    for _ in range(excess):
        widest = max((i for i in widths if _has_spare(widths[i], least[i])), key=lambda i: widths[i])
        widths[widest] -= 1
    return True


def _spare(widths: dict[int, int], least: dict[int, int | None]) -> int:
    return sum(max(0, width - (width if (low := least[i]) is None else low)) for i, width in widths.items())


def _has_spare(width: int, least: int | None) -> bool:
    return least is not None and width > least


def _line(columns: Sequence[Column], widths: dict[int, int], texts: Sequence[str], indent: str) -> str:
    cells = [pad(cut(texts[i], width), width, right=columns[i].right) for i, width in widths.items()]
    return (indent + _GAP.join(cells)).rstrip()
