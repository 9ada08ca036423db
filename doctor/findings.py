"""A check, what it finds, and the rule that no failing check hides the next one."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from botocore.exceptions import ClientError

from aws_api.errors import error_code
from evaluation.errors import EvaluationError, TransientError, explain

TRY_AGAIN = "Try again. If it stays, check that the service is up and can be reached from here."
LOOK_UP = "Correct it in the place that is named."


class CheckStatus(StrEnum):
    OK = "OK"
    PROBLEM = "PROBLEM"
    NOT_CHECKED = "NOT CHECKED"


@dataclass(frozen=True)
class Finding:
    """One line of the report: `remedy` is empty where there is nothing to do."""

    subject: str  # "AWS: bucket of leaderboard-20"
    status: CheckStatus
    detail: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.status:<11}  {explain(self.subject, self.detail, self.remedy)}"


@dataclass(frozen=True)
class Check:
    """`run` returns what it found; raises NotChecked, or an EvaluationError for a problem."""

    subject: str
    run: Callable[[], str]


class NotChecked(Exception):
    """A check could not be made, through no fault of what it checks."""

    def __init__(self, why: str, remedy: str = "") -> None:
        super().__init__(why)
        self.remedy = remedy


def run_checks(checks: Iterable[Check]) -> Iterator[Finding]:
    """Run the checks one after the other, whatever becomes of any of them."""
    try:
        for check in checks:
            yield _finding(check)
    except Exception as error:  # noqa: BLE001
        yield _broken("Doctor: the next checks", error)


def _finding(check: Check) -> Finding:
    try:
        return Finding(check.subject, CheckStatus.OK, check.run())
    except NotChecked as why:
        return Finding(check.subject, CheckStatus.NOT_CHECKED, str(why), why.remedy)
    except EvaluationError as error:
        return _trouble(check.subject, error)
    except Exception as error:  # noqa: BLE001
        return _broken(check.subject, error)


def _broken(subject: str, error: Exception) -> Finding:
    """The error's text is left out: it was not checked for secrets."""
    detail = f"the check itself failed ({type(error).__name__})"
    return Finding(subject, CheckStatus.PROBLEM, detail, "Please report that, with the versions in use.")


def _trouble(subject: str, error: EvaluationError) -> Finding:
    detail = explain(error.summary, error.cause).rstrip(".")
    if _lacks_a_right(error):
        remedy = "Use a role with the policy leaderboard-operators (deployments/aws/roles.yaml)."
        return Finding(subject, CheckStatus.NOT_CHECKED, f"these AWS credentials lack the right: {detail}", remedy)
    remedy = error.remedy or (TRY_AGAIN if isinstance(error, TransientError) else LOOK_UP)
    return Finding(subject, CheckStatus.PROBLEM, detail, remedy)


def _lacks_a_right(error: EvaluationError) -> bool:
    """Whether AWS knows who asks and does not let them: of what they asked for, nothing is known then."""
    cause = error.__cause__
    return isinstance(cause, ClientError) and error_code(cause) in ("AccessDenied", "AccessDeniedException")
