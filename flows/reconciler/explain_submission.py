"""Gathers what `flows.reconciler.explanation` needs to say why a submission is where it is."""

import asyncio
from contextlib import aclosing
from dataclasses import replace

from evaluation.errors import EvaluationError
from evaluation.lifecycle.forecast import Forecast, median_off, next_place
from evaluation.lifecycle.ledger_entry import LedgerEntry
from evaluation.lifecycle.shard_progress import ShardProgress, shard_progress
from evaluation.lifecycle.stages import Stage
from evaluation.queue_place import QueuePlace
from evaluation.shards import ShardJob, ShardStatuses
from evaluation.submission.model import parse_phase
from flows.forecasting import PAST
from flows.reconciler.explanation import Explanation, explain
from flows.reconciler.snapshot import take_snapshot
from flows.services import Cluster, Services
from flows.simulation import read_progress
from flows.submission_folder import read_plan

CLUSTER_SECONDS = 20.0  # for the first status from a cluster


async def explain_submission(services: Services, submission: int) -> Explanation:
    """Ask all systems about one submission. Raises ServiceUnavailable where no ledger answers."""
    seen = await take_snapshot(services, [submission])
    if not seen.views:
        return Explanation("unknown: its ledger cannot be read", problems=seen.unavailable)
    [view] = seen.views
    entry = view.entry
    if not (entry and entry.open and entry.stage is Stage.SIMULATING):
        return explain(view, [], seen.taken_at, seen.unavailable)
    cluster = seen.clusters[view.cluster]
    shards, place = await _shards(cluster, entry)
    explained = explain(view, shards, seen.taken_at, seen.unavailable)
    expected = replace(entry.forecast or Forecast(entry.attempt), queue=place)
    return replace(explained, forecast=expected, past_off=await _past_off(cluster))


async def _shards(cluster: Cluster, entry: LedgerEntry) -> tuple[list[ShardProgress], QueuePlace | None]:
    """The shards as the table shows them, and the next one's place in the queue.

    None where the plan or the cluster cannot be read.
    """
    try:
        jobs = await asyncio.to_thread(_jobs, cluster, entry)
        if not jobs:
            return [], None
        async with asyncio.timeout(CLUSTER_SECONDS):
            statuses = await _first_statuses(cluster, jobs)
            return shard_progress(jobs, statuses, await read_progress(cluster, jobs)), next_place(statuses)
    except (EvaluationError, TimeoutError):
        return [], None


async def _past_off(cluster: Cluster) -> tuple[float, int] | None:
    try:
        return median_off(await asyncio.to_thread(PAST.read, cluster.artifacts))
    except EvaluationError:
        return None


def _jobs(cluster: Cluster, entry: LedgerEntry) -> tuple[ShardJob, ...]:
    plan = read_plan(cluster.artifacts, entry.submission)
    if plan is None:
        return ()
    phase, image = parse_phase(entry.phase), entry.image or ""
    return cluster.settings.shard_jobs(entry.submission, entry.attempt, phase, entry.team_name, image, plan)


async def _first_statuses(cluster: Cluster, jobs: tuple[ShardJob, ...]) -> ShardStatuses:
    async with aclosing(cluster.backend.watch(jobs)) as watch:  # type: ignore[type-var]
        return await anext(watch)
