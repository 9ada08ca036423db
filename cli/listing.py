"""Tables for a terminal of any width: what is too wide is folded, never cut, and long texts stand below their row."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

_GAP = 2
_INDENT = 4  # of a text below its row
_LEAST = 7  # columns of a cell that is folded
_BESIDE = 48  # with so much room left, the texts are a last column


@dataclass(frozen=True)
class Column:
    """`folds`: its cells may be folded where the terminal is narrow; the others have to fit."""

    heading: str
    right: bool = False
    folds: bool = False


@dataclass(frozen=True)
class Line:
    """A row: its cells, a text of any length about it, and the colour of one of its cells."""

    cells: Sequence[str]
    text: str = ""
    styles: Sequence[str] = ()  # by cell; "" for none


def show_listing(console: Console, columns: Sequence[Column], lines: Sequence[Line], text_heading: str = "") -> None:
    """Print the table in the console's width."""
    for line in rendered(console, columns, lines, text_heading):
        console.print(line, soft_wrap=True)


def rendered(console: Console, columns: Sequence[Column], lines: Sequence[Line], text_heading: str = "") -> list[Text]:
    """The table as lines that are at most as wide as the console, but for a cell that may not be folded."""
    widths = _widths(columns, lines, console.width)
    used = sum(widths) + _GAP * len(widths)
    has_texts = any(line.text for line in lines)
    beside = has_texts and console.width - used >= _BESIDE
    shown = _row(console, columns, widths, Line([column.heading for column in columns]))
    if beside:
        shown[0].append(" " * (used - cell_len(shown[0].plain)) + text_heading)
    for heading in shown:
        heading.stylize("bold")
    for line in lines:
        cells = _row(console, columns, widths, line)
        if beside:
            shown += _beside(cells, _folded(console, line.text, console.width - used), used)
        else:
            texts = _folded(console, line.text, console.width - _INDENT) if line.text else []
            shown += cells + [Text(" " * _INDENT).append_text(text) for text in texts]
    for each in shown:
        each.rstrip()
    return shown


def show_values(console: Console, title: str, values: Sequence[tuple[str, str]]) -> None:
    """A name and a value on each line, long texts folded beside their names; an address stays whole."""
    if title:
        console.print(Text(title, style="bold"), soft_wrap=True)
    width = max((cell_len(name) for name, _ in values), default=0)
    for name, value in values:
        room = max(_LEAST, console.width - width - 2 * _GAP)
        texts = _folded(console, value, room) if " " in value else [Text(value)]
        for position, text in enumerate(texts):
            label = Text("  " + (name if position == 0 else "").ljust(width) + " " * _GAP, style="dim")
            label.append_text(text)
            console.print(label, soft_wrap=True)


def print_json(value: object) -> None:
    """As every command prints it."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def _widths(columns: Sequence[Column], lines: Sequence[Line], width: int) -> list[int]:
    """Of each column: its widest cell, less where the whole is too wide and the column may be folded."""
    widths = [
        max([cell_len(column.heading), *(cell_len(line.cells[at]) for line in lines)])
        for at, column in enumerate(columns)
    ]
    while sum(widths) + _GAP * (len(widths) - 1) > width:
        foldable = [at for at, column in enumerate(columns) if column.folds and widths[at] > _LEAST]
        if not foldable:
            break
        widths[max(foldable, key=lambda at: widths[at])] -= 1
    return widths


def _row(console: Console, columns: Sequence[Column], widths: Sequence[int], line: Line) -> list[Text]:
    """The lines of one row."""
    cells = [_folded(console, cell, width) or [Text("")] for cell, width in zip(line.cells, widths, strict=True)]
    styles = [*line.styles, *[""] * (len(cells) - len(line.styles))]
    rows = []
    for at in range(max(map(len, cells))):
        row = Text()
        for column, width, parts, style in zip(columns, widths, cells, styles, strict=True):
            part = parts[at].plain if at < len(parts) else ""
            space = " " * max(0, width - cell_len(part))
            row.append(space if column.right else "")
            row.append(part, style=style or None)
            row.append(("" if column.right else space) + " " * _GAP)
        rows.append(row)
    return rows


def _beside(cells: list[Text], texts: list[Text], used: int) -> list[Text]:
    rows = []
    for at in range(max(len(cells), len(texts))):
        row = cells[at] if at < len(cells) else Text(" " * used)
        if at < len(texts):
            row.append_text(texts[at])
        rows.append(row)
    return rows


def _folded(console: Console, text: str, width: int) -> list[Text]:
    """By words, and within a word that is too long for a line."""
    parts = [part for line in text.splitlines() for part in Text(line).wrap(console, max(1, width), overflow="fold")]
    for part in parts:
        part.rstrip()
    return parts
