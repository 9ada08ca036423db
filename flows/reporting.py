"""The results: four checkpoints become one, which is reported to EvalAI and kept. What PostEKS did."""

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime

from prefect import get_run_logger, task

from evaluation import storage_keys
from evaluation.errors import (
    InvalidCheckpoint,
    NeedsOperator,
    ShardsFailed,
    SubmissionCancelled,
    TransientError,
    UnknownSubmission,
)
from evaluation.lifecycle.ledger_entry import (
    END_TIME,
    FAULT,
    OUTCOME,
    REASON,
    REFUSED,
    REMARKS,
    ROUTES_DONE,
    ROUTES_TOTAL,
    STATUS,
    UNDELIVERED,
    read_entry,
)
from evaluation.lifecycle.outcome import (
    Outcome,
    OutcomeStatus,
    cancelled,
    finished_sentence,
    held,
    parse_outcome,
    render_outcome,
)
from evaluation.lifecycle.report import Report
from evaluation.lifecycle.stages import Stage
from evaluation.lifecycle.write_permit import WritePermit
from evaluation.results.checkpoint_writing import render_document
from evaluation.results.evalai_result import accuracies, evalai_result, partial_result
from evaluation.results.records import count_driven
from evaluation.results.rejection import rejection
from evaluation.results.summary import summary_text
from evaluation.submission.model import SubmissionStatus
from evaluation.text import storable
from flows.best_effort import best_effort
from flows.cancellation import confirm_deletion
from flows.evaluation_context import EvaluationContext
from flows.gpu_usage import usage_values
from flows.planning import keep_durations
from flows.provenance import write_provenance
from flows.shard_results import Collected, collect, reasons_to_hold
from flows.task_retries import on_transient_errors
from flows.threads import in_evalai_thread, in_report_thread


@task(name="merge-results", **on_transient_errors(8))
async def merge_results(context: EvaluationContext) -> Outcome:
    """Merge the shards' checkpoints and store the result; raises InvalidCheckpoint unless every route is there.

    What does not fit what is known from outside (evaluation.verification) is held instead of finished.
    Raises ShardsFailed where the merged result may not be called finished (evaluation.results.rejection).
    """
    await context.renew(Stage.MERGING)
    collected = await asyncio.to_thread(collect, context)
    merged = collected.merged
    outcome = await asyncio.to_thread(_store, context, collected, rejection(merged) is None)
    if failure := rejection(merged):
        raise ShardsFailed(failure.summary, failure.cause, failure.remedy, failure.fault)
    if outcome.ending is not OutcomeStatus.FINISHED:
        done, total = outcome.routes_done, outcome.routes_total
        raise InvalidCheckpoint("The results are incomplete", f"only {done} of {total} routes are there")
    with best_effort("How long the routes took is not kept for those who drive them next"):
        await asyncio.to_thread(
            keep_durations, context, [seen for each in collected.shards if (seen := each.observations)]
        )
    await asyncio.to_thread(write_provenance, context)
    reasons = [storable(str(reason)) for reason in await asyncio.to_thread(reasons_to_hold, context, collected)]
    return held(context.submission, outcome, reasons) if reasons else outcome


async def results_so_far(context: EvaluationContext) -> Outcome | None:
    """What an unfinished submission drove, stored like a full result; None where that cannot be read."""
    if context.jobs:
        with best_effort("The results so far are left out"):
            return await collect_results(context)
    return None


@task(name="collect-results", **on_transient_errors(2))
async def collect_results(context: EvaluationContext) -> Outcome:
    """Merge and store what is there; raises InvalidCheckpoint where that is unreadable."""
    collected = await asyncio.to_thread(collect, context)
    return await asyncio.to_thread(_store, context, collected, False)


def _store(context: EvaluationContext, collected: Collected, final: bool) -> Outcome:
    """Write the result's files; what may not be called finished gets no figures."""
    pk, merged = context.submission.pk, collected.merged
    scored = final and merged.complete
    total = len(merged.missing) + merged.routes_done
    driven = count_driven(merged.document["_checkpoint"]["records"])  # a resume drives the others anew
    text = render_document(merged.document, merged.version)
    summary = _summary(collected, scored)
    remarks = tuple(map(storable, collected.remarks))
    result = evalai_result(merged.document, merged.version) if scored else []
    files = {
        storage_keys.MERGED: text,
        storage_keys.SUMMARY: summary,
        storage_keys.EVALAI_FORM: json.dumps(result, indent=4),
    }
    for name, body in files.items():
        kind = "text/plain" if name == storage_keys.SUMMARY else "application/json"
        context.artifacts.write(storage_keys.result_key(pk, name), body.encode(), kind)
    metrics = accuracies(merged.document, merged.version) if scored else {}
    return Outcome(
        OutcomeStatus.FINISHED if scored else OutcomeStatus.FAILED,
        " ".join([finished_sentence(pk, metrics, merged.routes_done, total), *remarks]),
        result=result,
        metrics=metrics,
        routes_done=driven,
        routes_total=total,
        summary=summary,
        merged=text,
        remarks=remarks,
    )


def _summary(collected: Collected, scored: bool = True) -> str:
    merged = collected.merged
    total = len(merged.missing) + merged.routes_done
    again, restarts = collected.redriven, collected.restarts
    with best_effort("The summary is left out"):
        text = summary_text(merged.document, merged.version, total, merged.missing, again, restarts, scored=scored)
        return storable(text)
    return ""


async def publish_partial(context: EvaluationContext, published: int, permit: WritePermit) -> int:
    """Show the results so far at EvalAI if there are more than `published` routes; returns the number of routes shown.

    Nothing is written once the permit is revoked, although the thread that waits for its slot continues.

    Raises SubmissionCancelled, AlreadyClaimed where another run has taken over, InvalidCheckpoint for what cannot be
    merged at the moment: the final merge decides.
    """
    collected = await asyncio.to_thread(collect, context)
    merged = collected.merged
    if merged.routes_done <= published or merged.complete:
        return published
    if reasons := await asyncio.to_thread(reasons_to_hold, context, collected):
        raise InvalidCheckpoint("The results so far do not fit what is known", str(reasons[0]))
    report = Report(
        context.submission,
        SubmissionStatus.PARTIALLY_EVALUATED,
        result=partial_result(merged),
        stdout=_summary(collected),
        permit=permit,
    )
    await context.renew()
    await in_evalai_thread(context.evalai.report_partial, report)
    return merged.routes_done


async def kept_outcome(context: EvaluationContext) -> Outcome | None:
    """How an earlier epoch decided this attempt, if it came that far: it is reported now, and never decided again."""
    if not context.claim.is_takeover:
        return None
    row = await asyncio.to_thread(context.ledger.row, context.submission.team_pk, context.submission.pk)
    entry = read_entry(row)
    if entry is None or entry.outcome is None:
        return None
    body = await asyncio.to_thread(context.artifacts.read, entry.outcome)
    try:
        return None if body is None else parse_outcome(body, context.artifacts.location(entry.outcome))
    except InvalidCheckpoint as error:  # somebody has changed the file; the results are still there
        get_run_logger().warning("The outcome is decided again: %s", error)
        return None


@task(name="keep-outcome", **on_transient_errors(8))
async def keep_outcome(context: EvaluationContext, outcome: Outcome) -> Outcome:
    """Store the outcome before it is reported, so that whatever dies now, the same is reported later.

    Returns it as stored. Raises AlreadyClaimed where another run has taken over, whose outcome counts.
    """
    kept = _storable_outcome(outcome)
    key = storage_keys.outcome_key(context.submission.pk, context.claim.attempt, context.claim.epoch)
    await asyncio.to_thread(context.artifacts.write, key, render_outcome(kept), "application/json")
    await asyncio.to_thread(context.ledger.update, context.claim, {OUTCOME: key, **_values(context, kept)})
    return kept


def _storable_outcome(outcome: Outcome) -> Outcome:
    """The outcome without characters that the ledger, EvalAI or Prefect cannot store: agents write what they like."""
    return replace(
        outcome,
        sentence=storable(outcome.sentence),
        summary=storable(outcome.summary),
        merged=storable(outcome.merged),
        logs=storable(outcome.logs),
    )


async def report(context: EvaluationContext, outcome: Outcome) -> Outcome:
    """Report to EvalAI; a cancellation that came in between stands, and what EvalAI did not take is in the outcome."""
    outcome = replace(outcome, undelivered="", refused=False)
    if outcome.ending not in (OutcomeStatus.FINISHED, OutcomeStatus.FAILED):
        return outcome
    try:
        await send_report(context, outcome.report(context.submission))
    except SubmissionCancelled as taken_back:
        return cancelled(str(taken_back))
    except (TransientError, NeedsOperator) as error:
        return outcome.not_delivered(error)
    return outcome


@task(name="report", **on_transient_errors(7, first_delay_seconds=15))  # the last retry comes after about half an hour
async def send_report(context: EvaluationContext, report: Report) -> None:
    """Write the terminal status at EvalAI; raises SubmissionCancelled rather than overwrite a cancellation.

    Raises AlreadyClaimed where another run has taken over: EvalAI would let its late write overwrite anything.
    """
    await context.renew(Stage.REPORTING)
    try:
        await in_report_thread(context.evalai.report, report)
    except UnknownSubmission as unknown:
        await confirm_deletion(context, unknown)


@task(name="record", **on_transient_errors(8))
async def record(context: EvaluationContext, outcome: Outcome) -> None:
    """Write the outcome to the ledger: status, times, every metric, and where the files are.

    Without an end time while the report has not reached EvalAI: a takeover run sends it, or the run retried in Prefect.
    """
    logs = context.settings.logs_of(context.submission.pk, context.claim.attempt)
    values = {
        **_values(context, outcome),
        **await usage_values(context, outcome.ending is OutcomeStatus.FINISHED),
        "logs": str(logs) if logs else None,
    }
    if not outcome.undelivered:
        await context.renew(Stage.ENDED)
        values[END_TIME] = datetime.now(UTC).isoformat()
    await asyncio.to_thread(context.ledger.update, context.claim, values)


def _values(context: EvaluationContext, outcome: Outcome) -> dict[str, object]:
    return {
        STATUS: outcome.ending.value,
        REASON: outcome.sentence,
        FAULT: outcome.fault.value if outcome.fault else None,
        UNDELIVERED: outcome.undelivered or None,
        REFUSED: outcome.refused or None,
        ROUTES_DONE: outcome.routes_done,
        ROUTES_TOTAL: outcome.routes_total,
        REMARKS: " ".join(outcome.remarks) or None,
        "s3-folder": context.artifacts.location(f"{context.submission.pk}/"),
        **({} if outcome.ending is OutcomeStatus.HELD else outcome.metrics),
    }
