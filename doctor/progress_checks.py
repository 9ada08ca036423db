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
from prefect_api.errors import prefect_errors
from services.bridge_heartbeat import HEARTBEAT, SILENT_SECONDS, bridge_resource, queue_name

LATE_SECONDS = 120.0  # Prefect calls a run late after 15 s, in which a worker may just be busy
LATE = FlowRunFilterState(name=FlowRunFilterStateName(any_=["Late"]))
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
            f"No messages are received: the bridge of {queue_name(url)} last polled {_ago(silent)}",
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
    client, settings = context.need(context.prefect, "Prefect's server"), context.settings
    name, recovery = settings.work_pool, settings.recovery_pool
    with prefect_errors("Asking for the late runs"):
        limit = client.read_work_pool(name).concurrency_limit
        late, first = _late(_runs(context, name, LATE)), _late(_runs(context, recovery, LATE))
        occupied = len(_runs(context, name, FlowRunFilterState(type=FlowRunFilterStateType(any_=OCCUPYING))))
    slots = f"{occupied} runs hold a slot" if limit is None else f"{occupied} of {limit} slots are taken"
    if first:
        raise InvalidConfiguration(
            f"The reconciler or takeover runs wait in the work pool {recovery}",
            f"{_described(first)}, and nothing is repaired meanwhile",
            f"Run `leaderboard reconcile`; start a worker: prefect worker start --pool {recovery}; the pool needs no "
            f"limit: prefect work-pool clear-concurrency-limit {recovery}",
        )
    if late and not occupied:
        raise InvalidConfiguration(
            f"No worker starts the runs of the work pool {name}",
            f"{_described(late)}; {slots}",
            f"See the worker's log and its --limit; start another one: prefect worker start --pool {name}",
        )
    return f"{_described(late) if late else 'none'}; {slots}"


def _runs(context: DoctorContext, pool: str, state: FlowRunFilterState) -> list[FlowRun]:
    return context.prefect().read_flow_runs(
        flow_run_filter=FlowRunFilter(state=state),
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
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
