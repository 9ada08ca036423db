"""Prefect's flow runs: read by filter, started by deployment, marked as crashed."""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterName,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
    TaskRunFilterTags,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed, Scheduled

from evaluation.errors import InvalidConfiguration
from prefect_api.errors import prefect_errors

PAGE = 200  # Prefect returns no more runs at once
UNDER_WAY = (StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)
BEGUN = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)  # with a process, as far as Prefect knows


def in_states(types: Collection[StateType]) -> FlowRunFilter:
    return FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(types))))


def named_like(part: str) -> FlowRunFilter:
    """Runs whose name contains the part: submission-1 also finds submission-12."""
    return FlowRunFilter(name=FlowRunFilterName(like_=part))


async def read_runs(client: PrefectClient, flow: str, which: FlowRunFilter) -> list[FlowRun]:
    """The flow's runs that the filter lets through, all of them, the latest first."""
    found: list[FlowRun] = []
    while True:
        with prefect_errors(f"Reading the runs of {flow}"):
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


async def runs_of_pool(client: PrefectClient, pool: str) -> list[FlowRun]:
    """The runs of a work pool that a worker has taken and that have not ended."""
    found: list[FlowRun] = []
    while True:
        page = await client.read_flow_runs(
            flow_run_filter=in_states(BEGUN),
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
            sort=FlowRunSort.EXPECTED_START_TIME_ASC,
            limit=PAGE,
            offset=len(found),
        )
        found += page
        if len(page) < PAGE:
            return found


async def start_run(
    client: PrefectClient,
    deployment: str,
    parameters: Mapping[str, object],
    name: str,
    idempotency_key: str,
    delay: timedelta = timedelta(0),
    tags: Sequence[str] = (),
) -> FlowRun:
    """A run of the deployment `flow/deployment`; the one that exists already where the key was used before.

    Raises InvalidConfiguration where there is no such deployment.
    """
    try:
        with prefect_errors(f"Starting a run of {deployment}"):
            return await client.create_flow_run_from_deployment(
                (await client.read_deployment_by_name(deployment)).id,
                parameters=dict(parameters),
                name=name,
                state=Scheduled(scheduled_time=datetime.now(UTC) + delay),
                idempotency_key=idempotency_key,
                tags=list(tags),
            )
    except ObjectNotFound as error:
        remedy = "Run `prefect deploy --all`."
        raise InvalidConfiguration(f"Prefect has no deployment {deployment}", remedy=remedy) from error


async def mark_crashed(client: PrefectClient, run: UUID, reason: str) -> None:
    """Let Prefect show that the run's process has died; does nothing for one that has ended or was deleted."""
    try:
        with prefect_errors("Marking a run as crashed"):
            flow_run = await client.read_flow_run(run)
            if flow_run.state and flow_run.state.type in BEGUN:
                await client.set_flow_run_state(run, Crashed(message=reason), force=True)
    except ObjectNotFound:
        return


async def end_task_runs(client: PrefectClient, of: FlowRunFilter, tag: str, state: State[Any]) -> int:
    """Set the state of the task runs with this tag that are shown as running, of these flow runs; how many there were.

    For those whose process has died: nothing else would end them.
    """
    with prefect_errors("Ending the task runs of runs that died"):
        left = await client.read_task_runs(
            flow_run_filter=of,
            task_run_filter=TaskRunFilter(
                tags=TaskRunFilterTags(all_=[tag]),
                state=TaskRunFilterState(
                    type=TaskRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING]),
                ),
            ),
        )
        for task_run in left:
            await client.set_task_run_state(task_run.id, state.fresh_copy(), force=True)
    return len(left)


def tagged_except(tag: str, run: UUID) -> FlowRunFilter:
    """The flow runs with this tag, without the one."""
    return FlowRunFilter(tags=FlowRunFilterTags(all_=[tag]), id=FlowRunFilterId(not_any_=[run]))


async def clock_ahead(client: PrefectClient) -> timedelta:
    """How far the server's clock, which made the times of all states, is ahead of this machine's; to the second."""
    with prefect_errors("Asking for Prefect's time"):
        answer = await client.request("GET", "/health")
    date = answer.headers.get("date")
    return parsedate_to_datetime(date) - datetime.now(UTC) if date else timedelta(0)
