"""What the Prefect UI shows of a submission: the run's name and tags, moving progress, the shards, the result."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from prefect import get_client
from prefect.artifacts import (
    acreate_markdown_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run

from blocks.shard_logs import ShardLogs
from evaluation import storage_keys
from evaluation.errors import Fault
from evaluation.lifecycle.outcome import Outcome, OutcomeStatus
from evaluation.lifecycle.shard_progress import ShardProgress, percentage, routes_done, shard_progress
from evaluation.pair.protocol import PairProgress
from evaluation.shards import ShardJob, ShardStatuses
from evaluation.submission.model import Submission
from evaluation.text import storable
from flows.best_effort import best_effort
from flows.evaluation_context import EvaluationContext
from flows.forecasting import Forecasting
from prefect_api.states import StateName, cancelled_state, completed_state, failed_state

_MOST_REASONS = 100  # on the page of a result; a team that forges every record causes thousands
SHOW_SECONDS = 5.0  # the artifacts change no more often: the server has those of all submissions


async def name_flow_run(context: EvaluationContext) -> None:
    """Name and tag the flow run after the submission, its phase and its team. Best effort."""
    with best_effort("The run keeps its plain name"):
        await _name_flow_run(context)


async def _name_flow_run(context: EvaluationContext) -> None:
    submission, attempt = context.submission, context.claim.attempt
    name = f"submission-{submission.pk} {submission.phase.codename}"
    tags = [
        submission.phase.codename,
        run_tag(submission.pk),
        storable(f"team:{submission.team_name or submission.team_pk}"),
    ]
    async with get_client() as client:
        await client.update_flow_run(
            UUID(str(flow_run.get_id())),
            name=f"{name} attempt {attempt}",
            tags=sorted({*flow_run.get_tags(), *tags}),
        )


def run_tag(submission: int) -> str:
    """The tag of all runs of a submission."""
    return f"submission:{submission}"


class ProgressDisplay:
    """A progress bar, with what is expected, and a table of the shards, both updated in place.

    `progress` is what the pairs last said of themselves.
    """

    def __init__(self, jobs: Sequence[ShardJob], forecasting: Forecasting) -> None:
        self.progress: Mapping[int, PairProgress] = {}
        self._jobs = jobs
        self._forecasting = forecasting
        self._bar: UUID | None = None
        self._table: UUID | None = None
        self._shown: list[ShardProgress] = []
        self._next = 0.0  # by time.monotonic()

    async def show(self, statuses: ShardStatuses, last: bool = False) -> None:
        """Write what has changed since the last call that succeeded; nothing where nothing has.

        Between two calls that write are SHOW_SECONDS; the `last` one always writes.
        """
        views = shard_progress(self._jobs, statuses, self.progress)
        if views == self._shown or (time.monotonic() < self._next and not last):
            return
        self._next = time.monotonic() + SHOW_SECONDS
        done, total = routes_done(views)
        expected = await self._forecasting.note(statuses, views)
        sentence = "; ".join(filter(None, (f"{done} of {total} routes driven", expected)))
        await self._show_bar(percentage(views), storable(sentence))
        await self._show_table([{column: storable(cell) for column, cell in view.row.items()} for view in views])
        self._shown = views

    async def _show_bar(self, percent: float, sentence: str) -> None:
        if self._bar is None:
            key = f"submission-{self._jobs[0].submission}-progress"
            self._bar = _artifact_id(await acreate_progress_artifact(percent, key=key, description=sentence))
        else:
            await aupdate_progress_artifact(self._bar, progress=percent, description=sentence)

    async def _show_table(self, rows: list[dict[str, str]]) -> None:
        if self._table is None:
            submission = self._jobs[0].submission
            created = await acreate_table_artifact(
                rows, key=f"submission-{submission}-shards", description=f"The shards of submission {submission}"
            )
            self._table = _artifact_id(created)
            return
        async with get_client() as client:
            await client.update_artifact(self._table, ArtifactUpdate(data=json.dumps(rows)))


def _artifact_id(created: object) -> UUID:
    return UUID(str(created))


async def end_state(context: EvaluationContext, outcome: Outcome) -> State[Any]:
    """Publish the result for people and return the flow run's final state, which says the same in one sentence."""
    submission = context.submission
    if not context.jobs:  # nothing was launched, after which it gets its name
        await name_flow_run(context)
    with best_effort("The page of the result is left out"):
        logs = context.settings.logs_of(submission.pk, context.claim.attempt)
        await acreate_markdown_artifact(
            markdown=storable(result_markdown(submission, outcome, logs, _report(context, outcome))),
            key=f"submission-{submission.pk}-result",
            description=f"Submission {submission.pk}: {outcome.ending.value}",
        )
    if outcome.undelivered:
        sentence = f"Report not delivered to EvalAI: {outcome.undelivered} The outcome was: {outcome.sentence}"
        return failed_state(StateName.UNDELIVERED, sentence)
    match outcome.ending:
        case OutcomeStatus.FINISHED:
            return completed_state(None, outcome.sentence)
        case OutcomeStatus.CANCELLED:
            return cancelled_state(StateName.TAKEN_BACK, outcome.sentence)
        case OutcomeStatus.HELD:
            return failed_state(StateName.HELD, outcome.sentence)
        case OutcomeStatus.SKIPPED:
            return completed_state(StateName.SKIPPED, outcome.sentence)
        case OutcomeStatus.FAILED:
            name = StateName.AGENT_FAILED if outcome.fault is Fault.TEAM else StateName.INFRASTRUCTURE_FAILED
            return failed_state(name, outcome.sentence)


def _report(context: EvaluationContext, outcome: Outcome) -> str:
    """Where the report's page is; "" where there is none."""
    if outcome.ending is OutcomeStatus.SKIPPED:
        return ""
    return context.artifacts.location(storage_keys.result_key(context.submission.pk, storage_keys.REPORT))


def result_markdown(submission: Submission, outcome: Outcome, logs: ShardLogs | None = None, report: str = "") -> str:
    """The leaderboard row where there is one, the reason in plain words where there is not."""
    lines = [f"# Submission {submission.pk}: {outcome.ending.value}", "", outcome.sentence, ""]
    lines += [f"Team **{_cell(submission.team_name)}**, phase `{submission.phase.codename}`.", ""]
    if report:
        lines += [f"Report: `{report}`, or `leaderboard report {submission.pk}`.", ""]
    if outcome.undelivered:
        lines += [f"**The report has not reached EvalAI:** {outcome.undelivered}", ""]
    if logs and outcome.ending is OutcomeStatus.FAILED:
        lines += [f"For operators: {logs.markdown}", ""]
    if outcome.reasons:
        lines += ["## Why it is held" if outcome.ending is OutcomeStatus.HELD else "## Why it was held", ""]
        lines += ["```", *(reason.replace("```", "'''") for reason in outcome.reasons[:_MOST_REASONS])]
        more = len(outcome.reasons) - _MOST_REASONS
        lines += [
            *([f"And {more} more: `leaderboard verify {submission.pk}` shows all."] if more > 0 else []),
            "```",
            "",
        ]
    if outcome.metrics:
        lines += ["| metric | value |", "|---|---:|"]
        lines += [f"| {label} | {value:.3f} |" for label, value in outcome.metrics.items()]
    if outcome.summary:
        lines += ["", "## Routes", "", "```", outcome.summary.replace("```", "'''"), "```"]
    if outcome.logs:
        lines += ["", "## The agents' last lines", "", "```", outcome.logs.replace("```", "'''"), "```"]
    return "\n".join(lines)


def _cell(text: str) -> str:
    """A team's own words, made safe for a markdown line."""
    return "".join(character if character.isalnum() or character in " -_." else "·" for character in text)
