"""GPU hours of a month for each team and each phase of a cluster, and the outcome of a submission beyond them."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from evaluation.errors import Fault
from evaluation.lifecycle.ledger_entry import LedgerEntry
from evaluation.lifecycle.outcome import Outcome, OutcomeStatus
from evaluation.pair.usage import used_in
from evaluation.submission.model import Submission

HOUR = 3600.0


@dataclass(frozen=True)
class GpuBudget:
    """Hours of a calendar month (UTC) on one cluster; None for no limit."""

    team_hours: float | None = None
    phase_hours: float | None = None

    @property
    def limits_something(self) -> bool:
        return self.team_hours is not None or self.phase_hours is not None


def over_budget(
    submission: Submission, entries: Iterable[LedgerEntry], budget: GpuBudget, now: datetime
) -> Outcome | None:
    """The outcome of a submission whose team or phase has used its hours; None for one within.

    What is under way counts once it has ended. Source: docs/operations.md, "GPU time and cost".
    """
    begin, end = month_of(now)
    hours = {"team": 0.0, "phase": 0.0}
    for entry in entries:
        used = used_in(entry.usage, begin, end).gpu / HOUR
        hours["team"] += used if entry.team == submission.team_pk else 0.0
        hours["phase"] += used if entry.phase == submission.phase.codename else 0.0
    if budget.team_hours is not None and hours["team"] >= budget.team_hours:
        who = f"the team {submission.team_name}"
        return _refused(submission, who, hours["team"], budget.team_hours, begin, end, Fault.TEAM)
    if budget.phase_hours is not None and hours["phase"] >= budget.phase_hours:
        who = f"the phase {submission.phase.codename}"
        return _refused(submission, who, hours["phase"], budget.phase_hours, begin, end, Fault.INFRASTRUCTURE)
    return None


def month_of(moment: datetime) -> tuple[datetime, datetime]:
    """The begin of its calendar month and of the next one, UTC."""
    begin = moment.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    year, month = (begin.year + 1, 1) if begin.month == 12 else (begin.year, begin.month + 1)
    return begin, begin.replace(year=year, month=month)


def _refused(
    submission: Submission, who: str, used: float, most: float, begin: datetime, end: datetime, fault: Fault
) -> Outcome:
    sentence = (
        f"Submission {submission.pk} was not evaluated: {who} has used {used:.1f} of the {most:g} GPU hours that it "
        f"has in {begin:%B %Y} on {submission.phase.cluster}. From {end:%Y-%m-%d} 00:00 UTC on there are new hours: "
        "submit again then, or let a challenge host resume this one. Nothing was simulated."
    )
    return Outcome(OutcomeStatus.FAILED, sentence, fault)
