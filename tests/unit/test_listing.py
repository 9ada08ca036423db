"""Tables in narrow and wide terminals: nothing is cut."""

from io import StringIO

import pytest
from rich.console import Console

from cli.listing import Column, Line, rendered, show_listing, show_values

COLUMNS = (Column("id", right=True), Column("phase", folds=True), Column("status"))
TEXT = "Quarantined and scored 0, because the simulator crashed on them again and again: RouteScenario_5_rep0."
LINES = [Line(("7", "leaderboard-20-SENSORS", "finished"), TEXT), Line(("12", "leaderboard-10-MAP", "simulating"))]


def lines_of(width: int, *lines: Line) -> list[str]:
    console = Console(width=width, file=StringIO())
    return [line.plain for line in rendered(console, COLUMNS, lines or LINES, "what")]


@pytest.mark.parametrize("width", [30, 40, 60, 80, 100, 160, 300])
def test_no_line_is_wider_than_the_terminal_and_no_word_is_lost(width: int) -> None:
    shown = lines_of(width)

    assert max(map(len, shown)) <= width
    joined = "".join("".join(shown).split())
    for words in ("simulating", "finished", "12", *TEXT.split()):
        assert words in joined


def test_a_narrow_terminal_has_the_text_below_and_a_wide_one_beside() -> None:
    assert lines_of(60)[:3] == [
        "id  phase                   status",
        " 7  leaderboard-20-SENSORS  finished",
        "    Quarantined and scored 0, because the simulator crashed",
    ]
    assert lines_of(160)[1] == f" 7  leaderboard-20-SENSORS  finished    {TEXT}"


def test_wide_characters_and_markup_are_text() -> None:
    shown = lines_of(40, Line(("1", "日本 [bold]x", "failed"), "[red]no[/] & <b>"))
    assert shown[1] == " 1  日本 [bold]x  failed"
    assert shown[2] == "    [red]no[/] & <b>"


def test_values_are_folded_beside_their_names() -> None:
    output = StringIO()
    show_values(
        Console(width=30, file=output),
        "Title",
        [("waits for", "eleven routes more, 9 are driven"), ("x", "http://127.0.0.1:4200/runs/flow-run/7")],
    )
    assert output.getvalue().splitlines() == [
        "Title",
        "  waits for  eleven routes",
        "             more, 9 are",
        "             driven",
        "  x          http://127.0.0.1:4200/runs/flow-run/7",
    ]


def test_an_empty_table_is_its_heading() -> None:
    output = StringIO()
    show_listing(Console(width=80, file=output), COLUMNS, [])
    assert output.getvalue() == "id  phase  status\n"
