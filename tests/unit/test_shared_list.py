"""When a process asks EvalAI for a new list, and what of it is shared."""

from datetime import UTC, datetime

import pytest

from evalai_api.fields import SubmissionRow
from evalai_api.shared_list import GAP_SECONDS, LOOK_SECONDS, ListWatch, interval, read_list_body, render_list
from evaluation.errors import RequestRefused
from evaluation.submission.model import SubmissionStatus
from tests.fake_evalai import Listed

RUNNING = SubmissionStatus.RUNNING


def watch(*seen: tuple[int, int, float]) -> ListWatch:
    """One that has seen these pairs of numbers at these times."""
    made = ListWatch()
    for begun, done, now in seen:
        made.observe(begun, done, now)
    return made


def test_an_old_list_is_renewed_and_a_new_one_is_not() -> None:
    seen = watch((3, 3, 0.0), (4, 4, 20.0), (4, 4, 25.0))

    assert not seen.is_due(49.9, every=30)
    assert seen.is_due(50, every=30)


def test_a_process_that_has_just_started_counts_from_its_own_first_sight() -> None:
    seen = watch((9, 9, 1000.0))

    assert not seen.is_due(1029, every=30)
    assert seen.is_due(1030, every=30)


def test_who_asks_is_waited_for_but_not_for_ever() -> None:
    seen = watch((3, 3, 0.0), (4, 3, 40.0))

    assert not seen.is_due(40 + LOOK_SECONDS - 1, every=30)
    assert seen.is_due(40 + LOOK_SECONDS, every=30)


def test_a_new_submission_needs_a_list_that_was_begun_after_it_asked() -> None:
    seen = watch((3, 3, 0.0), (4, 4, 20.0))

    assert not seen.is_due(20 + GAP_SECONDS / 2, every=30, newer_than=4)  # many that come at once share one
    assert seen.is_due(20 + GAP_SECONDS, every=30, newer_than=4)
    assert watch((4, 4, 0.0)).is_due(0.0, every=30, newer_than=4)  # a process that has just started does not wait


def test_the_first_list_of_all_is_due_at_once() -> None:
    assert watch((0, 0, 0.0)).is_due(0.0, every=30)


@pytest.mark.parametrize(("under_way", "seconds"), [(0, 30), (10, 30), (20, 20), (40, 10), (300, 10)])
def test_the_more_is_under_way_the_more_often(under_way: int, seconds: float) -> None:
    rows = {pk: SubmissionRow.model_validate(vars(Listed(pk, RUNNING))) for pk in range(under_way)}

    assert interval(rows, longest=30) == pytest.approx(seconds)
    assert 60 / interval(rows, 30) <= max(2, 0.2 * under_way)


def test_what_waits_runs_or_was_withdrawn_is_shared_and_comes_back_as_it_was() -> None:
    now = datetime(2026, 11, 28, 8, tzinfo=UTC)
    rows = [
        Listed(1, RUNNING, now, now, phase_pk=3, team_pk=5, team_name="Rocket 🚀", input_file="http://e/1"),
        Listed(2, SubmissionStatus.CANCELLED),
        Listed(3, SubmissionStatus.FINISHED),
        Listed(4, SubmissionStatus.FINISHED, deleted=True),
    ]

    shared = read_list_body(render_list(rows))

    assert {pk: row.withdrawn for pk, row in shared.items()} == {1: False, 2: True, 4: True}
    assert shared[1] == SubmissionRow.model_validate(vars(rows[0]))


def test_300_submissions_fit_into_a_row_of_dynamodb() -> None:
    rows = [
        Listed(pk, RUNNING, team_name=f"Team {pk * 7919}", input_file=f"http://e/{pk * 104729}") for pk in range(300)
    ]

    assert len(render_list(rows)) < 40_000


def test_a_body_of_somebody_else_is_refused() -> None:
    with pytest.raises(RequestRefused, match="shared list cannot be read"):
        read_list_body(b"nonsense")
    assert read_list_body(b"") == {}
