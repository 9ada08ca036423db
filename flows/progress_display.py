"""What the Prefect UI shows of a submission: the run's name and tags, moving progress, the shards, the result."""

import json
from collections.abc import Mapping, Sequence
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
from prefect.states import Cancelled, Completed, Failed

from blocks.shard_logs import ShardLogs
from evaluation.errors import Fault
from evaluation.lifecycle.outcome import Outcome, OutcomeStatus
from evaluation.lifecycle.shard_progress import ShardProgress, percentage, shard_progress
from evaluation.pair.protocol import PairProgress
from evaluation.ports import Claim
from evaluation.shards import ShardJob, ShardStatuses
from evaluation.submission.model import Submission
from prefect_api.states import StateName


async def name_flow_run(submission: Submission, claim: Claim) -> None:
    """Name and tag the flow run after the submission, its phase and its team."""
    name = f"submission-{submission.pk} {submission.phase.codename}"
    tags = [
        submission.phase.codename,
        f"submission:{submission.pk}",
        f"team:{submission.team_name or submission.team_pk}",
    ]
    async with get_client() as client:
        await client.update_flow_run(
            UUID(str(flow_run.get_id())),
            name=f"{name} attempt {claim.attempt}" if claim.attempt > 1 else name,
            tags=sorted({*flow_run.get_tags(), *tags}),
        )


class ProgressDisplay:
    """A progress bar and a table of the shards, both updated in place."""

    def __init__(self, jobs: Sequence[ShardJob], bar: UUID, table: UUID) -> None:
        self._jobs = jobs
        self._bar = bar
        self._table = table
        self._shown: list[ShardProgress] = []

    @classmethod
    async def open(cls, jobs: Sequence[ShardJob]) -> "ProgressDisplay":
        submission = jobs[0].submission
        views = shard_progress(jobs, {}, {})
        bar = await acreate_progress_artifact(
            progress=0.0, key=f"submission-{submission}-progress", description=_sentence(views)
        )
        table = await acreate_table_artifact(
            table=[view.row for view in views],
            key=f"submission-{submission}-shards",
            description=f"The shards of submission {submission}",
        )
        return cls(jobs, _artifact_id(bar), _artifact_id(table))

    async def show(self, statuses: ShardStatuses, progress: Mapping[int, PairProgress]) -> None:
        """Write what has changed since the last call; nothing where nothing has."""
        views = shard_progress(self._jobs, statuses, progress)
        if views == self._shown:
            return
        self._shown = views
        await aupdate_progress_artifact(self._bar, progress=percentage(views), description=_sentence(views))
        async with get_client() as client:
            rows = json.dumps([view.row for view in views])
            await client.update_artifact(self._table, ArtifactUpdate(data=rows))


def _artifact_id(created: object) -> UUID:
    return UUID(str(created))


def _sentence(views: Sequence[ShardProgress]) -> str:
    done, total = sum(view.routes_done for view in views), sum(view.routes_total for view in views)
    return f"{done} of {total} routes driven"


async def end_state(submission: Submission, outcome: Outcome, logs: ShardLogs | None) -> State[None]:
    """Publish the result for people and return the flow run's final state, which says the same in one sentence.

    `logs` is where the hosts find the shards' output.
    """
    await acreate_markdown_artifact(
        markdown=result_markdown(submission, outcome, logs),
        key=f"submission-{submission.pk}-result",
        description=f"Submission {submission.pk}: {outcome.ending.value}",
    )
    if outcome.undelivered:
        sentence = f"EvalAI could not be told: {outcome.undelivered} The outcome was: {outcome.sentence}"
        return Failed(name=StateName.UNDELIVERED, message=sentence)
    match outcome.ending:
        case OutcomeStatus.FINISHED:
            return Completed(message=outcome.sentence)
        case OutcomeStatus.CANCELLED:
            return Cancelled(name=StateName.TAKEN_BACK, message=outcome.sentence)
        case OutcomeStatus.SKIPPED:
            return Completed(name=StateName.SKIPPED, message=outcome.sentence)
        case OutcomeStatus.FAILED:
            name = StateName.AGENT_FAILED if outcome.fault is Fault.TEAM else StateName.INFRASTRUCTURE_FAILED
            return Failed(name=name, message=outcome.sentence)


def result_markdown(submission: Submission, outcome: Outcome, logs: ShardLogs | None = None) -> str:
    """The leaderboard row where there is one, the reason in plain words where there is not."""
    lines = [f"# Submission {submission.pk}: {outcome.ending.value}", "", outcome.sentence, ""]
    lines += [f"Team **{_cell(submission.team_name)}**, phase `{submission.phase.codename}`.", ""]
    if outcome.undelivered:
        lines += [f"**EvalAI has not been told:** {outcome.undelivered}", ""]
    if logs and outcome.ending is OutcomeStatus.FAILED:
        lines += [f"For hosts: {logs.markdown}", ""]
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
