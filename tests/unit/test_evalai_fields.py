"""EvalAI's JSON read with its oddities, and what must not be sent to it."""

import json
import math
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from evalai_api.fields import PhaseRow, read, read_list, read_submission, read_submissions
from evalai_api.report_body import METADATA_LIMIT_BYTES, TEXT_LIMIT_BYTES, report_body, result_text
from evalai_api.texts import shortened, storable_json
from evaluation.errors import RequestRefused
from evaluation.lifecycle.report import Report
from evaluation.submission.model import Submission, SubmissionStatus, parse_phase

PLAIN = {"id": 7, "challenge_phase": 3, "participant_team": 2, "status": "running"}
SUBMISSION = Submission(
    7, 1, 3, parse_phase("leaderboard-20-MAP"), 2, "Team", SubmissionStatus.RUNNING, None, None, None
)


def entry(**more: object) -> dict[str, object]:
    return {"split": "leaderboard", "show_to_participant": True, "accuracies": {"Driving score": 1.5}} | more


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "1969-07-20", "٢٠٢٦"])
@pytest.mark.parametrize("name", ["submitted_at", "rerun_resumed_at"])
def test_a_time_that_nobody_can_calculate_with_is_named_and_hides_no_other_row(name: str, time: str) -> None:
    rows = read_submissions([PLAIN | {"id": 8, name: time}, PLAIN], "the list")

    assert [row.pk for row in rows] == [7]
    assert f"submission 8 cannot be read: {name} is '{time}', not a" in rows.unreadable[0]


def test_missing_keys_and_odd_types_are_tolerated() -> None:
    row = read_submission(
        PLAIN
        | {"id": "7", "status": "RUNNING", "submitted_at": "2026-11-21T01:37:30.979699Z", "stderr_file": None}
        | {"rerun_resumed_at": "2026-11-21T02:37:30+01:00", "job_name": None, "participant_team_name": None},
        "submission 7",
    )

    assert (row.pk, row.status, row.job_names) == (7, SubmissionStatus.RUNNING, ())
    assert row.submitted_at == datetime(2026, 11, 21, 1, 37, 30, 979699, tzinfo=UTC)
    assert row.rerun_resumed_at == datetime(2026, 11, 21, 1, 37, 30, tzinfo=UTC)
    assert (row.team_name, row.method_name, row.stderr_file) == ("", "", "")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"status": "teleporting"}, "status is 'teleporting', which is no status we know"),
        ({"status": None}, "status is None"),
        ({"id": True}, "id is True, not a whole number"),
        ({"participant_team": "Team Rocket"}, "participant_team is 'Team Rocket'"),
        ({"challenge_phase": None}, "challenge_phase is None"),
        ({"submitted_at": "yesterday"}, "submitted_at is 'yesterday', not an ISO time"),
    ],
)
def test_what_cannot_be_read_is_named(more: dict[str, object], words: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        read_submission(PLAIN | more, "submission 7")

    assert "submission 7" in str(caught.value)
    assert words in str(caught.value)


def test_an_answer_that_is_no_object_is_named() -> None:
    with pytest.raises(RequestRefused, match="it is a list, not an object"):
        read_submission([], "submission 7")


def test_a_missing_field_is_named() -> None:
    with pytest.raises(RequestRefused, match="phase 3 cannot be read: codename is missing"):
        read(PhaseRow, {"id": 3}, "phase 3")


def test_one_broken_row_hides_no_other() -> None:
    rows = [PLAIN | {"id": 9}, PLAIN | {"id": 8, "status": "teleporting"}, "no row", PLAIN | {"id": "x"}, PLAIN]

    found = read_submissions(rows, "the submissions of challenge 1")

    assert [row.pk for row in found] == [7, 9]
    assert [words.partition(" cannot be read")[0] for words in found.unreadable] == [
        "EvalAI's answer about submission 8",
        "EvalAI's answer about submission None",
        "EvalAI's answer about submission x",
    ]
    assert "status is 'teleporting', which is no status we know" in found.unreadable[0]


def test_a_list_of_phases_is_all_or_nothing() -> None:
    with pytest.raises(RequestRefused, match="it is a dict, not a list"):
        read_list(PhaseRow, {}, "the phases of challenge 1")


@pytest.mark.parametrize(
    ("status", "deleted", "acted_on"),
    [
        ("running", True, SubmissionStatus.CANCELLED),
        ("resuming", True, SubmissionStatus.CANCELLED),
        ("finished", True, SubmissionStatus.FINISHED),
        ("running", False, SubmissionStatus.RUNNING),
        ("running", "yes", SubmissionStatus.RUNNING),
    ],
)
def test_a_deleted_submission_is_cancelled_unless_it_had_ended(
    status: str, deleted: object, acted_on: SubmissionStatus
) -> None:
    row = read_submission(PLAIN | {"status": status, "ignore_submission": deleted}, "submission 7")

    assert (row.status, row.withdrawn) == (acted_on, deleted is True)


def test_texts_of_others_can_be_stored() -> None:
    row = read_submission(PLAIN | {"participant_team_name": "A\x00B\ud800 \ud83d\ude00"}, "submission 7")

    assert row.team_name == "A\ufffdB\ufffd \N{GRINNING FACE}"


def test_an_escaped_nul_in_metadata_is_replaced_and_an_escaped_backslash_is_not() -> None:
    metadata = json.dumps({"agent": "a\x00b", "path": "c:\\u0000"})

    assert json.loads(storable_json(metadata)) == {"agent": "a\ufffdb", "path": "c:\\u0000"}


def test_the_result_is_sent_as_text() -> None:
    assert json.loads(result_text([entry(accuracies={"a": 1, "b": 2.5})])) == [entry(accuracies={"a": 1, "b": 2.5})]


@pytest.mark.parametrize("value", [True, False, None, "1", "NaN", [1], math.nan, math.inf, -math.inf, Decimal(1), 1j])
def test_only_plain_finite_numbers_are_sent(value: object) -> None:
    with pytest.raises(RequestRefused, match="not a finite number"):
        result_text([entry(accuracies={"Driving score": value})])


@pytest.mark.parametrize(
    "result",
    [
        [],
        [entry(split=None)],
        [entry(split="")],
        [entry(), entry()],
        [entry(accuracies={})],
        [entry(accuracies=None)],
        [entry(accuracies=[1])],
        [entry(accuracies={3: 1.0})],
        [entry(show_to_participant="yes")],
    ],
)
def test_a_result_in_another_form_is_not_sent(result: list[dict[str, object]]) -> None:
    with pytest.raises(RequestRefused, match="not fit to be sent"):
        result_text(result)


def test_long_texts_keep_their_beginning_and_end() -> None:
    text = "begin " + "ü" * TEXT_LIMIT_BYTES + " end"

    short = shortened(text, TEXT_LIMIT_BYTES)

    assert short.startswith("begin ")
    assert short.endswith(" end")
    assert f"of {len(text.encode())} bytes left out" in short
    assert len(short.encode()) < TEXT_LIMIT_BYTES + 100


def test_a_report_stays_below_a_megabyte() -> None:
    long = "x" * 5_000_000
    report = Report(SUBMISSION, SubmissionStatus.FINISHED, [entry()], long, long, json.dumps({"long": long}))

    body = report_body(report)

    assert len(json.dumps(body)) < 1_000_000
    assert "bytes" in json.loads(str(body["metadata"]))["left_out"]


def test_short_metadata_is_sent_as_it_is() -> None:
    metadata = json.dumps({"k": "x" * (METADATA_LIMIT_BYTES - 20)})

    assert report_body(Report(SUBMISSION, SubmissionStatus.FAILED, metadata=metadata))["metadata"] == metadata


def test_a_failed_submission_has_no_result() -> None:
    body = report_body(Report(SUBMISSION, SubmissionStatus.FAILED, [entry()], "out", "err"))

    assert "result" not in body
    assert (body["stdout"], body["stderr"], body["submission_status"]) == ("out", "err", "FAILED")


def test_a_phase_without_logs_gets_the_outcomes_sentence_only() -> None:
    report = Report(SUBMISSION, SubmissionStatus.FAILED, (), "out", "Submission 7 failed.\n--- the agent ---\nhush")

    body = report_body(report, with_logs=False)

    assert (body["stdout"], body["stderr"]) == ("", "Submission 7 failed.")
