"""What every JobBackend does. A new backend adds its Harness to `HARNESSES`.

tests/cluster/test_job_backend_on_cluster.py runs the same tests on a real Kubernetes control plane.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import boto3
import pytest

from evaluation import storage_keys
from evaluation.errors import Failure, Fault
from evaluation.pair.protocol import PairProgress, parse_progress
from evaluation.ports import JobBackend
from evaluation.pulling.pool import RoutePool, parse_pool
from evaluation.results.checkpoint import check_expected
from evaluation.results.checkpoint_reading import parse_checkpoint
from evaluation.routes import RouteRun
from evaluation.shards import (
    ENDED,
    Budgets,
    RoutePlan,
    Shard,
    ShardJob,
    ShardState,
    ShardStatus,
    ShardStatuses,
    plan_routes,
)
from evaluation.submission.model import LeaderboardVersion, parse_phase
from tests.contract.batch_harness import BatchHarness
from tests.contract.local_harness import LocalHarness
from tests.waiting import PATIENCE_SECONDS, eventually

BUCKET = "leaderboard-20-results"
BUDGETS = Budgets(agent_restarts=1, infrastructure_restarts=4, simulator_crashes_per_route=2)


class Harness(Protocol):
    """Where a backend runs its Jobs, as a test sees it."""

    log_names: frozenset[str]  # of the processes or containers of a shard

    def backend(self) -> JobBackend:
        """A new backend object, as another process would make it."""

    def left(self) -> list[str]:
        """What still runs, in words."""


HARNESSES: Mapping[str, Callable[[Path, str], Harness]] = {"batch": BatchHarness, "local": LocalHarness}


@dataclass
class World:
    """A harness, its S3, and jobs to run there."""

    harness: Harness
    s3: Any

    def job(self, image: str, submission: int = 7, attempt: int = 1, **changes: Any) -> ShardJob:
        shard = Shard(1, 4, (5, 6, 7))
        job = ShardJob(
            submission=submission,
            attempt=attempt,
            shard=shard,
            phase=parse_phase("leaderboard-20-SENSORS"),
            version=LeaderboardVersion.V2,
            repetitions=1,
            image=f"demo/agent:{image}",
            team_name="Ünïcödé & Söhne; rm -rf / 🚗",
            bucket=BUCKET,
            budgets=BUDGETS,
            hang_seconds=10.0,
            deadline_seconds=60.0,
        )
        return replace(job, **changes)

    def jobs(self, images: Sequence[str], routes: tuple[int, ...] = (5, 6, 7)) -> dict[str, ShardJob]:
        """One shard an image, all driving the same routes."""
        return {image: self.job(image, shard=Shard(index, len(images), routes)) for index, image in enumerate(images)}

    def used(self, job: ShardJob) -> tuple[object, ...]:
        """Of the budgets: the agent's, the infrastructure's, crashes by route, quarantined routes."""
        counters = self.progress(job).counters
        return (
            counters.agent_restarts,
            counters.infrastructure_restarts,
            counters.simulator_crashes,
            counters.quarantined,
        )

    def read(self, key: str) -> bytes:
        body: bytes = self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return body

    def records(self, job: ShardJob) -> list[dict[str, Any]]:
        """The records in S3, checked against the routes sent out."""
        key = storage_keys.checkpoint_key(job.submission, job.shard.index)
        checkpoint = parse_checkpoint(self.read(key), key, job.version)
        check_expected(checkpoint, job.expected, key)
        return checkpoint.records

    def stored(self, job: ShardJob) -> list[dict[str, Any]]:
        """The records in S3; none before there is a checkpoint."""
        try:
            return self.records(job)
        except self.s3.exceptions.NoSuchKey:
            return []

    def progress(self, job: ShardJob) -> PairProgress:
        progress = parse_progress(self.read(storage_keys.progress_key(job.submission, job.shard.index)))
        assert progress
        return progress

    def logs(self, job: ShardJob) -> set[str]:
        prefix = f"{job.submission}/shards/{job.shard.index}/logs/attempt-{job.attempt}/"
        found = self.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        return {entry["Key"].removeprefix(prefix) for entry in found}


async def to_the_end(backend: JobBackend, *jobs: ShardJob) -> list[ShardStatuses]:
    """Every snapshot until all jobs have ended."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        return [statuses async for statuses in backend.watch(jobs)]


def follow(backend: JobBackend, job: ShardJob) -> list[ShardStatus]:
    """Every status that the job goes through; from when it runs, each has the backend's own name for it."""
    seen: list[ShardStatus] = [statuses[job.shard.index] for statuses in run(to_the_end(backend, job))]
    nameless = {each.state for each in seen if not each.backend_id}
    assert nameless <= {ShardState.WAITING, ShardState.STARTING, ShardState.GONE}, nameless
    return seen


async def until(backend: JobBackend, job: ShardJob, state: ShardState) -> None:
    watching: AsyncIterator[Any] = backend.watch([job])
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for statuses in watching:
            if statuses[job.shard.index].state is state:
                return
    raise AssertionError(f"it never was {state}")


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(coroutine)


@pytest.fixture(params=sorted(HARNESSES))
def world(request: pytest.FixtureRequest, tmp_path: Path, aws: dict[str, Any]) -> Iterator[World]:
    with world_of(HARNESSES[request.param](tmp_path, aws["endpoint_url"]), aws) as world:
        yield world


@contextmanager
def world_of(harness: Harness, aws: dict[str, Any]) -> Iterator[World]:
    """The harness with its bucket; in the end all Jobs are removed, and nothing may be left."""
    s3 = boto3.client("s3", **aws)
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": aws["region_name"]})
    world = World(harness, s3)
    yield world
    for submission in (7, 8):
        run(world.harness.backend().remove(submission, 1))
        run(world.harness.backend().remove(submission, 2))
    assert world.harness.left() == []


def test_a_finished_shard_has_its_results_and_every_log_in_s3(world: World) -> None:
    job, backend = world.job("fast"), world.harness.backend()

    run(backend.ensure([job]))
    seen = follow(backend, job)

    assert seen[-1].state is ShardState.FINISHED
    assert seen[-1].failure is None
    assert len(world.records(job)) == 3
    assert world.progress(job).state is ShardState.FINISHED
    assert world.logs(job) == {"simulator.log", "agent.log", "supervisor.log", "init.log"}


def test_pairs_that_pull_their_routes_drive_each_of_them_once(world: World) -> None:
    plan, backend = plan_routes((5, 6, 7, 8), 2, 1, RoutePlan.PULLED), world.harness.backend()
    jobs = [world.job("fast", shard=shard) for shard in plan.shards]
    pool = RoutePool({5: 900.0, 6: 800.0, 7: 700.0, 8: 600.0}, claims=((), ()))
    world.s3.put_object(Bucket=BUCKET, Key=storage_keys.pool_key(7), Body=pool.render())

    run(backend.ensure(jobs))
    *_, last = run(to_the_end(backend, *jobs))

    assert {status.state for status in last.values()} == {ShardState.FINISHED}
    claims = parse_pool(world.read(storage_keys.pool_key(7)), "pool.json").claims
    assert sorted(route for each in claims for route in each) == [5, 6, 7, 8]
    driven = [world.records(replace(job, shard=replace(job.shard, routes=claims[job.shard.index]))) for job in jobs]
    assert [len(records) for records in driven] == list(map(len, claims))


def test_a_submission_can_be_of_the_other_version_and_drive_repetitions(world: World) -> None:
    job = world.job("fast", version=LeaderboardVersion.V1, repetitions=2, phase=parse_phase("leaderboard-10-MAP"))

    run(world.harness.backend().ensure([job]))
    seen = follow(world.harness.backend(), job)

    assert seen[-1].state is ShardState.FINISHED
    assert len(world.records(job)) == 6


FAILURES = {
    "always-crash": (Fault.TEAM, "The agent crashed again and again"),
    "hang": (Fault.TEAM, "The agent hangs"),
    "bad-sensors": (Fault.TEAM, "The agent's sensors are invalid"),
    "bad-setup": (Fault.TEAM, "The agent could not be set up"),
}


def test_a_failed_shard_says_what_happened_and_whose_fault_it_is(world: World) -> None:
    jobs = {image: replace(job, hang_seconds=2.0) for image, job in world.jobs(sorted(FAILURES)).items()}
    backend = world.harness.backend()

    run(backend.ensure(list(jobs.values())))
    ends = run(to_the_end(backend, *jobs.values()))[-1]

    for image, job in jobs.items():
        failure = ends[job.shard.index].failure
        assert ends[job.shard.index].state is ShardState.FAILED
        assert isinstance(failure, Failure)
        assert (failure.fault, failure.summary) == FAILURES[image]
        assert failure.cause
        assert failure.remedy


def test_what_breaks_is_charged_where_it_belongs_and_the_rest_is_driven(world: World) -> None:
    jobs = world.jobs(["fast", "crash-on-route-7", "simulator-crash-on-route-3", "poison-route-5"], routes=(3, 5, 7))
    fast, crash, simulator, poison = jobs.values()
    backend = world.harness.backend()

    run(backend.ensure(list(jobs.values())))
    ends = run(to_the_end(backend, *jobs.values()))[-1]

    assert {status.state for status in ends.values()} == {ShardState.FINISHED}
    assert world.used(fast) == (0, 0, {}, ())
    assert world.used(crash) == (1, 0, {}, ())
    assert world.used(simulator) == (0, 1, {3: 1}, ())
    assert world.used(poison) == (0, 2, {5: 2}, (RouteRun(5),))
    driven = world.records(fast)
    assert world.records(crash) == world.records(simulator) == driven
    quarantined = world.records(poison)
    assert [quarantined[0], quarantined[2]] == [driven[0], driven[2]]
    assert quarantined[1]["status"] == "Failed - Simulation crashed"
    assert set(quarantined[1]["scores"].values()) == {0.0}


def test_a_second_attempt_resumes_where_the_first_failed(world: World) -> None:
    backend = world.harness.backend()
    first, second = world.job("always-crash"), world.job("always-crash", attempt=2)
    run(backend.ensure([first]))
    assert follow(backend, first)[-1].state is ShardState.FAILED
    run(backend.remove(first.submission, first.attempt))
    driven = world.records(first)
    assert len(driven) == 2

    run(backend.ensure([second]))
    seen = follow(backend, second)

    assert seen[-1].state is ShardState.FINISHED
    assert world.records(second)[:2] == driven
    assert world.progress(second).attempt == 2


def test_ensure_adopts_what_runs_and_watch_works_from_another_process(world: World) -> None:
    job = world.job("steady")
    run(world.harness.backend().ensure([job]))
    before = sorted(world.harness.left())

    run(world.harness.backend().ensure([job, job]))
    seen = follow(world.harness.backend(), job)

    assert before
    assert seen[-1].state is ShardState.FINISHED
    assert world.progress(job).counters.starts == 1
    run(world.harness.backend().ensure([job]))
    assert follow(world.harness.backend(), job) == [seen[-1]]


def test_watching_what_is_not_there_says_gone_and_ends(world: World) -> None:
    seen = follow(world.harness.backend(), world.job("steady"))

    assert [status.state for status in seen] == [ShardState.GONE]
    assert ShardState.GONE in ENDED


def test_remove_ends_every_process_and_only_those_of_its_attempt(world: World) -> None:
    backend = world.harness.backend()
    job, other = world.job("hang", hang_seconds=60.0), world.job("hang", submission=8, hang_seconds=60.0)
    run(backend.ensure([job, other]))
    run(until(backend, job, ShardState.DRIVING))

    async def timed_remove() -> float:
        began = asyncio.get_running_loop().time()
        await world.harness.backend().remove(7, 1)
        return asyncio.get_running_loop().time() - began

    assert run(timed_remove()) < 20  # it promises 5 on a machine that is not busy
    assert follow(backend, job)[-1].state is ShardState.GONE
    assert world.harness.left()
    assert all("submission-8-" in line for line in world.harness.left())


def test_running_names_every_attempt_that_exists_ended_or_not_and_none_that_was_removed(world: World) -> None:
    backend = world.harness.backend()
    assert run(backend.running()) == frozenset()
    ended, hanging = world.job("fast"), world.job("hang", submission=8, attempt=2, hang_seconds=60.0)
    run(backend.ensure([ended, hanging]))
    run(to_the_end(backend, ended))

    both = run(world.harness.backend().running())
    run(backend.remove(7, 1))
    left = run(backend.running())
    run(backend.remove(8, 2))

    assert both == {(7, 1), (8, 2)}
    assert left == {(8, 2)}
    assert run(backend.running()) == frozenset()


def test_removing_nothing_is_fine(world: World) -> None:
    run(world.harness.backend().remove(99, 1))

    assert world.harness.left() == []


def test_the_logs_last_lines_are_there_while_it_runs_and_empty_where_there_are_none(world: World) -> None:
    job, backend = world.job("hang", hang_seconds=60.0), world.harness.backend()
    run(backend.ensure([job]))
    run(until(backend, job, ShardState.DRIVING))

    logs = eventually(lambda: run(backend.logs(job, 2)), until=lambda found: found["agent"])
    nothing = run(backend.logs(world.job("steady", submission=8), 2))

    assert set(logs) == world.harness.log_names
    assert 1 <= len(logs["agent"].splitlines()) <= 2
    assert not any(nothing.values())
