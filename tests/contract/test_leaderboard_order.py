"""The standings from the ledger are EvalAI's leaderboard: same teams, same order, same figures."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from cli.standings import first_difference
from evaluation.lifecycle.ledger_entry import LedgerEntry
from evaluation.standings import standings
from evaluation.submission.model import SubmissionStatus
from tests.contract.evalai_world import PHASE, World, report
from tests.ledger_entries import ledger_entry


def finished(world: World, team: int, score: float) -> LedgerEntry:
    """Reported to the server, and as the ledger has it."""
    row = world.add(SubmissionStatus.RUNNING, team=team)
    metrics = {"Driving score": score, "Route completion": 80.0}
    result = [{"split": "leaderboard", "show_to_participant": True, "accuracies": metrics}]
    world.client().report(report(row, SubmissionStatus.FINISHED, result=result))
    ended = row.submitted_at + timedelta(minutes=row.pk)
    return ledger_entry(
        row.pk, team=team, team_name=row.team.name, phase=PHASE.codename, metrics=metrics, ended_at=ended
    )


@pytest.fixture
def world(evalai_standin: Callable[[], World]) -> World:
    return evalai_standin()


def test_best_of_each_team_ties_and_pages_are_as_evalai_has_them(world: World) -> None:
    entries = [finished(world, team, 50 + team % 7 / 3) for team in range(1, 102)]
    entries += [finished(world, 5, 99.123456789012345), finished(world, 5, 1), finished(world, 6, 99.123456789012345)]
    [split, _] = world.client().leaderboards(1)

    shown = world.client().leaderboard(split.pk)

    rows = standings(entries, PHASE.codename)
    assert [row.team for row in rows[:2]] == ["Team 6", "Team 5"]  # the later of equals
    assert len(shown) == len(rows) == 101
    assert first_difference(rows, shown, split) == ""
