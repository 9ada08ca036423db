"""What an operator does about a held result: look at the reasons, then release or reject it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

from prefect import get_client

from blocks.provenance_key import ProvenanceKey
from evaluation import storage_keys
from evaluation.errors import AlreadyClaimed, EvaluationError, InvalidCheckpoint, RequestRefused, UnknownSubmission
from evaluation.lifecycle.ledger_entry import LedgerEntry
from evaluation.lifecycle.outcome import Outcome, OutcomeStatus, parse_outcome, rejected, released, render_outcome
from evaluation.lifecycle.takeover import Takeover
from evaluation.provenance import Decision, sha256
from evaluation.submission.message import SubmissionMessage
from flows.provenance import add_decision
from flows.services import Cluster, Services, load_cluster
from flows.takeover_runs import start_takeover_run
from flows.threads import in_evalai_thread


@dataclass(frozen=True)
class KeptResult:
    """A submission's row, its outcome as it is kept, its cluster, and what signs its provenance."""

    entry: LedgerEntry
    outcome: Outcome
    cluster: Cluster
    key: ProvenanceKey | None = None

    @property
    def held(self) -> bool:
        return not self.entry.open and self.entry.status == OutcomeStatus.HELD


async def kept_result(services: Services, submission: int) -> KeptResult:
    """The outcome that is kept of a submission. Raises UnknownSubmission; InvalidCheckpoint where none is kept."""
    team = await _team_of(services, submission)
    for known in dict.fromkeys((team, None)):  # None: the whole ledger is read, where EvalAI cannot say whose it is
        for name in services.phases.clusters:
            cluster = await load_cluster(name)
            entry = await asyncio.to_thread(cluster.entry_of, submission, known)
            if entry:
                outcome = await asyncio.to_thread(_outcome, cluster, entry)
                return KeptResult(entry, outcome, cluster, services.provenance_key)
    raise UnknownSubmission(f"No ledger knows submission {submission}", remedy="Check the submission's id.")


async def _team_of(services: Services, submission: int) -> int | None:
    """The team's id at EvalAI; None where EvalAI does not answer, or has no such submission any more."""
    try:
        row = await in_evalai_thread(services.evalai.submission_row, submission)
    except EvaluationError:
        return None
    return row.team_pk


async def release(kept: KeptResult, who: str, because: str) -> Outcome:
    """Publish what was held: a takeover run reports it. Raises RequestRefused for what is not held."""
    return await _decide(kept, released, who, because)


async def reject(kept: KeptResult, who: str, because: str) -> Outcome:
    """End what was held without a score: a takeover run reports that. Raises RequestRefused for what is not held."""
    return await _decide(kept, rejected, who, because)


async def _decide(
    kept: KeptResult, decision: Callable[[int, Outcome, str, str], Outcome], who: str, because: str
) -> Outcome:
    """Store the decision, point the row at it, start the run; if that does not start, the reconciler starts it."""
    entry = kept.entry
    refusal = RequestRefused(f"Submission {entry.submission} is not held", _instead(entry))
    if not kept.held:
        raise refusal
    outcome = decision(entry.submission, kept.outcome, who, because)
    body = render_outcome(outcome)
    key = storage_keys.decision_key(entry.submission, entry.attempt, uuid4().hex)  # of two, the row names one
    artifacts, ledger = kept.cluster.artifacts, kept.cluster.ledger
    await asyncio.to_thread(artifacts.write, key, body, "application/json")
    try:
        await asyncio.to_thread(ledger.reopen, entry, key)
    except AlreadyClaimed as error:
        raise refusal from error
    await _start_run(entry)
    file, at = key.removeprefix(f"{entry.submission}/"), datetime.now(UTC).isoformat(timespec="seconds")
    decided = Decision(file, sha256(body), outcome.ending.value, who, because, at)
    await asyncio.to_thread(add_decision, artifacts, entry.submission, kept.key, decided)
    return outcome


def _instead(entry: LedgerEntry) -> str:
    if entry.open or entry.status == OutcomeStatus.HELD:  # held: another decision, or a resume, came in between
        return "its evaluation goes on, perhaps by another operator's decision"
    return f"it is {entry.status}"


async def _start_run(entry: LedgerEntry) -> None:
    message = SubmissionMessage(
        challenge_pk=entry.challenge,
        phase_pk=entry.phase_pk,
        submission_pk=entry.submission,
        submitted_image_uri=entry.image,
    )
    parameters = {"message": message.model_dump(mode="json"), "delivery": None}
    async with get_client() as client:
        await start_takeover_run(client, parameters, Takeover(owner=entry.owner, epoch=entry.epoch + 1), [])


def _outcome(cluster: Cluster, entry: LedgerEntry) -> Outcome:
    key = entry.outcome or ""
    body = cluster.artifacts.read(key) if key else None
    if body is None:
        what = f"No outcome of submission {entry.submission} is kept"
        why = f"{cluster.artifacts.location(key)} is gone" if key else "its evaluation has not come to one"
        raise InvalidCheckpoint(what, why, f"See `leaderboard explain {entry.submission}`.")
    return parse_outcome(body, cluster.artifacts.location(key))
