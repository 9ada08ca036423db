"""Whether the work goes on: the bridge polls, and what must not wait for a slot of the work pool does not wait."""

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateName,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort

from blocks.dead_letters import queue_facts
from doctor.context import DoctorContext
from doctor.findings import Check
from evaluation.errors import EvaluationError, InvalidConfiguration
from flows.takeover_runs import TAKEOVER_QUEUE
from prefect_api.errors import prefect_errors
from services.bridge_heartbeat import HEARTBEAT, SILENT_SECONDS, bridge_resource, queue_name

LATE_SECONDS = 120.0  # Prefect calls a run late after 15 s, in which a worker may just be busy
OCCUPYING = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
_MOST_RUNS = 200  # that Prefect lists at once
_TRIES, _PAUSE_SECONDS = 10, 1.0


def progress_checks(context: DoctorContext) -> Iterator[Check]:
    yield Check("Intake: bridge", partial(_bridge, context))
    yield Check("Prefect: late runs", partial(_late_runs, context))


def _bridge(context: DoctorContext) -> str:
    """PROBLEM where no messages are received: the bridge's heartbeat, one a minute, is missing."""
    url = context.queue().queue_url
    last = _last_poll(context, url)
    if last is None:
        raise InvalidConfiguration(
            f"No bridge has ever polled the queue {queue_name(url)}",
            f"no submission comes in{_waiting(context)}",
            "Start one: leaderboard bridge",
        )
    silent = (datetime.now(UTC) - last).total_seconds()
    if silent > SILENT_SECONDS:
        raise InvalidConfiguration(
            f"The intake stands still: the bridge of {queue_name(url)} last polled {_ago(silent)}",
            f"no submission comes in{_waiting(context)}",
            "The bridge's log says what it waits for. Where it has ended, start it: leaderboard bridge",
        )
    return f"the queue {queue_name(url)} was last polled {_ago(silent)}"


def _last_poll(context: DoctorContext, queue_url: str) -> datetime | None:
    """The time of the last heartbeat. The first one of a bridge that starts at this moment is waited for."""
    for pause in (*[_PAUSE_SECONDS] * _TRIES, 0):
        if last := _heartbeat(context, queue_url):
            return last
        time.sleep(pause)
    return None


def _heartbeat(context: DoctorContext, queue_url: str) -> datetime | None:
    wanted = {"event": {"name": [HEARTBEAT]}, "resource": {"id": [bridge_resource(queue_url)]}, "order": "DESC"}
    client = context.need(context.prefect, "Prefect's server")
    with prefect_errors("Asking for the bridge's events"):
        answer = client.request("POST", "/events/filter", json={"filter": wanted, "limit": 1})
    events: list[dict[str, Any]] = answer.json()["events"]
    return datetime.fromisoformat(events[0]["occurred"]) if events else None


def _waiting(context: DoctorContext) -> str:
    try:
        queue = context.queue()
        return f", {queue_facts(queue, queue.queue_url).visible} messages wait"
    except EvaluationError:  # another line says so
        return ""


def _late_runs(context: DoctorContext) -> str:
    """PROBLEM where takeovers or the reconciler are late, since they repair everything else, or where nothing runs."""
    client, pool_name = context.need(context.prefect, "Prefect's server"), context.settings.work_pool
    with prefect_errors("Asking for the late runs"):
        pool = client.read_work_pool(pool_name)
        late = _late(_runs(context, FlowRunFilterState(name=FlowRunFilterStateName(any_=["Late"]))))
        occupied = len(_runs(context, FlowRunFilterState(type=FlowRunFilterStateType(any_=OCCUPYING))))
    limit = pool.concurrency_limit
    slots = f"{occupied} runs hold a slot" if limit is None else f"{occupied} of {limit} slots are taken"
    first = [run for run in late if run.work_queue_name == TAKEOVER_QUEUE]
    if limit is not None and occupied >= limit and first:
        raise InvalidConfiguration(
            f"No slot of the work pool {pool_name} is free, and {_described(first)}",
            "runs of a worker that was lost may hold the slots, and what would end them waits behind them",
            "Run `leaderboard reconcile`, which needs no slot, then raise the pool's limit: "
            f"prefect work-pool set-concurrency-limit {pool_name} {limit + 2}",
        )
    if first or (late and not occupied):
        raise InvalidConfiguration(
            f"No worker starts the runs of the work pool {pool_name}",
            f"{_described(first or late)}; {slots}",
            f"See the worker's log and its --limit; start another one: prefect worker start --pool {pool_name}",
        )
    return f"{_described(late) if late else 'none'}; {slots}"


def _runs(context: DoctorContext, state: FlowRunFilterState) -> list[FlowRun]:
    pool = WorkPoolFilter(name=WorkPoolFilterName(any_=[context.settings.work_pool]))
    return context.prefect().read_flow_runs(
        flow_run_filter=FlowRunFilter(state=state),
        work_pool_filter=pool,
        sort=FlowRunSort.START_TIME_ASC,
        limit=_MOST_RUNS,
    )


def _late(runs: Sequence[FlowRun]) -> list[FlowRun]:
    return [run for run in runs if _lateness(run) >= LATE_SECONDS]


def _lateness(run: FlowRun) -> float:
    """Seconds since the run should have started."""
    due = run.next_scheduled_start_time or run.expected_start_time
    return (datetime.now(UTC) - due).total_seconds() if due else 0.0


def _described(runs: Sequence[FlowRun]) -> str:
    oldest = max(runs, key=_lateness)
    many = f"{len(runs)} runs are late" if len(runs) > 1 else "1 run is late"
    return f"{many}, {oldest.name} by {_lateness(oldest) / 60:.0f} min"


def _ago(seconds: float) -> str:
    return f"{seconds:.0f} s ago" if seconds < 120 else f"{seconds / 60:.0f} min ago"
