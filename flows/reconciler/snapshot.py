"""What EvalAI, the ledger, Prefect and the clusters say of every submission, side by side."""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from prefect import get_client
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterName,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from pydantic import ValidationError

from evaluation.errors import EvaluationError, InvalidConfiguration, ServiceUnavailable, TransientError
from evaluation.lifecycle.ledger_entry import LedgerEntry, claim_key
from evaluation.lifecycle.stages import ReconcilerTimeouts
from evaluation.ports import ListedSubmission
from evaluation.submission.message import SubmissionMessage
from flows.reconciler.decisions import needs_runs
from flows.reconciler.model import WAITING, EvalAIRow, Run, RunState, SubmissionSnapshot
from flows.services import Cluster, Services, load_cluster
from flows.takeover_runs import takeover_of
from prefect_api.states import StateName

FLOW = "evaluate-submission"
PAGE = 200  # Prefect gives no more runs at once
UNDER_WAY = (StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)
_BY_NAME: Mapping[str | None, RunState] = {
    StateName.POSTPONED: RunState.POSTPONED,
    StateName.INTERRUPTED: RunState.POSTPONED,
    StateName.UNDELIVERED: RunState.POSTPONED,
    StateName.BLOCKED: RunState.BLOCKED,
    StateName.REJECTED: RunState.REJECTED,
}
_BY_TYPE = {
    StateType.SCHEDULED: RunState.SCHEDULED,
    StateType.PENDING: RunState.PENDING,
    StateType.PAUSED: RunState.PENDING,
    StateType.RUNNING: RunState.RUNNING,
    StateType.CANCELLING: RunState.CANCELLING,
    StateType.CANCELLED: RunState.CANCELLED,
    StateType.COMPLETED: RunState.DONE,
}


@dataclass(frozen=True)
class Snapshot:
    """Every submission that anybody knows of, and the clusters by name."""

    views: tuple[SubmissionSnapshot, ...]
    clusters: Mapping[str, Cluster]
    taken_at: datetime
    blind: tuple[str, ...] = ()  # what could not be asked, one sentence each


async def take_snapshot(services: Services, only: int | None = None) -> Snapshot:
    """Look at everything, or at one submission with all its runs. Raises ServiceUnavailable for want of a ledger.

    Costs one request to EvalAI, a read of each table, a listing of each cluster's Jobs, and one request to Prefect for
    each submission whose claim nobody renews. What does not answer is left out, and said.
    """
    eyes = _Sources()
    clusters = {name: await load_cluster(name) for name in services.phases.clusters}
    taken_at = datetime.now(UTC)
    # Jobs before the ledger: a claim is older than its Jobs, so that none of them can seem to have no claim.
    attempts = [pair for name, each in clusters.items() for pair in await eyes.jobs(name, each)]
    listed = await eyes.listed(services)
    entries = [entry for name, each in clusters.items() for entry in await eyes.entries(name, each)]
    views = _views(services, clusters, listed, entries, attempts, only)
    async with get_client() as client:
        runs = await runs_of(client, [view.submission for view in views if only or needs_runs(view, taken_at)])
    views = [replace(view, runs=runs.get(view.submission, ())) for view in views]
    return Snapshot(tuple(views), clusters, taken_at, tuple(eyes.blind))


class _Sources:
    """Asks one system after the other; one that does not answer leaves a blind spot."""

    def __init__(self) -> None:
        self.blind: list[str] = []

    async def listed(self, services: Services) -> Mapping[int, EvalAIRow]:
        try:
            return await asyncio.to_thread(_listed, services)
        except EvaluationError as error:
            self.blind.append(f"EvalAI's list is missing: {error}")
            return {}

    async def jobs(self, name: str, cluster: Cluster) -> Collection[tuple[int, int]]:
        try:
            return await cluster.backend.running()
        except EvaluationError as error:
            self.blind.append(f"The Jobs of {name} cannot be listed: {error}")
            return ()

    async def entries(self, name: str, cluster: Cluster) -> Collection[LedgerEntry]:
        try:
            return await asyncio.to_thread(_entries, cluster)
        except TransientError as error:
            raise ServiceUnavailable(f"Nothing can be compared without the ledger of {name}", str(error)) from error


def _listed(services: Services) -> dict[int, EvalAIRow]:
    challenge = services.phases.challenge_pk
    if challenge is None:
        raise InvalidConfiguration(
            "EvalAI's submissions cannot be listed",
            "the block evalai does not name the challenge",
            "Set LEADERBOARD_CHALLENGE_PK and run `leaderboard setup`.",
        )
    return {row.pk: _shown(row) for row in services.evalai.submissions(challenge)}


def _shown(row: ListedSubmission) -> EvalAIRow:
    since = row.rerun_resumed_at or row.submitted_at
    return EvalAIRow(row.pk, row.phase_pk, row.status, since, claim_key(row.rerun_resumed_at))


def _entries(cluster: Cluster) -> list[LedgerEntry]:
    return list(cluster.ledger.entries())


def _views(
    services: Services,
    clusters: Mapping[str, Cluster],
    listed: Mapping[int, EvalAIRow],
    entries: Iterable[LedgerEntry],
    attempts: Collection[tuple[int, int]],
    only: int | None,
) -> list[SubmissionSnapshot]:
    claimed = {entry.submission: entry for entry in entries}
    known = sorted({*listed, *claimed, *(submission for submission, _ in attempts)})
    views = []
    for pk in known if only is None else [only]:
        shown, entry, unroutable = listed.get(pk), claimed.get(pk), ""
        try:
            cluster = _cluster_of(services, clusters, shown, entry)
        except InvalidConfiguration as error:  # a phase that is not ours must not hide all the others
            cluster, unroutable = _any_cluster(clusters), str(error)
        views.append(
            SubmissionSnapshot(
                submission=pk,
                shown=shown,
                entry=entry,
                timeouts=ReconcilerTimeouts(timedelta(seconds=cluster.ledger.lease_seconds)),
                shard_deadline_seconds=cluster.settings.shard_deadline_seconds,
                attempts=frozenset(attempt for submission, attempt in attempts if submission == pk),
                unroutable=unroutable,
            )
        )
    return views


def _cluster_of(
    services: Services, clusters: Mapping[str, Cluster], shown: EvalAIRow | None, entry: LedgerEntry | None
) -> Cluster:
    """The submission's cluster; any, for one of which nobody knows more than that it has Jobs.

    Raises InvalidConfiguration for one that waits in a phase which is not ours.
    """
    if entry and entry.cluster in clusters:
        return clusters[entry.cluster]
    if shown and shown.status in WAITING:
        return clusters[services.phases.phase(shown.phase_pk).cluster]
    return _any_cluster(clusters)


def _any_cluster(clusters: Mapping[str, Cluster]) -> Cluster:
    return next(iter(clusters.values()))


async def runs_of(client: PrefectClient, submissions: Collection[int]) -> dict[int, tuple[Run, ...]]:
    """Every submission's runs that have not ended, and of these submissions also the ended ones.

    One that has begun bears its submission's name, one that has not may not.
    """
    found = await read_runs(client, FLOW, in_states(UNDER_WAY))
    for submission in submissions:  # a partial match: submission-1 also finds submission-12
        found += await read_runs(client, FLOW, FlowRunFilter(name=FlowRunFilterName(like_=f"submission-{submission}")))
    runs: dict[int, dict[str, Run]] = {}
    for each in found:
        run, submission_pk = _run(each), _submission_of(each)
        if run and submission_pk is not None:
            runs.setdefault(submission_pk, {})[run.id] = run
    return {submission: tuple(each.values()) for submission, each in runs.items()}


def in_states(types: Collection[StateType]) -> FlowRunFilter:
    return FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(types))))


async def read_runs(client: PrefectClient, flow: str, which: FlowRunFilter) -> list[FlowRun]:
    """The flow's runs that the filter lets through, all of them, the latest first."""
    found: list[FlowRun] = []
    while True:
        page = await client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[flow])),
            flow_run_filter=which,
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=PAGE,
            offset=len(found),
        )
        found += page
        if len(page) < PAGE:
            return found


def _submission_of(flow_run: FlowRun) -> int | None:
    try:
        return SubmissionMessage.model_validate(flow_run.parameters.get("message")).submission_pk
    except ValidationError:
        return None


def _run(flow_run: FlowRun) -> Run | None:
    state = flow_run.state
    if state is None:
        return None
    scheduled = state.state_details.scheduled_time
    return Run(
        id=str(flow_run.id),
        state=_run_state(state),
        state_since=max(state.timestamp, scheduled) if scheduled else state.timestamp,
        takeover=takeover_of(flow_run),
        message=state.message or "",
    )


def _run_state(state: State[object]) -> RunState:
    if state.name in _BY_NAME:
        return _BY_NAME[state.name]
    return RunState.DONE if state.name in set(StateName) else _BY_TYPE.get(state.type, RunState.CRASHED)
