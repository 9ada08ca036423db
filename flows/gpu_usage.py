"""How long a submission's GPUs were in use: for the ledger at an end, and against the budget before a begin."""

import asyncio
from datetime import UTC, datetime

from evaluation.errors import InvalidCheckpoint
from evaluation.lifecycle.gpu_budget import over_budget
from evaluation.lifecycle.ledger_entry import USAGE, read_entry
from evaluation.lifecycle.outcome import Outcome
from evaluation.pair.observations import Observations
from evaluation.pair.timeline import timelines
from evaluation.pair.usage import usage_of
from evaluation.ports import ArtifactStore
from flows.best_effort import best_effort
from flows.evaluation_context import EvaluationContext
from flows.submission_folder import read_observations, read_plan


async def beyond_budget(context: EvaluationContext) -> Outcome | None:
    """The outcome of a submission whose team or phase has used its GPU hours; None within them, and where none are set.

    What was begun is continued.
    """
    budget = context.settings.gpu_budget
    if context.claim.is_takeover or not budget.limits_something:
        return None
    entries = await asyncio.to_thread(lambda: list(context.ledger.entries()))
    return over_budget(context.submission, entries, budget, datetime.now(UTC))


async def usage_values(context: EvaluationContext) -> dict[str, object]:
    """The ledger's attribute with this attempt beside the earlier ones; none where nothing was started."""
    with best_effort("The GPU seconds of this attempt are left out of the ledger"):
        return await asyncio.to_thread(_values, context)
    return {}


def _values(context: EvaluationContext) -> dict[str, object]:
    claim = context.claim
    row = context.ledger.row(claim.team, claim.submission) or {}
    entry = read_entry(row)
    seen = observations_of(context.artifacts, claim.submission)
    found = timelines(seen, claim.attempt, entry.claimed_at if entry else None)
    used = {str(usage.attempt): usage.described() for usage in map(usage_of, found) if usage.attempt == claim.attempt}
    kept = row.get(USAGE)
    return {USAGE: {**(kept if isinstance(kept, dict) else {}), **used}} if used else {}


def observations_of(artifacts: ArtifactStore, submission: int) -> dict[int, Observations | None]:
    """What each pair's supervisor saw, None where that is absent or cannot be read. Blocks."""
    plan = read_plan(artifacts, submission)
    return {shard.index: _seen(artifacts, submission, shard.index) for shard in plan.shards} if plan else {}


def _seen(artifacts: ArtifactStore, submission: int, shard: int) -> Observations | None:
    try:
        return read_observations(artifacts, submission, shard)
    except InvalidCheckpoint:
        return None
