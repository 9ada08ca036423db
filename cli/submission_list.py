"""`leaderboard status`: what the ledgers and EvalAI's list say of all submissions."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from rich.console import Console

from cli.listing import Column, Line, show_listing
from cli.observers import Challenge
from evaluation.errors import EvaluationError
from evaluation.lifecycle.ledger_entry import LedgerEntry
from evaluation.lifecycle.outcome import OutcomeStatus
from evaluation.lifecycle.stages import Stage
from evaluation.ports import ListedSubmission
from evaluation.submission.model import SubmissionStatus

ONLY_THE_LEDGER = "EvalAI does not answer, this is what the ledger says."
LISTED = timedelta(days=7)  # of what no run has claimed, EvalAI's list is asked for so much
COLOURS = {"finished": "green", "failed": "red", "cancelled": "yellow", "held": "yellow", "simulating": "cyan"}
_COLUMNS = (
    Column("id", right=True),
    Column("phase", folds=True),
    Column("team", folds=True),
    Column("status"),
    Column("score", right=True),
    Column("routes", right=True),
    Column("sent (UTC)", folds=True),
)


@dataclass(frozen=True)
class SubmissionLine:
    """One submission. `score` is the driving score, 0 to 100; `text` the reason, or what belongs beside the score."""

    submission: int
    phase: str
    team: str
    status: str
    evalai: str
    score: float | None
    routes_done: int
    routes_total: int
    submitted_at: datetime | None
    text: str

    def described(self) -> dict[str, object]:
        """As `--json` has it."""
        return {**vars(self), "submitted_at": self.submitted_at.isoformat() if self.submitted_at else None}

    @property
    def line(self) -> Line:
        routes = f"{self.routes_done}/{self.routes_total}" if self.routes_total else "-"
        score = "-" if self.score is None else f"{self.score:.3f}"
        submitted = f"{self.submitted_at:%d %b %H:%M}" if self.submitted_at else "-"
        cells = (str(self.submission), self.phase, self.team, self.status, score, routes, submitted)
        return Line(cells, self.text, ("", "", "", COLOURS.get(self.status, "")))


def gather(challenge: Challenge, now: datetime) -> tuple[list[SubmissionLine], str]:
    """Every submission that a ledger or EvalAI's list of the last week knows, the newest first; what did not answer.

    Raises what reading a ledger raises.
    """
    entries = list(challenge.entries())
    try:
        listed: Iterable[ListedSubmission] = challenge.client.list_once(challenge.pk, now - LISTED, lambda: True) or ()
        problem = ""
    except EvaluationError as error:
        listed, problem = (), f"{ONLY_THE_LEDGER} {error}"
    return merged(entries, listed, challenge.phases), problem


def from_ledger(challenge: Challenge, submission: int) -> SubmissionLine | None:
    """What the ledgers alone say of one submission; None where no run has claimed it."""
    return next((_claimed(entry, None) for entry in challenge.entries() if entry.submission == submission), None)


def merged(
    entries: Iterable[LedgerEntry], listed: Iterable[ListedSubmission], phases: dict[int, str]
) -> list[SubmissionLine]:
    shown = {row.pk: row for row in listed}
    lines = {entry.submission: _claimed(entry, shown.get(entry.submission)) for entry in entries}
    lines |= {pk: _unclaimed(row, phases) for pk, row in shown.items() if pk not in lines}
    return [lines[pk] for pk in sorted(lines, reverse=True)]


def show_list(console: Console, lines: Sequence[SubmissionLine], known: int) -> None:
    if not lines:
        console.print("There are no submissions yet.")
        return
    show_listing(console, _COLUMNS, [line.line for line in lines], "reason, or what belongs beside the score")
    if known > len(lines):
        console.print(f"{known - len(lines)} earlier ones are left out: --all shows them.")


def _claimed(entry: LedgerEntry, row: ListedSubmission | None) -> SubmissionLine:
    evalai = _evalai(row)
    resumed = row is not None and row.status is SubmissionStatus.RESUMING and not entry.open
    status = (entry.stage or Stage.CLAIMED).value if entry.open else evalai if resumed else entry.status
    return SubmissionLine(
        entry.submission,
        entry.phase,
        entry.team_label,
        status,
        evalai,
        entry.score,
        entry.routes_done,
        entry.routes_total,
        entry.submitted_at or (row.submitted_at if row else None),
        _text(entry, evalai),
    )


def _text(entry: LedgerEntry, evalai: str) -> str:
    if entry.open:
        return f"EvalAI has not taken its report: {entry.undelivered}" if entry.undelivered else ""
    own = entry.remarks if entry.status == OutcomeStatus.FINISHED else entry.reason
    differs = evalai and evalai != entry.status and entry.status != OutcomeStatus.HELD
    return f"EvalAI says {evalai}. {own}".strip() if differs else own


def _unclaimed(row: ListedSubmission, phases: dict[int, str]) -> SubmissionLine:
    evalai = _evalai(row)
    phase = phases.get(row.phase_pk, f"phase {row.phase_pk}")
    return SubmissionLine(row.pk, phase, row.team_name, evalai, evalai, None, 0, 0, row.submitted_at, "")


def _evalai(row: ListedSubmission | None) -> str:
    if row is None:
        return ""
    return SubmissionStatus.CANCELLED.value if row.withdrawn else row.status.value
