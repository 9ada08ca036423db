"""From a check to its line: nothing that fails hides the next one, every problem says what to do."""

from collections.abc import Iterator

import pytest
from botocore.exceptions import ClientError

from doctor.findings import LOOK_UP, TRY_AGAIN, Check, CheckStatus, NotChecked, run_checks
from evaluation.errors import EvaluationError, InvalidConfiguration, ServiceUnavailable

SECRET = "hidden-token"


def raising(error: Exception) -> Check:
    def look() -> str:
        raise error

    return Check("AWS: thing", look)


def denied(code: str) -> EvaluationError:
    error = InvalidConfiguration("Looking at the thing failed", f"{code}: no", "Check the policy.")
    error.__cause__ = ClientError({"Error": {"Code": code, "Message": "no"}}, "DescribeThing")
    return error


FINE = Check("AWS: other", lambda: "it is there")


@pytest.mark.parametrize(
    ("error", "status", "detail", "remedy"),
    [
        (InvalidConfiguration("It is wrong", "so", "Mend it."), CheckStatus.PROBLEM, "It is wrong: so", "Mend it."),
        (InvalidConfiguration("It is wrong"), CheckStatus.PROBLEM, "It is wrong", LOOK_UP),
        (ServiceUnavailable("It is down", "so"), CheckStatus.PROBLEM, "It is down: so", TRY_AGAIN),
        (NotChecked("it is elsewhere"), CheckStatus.NOT_CHECKED, "it is elsewhere", ""),
        (NotChecked("it is not known", "Say it."), CheckStatus.NOT_CHECKED, "it is not known", "Say it."),
        (
            denied("AccessDenied"),
            CheckStatus.NOT_CHECKED,
            "these AWS credentials lack the right",
            "leaderboard-operators",
        ),
        (denied("ExpiredToken"), CheckStatus.PROBLEM, "ExpiredToken: no", "Check the policy."),
        (RuntimeError(SECRET), CheckStatus.PROBLEM, "the check itself failed (RuntimeError)", "Please report that"),
    ],
)
def test_what_a_check_raises_becomes_its_line_and_the_next_one_runs(
    error: Exception, status: CheckStatus, detail: str, remedy: str
) -> None:
    finding, next_one = run_checks([raising(error), FINE])

    assert (finding.subject, finding.status) == ("AWS: thing", status)
    assert detail in finding.detail
    assert remedy in finding.remedy
    assert bool(finding.remedy) == bool(remedy)
    assert SECRET not in str(finding)
    assert str(next_one) == "OK           AWS: other: it is there."


def test_checks_that_cannot_be_listed_are_a_line_too() -> None:
    def checks() -> Iterator[Check]:
        yield FINE
        raise LookupError(SECRET)

    _, broken = run_checks(checks())

    assert (broken.status, broken.detail) == (CheckStatus.PROBLEM, "the check itself failed (LookupError)")
