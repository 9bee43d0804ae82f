"""A table in as many columns as the terminal has: texts are shortened first, then the least important columns go."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gpuwhyd.client.terminal import Terminal, cut, pad, text_width

_GAP = "  "


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    title: str
    right: bool = False
    shrinks_to: int | None = None
    """The fewest columns its texts may be cut to; None: never cut."""
    drop: int = 0
    """0 stays always; of the others the highest goes first when there is no room."""


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
    widths = {i: natural[i] for i in shown}
    while room is not None and widths:
        excess = sum(widths.values()) + len(_GAP) * (len(widths) - 1) - room
        if excess <= 0:
            break
        spare = {
            i: widths[i] - least
            for i in widths
            if (least := columns[i].shrinks_to) is not None and widths[i] > least
        }
        if sum(spare.values()) >= excess:
            for i, available in sorted(spare.items(), key=lambda item: -item[1]):
                taken = min(available, excess)
                widths[i] -= taken
                excess -= taken
            break
        optional = [i for i in widths if columns[i].drop]
        if optional:
            del widths[max(optional, key=lambda i: columns[i].drop)]
            continue
        for i, available in spare.items():
            widths[i] -= available
        break
    return widths


def _line(columns: Sequence[Column], widths: dict[int, int], texts: Sequence[str], indent: str) -> str:
    cells = [pad(cut(texts[i], width), width, right=columns[i].right) for i, width in widths.items()]
    return (indent + _GAP.join(cells)).rstrip()
