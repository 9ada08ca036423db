"""What Prefect's timeline shows of a submission: a task run for each shard, with its state and its own log."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from prefect import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterTaskRunId,
    TaskRunFilter,
    TaskRunFilterTags,
)
from prefect.client.schemas.objects import State, TaskRun
from prefect.exceptions import Abort
from prefect.states import Running

from evaluation import storage_keys
from evaluation.errors import Failure, Fault
from evaluation.lifecycle.takeover import Takeover
from evaluation.pair.protocol import Counters, PairProgress
from evaluation.shards import RoutePlan, ShardJob, ShardState, ShardStatus, ShardStatuses
from flows.evaluate_submission import evaluate_submission
from flows.shard_runs import ShardRun, shard
from prefect_api.runs import end_task_runs
from tests.fakes import AGENT_CRASHED, checkpoint_of
from tests.flows.conftest import World
from tests.waiting import eventually, eventually_in_loop

SHARDS = ["shard-0", "shard-1", "shard-2", "shard-3"]
SCORED = "driving score 50.0, one collision with a pedestrian, 3 min"


def run(world: World, pk: int = 7) -> State[None]:
    return asyncio.run(evaluate_submission(*world.submitted(pk), return_state=True))


def shards_of(state: State[None]) -> dict[str, TaskRun]:
    """The task runs of the flow run's shards by name, once Prefect's server has recorded that all have ended."""
    return shards_of_run(state.state_details.flow_run_id)  # type: ignore[arg-type]


def shards_of_run(flow_run: UUID) -> dict[str, TaskRun]:
    def ended() -> dict[str, TaskRun]:
        with get_client(sync_client=True) as client:
            found = client.read_task_runs(
                flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run])),
                task_run_filter=TaskRunFilter(tags=TaskRunFilterTags(all_=["shard"])),
            )
        done = found and all(each.state and each.state.is_final() for each in found)
        return {each.name: each for each in found} if done else {}

    return eventually(ended)


def log_of(task_run: TaskRun, last: str) -> list[str]:
    """Its lines, once the one that begins like `last` has come."""

    async def read() -> list[str]:
        async with get_client() as client:
            which = LogFilter(task_run_id=LogFilterTaskRunId(any_=[task_run.id]))
            return [each.message for each in await client.read_logs(which)]

    def whole() -> list[str]:
        lines = asyncio.run(read())
        return lines if any(line.startswith(last) for line in lines) else []

    return eventually(whole)


def test_each_shard_is_a_task_run_with_its_routes_in_its_own_log(world: World) -> None:
    shards = shards_of(run(world))

    assert sorted(shards) == SHARDS
    said = {each.state.message for each in shards.values() if each.state and each.state.is_completed()}
    assert said == {"5 of 5 routes driven, driving score 50.0 in the mean."}
    assert log_of(shards["shard-3"], "Finished") == [
        "is to drive routes 15-19",
        "starting (fake submission-7-attempt-1-shard-3)",
        *(f"route {route} driven: {SCORED}" for route in range(15, 20)),
        "Finished in state Completed('5 of 5 routes driven, driving score 50.0 in the mean.')",
    ]


def test_a_failed_shard_says_why_and_the_others_are_completed(world: World) -> None:
    world.backend.endings = {2: AGENT_CRASHED}
    world.only({2: 3})

    shards = shards_of(run(world))

    failed = shards["shard-2"].state
    assert failed is not None
    assert failed.is_failed()
    assert failed.message == (
        "The agent crashed: it ended with exit code 139. Run it on the public routes. "
        "3 of 5 routes driven, driving score 50.0 in the mean."
    )
    assert [name for name, each in sorted(shards.items()) if each.state and each.state.is_completed()] == [
        "shard-0", "shard-1", "shard-3",
    ]  # fmt: skip
    assert "NoneType" not in "".join(log_of(shards["shard-2"], "Finished"))


def test_a_cancellation_ends_them(world: World) -> None:
    shards = shards_of(world.cancelled_while_driving(*world.submitted(7)))

    [(name, message)] = {(each.state.name, str(each.state.message)) for each in shards.values() if each.state}
    assert name == "Cancelled"
    assert "cancelled" in message


def test_a_takeover_run_shows_the_shards_again_and_ends_those_of_the_run_that_died(world: World) -> None:
    world.ledger.rows[7] = {"attempt": 1, "claim-owner": "first", "claim-key": "", "status": "running"}
    dead, left = died()
    message, delivery = world.submitted(7)

    takeover = Takeover(owner="first", epoch=2, crashes=1)
    state = asyncio.run(evaluate_submission(message, delivery, takeover, return_state=True))

    assert sorted(shards_of(state)) == SHARDS
    ended = shards_of_run(dead)["shard-0"]
    assert ended.id == left
    assert ended.state is not None
    assert (ended.state.name, ended.state.message) == (
        "Cancelled",
        "Another run has taken over, and shows the shard from now on.",
    )


def test_what_a_dead_run_told_prefect_last_and_prefect_records_late_is_ended_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.backend.runs_for_ever = True
    world.ledger.rows[7] = {"attempt": 1, "claim-owner": "first", "claim-key": "", "status": "running"}
    takeover = Takeover(owner="first", epoch=2, crashes=1)
    asked: list[int] = []

    async def counted(*arguments: Any) -> int:
        asked.append(await end_task_runs(*arguments))
        return asked[-1]

    monkeypatch.setattr("flows.shard_runs.end_task_runs", counted)

    async def recorded_while_it_drives() -> UUID:
        task = asyncio.create_task(evaluate_submission(*world.submitted(7), takeover, return_state=True))
        await eventually_in_loop(lambda: asked)
        dead, _ = await asyncio.to_thread(died)
        world.backend.runs_for_ever = False
        await task
        return dead

    shards = shards_of_run(asyncio.run(recorded_while_it_drives()))

    assert [each.state.name for each in shards.values() if each.state] == ["Cancelled"]


def died() -> tuple[UUID, UUID]:
    """A flow run of submission 7 whose process is gone, and its shard's task run, which Prefect shows as running."""
    with get_client(sync_client=True) as client:
        flow_run = client.create_flow_run(evaluate_submission, tags=["submission:7"])  # type: ignore[arg-type, var-annotated]
        task_run = client.create_task_run(shard, flow_run.id, dynamic_key="0", name="shard-0", state=Running())
    return flow_run.id, task_run.id


@pytest.mark.parametrize("error", [ValueError("422: a text that no table can store"), Abort("no")])
def test_shards_that_prefect_cannot_show_drive_on_and_are_told_of_in_the_runs_log(
    world: World, monkeypatch: pytest.MonkeyPatch, run_log: pytest.LogCaptureFixture, error: BaseException
) -> None:
    async def refuses(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("flows.shard_runs.shard.__class__.with_options", lambda *_, **__: refuses)
    world.backend.endings = {2: AGENT_CRASHED}

    state = run(world)

    assert state.name == "AgentFailed"
    assert world.backend.removed == [(7, 1)]
    assert "shard-1 has no task run: " in run_log.text
    assert f"route 7 driven: {SCORED}" in run_log.text
    assert "shard-2 ended as Failed: The agent crashed" in run_log.text


def test_a_checkpoint_that_cannot_be_shown_is_a_warning(
    world: World, monkeypatch: pytest.MonkeyPatch, run_log: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ShardRun, "_show_records", lambda *_: 1 / 0)

    assert run(world).is_completed()
    assert "The routes driven last are shown later, or in the report only: division by zero" in run_log.text


def test_pairs_that_pull_say_what_they_take_and_no_poll_is_a_line(world: World) -> None:
    world.settings.route_plan = RoutePlan.PULLED
    world.settings.partial_result_seconds = 0  # which reads the checkpoint too
    reads, checkpoint = list[str](), storage_keys.checkpoint_key(7, 0)
    read = world.store.read
    world.store.read = lambda key: (reads.append(key), read(key))[1]  # type: ignore[method-assign]
    steps = [(1, 2), (1, 2), (1, 2), (2, 3), (3, 3)]  # routes driven and claimed, as the polls find them
    broken = Failure("The simulator crashed again and again", "", "Resume the submission.", Fault.INFRASTRUCTURE)

    async def watch(jobs: Sequence[ShardJob]) -> AsyncIterator[ShardStatuses]:
        for done, claimed in steps:
            world.backend.put(jobs[0], checkpoint_of(jobs[0], done))
            detail = f"driving route {done}"
            counters = Counters(starts=claimed - 1, infrastructure_restarts=done // 3)
            now = datetime.now(UTC)
            said = PairProgress(1, ShardState.DRIVING, done, claimed, done, counters, None, detail, now)
            world.store.write(storage_keys.progress_key(7, 0), said.render().encode(), "application/json")
            yield {job.shard.index: ShardStatus(job.shard.index, ShardState.DRIVING) for job in jobs}
            await eventually_in_loop(lambda: reads.count(checkpoint) >= done)  # noqa: B023
        yield {job.shard.index: ShardStatus(job.shard.index, ShardState.FAILED, failure=broken) for job in jobs}

    world.backend.watch = watch  # type: ignore[method-assign]

    first = shards_of(run(world))["shard-0"]

    assert log_of(first, "Finished") == [
        "takes its routes from a pool of 20, which all shards share",
        "takes 2 more routes: 2 of the submission's 20 so far",
        "driving: route 1",
        f"route 0 driven: {SCORED}",
        "takes 1 more route: 3 of the submission's 20 so far",
        f"route 1 driven: {SCORED}",
        "driving: route 3; restarts so far: 0 charged to the agent, 1 to the installation",
        f"route 2 driven: {SCORED}",
        "Finished in state Failed('The simulator crashed again and again. Resume the submission. "
        "3 routes driven, driving score 50.0 in the mean.')",
    ]
    assert reads.count(checkpoint) <= 3 + 2  # a route each; the results so far
