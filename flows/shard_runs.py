"""The shards in Prefect's timeline: a task run for each, with a log of its own. Decoration: nothing waits for them.

They poll nothing. The one watch of all shards tells each what is new through a queue; a shard's checkpoint is read
when its count of driven routes has changed.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from prefect import Task, get_client, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.exceptions import PrefectSignal
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed

from evaluation import storage_keys
from evaluation.errors import AlreadyClaimed, SubmissionCancelled
from evaluation.lifecycle.shard_progress import ShardProgress, explained, shard_progress
from evaluation.lifecycle.shard_story import ShardNews, ShardStory, final_sentence
from evaluation.pair.protocol import PairProgress
from evaluation.ports import ArtifactStore
from evaluation.results.checkpoint_reading import parse_checkpoint
from evaluation.results.metrics import Record
from evaluation.results.records import runs_of
from evaluation.results.route_line import route_line
from evaluation.routes import RouteRun
from evaluation.shards import ENDED, ShardJob, ShardState, ShardStatuses
from evaluation.text import storable
from flows.best_effort import best_effort, describe
from flows.evaluation_context import EvaluationContext
from flows.progress_display import run_tag
from prefect_api.runs import end_task_runs, tagged_except

END_SECONDS = 5.0  # so long the flow waits for the last lines and states
TAG = "shard"
_TAKEN_OVER = "Another run has taken over, and shows the shard from now on."


async def _never(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:  # noqa: ARG001 - Prefect's form
    return False


class ShardRun:
    """One shard's part of the timeline: what is to be shown, and what has been."""

    def __init__(self, job: ShardJob, artifacts: ArtifactStore) -> None:
        self.job = job
        # A sentence is the end: nobody watches it any longer.
        self.news: asyncio.Queue[ShardNews | str] = asyncio.Queue()
        self.last: ShardNews | None = None
        self._artifacts = artifacts
        self._story = ShardStory(job.shard)
        self._counted = 0
        self._records: dict[RouteRun, Record] = {}

    async def follow(self) -> State[Any]:
        """Log what happens to the shard until it has ended, or is watched no longer; the state is the task run's."""
        _log(self._story.begin())
        while True:
            news = await self.news.get()
            if isinstance(news, str):  # made now: Prefect keeps no state that is older than Running
                return Cancelled(message=news)
            for line in self._story.lines(news, time.monotonic()):
                _log(line)
            if self._has_new_records(news.view):
                with best_effort("The routes driven last are shown later, or in the report only"):
                    await self._show_records(news.view.routes_done)
            if news.view.state in ENDED:
                return self._final(news.view)

    def _has_new_records(self, view: ShardProgress) -> bool:
        if view.state in ENDED:  # the count may be older than the last record
            return not 0 < view.routes_done == len(self._records)
        return view.routes_done != self._counted

    async def _show_records(self, count: int) -> None:
        key = storage_keys.checkpoint_key(self.job.submission, self.job.shard.index)
        body = await asyncio.to_thread(self._artifacts.read, key)
        if body is not None:
            source, version = self._artifacts.location(key), self.job.version
            records = parse_checkpoint(body, source, version).records
            for run, record in zip(runs_of(records, version, source), records, strict=True):
                if self._records.get(run) != record:
                    self._records[run] = record
                    _log(route_line(run, record, version))
        self._counted = count

    def _final(self, view: ShardProgress) -> State[Any]:
        scores = [record["scores"]["score_composed"] for record in self._records.values()]
        sentence = storable(final_sentence(view, scores))
        return Completed(message=sentence) if view.state is ShardState.FINISHED else Failed(message=sentence)


def _log(line: str) -> None:
    get_run_logger().info(storable(line))


# Its one retry is never made. Without one, Prefect logs a stack trace of nothing for a task that returns Failed.
@task(name="shard", tags={TAG}, cache_policy=NO_CACHE, retries=1, retry_condition_fn=_never)
async def shard(run: ShardRun) -> State[Any]:
    """One shard, Running while it waits or drives: its routes as they end, its restarts, where it waits and why."""
    return await run.follow()


class ShardRuns:
    """The task runs of one evaluation's shards."""

    def __init__(self, context: EvaluationContext) -> None:
        self._jobs = context.jobs
        self._runs = {job.shard.index: ShardRun(job, context.artifacts) for job in context.jobs}
        self._tasks = [asyncio.create_task(_shown(run)) for run in self._runs.values()]
        self._ended = asyncio.Event()
        if context.takeover:
            self._tasks.append(asyncio.create_task(_end_of_earlier_runs(context.submission.pk, self._ended)))

    def tell(self, statuses: ShardStatuses, progress: Mapping[int, PairProgress]) -> None:
        """Hand each shard what is new of it. Does not wait."""
        for view in shard_progress(self._jobs, explained(statuses, progress), progress):
            status, run = statuses.get(view.index), self._runs[view.index]
            news = ShardNews(view, status.backend_id if status else "", progress.get(view.index))
            if run.last is None or (news.view, news.backend_id) != (run.last.view, run.last.backend_id):
                run.last = news
                run.news.put_nowait(news)

    def end(self, sentence: str) -> None:
        """Let those that are still shown as running end: the run watches them no longer."""
        self._ended.set()
        for run in self._runs.values():
            run.news.put_nowait(storable(sentence))

    async def close(self) -> None:
        """Wait a moment for the last lines and states."""
        try:
            await asyncio.wait(self._tasks, timeout=END_SECONDS)
        finally:
            for each in self._tasks:
                each.cancel()


@asynccontextmanager
async def shard_runs(context: EvaluationContext) -> AsyncIterator[ShardRuns]:
    """Show the shards while the body watches them. However the body ends, so do they; what it raises passes."""
    runs = ShardRuns(context)
    try:
        yield runs
    except BaseException as reason:
        runs.end(_sentence(reason))
        raise
    else:
        runs.end("The evaluation has ended.")
    finally:
        await runs.close()


async def _end_of_earlier_runs(submission: int, ended: asyncio.Event) -> None:
    """The shards of a run that died would be shown as running for ever.

    Asked for at once, and when this run has `ended` its watch: Prefect records late what a run has told it last.
    """
    with best_effort("Shards may still be shown as running in a run that died"):
        earlier = tagged_except(run_tag(submission), UUID(str(flow_run.get_id())))
        async with get_client() as client:
            await end_task_runs(client, earlier, TAG, Cancelled(message=_TAKEN_OVER))
            await ended.wait()
            await end_task_runs(client, earlier, TAG, Cancelled(message=_TAKEN_OVER))


async def _shown(run: ShardRun) -> None:
    """Follow the shard in a task run of its own, or, where Prefect has none for it, in the flow run's log."""
    name = f"shard-{run.job.shard.index}"
    try:
        await shard.with_options(task_run_name=name)(run)
    except (Exception, PrefectSignal) as error:  # noqa: BLE001 - nothing depends on it
        reason = describe(error) if isinstance(error, Exception) else type(error).__name__
        get_run_logger().warning("%s has no task run: %s", name, reason)
        with best_effort(f"{name} is shown no longer"):
            state = await run.follow()
            _log(f"{name} ended as {state.name}: {state.message}")


def _sentence(reason: BaseException) -> str:
    match reason:
        case SubmissionCancelled():
            return f"{str(reason).rstrip('.')}."
        case AlreadyClaimed():
            return _TAKEN_OVER
        case _:
            return "This run watches the shard no longer; another run continues, and shows it."
