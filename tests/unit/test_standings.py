"""The standings' order and page; tests/contract/test_leaderboard_order.py compares them with EvalAI's."""

from datetime import UTC, datetime, timedelta

import pytest

from cli.standings import first_difference
from evalai_api.fields import LeaderboardRow, LeaderboardSchema, SplitRow
from evaluation.lifecycle.ledger_entry import LedgerEntry
from evaluation.report_page.standings_page import render_standings
from evaluation.standings import Rank, rank_of, standings
from tests.ledger_entries import ledger_entry

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
PHASE = "leaderboard-20-SENSORS"


def scored(submission: int, team: str, score: float, **changes: object) -> LedgerEntry:
    values = {"team_name": team, "ended_at": NOON + timedelta(minutes=submission), **changes}
    return ledger_entry(submission, metrics={"Driving score": score, "Route completion": 90.0}, **values)


ENTRIES = [
    scored(1, "A", 50),
    scored(2, "A", 70),
    scored(3, "B", 70),
    scored(4, "C", 80),
    scored(5, "C", 60),
    scored(6, "D", 99, status="failed"),
    scored(7, "D", 99, phase="leaderboard-20-MAP"),
    scored(8, "D", 99, status="held"),
]


def test_each_team_stands_once_by_its_best_and_the_later_of_equals_is_first() -> None:
    rows = standings(ENTRIES, PHASE)
    assert [(row.rank, row.team, row.submission, row.score) for row in rows] == [
        (1, "C", 4, 80),
        (2, "B", 3, 70),
        (3, "A", 2, 70),
    ]
    assert standings(ENTRIES, "another") == []


def test_a_rank_is_the_teams_by_its_best_submission() -> None:
    assert rank_of(ENTRIES, ENTRIES[4]) == Rank(1, 3, 4)
    assert rank_of(ENTRIES, ENTRIES[5]) is None


def test_the_page_has_every_team_and_escapes_what_teams_write() -> None:
    hostile = scored(9, "<script>alert(1)</script>\u202e", 85, remarks="see s3://bucket/9/ (up to 5 points)")
    page = render_standings({PHASE: standings([*ENTRIES, hostile], PHASE), "leaderboard-10-MAP": []}, NOON).decode()
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\ufffd" in page
    assert "s3://" not in page
    assert page.index("85.000") < page.index("80.000") < page.index("70.000")
    assert "No submission has finished yet." in page
    assert "Content-Security-Policy" in page


LABELS = ("Driving score", "Route completion")
SPLIT = SplitRow(id=1, challenge_phase=2, leaderboard_schema=LeaderboardSchema(labels=LABELS))


def shown(team: str, *result: float | str) -> LeaderboardRow:
    return LeaderboardRow(submission__participant_team__team_name=team, result=result)


@pytest.mark.parametrize(
    ("rows", "difference"),
    [
        ([shown("C", 80, 90), shown("B", 70, 90), shown("A", 70, 90)], ""),
        ([shown("C", 80, 90), shown("A", 70, 90)], "rank 2 is B by the ledger, A at EvalAI."),
        ([shown("C", 80, 90), shown("B", 70, 90)], "rank 3 is A by the ledger, no team at EvalAI."),
        ([shown("C", 80, "#")], "rank 1, C: Route completion is 90.0 by the ledger, # at EvalAI."),
    ],
)
def test_the_first_difference_from_evalai_is_named(rows: list[LeaderboardRow], difference: str) -> None:
    assert first_difference(standings(ENTRIES, PHASE), rows, SPLIT) == difference
