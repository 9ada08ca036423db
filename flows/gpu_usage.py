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
from flows.forecasting import at_the_end
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


async def usage_values(context: EvaluationContext, finished: bool) -> dict[str, object]:
    """The ledger's attributes: GPU seconds of this attempt beside the earlier ones, and its true times.

    None where nothing was started.
    """
    with best_effort("The GPU seconds and the times of this attempt are left out of the ledger"):
        return await asyncio.to_thread(_values, context, finished)
    return {}


def _values(context: EvaluationContext, finished: bool) -> dict[str, object]:
    claim = context.claim
    row = context.ledger.row(claim.team, claim.submission) or {}
    entry = read_entry(row)
    seen = observations_of(context.artifacts, claim.submission)
    found = timelines(seen, claim.attempt, entry.claimed_at if entry else None)
    mine = next((each for each in found if each.attempt == claim.attempt), None)
    if mine is None:
        return {}
    kept = row.get(USAGE)
    used = {**(kept if isinstance(kept, dict) else {}), str(mine.attempt): usage_of(mine).described()}
    return {USAGE: used, **at_the_end(context, row, mine, finished)}


def observations_of(artifacts: ArtifactStore, submission: int) -> dict[int, Observations | None]:
    """What each pair's supervisor saw, None where that is absent or cannot be read. Blocks."""
    plan = read_plan(artifacts, submission)
    return {shard.index: _seen(artifacts, submission, shard.index) for shard in plan.shards} if plan else {}


def _seen(artifacts: ArtifactStore, submission: int, shard: int) -> Observations | None:
    try:
        return read_observations(artifacts, submission, shard)
    except InvalidCheckpoint:
        return None
