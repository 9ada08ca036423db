"""The flow runs of submissions, as Prefect has them, in the reconciler's terms."""

from collections.abc import Collection, Mapping
from datetime import timedelta

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, State, StateType
from pydantic import ValidationError

from evaluation.submission.message import SubmissionMessage
from flows.reconciler.model import Run, RunState
from flows.takeover_runs import takeover_of
from prefect_api.runs import UNDER_WAY, clock_ahead, in_states, named_like, read_runs
from prefect_api.states import StateName

FLOW = "evaluate-submission"
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
        found += await read_runs(client, FLOW, named_like(f"submission-{submission}"))
    ahead = await clock_ahead(client)
    runs: dict[int, dict[str, Run]] = {}
    for each in found:
        run, submission_pk = _run(each, ahead), _submission_of(each)
        if run and submission_pk is not None:
            runs.setdefault(submission_pk, {})[run.id] = run
    return {submission: tuple(each.values()) for submission, each in runs.items()}


def _submission_of(flow_run: FlowRun) -> int | None:
    try:
        return SubmissionMessage.model_validate(flow_run.parameters.get("message")).submission_pk
    except ValidationError:
        return None


def _run(flow_run: FlowRun, ahead: timedelta) -> Run | None:
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
        state_since=since - ahead,
        takeover=takeover,
        message=state.message or "",
    )


def _run_state(state: State[object]) -> RunState:
    if state.name in _BY_NAME:
        return _BY_NAME[state.name]
    return RunState.DONE if state.name in set(StateName) else _BY_TYPE.get(state.type, RunState.CRASHED)
