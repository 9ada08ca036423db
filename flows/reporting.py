"""The results: four checkpoints become one, EvalAI is told, the ledger and the bucket keep it. What PostEKS did."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from prefect import get_run_logger, task

from evaluation import storage_keys
from evaluation.errors import (
    EvaluationError,
    InvalidCheckpoint,
    NeedsOperator,
    ShardsFailed,
    SubmissionCancelled,
    SubmissionFailed,
    TransientError,
)
from evaluation.lifecycle.ledger_entry import END_TIME, FAULT, OUTCOME, REASON, REFUSED, STATUS, UNDELIVERED, read_entry
from evaluation.lifecycle.outcome import Outcome, OutcomeStatus, cancelled, parse_outcome, render_outcome
from evaluation.lifecycle.report import Report
from evaluation.lifecycle.stages import Stage
from evaluation.lifecycle.write_permit import WritePermit
from evaluation.pair.decisions import SENSORS_INVALID, SETUP_FAILED
from evaluation.ports import Claim
from evaluation.results.checkpoint import Checkpoint, check_expected
from evaluation.results.checkpoint_reading import parse_checkpoint
from evaluation.results.checkpoint_writing import render_document
from evaluation.results.evalai_result import accuracies, evalai_result, partial_result
from evaluation.results.merge import Merged, merge
from evaluation.results.rejection import rejection
from evaluation.results.summary import summary_text
from evaluation.shards import ShardJob
from evaluation.submission.model import Submission, SubmissionStatus
from flows.services import Cluster, Services
from flows.task_retries import on_transient_errors


@task(name="merge-results", **on_transient_errors(8))
async def merge_results(cluster: Cluster, submission: Submission, claim: Claim, jobs: Sequence[ShardJob]) -> Outcome:
    """Merge the shards' checkpoints and store the result; raises InvalidCheckpoint unless every route is there.

    Raises ShardsFailed where the merged result may not be called finished (evaluation.results.rejection).
    """
    await asyncio.to_thread(cluster.ledger.renew, claim, Stage.MERGING)
    merged = await asyncio.to_thread(_merge, cluster, jobs)
    outcome = await asyncio.to_thread(_store, cluster, submission, merged)
    if failure := rejection(merged):
        raise ShardsFailed(failure.summary, failure.cause, failure.remedy, failure.fault)
    if outcome.ending is not OutcomeStatus.FINISHED:
        done, total = outcome.routes_done, outcome.routes_total
        raise InvalidCheckpoint("The results are incomplete", f"only {done} of {total} routes are there")
    return outcome


@task(name="collect-results", **on_transient_errors(2))
async def results_so_far(cluster: Cluster, submission: Submission, jobs: Sequence[ShardJob]) -> Outcome | None:
    """What an unfinished submission drove, stored like a full result; None where that cannot be read."""
    if not jobs:
        return None
    try:
        merged = await asyncio.to_thread(_merge, cluster, jobs)
        return await asyncio.to_thread(_store, cluster, submission, merged)
    except EvaluationError as error:
        get_run_logger().warning("The results so far cannot be shown: %s", error)
        return None


def _store(cluster: Cluster, submission: Submission, merged: Merged) -> Outcome:
    """Write the result's files; what may not be called finished gets no figures."""
    scored = merged.complete and rejection(merged) is None
    total = len(merged.missing) + merged.routes_done
    records = merged.document["_checkpoint"]["records"]
    driven = sum(
        record["status"] not in (SENSORS_INVALID, SETUP_FAILED) for record in records
    )  # a resume drives the others anew
    text = render_document(merged.document, merged.version)
    summary = summary_text(merged.document, merged.version, total, merged.missing)
    result = evalai_result(merged.document, merged.version) if scored else []
    files = {
        storage_keys.MERGED: text,
        storage_keys.SUMMARY: summary,
        storage_keys.EVALAI_FORM: json.dumps(result, indent=4),
    }
    for name, body in files.items():
        kind = "text/plain" if name == storage_keys.SUMMARY else "application/json"
        cluster.artifacts.write(storage_keys.result_key(submission.pk, name), body.encode(), kind)
    metrics = accuracies(merged.document, merged.version) if scored else {}
    score = f": driving score {metrics['Driving score']:.3f}" if metrics else ""
    return Outcome(
        OutcomeStatus.FINISHED if scored else OutcomeStatus.FAILED,
        f"Submission {submission.pk} finished{score} over {merged.routes_done} of {total} routes.",
        result=result,
        metrics=metrics,
        routes_done=driven,
        routes_total=total,
        summary=summary,
        merged=text,
    )


def _merge(cluster: Cluster, jobs: Sequence[ShardJob]) -> Merged:
    parts: list[tuple[str, Checkpoint]] = []
    for job in jobs:
        key = storage_keys.checkpoint_key(job.submission, job.shard.index)
        body = cluster.artifacts.read(key)
        if body is None:  # the pair never finished a route; the merge counts its routes as missing
            continue
        source = cluster.artifacts.location(key)
        checkpoint = parse_checkpoint(body, source, job.version)
        check_expected(checkpoint, job.expected, source)
        parts.append((source, checkpoint))
    return merge(parts, [run for job in jobs for run in job.expected], jobs[0].version)


async def publish_partial(
    services: Services,
    cluster: Cluster,
    submission: Submission,
    claim: Claim,
    jobs: Sequence[ShardJob],
    published: int,
    permit: WritePermit | None = None,
) -> int:
    """Show the results so far at EvalAI if there are more than `published` routes; returns the number of routes shown.

    Nothing is written once the permit is revoked, although the thread that waits for its slot goes on.

    Skips what cannot be merged at the moment: the final merge decides. Raises SubmissionCancelled,
    and AlreadyClaimed where another run has taken over.
    """
    try:
        merged = await asyncio.to_thread(_merge, cluster, jobs)
    except InvalidCheckpoint as error:
        get_run_logger().warning("Partial results are not published: %s", error)
        return published
    if merged.routes_done <= published or merged.complete:
        return published
    total = len(merged.missing) + merged.routes_done
    report = Report(
        submission,
        SubmissionStatus.PARTIALLY_EVALUATED,
        result=partial_result(merged),
        stdout=summary_text(merged.document, merged.version, total, merged.missing),
        permit=permit,
    )
    await asyncio.to_thread(cluster.ledger.renew, claim)
    await asyncio.to_thread(services.evalai.report_partial, report)
    return merged.routes_done


async def kept_outcome(cluster: Cluster, submission: Submission, claim: Claim) -> Outcome | None:
    """How an earlier epoch decided this attempt, if it came that far: it is told now, and never decided again."""
    if not claim.is_takeover:
        return None
    entry = read_entry(await asyncio.to_thread(cluster.ledger.row, submission.team_pk, submission.pk))
    if entry is None or entry.outcome is None:
        return None
    body = await asyncio.to_thread(cluster.artifacts.read, entry.outcome)
    return None if body is None else parse_outcome(body, cluster.artifacts.location(entry.outcome))


@task(name="keep-outcome", **on_transient_errors(8))
async def keep_outcome(cluster: Cluster, submission: Submission, claim: Claim, outcome: Outcome) -> None:
    """Store the outcome before anybody is told, so that whatever dies now, the same is told later.

    Raises AlreadyClaimed where another run has taken over, whose outcome counts.
    """
    key = storage_keys.outcome_key(submission.pk, claim.attempt, claim.epoch)
    await asyncio.to_thread(cluster.artifacts.write, key, render_outcome(outcome), "application/json")
    await asyncio.to_thread(cluster.ledger.update, claim, {OUTCOME: key, **_values(cluster, submission, outcome)})


async def report(
    services: Services, cluster: Cluster, submission: Submission, claim: Claim, outcome: Outcome
) -> Outcome:
    """Tell EvalAI; a cancellation that came in between stands, and what EvalAI did not take is said in the outcome."""
    outcome = replace(outcome, undelivered="", refused=False)
    if outcome.ending not in (OutcomeStatus.FINISHED, OutcomeStatus.FAILED):
        return outcome
    try:
        await send_report(services, cluster, claim, outcome.report(submission))
    except SubmissionCancelled as taken_back:
        return cancelled(str(taken_back))
    except (TransientError, NeedsOperator, SubmissionFailed) as error:
        return outcome.not_delivered(error)
    return outcome


@task(name="report", **on_transient_errors(7, first_delay_seconds=15))  # the last retry comes after about half an hour
async def send_report(services: Services, cluster: Cluster, claim: Claim, report: Report) -> None:
    """Write the terminal status at EvalAI; raises SubmissionCancelled rather than overwrite a cancellation.

    Raises AlreadyClaimed where another run has taken over: EvalAI would let its late write overwrite anything.
    """
    await asyncio.to_thread(cluster.ledger.renew, claim, Stage.REPORTING)
    await asyncio.to_thread(services.evalai.report, report)


@task(name="record", **on_transient_errors(8))
async def record(cluster: Cluster, submission: Submission, claim: Claim, outcome: Outcome) -> None:
    """Write the outcome to the ledger: status, times, every metric, and where the files are.

    Without an end time while EvalAI has not been told: a successor, or the run retried in Prefect, tells it.
    """
    logs = cluster.settings.logs_of(submission.pk, claim.attempt)
    values = {**_values(cluster, submission, outcome), "logs": str(logs) if logs else None}
    if not outcome.undelivered:
        await asyncio.to_thread(cluster.ledger.renew, claim, Stage.ENDED)
        values[END_TIME] = datetime.now(UTC).isoformat()
    await asyncio.to_thread(cluster.ledger.update, claim, values)


def _values(cluster: Cluster, submission: Submission, outcome: Outcome) -> dict[str, object]:
    return {
        STATUS: outcome.ending.value,
        REASON: outcome.sentence,
        FAULT: outcome.fault.value if outcome.fault else None,
        UNDELIVERED: outcome.undelivered or None,
        REFUSED: outcome.refused or None,
        "routes-done": outcome.routes_done,
        "routes-total": outcome.routes_total,
        "s3-folder": cluster.artifacts.location(f"{submission.pk}/"),
        **outcome.metrics,
    }
