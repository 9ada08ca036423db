"""The simulation: plan the shards, launch them, follow them to their end, leave nothing behind."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NoReturn

from prefect import get_run_logger, task

from evaluation import storage_keys
from evaluation.errors import ShardsFailed, UnknownSubmission
from evaluation.lifecycle.ledger_entry import IMAGE, IMAGE_DIGEST, IMAGES, images_of
from evaluation.lifecycle.outcome import raise_for_failures
from evaluation.lifecycle.shard_progress import explained
from evaluation.lifecycle.stages import Stage
from evaluation.lifecycle.write_permit import WritePermit
from evaluation.pair.protocol import PairProgress, parse_progress
from evaluation.shards import ShardJob, ShardState, ShardStatuses
from evaluation.submission.image import pinned, require_allowed_image
from evaluation.submission.model import SubmissionStatus
from evaluation.text import storable
from flows.best_effort import best_effort
from flows.cancellation import confirm_deletion, is_listed, wait_for_cancellation
from flows.evaluation_context import EvaluationContext
from flows.forecasting import Forecasting
from flows.planning import make_plan
from flows.progress_display import ProgressDisplay
from flows.reporting import publish_partial
from flows.services import Cluster
from flows.shard_results import others_drove_all
from flows.shard_runs import ShardRuns
from flows.task_retries import on_transient_errors
from flows.threads import in_evalai_thread

LOG_LINES = 40


@task(name="plan-shards", **on_transient_errors(8))
async def plan_shards(context: EvaluationContext) -> tuple[ShardJob, ...]:
    """Check the image, then split the routes.

    An earlier attempt's plan is kept, so that its checkpoints fit; so is the digest of its image.
    """
    submission, settings = context.submission, context.settings
    row = await asyncio.to_thread(context.ledger.row, submission.team_pk, submission.pk) or {}
    context.image_digest = str(row.get(IMAGE_DIGEST) or "")
    context.images_kept = images_of(row)
    context.images = {digest: set(shards) for digest, shards in context.images_kept.items()}
    # EvalAI sends a resume without its image when its storage does not answer.
    image = submission.image or (str(row[IMAGE]) if row.get(IMAGE) else None)
    image = pinned(require_allowed_image(image, settings.image_registries), context.image_digest)
    plan = await asyncio.to_thread(make_plan, context)
    phase, team = submission.phase, submission.team_name
    return settings.shard_jobs(submission.pk, context.claim.attempt, phase, team, image, plan)


@task(name="mark-running", **on_transient_errors(5))
async def mark_running(context: EvaluationContext, permit: WritePermit) -> None:
    """Write to EvalAI that the simulation has begun; raises SubmissionCancelled. Nothing once the permit is revoked."""
    job_name = f"submission-{context.submission.pk}-attempt-{context.claim.attempt}"
    try:
        await in_evalai_thread(context.evalai.mark_running, context.submission, job_name, permit)
    except UnknownSubmission as unknown:
        await confirm_deletion(context, unknown)


@task(name="launch-shards", **on_transient_errors(8))
async def launch_shards(context: EvaluationContext) -> None:
    """Create the shards' Jobs, or adopt those that run already; raises AlreadyClaimed.

    Raises SubmissionCancelled where the list shows by now that the submission was taken back.
    """
    with best_effort("Whether it was cancelled meanwhile is seen later"):
        await is_listed(context)
    await context.renew(Stage.LAUNCHING)
    await asyncio.to_thread(context.ledger.update, context.claim, {"status": SubmissionStatus.RUNNING.value})
    await context.backend.ensure(context.jobs)


@task(name="watch-shards", **on_transient_errors(8))
async def watch_shards(context: EvaluationContext, runs: ShardRuns) -> None:
    """Follow the shards until all have finished, showing them as running, their progress and partial results.

    `runs` are told what is new: one watch for all.
    Raises ShardsFailed with the failed shards' last lines, SubmissionCancelled soon after EvalAI says so.
    """
    await context.renew(Stage.SIMULATING)
    beside = [wait_for_cancellation(context), _show_as_running(context)]
    if seconds := context.settings.partial_result_seconds:
        beside.append(_publish_partial_results(context, seconds))
    statuses = await _first_to_end(_follow(context, runs), *beside)
    try:
        raise_for_failures(statuses)
    except ShardsFailed as failure:
        if await asyncio.to_thread(others_drove_all, context, failure):
            get_run_logger().warning("Other shards drove the routes of those that failed. %s", failure)
            return
        failure.logs = await _last_lines(context, statuses)
        raise


@task(name="remove-jobs", **on_transient_errors(8))
async def remove_jobs(context: EvaluationContext) -> None:
    """Stop and delete every Job of the attempt; returns when none is left.

    Raises AlreadyClaimed where another run has taken over, whose Jobs they are now.
    """
    await context.renew(Stage.CLEARING)
    await context.backend.remove(context.claim.submission, context.claim.attempt)


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


async def _follow(context: EvaluationContext, runs: ShardRuns) -> ShardStatuses:
    display = ProgressDisplay(context.jobs, Forecasting(context))
    statuses: ShardStatuses = {}
    async for statuses in context.backend.watch(context.jobs):
        await _note_images(context, statuses)
        await _show(context, display, statuses)
        with best_effort("The shards' task runs do not show what is new"):
            runs.tell(statuses, display.progress)
    await _show(context, display, statuses, last=True)  # what the pairs wrote last
    return explained(statuses, display.progress)


async def _note_images(context: EvaluationContext, statuses: ShardStatuses) -> None:
    """Keep which image runs where, for later runs too; the first that is known is the submission's from now on."""
    found = {index: status.image_digest for index, status in statuses.items() if status.image_digest}
    for index, digest in found.items():
        context.images.setdefault(digest, set()).add(index)
    images = {digest: sorted(shards) for digest, shards in sorted(context.images.items())}
    if images == context.images_kept:
        return
    first = context.image_digest or min((shards[0], digest) for digest, shards in images.items())[1]
    with best_effort("The images' digests are written with the next status"):
        await asyncio.to_thread(context.ledger.update, context.claim, {IMAGE_DIGEST: first, IMAGES: images})
        context.image_digest, context.images_kept = first, images


async def _show(
    context: EvaluationContext, display: ProgressDisplay, statuses: ShardStatuses, last: bool = False
) -> None:
    with best_effort("The shards' progress cannot be read now"):
        display.progress = await read_progress(context.cluster, context.jobs)
    with best_effort("The shards' progress cannot be shown now"):
        await display.show(statuses, last)


async def read_progress(cluster: Cluster, jobs: Sequence[ShardJob]) -> dict[int, PairProgress]:
    """What each pair says of itself, for the shards that have said anything in this attempt.

    Raises TransientError, NeedsOperator, or InvalidCheckpoint for a file that is far too large.
    """
    keys = [storage_keys.progress_key(job.submission, job.shard.index) for job in jobs]
    bodies = await asyncio.gather(*(asyncio.to_thread(cluster.artifacts.read, key) for key in keys))
    reported = {job.shard.index: parse_progress(body) for job, body in zip(jobs, bodies, strict=True) if body}
    attempt = jobs[0].attempt
    return {index: progress for index, progress in reported.items() if progress and progress.attempt == attempt}


async def _show_as_running(context: EvaluationContext) -> NoReturn:
    """Beside the shards, which do not wait for EvalAI; an end that comes first is never overwritten."""
    async with _until_the_end() as permit:
        with best_effort("EvalAI does not show it as running"):
            await mark_running(context, permit)
        while True:  # until the shards have ended
            await asyncio.sleep(3600)


async def _publish_partial_results(context: EvaluationContext, seconds: float) -> NoReturn:
    published = 0
    async with _until_the_end() as permit:
        while True:
            await asyncio.sleep(seconds)
            with best_effort("Partial results are not published now"):
                published = await publish_partial(context, published, permit)


@asynccontextmanager
async def _until_the_end() -> AsyncIterator[WritePermit]:
    """A permit for the body. The thread of a cancelled task continues: it writes nothing after the run's end."""
    permit = WritePermit()
    try:
        yield permit
    finally:
        await asyncio.to_thread(permit.revoke)


def _keep_last_lines(context: EvaluationContext, job: ShardJob, logs: Mapping[str, str]) -> None:
    """Every container's last words, in the submission's folder and the log group: no supervisor may have been there."""
    pk, attempt, shard = job.submission, job.attempt, job.shard.index
    for container, text in logs.items():
        if text:
            head = f"[the last {LOG_LINES} lines of {container} at most, as its backend had them]\n"
            kept = storable(head + text)
            key = storage_keys.last_lines_key(pk, shard, attempt, container)
            context.artifacts.write(key, kept.encode(), "text/plain")
            with best_effort(f"The last lines of {container} are in the submission's folder only"):
                context.settings.append_log(storage_keys.last_lines_stream(pk, attempt, shard, container), kept)


async def _last_lines(context: EvaluationContext, statuses: ShardStatuses) -> str:
    """The end of the failed shards' agent logs: the team's own output, and nobody else's."""
    parts = []
    for job in context.jobs:
        if statuses[job.shard.index].state is ShardState.FAILED:
            log = "(the log cannot be read)"
            with best_effort(f"The last lines of shard {job.shard.index} are left out"):
                logs = await context.backend.logs(job, LOG_LINES)
                log = logs.get("agent", "")
                await asyncio.to_thread(_keep_last_lines, context, job, logs)
            parts.append(f"--- shard {job.shard.index}, the agent's last lines ---\n{log}")
    return "\n".join(parts)
