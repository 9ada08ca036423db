"""A submission's report: made of what its folder and the ledger keep, and written beside the result."""

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from prefect import task

from blocks.leaderboard_cluster import LeaderboardCluster
from evaluation import storage_keys
from evaluation.errors import EvaluationError, InvalidCheckpoint
from evaluation.lifecycle.ledger_entry import IMAGE_DIGEST, LedgerEntry, read_entry
from evaluation.lifecycle.outcome import Outcome, OutcomeStatus
from evaluation.ports import ArtifactStore, Row
from evaluation.report_page.render import render_report
from evaluation.report_page.source import Audience, Pair, ReportSource, Subject
from evaluation.routes import expand
from evaluation.standings import Rank, rank_of
from flows.best_effort import best_effort
from flows.evaluation_context import EvaluationContext
from flows.gpu_usage import observations_of
from flows.held_results import kept_result
from flows.services import Cluster, Services
from flows.submission_folder import read_plan, read_pool, read_provenance
from flows.task_retries import on_transient_errors

FILES = {Audience.OPERATOR: storage_keys.REPORT, Audience.TEAM: storage_keys.TEAM_REPORT}


async def write_report_pages(context: EvaluationContext, outcome: Outcome) -> None:
    """Write both pages, for whatever was evaluated; what goes wrong with them is a warning."""
    if outcome.ending is not OutcomeStatus.SKIPPED:
        with best_effort("The report's pages are left out; `leaderboard report` makes them"):
            await write_pages(context, outcome)


@task(name="write-report", **on_transient_errors(2))
async def write_pages(context: EvaluationContext, outcome: Outcome) -> None:
    """Both pages to the submission's folder; raises what reading it raises."""
    row = await asyncio.to_thread(context.ledger.row, context.submission.team_pk, context.submission.pk) or {}
    entry = read_entry(row)
    if entry is None:
        raise InvalidCheckpoint(f"The ledger has no row of submission {context.submission.pk}")
    source = await asyncio.to_thread(report_source, context.cluster, entry, row, outcome)
    for audience, name in FILES.items():
        key = storage_keys.result_key(entry.submission, name)
        page = await asyncio.to_thread(render_report, source, audience)
        await asyncio.to_thread(context.artifacts.write, key, page, "text/html; charset=utf-8")


async def made_page(services: Services, submission: int, audience: Audience) -> bytes:
    """A page made anew from what is kept of the submission.

    Raises UnknownSubmission; InvalidCheckpoint where no outcome is kept or it cannot be read.
    """
    kept = await kept_result(services, submission)
    row = await asyncio.to_thread(kept.cluster.ledger.row, kept.entry.team, submission) or {}
    source = await asyncio.to_thread(report_source, kept.cluster, kept.entry, row, kept.outcome)
    return await asyncio.to_thread(render_report, source, audience)


def report_source(cluster: Cluster, entry: LedgerEntry, row: Row, outcome: Outcome) -> ReportSource:
    """Read what the report is made of. A file that cannot be read is left out, but the plan is needed. Blocks.

    Raises InvalidConfiguration for a plan that is none.
    """
    artifacts, settings, pk = cluster.artifacts, cluster.settings, entry.submission
    statement, key = _provenance(artifacts, pk, outcome)
    return ReportSource(
        subject=_subject(settings, artifacts, entry, row),
        outcome=outcome,
        pairs=_pairs(artifacts, pk),
        made_at=datetime.now(UTC),
        provenance=statement,
        signed_by=key,
        rank=_rank(cluster, entry, outcome),
        price=settings.price,
    )


def _subject(settings: LeaderboardCluster, artifacts: ArtifactStore, entry: LedgerEntry, row: Row) -> Subject:
    return Subject(
        submission=entry.submission,
        phase=entry.phase,
        team=entry.team_label,
        version=settings.leaderboard_version,
        attempt=entry.attempt,
        image=entry.image or "",
        image_digest=str(row.get(IMAGE_DIGEST) or ""),
        claimed_at=entry.claimed_at,
        run=entry.owner,
        folder=artifacts.location(f"{entry.submission}/"),
        logs=str(settings.logs_of(entry.submission, entry.attempt) or ""),
    )


def _pairs(artifacts: ArtifactStore, submission: int) -> tuple[Pair, ...]:
    plan = read_plan(artifacts, submission)
    if plan is None:  # it ended before its shards were planned
        return ()
    pool = read_pool(artifacts, submission)
    seen = observations_of(artifacts, submission)
    return tuple(
        Pair(
            shard.index,
            expand(pool.claims[shard.index] if pool else shard.routes, plan.repetitions),
            seen[shard.index],
        )
        for shard in plan.shards
    )


def _rank(cluster: Cluster, entry: LedgerEntry, outcome: Outcome) -> Rank | None:
    """Where its team stands now; None for what has no score, and where the ledger does not answer."""
    if outcome.ending is not OutcomeStatus.FINISHED:
        return None
    try:
        return rank_of(cluster.ledger.entries(), entry)
    except EvaluationError:
        return None


def _provenance(artifacts: ArtifactStore, submission: int, outcome: Outcome) -> tuple[Mapping[str, Any], str]:
    """The statement, and the id of the key that signed it; empty where no complete result is kept."""
    try:
        envelope = read_provenance(artifacts, submission) if outcome.metrics or outcome.reasons else None
        if envelope is None:
            return {}, ""
        statement: Mapping[str, Any] = json.loads(envelope.statement)
    except InvalidCheckpoint:
        return {}, ""
    return statement, next((signature.key for signature in envelope.signatures), "")
