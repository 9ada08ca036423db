"""GPU hours: what a month's budget refuses, and how `leaderboard cost` groups them."""

from datetime import UTC, datetime

import pytest
from rich.console import Console

from cli.cost import By, grouped
from cli.listing import Column, rendered
from evaluation.errors import Fault
from evaluation.lifecycle.gpu_budget import GpuBudget, month_of, over_budget
from evaluation.lifecycle.ledger_entry import LedgerEntry
from evaluation.lifecycle.outcome import OutcomeStatus
from evaluation.pair.usage import AttemptUsage, Price, Seconds
from evaluation.submission.model import Submission, SubmissionStatus, parse_phase
from tests.ledger_entries import ledger_entry

NOW = datetime(2026, 12, 15, 8, tzinfo=UTC)
PHASE = parse_phase("leaderboard-20-SENSORS")
SUBMISSION = Submission(9, 1, 2, PHASE, 3, "Rockets", SubmissionStatus.RUNNING, "agent:1", None, None)


def used(submission: int, *attempts: tuple[datetime, float], team: int = 3, **changes: object) -> LedgerEntry:
    """Attempts by their begin and GPU hours, half of which are the agent's retries."""
    usage = tuple(
        AttemptUsage(number, began, Seconds(waiting=60, driving=1800 * hours, retries_agent=1800 * hours))
        for number, (began, hours) in enumerate(attempts, 1)
    )
    return ledger_entry(submission, team=team, usage=usage, **changes)


NOVEMBER, DECEMBER = datetime(2026, 11, 30, 23, 59, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)
ENTRIES = [
    used(1, (NOVEMBER, 50), (DECEMBER, 6)),
    used(2, (DECEMBER, 4), phase="leaderboard-20-MAP"),
    used(3, (DECEMBER, 7), team=4, team_name="Others"),
]


@pytest.mark.parametrize(
    ("budget", "who", "fault"),
    [
        (GpuBudget(team_hours=10), "the team Rockets has used 10.0 of the 10 GPU hours", Fault.TEAM),
        (GpuBudget(phase_hours=12.5), "the phase leaderboard-20-SENSORS has used 13.0 of the 12.5 GPU hours",
         Fault.INFRASTRUCTURE),
        (GpuBudget(team_hours=0), "the team Rockets has used 10.0 of the 0 GPU hours", Fault.TEAM),
    ],
)  # fmt: skip
def test_what_is_beyond_its_month_is_refused_until_the_next(budget: GpuBudget, who: str, fault: Fault) -> None:
    outcome = over_budget(SUBMISSION, ENTRIES, budget, NOW)

    assert outcome is not None
    assert (outcome.ending, outcome.fault) == (OutcomeStatus.FAILED, fault)
    assert f"{who} that it has in December 2026 on leaderboard-20. From 2027-01-01 00:00 UTC on" in outcome.sentence


@pytest.mark.parametrize("budget", [GpuBudget(), GpuBudget(team_hours=10.1, phase_hours=13.1)])
def test_what_is_within_goes_on(budget: GpuBudget) -> None:
    assert over_budget(SUBMISSION, ENTRIES, budget, NOW) is None


def test_a_month_is_the_calendars() -> None:
    assert month_of(datetime(2026, 2, 28, 23, tzinfo=UTC)) == (
        datetime(2026, 2, 1, tzinfo=UTC),
        datetime(2026, 3, 1, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("team", [("Rockets", 60, 2), ("Others", 7, 1)]),
        ("phase", [("leaderboard-20-SENSORS", 63, 2), ("leaderboard-20-MAP", 4, 1)]),
        ("month", [("2026-11", 50, 1), ("2026-12", 17, 3)]),
        ("submission", [("1", 56, 1), ("3", 7, 1), ("2", 4, 1)]),
    ],
)
def test_cost_is_grouped(by: By, expected: list[tuple[str, float, int]]) -> None:
    groups = grouped(ENTRIES, {"leaderboard-20": Price(2, "USD")}, by)

    assert [(group.name, group.seconds.gpu / 3600, len(group.submissions)) for group in groups] == expected
    assert [group.money["USD"] for group in groups] == [2 * hours for _, hours, _ in expected]


def test_the_parts_stand_in_hours_and_without_a_price_there_is_no_money() -> None:
    [group] = grouped([used(1, (DECEMBER, 6))], {}, "team")

    assert group.line.cells == ("Rockets", "1", "6.00", "3.00", "0.00", "3.00", "0.00", "0.02", "-")
    assert group.described()["retries_agent_seconds"] == 10800


def test_the_table_fits_eighty_columns() -> None:
    from cli.cost import _COLUMNS  # the one that the command prints

    lines = [group.line for group in grouped(ENTRIES, {"leaderboard-20": Price(1000, "USD")}, "team")]
    shown = rendered(Console(width=80), (Column("team", folds=True), *_COLUMNS), lines)

    assert max(len(line.plain) for line in shown) <= 80
    assert "60000.00 USD" in "".join(line.plain for line in shown)
