"""What to do where EvalAI, the ledger, Prefect and the clusters disagree about a submission.

Pure: flows.reconciler.snapshot gathers what they say, flows.reconciler.actions does what is decided here. No decision
to take a claim away compares two machines' clocks: whether a lease has expired is in the snapshot, and the time in a
stage is the holder's own.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from evaluation.lifecycle.ledger_entry import LedgerEntry
from evaluation.lifecycle.outcome import MAX_CRASHES
from evaluation.lifecycle.stages import longest
from evaluation.lifecycle.takeover import Takeover
from evaluation.submission.model import WAITING
from flows.reconciler.model import BEGUN, Action, Finding, Lease, Run, RunState, SubmissionSnapshot, notify
from flows.reconciler.reports import never_claimed, unreported
from flows.reconciler.wording import at, lasting

RETRY = "The next try comes within the hour."


def needs_runs(view: SubmissionSnapshot, now: datetime) -> bool:
    """Whether Prefect has to be asked about the submission: most are healthy, and not worth the requests."""
    if view.entry and view.entry.open:
        return view.lease is Lease.EXPIRED or _overdue(view, view.entry) is not None
    return _unclaimed_for(view, view.timeouts.until_started, now)


def find_discrepancies(view: SubmissionSnapshot, now: datetime) -> list[Finding]:
    """What is wrong with the submission, in the order in which it is to be repaired; empty where nothing is."""
    entry = view.entry
    if entry and entry.unreadable:
        return [notify(view, f"Its row in the ledger cannot be read: {entry.unreadable}. Correct or remove it.")]
    findings = _leftovers(view, now) + _dead_runs_shown_alive(view, now)
    if entry and entry.open:
        findings += _late(view, entry, now)
        if view.lease is Lease.EXPIRED:
            findings += _dead(view, entry, now)
    elif _unclaimed_for(view, view.timeouts.until_started, now):
        findings += _unclaimed_too_long(view, now)
    else:
        findings += never_claimed(view) or unreported(view, now)
    return findings


def _leftovers(view: SubmissionSnapshot, now: datetime) -> list[Finding]:
    """Jobs of earlier attempts, and all Jobs of an evaluation that has ended."""
    entry = view.entry
    if entry is None:
        unknown = "Jobs of it exist, but the ledger does not know it. Remove them by hand."
        return [notify(view, unknown)] if view.attempts else []
    settled = entry.ended_at is not None and now - entry.ended_at > view.timeouts.settle
    left = tuple(sorted(number for number in view.attempts if number < entry.attempt or settled))
    if not left:
        return []
    sentence = f"Jobs of attempt {', '.join(map(str, left))} are left; they are removed."
    return [Finding(view.submission, sentence, Action.REMOVE_JOBS, left)]


def _dead_runs_shown_alive(view: SubmissionSnapshot, now: datetime) -> list[Finding]:
    """Runs under way in Prefect that can no longer count: another holds the claim, or the evaluation has ended."""
    entry = view.entry
    if entry is None or (entry.open and view.lease is not Lease.HELD):
        return []
    waiting = _unclaimed_for(view, view.timeouts.until_started, now)  # for a resume, whose run is another matter
    holder = (entry.owner, entry.epoch) if entry.open else None
    stale = [run for run in _stale(view, now) if (run.takeover.owner, run.takeover.epoch) != holder and not waiting]
    return [_mark_crashed(view, stale)] if stale else []


def _stale(view: SubmissionSnapshot, now: datetime) -> list[Run]:
    """Runs whose worker or process must have died on the way to the claim, or after the end."""
    return [run for run in view.runs if run.state in BEGUN and now - run.state_since >= view.timeouts.until_started]


def _overdue(view: SubmissionSnapshot, entry: LedgerEntry) -> timedelta | None:
    """The stage's longest time, once the holder's own clock says that it is over."""
    limit = longest(entry.stage, view.shard_deadline_seconds) if entry.stage else None
    spent = entry.time_in_stage(view.timeouts.lease)
    return limit if limit is not None and spent is not None and spent > limit else None


def _late(view: SubmissionSnapshot, entry: LedgerEntry, now: datetime) -> list[Finding]:
    """An operator is notified; where the run lives and is stuck, a takeover run takes the claim away from it, too."""
    limit = _overdue(view, entry)
    if limit is None:
        return []
    late = f"It has been {entry.stage} since {at(entry.stage_since)}, longer than {lasting(limit)}"
    findings = [notify(view, f"{late}.")]
    own = _own(view, entry)
    if view.lease is not Lease.HELD or any(_about_to_claim(view, run, now) for run in _coming(own, entry)):
        return findings
    stuck = next((run.takeover.crashes for run in own if run.takeover.epoch == entry.epoch), 0)
    return [*findings, _take_over(view, entry, own, late, crashes=stuck + 1)]


def _own(view: SubmissionSnapshot, entry: LedgerEntry) -> list[Run]:
    return [run for run in view.runs if run.takeover.owner == entry.owner]


def _coming(own: Sequence[Run], entry: LedgerEntry) -> list[Run]:
    return [run for run in own if run.takeover.epoch > entry.epoch]


def _dead(view: SubmissionSnapshot, entry: LedgerEntry, now: datetime) -> list[Finding]:
    """The claim is not renewed: a takeover run goes on, unless one is on its way; a dead run's slot may hold it up."""
    own = _own(view, entry)
    dead = [run for run in own if run.state in BEGUN and run.takeover.epoch <= entry.epoch]
    marked = [_mark_crashed(view, dead)] if dead else []
    coming = _coming(own, entry)
    if waiting := _waits_for_a_worker(view, coming, now):
        return marked + waiting
    if any(_about_to_claim(view, run, now) for run in coming):
        return marked
    last = max(own, key=lambda run: run.takeover.epoch, default=None)
    crashes = _crashes(own, last)
    if reason := _must_wait(view, entry, last, crashes, now):
        return [*marked, notify(view, reason)]
    happened = f"Its claim was not renewed for {lasting(view.timeouts.lease)}: {_last_state(last)}"
    return [_take_over(view, entry, own, happened, crashes)]


def _must_wait(
    view: SubmissionSnapshot, entry: LedgerEntry, last: Run | None, crashes: int, now: datetime
) -> str | None:
    """Why the next takeover has to wait, where only an operator can remove the cause."""
    pause = view.timeouts.retry_refused
    if entry.refused and entry.stage_since and now - entry.stage_since < pause:
        return f"EvalAI refuses its report: {entry.undelivered} Correct that: it is sent again every hour."
    if last is None or now - last.state_since >= pause:
        return None
    if last.state is RunState.BLOCKED:
        return f"{last.message} {RETRY}"
    if crashes > MAX_CRASHES + 1:
        return f"{crashes} of its runs crashed, {_last_state(last)}. {RETRY}"
    return None


def _crashes(own: Sequence[Run], last: Run | None) -> int:
    """How many runs died, as far as is known now.

    A run that was silent and then turned out to be alive (it ended as taken over) was no death.
    """
    if last is None:
        return 0
    crashes = last.takeover.crashes + (last.state in (RunState.CRASHED, RunState.RUNNING))
    before = max((run for run in own if run is not last), key=lambda run: run.takeover.epoch, default=None)
    lived = last.takeover.after_silence and before is not None and before.state is RunState.TAKEN_OVER
    return max(0, crashes - lived)


def _take_over(
    view: SubmissionSnapshot, entry: LedgerEntry, own: Sequence[Run], happened: str, crashes: int
) -> Finding:
    epoch = max([entry.epoch, *(run.takeover.epoch for run in own)]) + 1
    stopped = any(run.state in (RunState.CANCELLING, RunState.CANCELLED) for run in own)
    expired = view.lease is Lease.EXPIRED
    silent = expired and any(run.state is RunState.RUNNING and run.takeover.epoch == epoch - 1 for run in own)
    takeover = Takeover(owner=entry.owner, epoch=epoch, crashes=crashes, stopped=stopped, after_silence=silent)
    sentence = f"{happened}. A takeover run (epoch {epoch}) is started."
    dead = tuple(run.id for run in own if expired and run.state in BEGUN)
    return Finding(view.submission, sentence, Action.TAKE_OVER, takeover=takeover, dead_runs=dead)


def _unclaimed_too_long(view: SubmissionSnapshot, now: datetime) -> list[Finding]:
    """EvalAI waits for it, and it has not been claimed for so long that its message was lost."""
    if waiting := _waits_for_a_worker(view, view.runs, now):
        return waiting
    if view.shown is None or any(_about_to_claim(view, run, now) for run in view.runs):
        return []
    since = f"EvalAI says {view.shown.status} since {at(view.shown.since)}, and no run has claimed it"
    rejected = next((run for run in view.runs if run.state is RunState.REJECTED), None)
    if rejected:
        remedy = f"Correct that, then `leaderboard queue redrive {view.submission}`."
        return [notify(view, f"{since}: {rejected.message} {remedy}")]
    if view.unroutable:
        return [notify(view, f"{since}: {view.unroutable}")]
    if (tried := _tried_a_while_ago(view, since, now)) is not None:
        return tried
    died = [run for run in view.runs if run.state is RunState.CRASHED]
    stale = tuple(run.id for run in _stale(view, now))
    if died and not stale:
        return _died_before_the_claim(view, since, died, now)
    if stale:
        sentence = f"{since}: run {', '.join(stale)} died before its claim. Another run is started."
        return [Finding(view.submission, sentence, Action.START_RUN, dead_runs=stale)]
    if not _unclaimed_for(view, view.timeouts.until_claimed, now):
        return []  # its message may still come
    return [Finding(view.submission, f"{since}: its message was lost. A run is started.", Action.START_RUN)]


def _died_before_the_claim(view: SubmissionSnapshot, since: str, died: Sequence[Run], now: datetime) -> list[Finding]:
    """Its message comes back as well, but later; the run that claims first has it."""
    last = max(died, key=lambda run: run.state_since)
    if len(died) > MAX_CRASHES and now - last.state_since < view.timeouts.retry_refused:
        return [notify(view, f"{since}: {len(died)} of its runs crashed, {_last_state(last)}. {RETRY}")]
    if now - last.state_since < view.timeouts.settle:
        return []  # the run's own hook may be starting a takeover run
    return [Finding(view.submission, f"{since}: {_last_state(last)}. Another run is started.", Action.START_RUN)]


def _tried_a_while_ago(view: SubmissionSnapshot, since: str, now: datetime) -> list[Finding] | None:
    """For a last run that could claim nothing, and whose message is still on the queue: no run on top of it for now.

    None where there is no such run, or where its message should have come back long ago.
    """
    last = max(view.runs, key=lambda run: run.state_since, default=None)
    if last and last.state is RunState.BLOCKED and now - last.state_since < view.timeouts.retry_refused:
        return [notify(view, f"{since}: {last.message}")]
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
    return [notify(view, f"Its run {run.id} should have started at {at(run.state_since)}. {remedy}")]


def _about_to_claim(view: SubmissionSnapshot, run: Run, now: datetime) -> bool:
    if run.state in (RunState.PENDING, RunState.RUNNING):
        return now - run.state_since < view.timeouts.until_started
    return run.state is RunState.SCHEDULED


def _mark_crashed(view: SubmissionSnapshot, runs: Sequence[Run]) -> Finding:
    ids = tuple(run.id for run in runs)
    sentence = f"Prefect shows run {', '.join(ids)} as alive, but it holds no claim: it is marked as crashed."
    return Finding(view.submission, sentence, Action.MARK_CRASHED, dead_runs=ids)


def _last_state(run: Run | None) -> str:
    if run is None:
        return "its run is unknown to Prefect"
    message = f" ({run.message})" if run.message else ""
    return f"run {run.id} is {run.state}{message}" if run.state in BEGUN else f"run {run.id} {run.state}{message}"


def order(findings: Iterable[Finding]) -> list[Finding]:
    """What is repaired first, then what an operator has to read; each by submission."""
    return sorted(findings, key=lambda finding: (finding.action is Action.NOTIFY_OPERATOR, finding.submission))
