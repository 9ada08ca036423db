"""The flow runs of submissions, as Prefect has them, in the reconciler's terms."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

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

from evaluation.submission.message import SubmissionMessage
from flows.reconciler.model import Run, RunState
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
    StateName.TAKEN_OVER: RunState.TAKEN_OVER,
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


async def runs_of(client: PrefectClient, submissions: Collection[int]) -> dict[int, tuple[Run, ...]]:
    """Every submission's runs that have not ended, and of these submissions also the ended ones.

    One that has begun bears its submission's name, one that has not may not.
    """
    found = await read_runs(client, FLOW, in_states(UNDER_WAY))
    for submission in submissions:  # a partial match: submission-1 also finds submission-12
        found += await read_runs(client, FLOW, FlowRunFilter(name=FlowRunFilterName(like_=f"submission-{submission}")))
    ahead = await prefect_clock_ahead(client)
    runs: dict[int, dict[str, Run]] = {}
    for each in found:
        run, submission_pk = _run(each, ahead), _submission_of(each)
        if run and submission_pk is not None:
            runs.setdefault(submission_pk, {})[run.id] = run
    return {submission: tuple(each.values()) for submission, each in runs.items()}


async def prefect_clock_ahead(client: PrefectClient) -> timedelta:
    """How far the server's clock, which all times of states are of, is ahead of this machine's; to the second."""
    answer = await client.request("GET", "/health")
    date = answer.headers.get("date")
    return parsedate_to_datetime(date) - datetime.now(UTC) if date else timedelta(0)


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


def _run(flow_run: FlowRun, clock_ahead: timedelta) -> Run | None:
    state = flow_run.state
    if state is None:
        return None
    try:
        takeover = takeover_of(flow_run)
    except ValidationError:  # started by hand with parameters that no run can begin with
        return None
    scheduled = state.state_details.scheduled_time
    since = max(state.timestamp, scheduled) if scheduled else state.timestamp
    return Run(
        id=str(flow_run.id),
        state=_run_state(state),
        state_since=since - clock_ahead,
        takeover=takeover,
        message=state.message or "",
    )


def _run_state(state: State[object]) -> RunState:
    if state.name in _BY_NAME:
        return _BY_NAME[state.name]
    return RunState.DONE if state.name in set(StateName) else _BY_TYPE.get(state.type, RunState.CRASHED)
