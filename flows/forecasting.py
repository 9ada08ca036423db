"""The forecast of a submission while its shards wait and drive: in the ledger, the log and the progress artifact."""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from prefect import get_run_logger
from pydantic import TypeAdapter

from evaluation import storage_keys
from evaluation.lifecycle.forecast import Forecast, Past, forecast, past_of, read_forecast
from evaluation.lifecycle.ledger_entry import FORECAST
from evaluation.lifecycle.shard_progress import ShardProgress
from evaluation.pair.timeline import AttemptTimeline
from evaluation.ports import Row
from evaluation.shards import ShardStatuses
from evaluation.text import storable
from flows.best_effort import best_effort
from flows.evaluation_context import EvaluationContext
from flows.last_submissions import LastSubmissions

WRITE_SECONDS = 30.0  # the ledger and the log get a change no sooner
_MOVED = 0.05  # of the time that is left: a smaller change of the expected end is none
PAST = LastSubmissions(storage_keys.TIMES, TypeAdapter(tuple[Past, ...]))


class Forecasting:
    """What is expected of this run's attempt; a takeover run goes on with what the ledger has."""

    def __init__(self, context: EvaluationContext) -> None:
        self._context = context
        self._now: Forecast | None = None
        self._past: tuple[Past, ...] = ()
        self._written: Forecast | None = None
        self._next = 0.0  # by time.monotonic()

    async def note(self, statuses: ShardStatuses, shards: Sequence[ShardProgress]) -> str:
        """What is expected now, in words; "" where nothing is known. Best effort."""
        with best_effort("When it is expected to start and to end is not known now"):
            before = self._now
            if before is None:
                begun, self._past = await asyncio.to_thread(_begin, self._context)
                before = self._written = begun
            self._now = forecast(before, statuses, shards, self._past, datetime.now(UTC))
            await self._write(self._now)
        return self._now.sentence if self._now else ""

    async def _write(self, seen: Forecast) -> None:
        if not _differ(self._written, seen) or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + WRITE_SECONDS
        await asyncio.to_thread(self._context.ledger.update, self._context.claim, {FORECAST: seen.described()})
        if seen.sentence:
            get_run_logger().info(storable(seen.sentence))
        self._written = seen


def _begin(context: EvaluationContext) -> tuple[Forecast, tuple[Past, ...]]:
    claim = context.claim
    row = context.ledger.row(claim.team, claim.submission) or {}
    kept = read_forecast(row.get(FORECAST))
    begun = kept if kept and kept.attempt == claim.attempt else Forecast(claim.attempt)
    return begun, PAST.read(context.artifacts)


def _differ(before: Forecast | None, now: Forecast) -> bool:
    """Whether a person would want to know."""
    if before is None or (before.queue, before.started) != (now.queue, now.started):
        return True
    if before.end is None or now.end is None:
        return before.end != now.end
    left = max(1.0, (now.end - datetime.now(UTC)).total_seconds())
    return abs((now.end - before.end).total_seconds()) > max(WRITE_SECONDS, _MOVED * left)


def at_the_end(context: EvaluationContext, row: Row, timeline: AttemptTimeline, finished: bool) -> dict[str, object]:
    """The ledger's attribute with the true times; what has finished is kept for those who come next. Blocks."""
    kept = read_forecast(row.get(FORECAST))
    made = kept if kept and kept.attempt == context.claim.attempt else Forecast(context.claim.attempt)
    whole = finished and context.claim.attempt == 1  # a resume drives a part of the routes
    past = past_of(context.submission.pk, timeline, made) if whole else None
    if past:
        PAST.add(context.artifacts, past)
    return {FORECAST: made.over(timeline).described()}
