"""The simulation: plan the shards, launch them, follow them to their end, leave nothing behind."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

from prefect import get_run_logger, task

from evaluation import storage_keys
from evaluation.errors import InvalidCheckpoint, ShardsFailed, SubmissionCancelled, TransientError
from evaluation.lifecycle.outcome import raise_for_failures
from evaluation.lifecycle.shard_progress import explained
from evaluation.lifecycle.stages import Stage
from evaluation.lifecycle.write_permit import WritePermit
from evaluation.pair.protocol import PairProgress, parse_progress
from evaluation.ports import Claim
from evaluation.shards import Shard, ShardJob, ShardState, ShardStatuses, parse_plan, render_plan, split_contiguous
from evaluation.submission.image import require_allowed_image
from evaluation.submission.model import Submission, SubmissionStatus
from flows.progress_display import ProgressDisplay
from flows.reporting import publish_partial
from flows.services import Cluster, Services
from flows.task_retries import on_transient_errors

LOG_LINES = 40


@task(name="plan-shards", **on_transient_errors(8))
async def plan_shards(cluster: Cluster, submission: Submission, claim: Claim) -> tuple[ShardJob, ...]:
    """Check the image, then split the routes; an earlier attempt's plan is kept, so that its checkpoints fit."""
    image = submission.image or await asyncio.to_thread(_earlier_image, cluster, submission)
    image = require_allowed_image(image, cluster.settings.image_registries)
    shards, repetitions = await asyncio.to_thread(_plan, cluster, submission.pk)
    phase, team = submission.phase, submission.team_name
    return cluster.settings.shard_jobs(submission.pk, claim.attempt, phase, team, image, shards, repetitions)


def _earlier_image(cluster: Cluster, submission: Submission) -> str | None:
    """The image of an earlier attempt: EvalAI sends a resume without it when its storage does not answer."""
    row = cluster.ledger.row(submission.team_pk, submission.pk) or {}
    return str(row["image"]) if row.get("image") else None


def _plan(cluster: Cluster, submission: int) -> tuple[tuple[Shard, ...], int]:
    key = storage_keys.plan_key(submission)
    earlier = cluster.artifacts.read(key)
    if earlier is not None:
        return parse_plan(earlier, cluster.artifacts.location(key))
    shards = split_contiguous(cluster.settings.read_routes(), cluster.settings.shards)
    text = render_plan(shards, cluster.settings.repetitions)
    cluster.artifacts.write(key, text.encode(), "application/json")
    return shards, cluster.settings.repetitions


@task(name="mark-running", **on_transient_errors(5))
async def mark_running(services: Services, cluster: Cluster, submission: Submission, claim: Claim) -> None:
    """Tell the ledger and EvalAI that the simulation starts; raises SubmissionCancelled, AlreadyClaimed."""
    await asyncio.to_thread(cluster.ledger.update, claim, {"status": SubmissionStatus.RUNNING.value})
    job_name = f"submission-{submission.pk}-attempt-{claim.attempt}"
    await asyncio.to_thread(services.evalai.mark_running, submission, job_name)


@task(name="launch-shards", **on_transient_errors(8))
async def launch_shards(cluster: Cluster, claim: Claim, jobs: Sequence[ShardJob]) -> None:
    """Create the shards' Jobs, or adopt those that run already; raises AlreadyClaimed."""
    await asyncio.to_thread(cluster.ledger.renew, claim, Stage.LAUNCHING)
    await cluster.backend.ensure(jobs)


@task(name="watch-shards", **on_transient_errors(8))
async def watch_shards(
    services: Services, cluster: Cluster, submission: Submission, claim: Claim, jobs: Sequence[ShardJob]
) -> None:
    """Follow the shards until all have finished, showing their progress and publishing partial results.

    Raises ShardsFailed with the failed shards' last lines, SubmissionCancelled soon after EvalAI says so.
    """
    await asyncio.to_thread(cluster.ledger.renew, claim, Stage.SIMULATING)
    side_jobs = [_look_for_cancellation(services, cluster, submission)]
    if seconds := cluster.settings.partial_result_seconds:
        side_jobs.append(_publish_partial_results(services, cluster, submission, claim, jobs, seconds))
    statuses = await _first_to_end(_follow(cluster, jobs), *side_jobs)
    try:
        raise_for_failures(statuses)
    except ShardsFailed as failure:
        failure.logs = await _last_lines(cluster, jobs, statuses)
        raise


@task(name="remove-jobs", **on_transient_errors(8))
async def remove_jobs(cluster: Cluster, claim: Claim) -> None:
    """Stop and delete every Job of the attempt; returns when none is left.

    Raises AlreadyClaimed where another run has taken over, whose Jobs they are now.
    """
    await asyncio.to_thread(cluster.ledger.renew, claim, Stage.CLEARING)
    await cluster.backend.remove(claim.submission, claim.attempt)


async def _first_to_end(*coroutines: Coroutine[Any, Any, ShardStatuses]) -> ShardStatuses:
    """Run all, return what the first to end returns (or raise what it raises), and end the others."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return done.pop().result()
    finally:
        for other in tasks:
            other.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _follow(cluster: Cluster, jobs: Sequence[ShardJob]) -> ShardStatuses:
    board = await ProgressDisplay.open(jobs)
    statuses: ShardStatuses = {}
    async for statuses in cluster.backend.watch(jobs):
        await board.show(statuses, await _progress_if_there(cluster, jobs))
    progress = await _progress_if_there(cluster, jobs)
    statuses = explained(statuses, progress)
    await board.show(statuses, progress)
    return statuses


async def _progress_if_there(cluster: Cluster, jobs: Sequence[ShardJob]) -> dict[int, PairProgress]:
    try:
        return await read_progress(cluster, jobs)
    except (TransientError, InvalidCheckpoint) as error:
        get_run_logger().warning("The shards' progress cannot be read now: %s", error)
        return {}


async def read_progress(cluster: Cluster, jobs: Sequence[ShardJob]) -> dict[int, PairProgress]:
    """What each pair says of itself, for the shards that have said anything in this attempt.

    Raises TransientError, or InvalidCheckpoint for a file that is far too large.
    """
    keys = [storage_keys.progress_key(job.submission, job.shard.index) for job in jobs]
    bodies = await asyncio.gather(*(asyncio.to_thread(cluster.artifacts.read, key) for key in keys))
    told = {job.shard.index: parse_progress(body) for job, body in zip(jobs, bodies, strict=True) if body}
    attempt = jobs[0].attempt
    return {index: progress for index, progress in told.items() if progress and progress.attempt == attempt}


async def _look_for_cancellation(services: Services, cluster: Cluster, submission: Submission) -> ShardStatuses:
    while True:
        await asyncio.sleep(cluster.settings.cancel_check_seconds)
        try:
            status = await asyncio.to_thread(services.evalai.status, submission.pk)
        except TransientError as error:  # an outage of EvalAI stops no simulation
            get_run_logger().warning("EvalAI cannot be asked for a cancellation now: %s", error)
            continue
        if status is SubmissionStatus.CANCELLED:
            raise SubmissionCancelled("The team cancelled the submission while it was running")


async def _publish_partial_results(
    services: Services,
    cluster: Cluster,
    submission: Submission,
    claim: Claim,
    jobs: Sequence[ShardJob],
    seconds: float,
) -> ShardStatuses:
    published, permit = 0, WritePermit()
    try:
        while True:
            await asyncio.sleep(seconds)
            try:
                published = await publish_partial(services, cluster, submission, claim, jobs, published, permit)
            except TransientError as error:
                get_run_logger().warning("Partial results are not published now: %s", error)
    finally:
        await asyncio.to_thread(permit.revoke)  # the thread of a cancelled task goes on: no write after the run's end


async def _last_lines(cluster: Cluster, jobs: Sequence[ShardJob], statuses: ShardStatuses) -> str:
    """The end of the failed shards' agent logs: the team's own output, and nobody else's."""
    parts = []
    for job in jobs:
        if statuses[job.shard.index].state is ShardState.FAILED:
            log = (await cluster.backend.logs(job, LOG_LINES)).get("agent", "")
            parts.append(f"--- shard {job.shard.index}, the agent's last lines ---\n{log}")
    return "\n".join(parts)
