"""Gathers what `flows.reconciler.explanation` needs to say why a submission is where it is."""

import asyncio
from contextlib import aclosing

from evaluation import storage_keys
from evaluation.errors import EvaluationError
from evaluation.lifecycle.ledger_entry import LedgerEntry
from evaluation.lifecycle.shard_progress import ShardProgress, shard_progress
from evaluation.lifecycle.stages import Stage
from evaluation.shards import ShardJob, ShardStatuses, parse_plan
from evaluation.submission.model import parse_phase
from flows.reconciler.explanation import Explanation, explain
from flows.reconciler.snapshot import take_snapshot
from flows.services import Cluster, Services
from flows.simulation import read_progress

CLUSTER_SECONDS = 20.0  # for the first status from a cluster


async def explain_submission(services: Services, submission: int) -> Explanation:
    """Ask all systems about one submission. Raises ServiceUnavailable where no ledger answers."""
    seen = await take_snapshot(services, [submission])
    if not seen.views:
        return Explanation("unknown: its ledger cannot be read", problems=seen.unavailable)
    [view] = seen.views
    entry = view.entry
    shards: list[ShardProgress] = []
    if entry and entry.open and entry.stage is Stage.SIMULATING:
        shards = await _shards(seen.clusters[view.cluster], entry)
    return explain(view, shards, seen.taken_at, seen.unavailable)


async def _shards(cluster: Cluster, entry: LedgerEntry) -> list[ShardProgress]:
    """The shards as the table shows them; none where the plan or the cluster cannot be read."""
    try:
        jobs = await asyncio.to_thread(_jobs, cluster, entry)
        async with asyncio.timeout(CLUSTER_SECONDS):
            return shard_progress(jobs, await _first_statuses(cluster, jobs), await read_progress(cluster, jobs))
    except (EvaluationError, TimeoutError):
        return []


def _jobs(cluster: Cluster, entry: LedgerEntry) -> tuple[ShardJob, ...]:
    key = storage_keys.plan_key(entry.submission)
    plan = parse_plan(cluster.artifacts.read(key) or b"", cluster.artifacts.location(key))
    phase, image = parse_phase(entry.phase), entry.image or ""
    return cluster.settings.shard_jobs(entry.submission, entry.attempt, phase, entry.team_name, image, plan)


async def _first_statuses(cluster: Cluster, jobs: tuple[ShardJob, ...]) -> ShardStatuses:
    async with aclosing(cluster.backend.watch(jobs)) as watch:  # type: ignore[type-var]
        return await anext(watch)
