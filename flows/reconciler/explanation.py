"""Why is it stuck? One submission in plain words: where it is, since when, what it waits for, what comes next."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from evaluation.lifecycle.forecast import Forecast
from evaluation.lifecycle.ledger_entry import LedgerEntry
from evaluation.lifecycle.outcome import OutcomeStatus
from evaluation.lifecycle.shard_progress import ShardProgress, routes_done
from evaluation.lifecycle.stages import Stage, longest
from evaluation.shards import ENDED, ShardState
from evaluation.submission.model import WAITING
from flows.reconciler.decisions import find_discrepancies
from flows.reconciler.model import Lease, Run, RunState, SubmissionSnapshot
from flows.reconciler.wording import at, lasting

_STAGES = {  # what happens in the stage, and what comes after it
    Stage.CLAIMED: ("a run has claimed it and plans its shards", "its shards are launched"),
    Stage.LAUNCHING: ("its shards' Jobs are being created", "the shards wait for nodes, then drive"),
    Stage.SIMULATING: ("its shards are being simulated", "the Jobs are removed and the results merged"),
    Stage.CLEARING: ("its shards' Jobs are being removed", "the results are merged, or the failure is reported"),
    Stage.MERGING: ("the shards' results are being merged", "the result is reported to EvalAI"),
    Stage.REPORTING: ("its outcome is decided and kept", "it is reported to EvalAI, then the evaluation ends"),
    Stage.ENDED: ("its end is written to the ledger", "nothing"),
}


@dataclass(frozen=True)
class Explanation:
    """Sentences for people; `problems` are the reconciler's findings, with what it will do about them."""

    where: str
    since: datetime | None = None
    waits_for: str = ""
    next: str = ""
    deadline: str = ""  # how long this may take, and what happens then
    problems: Sequence[str] = field(default_factory=tuple)
    known: bool = True  # to EvalAI or to the ledger
    forecast: Forecast | None = None  # while its shards wait or drive
    past_off: tuple[float, int] | None = None  # by how much past estimates were off, in the median, and of how many

    def described(self) -> dict[str, object]:
        """As `leaderboard explain --json` has it."""
        since = self.since.isoformat() if self.since else None
        texts = {"where": self.where, "since": since, "waits_for": self.waits_for, "next": self.next}
        expected = self.forecast.shown() if self.forecast else {}
        off, count = self.past_off or (None, 0)
        past = {"past_estimates": count, "past_estimates_off_percent": None if off is None else round(100 * off, 1)}
        others = {"at_most": self.deadline, "problems": list(self.problems), "known": self.known}
        return {**texts, **others, **expected, **past}

    @property
    def lines(self) -> list[tuple[str, str]]:
        """(label, text), without what there is nothing to say of."""
        labelled = [
            ("where", self.where),
            ("since", at(self.since) if self.since else ""),
            ("waits for", self.waits_for),
            ("next", self.next),
            ("expected", self.forecast.sentence if self.forecast else ""),
            ("estimates", self._estimates),
            ("at most", self.deadline),
            *(("problem", problem) for problem in self.problems),
        ]
        return [(label, text) for label, text in labelled if text]

    @property
    def _estimates(self) -> str:
        if self.past_off is None:
            return "no submission has finished here whose end was estimated" if self.forecast else ""
        off, count = self.past_off
        return f"the end was off by {100 * off:.0f} % in the median, over the last {count} that finished here"


def explain(
    view: SubmissionSnapshot, shards: Sequence[ShardProgress], now: datetime, unavailable: Sequence[str] = ()
) -> Explanation:
    """`shards` as the table of shards shows them; empty where none was launched or the cluster does not answer.

    `unavailable`: what did not answer.
    """
    entry = view.entry
    supposed = replace(view, lease=Lease.EXPIRED) if view.lease is Lease.UNCLEAR else view
    problems = (*unavailable, *(finding.sentence for finding in find_discrepancies(supposed, now)))
    if entry and entry.open:
        return _claimed(view, entry, shards, problems)
    if view.shown and view.shown.status in WAITING and (entry is None or view.shown.key > entry.key):
        return _unclaimed(view, problems)
    if entry:
        return _ended(view, entry, problems)
    if view.shown:
        where = f"EvalAI says {view.shown.status}; no run of this installation has ever claimed it"
        return Explanation(where, view.shown.since, problems=problems)
    if not view.evalai_answered:
        return Explanation(
            "EvalAI did not answer, and the ledger does not know it", next="ask again", problems=problems, known=False
        )
    return Explanation(
        "neither EvalAI nor the ledger knows it", next="check the submission's id", problems=problems, known=False
    )


def _claimed(
    view: SubmissionSnapshot,
    entry: LedgerEntry,
    shards: Sequence[ShardProgress],
    problems: Sequence[str],
) -> Explanation:
    stage = entry.stage or Stage.CLAIMED
    doing, following = _STAGES[stage]
    limit = longest(stage, view.shard_deadline_seconds)
    where = f"{doing} (attempt {entry.attempt}, epoch {entry.epoch})"
    if view.lease is not Lease.HELD:
        watched = f"the reconciler watches it for {lasting(view.timeouts.lease)} before it starts a takeover run"
        where = f"its run seems dead, {watched}; at its last renewal {where}"
    return Explanation(
        where,
        entry.stage_since,
        _waits_for(entry, stage, shards),
        following,
        f"{lasting(limit)} in this stage, then an operator is notified and a takeover run is started" if limit else "",
        problems,
    )


def _waits_for(entry: LedgerEntry, stage: Stage, shards: Sequence[ShardProgress]) -> str:
    if entry.undelivered:
        return f"EvalAI, which did not take the report: {entry.undelivered} It is sent again automatically."
    if stage is not Stage.SIMULATING or not shards:
        return ""
    done, total = routes_done(shards)
    slow = [shard for shard in shards if shard.state not in ENDED and shard.state is not ShardState.DRIVING]
    words = [f"shard {shard.index} is {shard.state}: {shard.detail or 'no reason given'}" for shard in slow]
    return "; ".join([f"{total - done} routes more, {done} of {total} are driven", *words])


def _unclaimed(view: SubmissionSnapshot, problems: Sequence[str]) -> Explanation:
    shown = view.shown
    run = next((run for run in view.runs if run.state not in (RunState.DONE, RunState.TAKEN_OVER)), None)
    limit = lasting(view.timeouts.until_claimed)
    return Explanation(
        f"EvalAI says {shown.status}; no run has claimed it yet" if shown else "",
        shown.since if shown else None,
        _coming(run) if run else "its message, which is in the queue or on its way through the bridge to Prefect",
        "a run claims it and launches its shards",
        f"{limit}, then the reconciler starts it or notifies an operator why it cannot",
        problems,
    )


def _coming(run: Run) -> str:
    match run.state:
        case RunState.SCHEDULED:
            return f"a worker: its run {run.id} is scheduled for {at(run.state_since)}"
        case RunState.PENDING:
            return f"its run {run.id}, which a worker is starting since {at(run.state_since)}"
        case RunState.RUNNING:
            return f"its run {run.id}, which asks EvalAI about it since {at(run.state_since)}"
        case RunState.REJECTED:
            return f"an operator: its message is in the dead-letter queue. {run.message}"
        case RunState.POSTPONED:
            return f"its message, which returns to the queue automatically. {run.message}"
        case _:
            return f"its message, which returns to the queue: its run {run.id} broke ({run.message})"


def _ended(view: SubmissionSnapshot, entry: LedgerEntry, problems: Sequence[str]) -> Explanation:
    at_evalai = f"; EvalAI says {view.shown.status}" if view.shown else ""
    if entry.status == OutcomeStatus.HELD:
        where = f"held after attempt {entry.attempt}{at_evalai}. {entry.reason}".strip()
        decide = f"`leaderboard verify {entry.submission}` with `--because` a reason"
        following = f"{decide}: `--release` publishes its score, `--reject` ends it without one"
        others = [problem for problem in problems if entry.reason not in problem]
        return Explanation(where, entry.ended_at, "an operator's decision", following, problems=others)
    following = "nothing: this is its end"
    if entry.status == OutcomeStatus.FAILED:
        following = "nothing by itself: its team submits again, or a host resumes it, which keeps its driven routes"
    where = f"{entry.status} after attempt {entry.attempt}{at_evalai}. {entry.reason}".strip()
    return Explanation(where, entry.ended_at, next=following, problems=problems)
