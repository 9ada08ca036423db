"""What EvalAI, the ledger, Prefect and the clusters each say of a submission, and what to do where they disagree.

Pure: flows.reconciler.snapshot gathers the views, flows.reconciler.actions does what is decided here.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from evaluation.lifecycle.ledger_entry import LedgerEntry
from evaluation.lifecycle.outcome import MAX_CRASHES, OutcomeStatus
from evaluation.lifecycle.stages import longest
from evaluation.lifecycle.takeover import Takeover
from evaluation.submission.model import SubmissionStatus
from flows.reconciler.model import (
    _BEGUN,
    TOLD,
    UNDER_WAY,
    WAITING,
    Action,
    Finding,
    Run,
    RunState,
    SubmissionSnapshot,
)
from flows.reconciler.wording import at, lasting


def needs_runs(view: SubmissionSnapshot, now: datetime) -> bool:
    """Whether Prefect has to be asked about the submission: most are healthy, and not worth the requests."""
    if view.entry and view.entry.open:
        return not view.entry.held_at(now) or _overdue(view, view.entry, now) is not None
    return _unclaimed_for(view, view.timeouts.until_started, now)


def find_discrepancies(view: SubmissionSnapshot, now: datetime) -> list[Finding]:
    """What is wrong with the submission, in the order in which it is to be repaired; empty where nothing is."""
    entry = view.entry
    findings = _leftovers(view, now) + _dead_runs_shown_alive(view, now)
    if entry and entry.open:
        findings += _late(view, entry, now) + ([] if entry.held_at(now) else _dead(view, entry, now))
    elif _unclaimed_for(view, view.timeouts.until_started, now):
        findings += _unclaimed_too_long(view, now)
    elif entry:
        findings += _unreported(view, entry, now)
    elif view.shown and view.shown.status in UNDER_WAY:
        remedy = "If no other system evaluates it, let it fail at EvalAI and resume it."
        findings.append(_notify(view, f"EvalAI says {view.shown.status}, and no run ever claimed it. {remedy}"))
    return findings


def _leftovers(view: SubmissionSnapshot, now: datetime) -> list[Finding]:
    """Jobs of earlier attempts, and all Jobs of an evaluation that has ended."""
    entry = view.entry
    if entry is None:
        unknown = "Jobs of it exist, but the ledger does not know it. Remove them by hand."
        return [_notify(view, unknown)] if view.attempts else []
    settled = entry.ended_at is not None and now - entry.ended_at > view.timeouts.settle
    left = tuple(sorted(number for number in view.attempts if number < entry.attempt or settled))
    if not left:
        return []
    sentence = f"Jobs of attempt {', '.join(map(str, left))} are left; they are removed."
    return [Finding(view.submission, sentence, Action.REMOVE_JOBS, left)]


def _dead_runs_shown_alive(view: SubmissionSnapshot, now: datetime) -> list[Finding]:
    """Runs under way in Prefect that can no longer count: another holds the claim, or the evaluation has ended."""
    entry = view.entry
    if entry is None or (entry.open and not entry.held_at(now)):
        return []
    waiting = _unclaimed_for(view, view.timeouts.until_started, now)  # for a resume, whose run is another matter
    holder = (entry.owner, entry.epoch) if entry.open else None
    stale = [run for run in _stale(view, now) if (run.takeover.owner, run.takeover.epoch) != holder and not waiting]
    if not stale:
        return []
    sentence = f"Prefect shows run {', '.join(run.id for run in stale)} as alive, and nothing is left for it to do."
    return [Finding(view.submission, sentence, Action.MARK_CRASHED, dead_runs=tuple(run.id for run in stale))]


def _stale(view: SubmissionSnapshot, now: datetime) -> list[Run]:
    """Runs whose worker or process must have died on the way to the claim, or after the end."""
    return [run for run in view.runs if run.state in _BEGUN and now - run.state_since >= view.timeouts.until_started]


def _overdue(view: SubmissionSnapshot, entry: LedgerEntry, now: datetime) -> timedelta | None:
    """The stage's longest time, once that is over."""
    limit = longest(entry.stage, view.shard_deadline_seconds) if entry.stage else None
    over = limit is not None and entry.stage_since is not None and now - entry.stage_since > limit
    return limit if over else None


def _late(view: SubmissionSnapshot, entry: LedgerEntry, now: datetime) -> list[Finding]:
    """A host is told; where the run lives and is stuck, a successor takes the claim away from it, too."""
    limit = _overdue(view, entry, now)
    if limit is None:
        return []
    late = f"It has been {entry.stage} since {at(entry.stage_since)}, longer than {lasting(limit)}"
    findings = [_notify(view, f"{late}.")]
    own = _own(view, entry)
    if not entry.held_at(now) or any(_about_to_claim(view, run, now) for run in _coming(own, entry)):
        return findings
    stuck = next((run.takeover.crashes for run in own if run.takeover.epoch == entry.epoch), 0)
    return [*findings, _take_over(view, entry, own, late, crashes=stuck + 1)]


def _own(view: SubmissionSnapshot, entry: LedgerEntry) -> list[Run]:
    return [run for run in view.runs if run.takeover.owner == entry.owner]


def _coming(own: Sequence[Run], entry: LedgerEntry) -> list[Run]:
    return [run for run in own if run.takeover.epoch > entry.epoch]


def _dead(view: SubmissionSnapshot, entry: LedgerEntry, now: datetime) -> list[Finding]:
    """Nobody renews the claim: a successor goes on, unless one is on its way."""
    own = _own(view, entry)
    coming = _coming(own, entry)
    if waiting := _waits_for_a_worker(view, coming, now):
        return waiting
    if any(_about_to_claim(view, run, now) for run in coming):
        return []
    if entry.refused and entry.stage_since and now - entry.stage_since < view.timeouts.retry_refused:
        return [
            _notify(view, f"EvalAI refuses its report: {entry.undelivered} Mend that: it is sent again every hour.")
        ]
    last = max(own, key=lambda run: run.takeover.epoch, default=None)
    if last and last.state is RunState.BLOCKED and now - last.state_since < view.timeouts.retry_refused:
        return [_notify(view, f"{last.message} The next try comes within the hour.")]
    crashes = (last.takeover.crashes + (last.state in (RunState.CRASHED, RunState.RUNNING))) if last else 0
    if last and crashes > MAX_CRASHES + 1 and now - last.state_since < view.timeouts.retry_refused:
        return [_notify(view, f"{crashes} of its runs broke, {_last_words(last)}. The next try comes within the hour.")]
    happened = f"No run has renewed its claim since {at(entry.lease_until)}: {_last_words(last)}"
    dead_runs = tuple(run.id for run in own if run.state in _BEGUN)
    return [_take_over(view, entry, own, happened, crashes, dead_runs)]


def _take_over(
    view: SubmissionSnapshot,
    entry: LedgerEntry,
    own: Sequence[Run],
    happened: str,
    crashes: int,
    dead_runs: tuple[str, ...] = (),
) -> Finding:
    epoch = max([entry.epoch, *(run.takeover.epoch for run in own)]) + 1
    stopped = any(run.state in (RunState.CANCELLING, RunState.CANCELLED) for run in own)
    takeover = Takeover(owner=entry.owner, epoch=epoch, crashes=crashes, stopped=stopped)
    sentence = f"{happened}. Start {epoch} goes on."
    return Finding(view.submission, sentence, Action.TAKE_OVER, takeover=takeover, dead_runs=dead_runs)


def _unclaimed_too_long(view: SubmissionSnapshot, now: datetime) -> list[Finding]:
    """EvalAI waits for it, and it has not been claimed for so long that its message must be lost."""
    if waiting := _waits_for_a_worker(view, view.runs, now):
        return waiting
    if view.shown is None or any(_about_to_claim(view, run, now) for run in view.runs):
        return []
    since = f"EvalAI says {view.shown.status} since {at(view.shown.since)}, and no run has claimed it"
    rejected = next((run for run in view.runs if run.state is RunState.REJECTED), None)
    if rejected:
        remedy = f"Mend that, then `leaderboard queue redrive {view.submission}`."
        return [_notify(view, f"{since}: {rejected.message} {remedy}")]
    if view.unroutable:
        return [_notify(view, f"{since}: {view.unroutable}")]
    if (tried := _tried_a_while_ago(view, since, now)) is not None:
        return tried
    died = [run for run in view.runs if run.state is RunState.CRASHED]
    stale = tuple(run.id for run in _stale(view, now))
    if died and not stale:
        return _died_before_the_claim(view, since, died, now)
    if stale:
        sentence = f"{since}: run {', '.join(stale)} must have died on the way. It is started."
        return [Finding(view.submission, sentence, Action.START_RUN, dead_runs=stale)]
    if not _unclaimed_for(view, view.timeouts.until_claimed, now):
        return []  # its message may still come
    return [Finding(view.submission, f"{since}: its message must be lost. It is started.", Action.START_RUN)]


def _died_before_the_claim(view: SubmissionSnapshot, since: str, died: Sequence[Run], now: datetime) -> list[Finding]:
    """Its message comes back as well, but later; whoever claims first has it."""
    last = max(died, key=lambda run: run.state_since)
    if len(died) > MAX_CRASHES and now - last.state_since < view.timeouts.retry_refused:
        broke = f"{since}: {len(died)} of its runs broke, {_last_words(last)}"
        return [_notify(view, f"{broke}. The next try comes within the hour.")]
    if now - last.state_since < view.timeouts.settle:
        return []  # the run's own hook may be starting a successor
    return [Finding(view.submission, f"{since}: {_last_words(last)}. It is started.", Action.START_RUN)]


def _unreported(view: SubmissionSnapshot, entry: LedgerEntry, now: datetime) -> list[Finding]:
    """The evaluation has ended; EvalAI must show that."""
    shown = view.shown
    if shown is None or entry.ended_at is None or now - entry.ended_at <= view.timeouts.settle:
        return []
    if entry.status not in (OutcomeStatus.FINISHED, OutcomeStatus.FAILED) or shown.key > entry.key:
        return []
    differs = f"The ledger says {entry.status} since {at(entry.ended_at)}, EvalAI {shown.status}"
    if shown.status in UNDER_WAY | WAITING and entry.outcome:
        return [Finding(view.submission, f"{differs}; the report is sent again.", Action.RESEND_REPORT)]
    if shown.status in TOLD - {SubmissionStatus.CANCELLED} and shown.status.value != entry.status:
        return [_notify(view, f"{differs}: somebody else wrote there.")]
    return []


def _tried_a_while_ago(view: SubmissionSnapshot, since: str, now: datetime) -> list[Finding] | None:
    """For a last run that could claim nothing, and whose message is still on the queue: no run on top of it for now.

    None where there is no such run, or where its message should have come back long ago.
    """
    last = max(view.runs, key=lambda run: run.state_since, default=None)
    if last and last.state is RunState.BLOCKED and now - last.state_since < view.timeouts.retry_refused:
        return [_notify(view, f"{since}: {last.message}")]
    if last and last.state is RunState.POSTPONED and now - last.state_since < view.timeouts.until_claimed:
        return []
    return None


def _unclaimed_for(view: SubmissionSnapshot, span: timedelta, now: datetime) -> bool:
    """Whether EvalAI has waited so long for a claim."""
    shown, entry = view.shown, view.entry
    if shown is None or shown.status not in WAITING or (entry and (entry.open or shown.key <= entry.key)):
        return False
    return shown.since is not None and now - shown.since > span


def _waits_for_a_worker(view: SubmissionSnapshot, runs: Sequence[Run], now: datetime) -> list[Finding]:
    run = next((run for run in runs if run.state is RunState.SCHEDULED), None)
    if run is None or now - run.state_since < view.timeouts.until_started:
        return []
    remedy = "Does a worker poll the work pool, and is its limit high enough?"
    return [_notify(view, f"Its run {run.id} should have started at {at(run.state_since)}. {remedy}")]


def _about_to_claim(view: SubmissionSnapshot, run: Run, now: datetime) -> bool:
    if run.state in (RunState.PENDING, RunState.RUNNING):
        return now - run.state_since < view.timeouts.until_started
    return run.state is RunState.SCHEDULED


def _notify(view: SubmissionSnapshot, sentence: str) -> Finding:
    return Finding(view.submission, sentence, Action.NOTIFY_OPERATOR)


def _last_words(run: Run | None) -> str:
    if run is None:
        return "its run is unknown to Prefect"
    return f"run {run.id} {run.state}{f' ({run.message})' if run.message else ''}"


def order(findings: Iterable[Finding]) -> list[Finding]:
    """What is repaired first, then what a host has to read; each by submission."""
    return sorted(findings, key=lambda finding: (finding.action is Action.NOTIFY_OPERATOR, finding.submission))
