"""GPU slots of the local backend: who waits, whose turn it is, and that a slot is free when its pod is gone."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest

from evaluation.shards import ENDED, Budgets, Shard, ShardJob, ShardState, ShardStatus
from evaluation.submission.model import LeaderboardVersion, parse_phase
from local_jobs import gpu_slots
from local_jobs.backend import LocalJobBackend
from tests.contract.local_harness import LocalHarness
from tests.waiting import PATIENCE_SECONDS, eventually

BUCKET = "leaderboard-20-results"
SUBMISSIONS = range(1, 6)


class Machine:
    """Watchers of one shard for each submission, each with a backend object of its own."""

    def __init__(self, harness: LocalHarness, slots: int) -> None:
        self.harness = harness
        self.slots = slots

    def backend(self) -> LocalJobBackend:
        return self.harness.backend(gpu_slots=self.slots)

    @staticmethod
    def job(submission: int, team: str, image: str = "hang", shards: int = 1, **changes: Any) -> ShardJob:
        job = ShardJob(
            submission=submission,
            attempt=1,
            shard=Shard(0, shards, (5,)),
            phase=parse_phase("leaderboard-20-SENSORS"),
            version=LeaderboardVersion.V2,
            repetitions=1,
            image=f"demo/agent:{image}",
            team_name=team,
            bucket=BUCKET,
            budgets=Budgets(1, 2, 2),
            hang_seconds=60.0,
            deadline_seconds=60.0,
        )
        return replace(job, **changes)

    def ensure(self, *jobs: ShardJob) -> None:
        for job in jobs:
            asyncio.run(self.backend().ensure([job]))

    def status(self, job: ShardJob) -> ShardStatus:
        """One look, which starts the pod where it is the job's turn."""
        return self.backend()._statuses([job])[job.shard.index]

    def is_up(self, job: ShardJob) -> bool:
        return self.backend()._run(job).alive

    def wait(self, *jobs: ShardJob) -> list[ShardStatus]:
        return eventually(
            lambda: [self.status(job) for job in jobs],
            until=lambda seen: all(status.queue or not self.waits(status) for status in seen),
        )

    @staticmethod
    def waits(status: ShardStatus) -> bool:
        return status.state is ShardState.WAITING

    def end(self, job: ShardJob) -> None:
        asyncio.run(self.backend().remove(job.submission, job.attempt))


@pytest.fixture
def machine(tmp_path: Path, aws: dict[str, Any]) -> Iterator[Machine]:
    boto3.client("s3", **aws).create_bucket(
        Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": aws["region_name"]}
    )
    machine = Machine(LocalHarness(tmp_path, aws["endpoint_url"]), slots=2)
    yield machine
    for submission in SUBMISSIONS:
        asyncio.run(machine.backend().remove(submission, 1))
    assert machine.harness.left() == []


def test_shards_wait_for_a_slot_in_turn_between_teams_and_say_where_they_stand(machine: Machine) -> None:
    jobs = [machine.job(pk, "many") for pk in (1, 2, 3, 4)]
    late = machine.job(5, "one")
    machine.ensure(*jobs, late)

    third, fourth, fifth = machine.wait(jobs[2], jobs[3], late)

    assert [machine.is_up(job) for job in (*jobs, late)] == [True, True, False, False, False]
    assert fifth.state is ShardState.WAITING
    assert fifth.detail == "queued: 1 of 3 (2 of 2 GPU slots are in use)"
    assert str(third.queue) == "queued: 2 of 3 (2 of 2 GPU slots are in use, and another team's turn comes first)"
    assert fourth.queue
    assert (fourth.queue.position, fourth.queue.waiting, fourth.queue.running) == (3, 3, 2)

    machine.end(jobs[0])
    eventually(lambda: [machine.status(job) for job in (jobs[2], jobs[3], late)] and machine.is_up(late))

    assert [machine.is_up(job) for job in (jobs[1], jobs[2], jobs[3])] == [True, False, False]


def test_a_slot_is_free_when_its_pod_is_killed_and_the_lost_shard_waits_for_its_turn(machine: Machine) -> None:
    first, second, third = (machine.job(pk, f"team {pk}") for pk in (1, 2, 3))
    machine.ensure(first, second, third)
    assert machine.waits(machine.status(third))

    pid = machine.backend()._run(first).pid
    next(process for process in machine.harness.processes() if process.pid == pid).kill()
    eventually(lambda: not machine.is_up(first))
    eventually(lambda: machine.status(third) and machine.is_up(third))
    lost = machine.status(first)

    assert lost.state is ShardState.RETRYING
    assert "its pod was lost and is replaced; queued: 1 of 1" in lost.detail
    machine.end(second)
    eventually(lambda: machine.status(first) and machine.is_up(first))


def test_waiting_does_not_use_up_the_shards_deadline(machine: Machine) -> None:
    machine.slots = 1
    first, second = machine.job(1, "a"), machine.job(2, "b", "fast", deadline_seconds=30.0)
    machine.ensure(first, second)
    run = machine.backend()._run(second)
    assert machine.waits(machine.status(second))
    assert not (run.path / "deadline").exists()

    machine.end(first)

    async def follow() -> ShardStatus:
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for statuses in machine.backend().watch([second]):
                if statuses[0].state in ENDED:
                    return statuses[0]
        raise AssertionError("watching ended before the shard")

    assert asyncio.run(follow()).state is ShardState.FINISHED
    assert float((run.path / "deadline").read_text()) >= run.path.joinpath("pod.json").stat().st_mtime + 29


def test_what_no_watcher_looks_after_is_passed_over_and_keeps_its_place(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.slots = 1
    first, left, watched = (machine.job(pk, f"team {pk}") for pk in (1, 2, 3))
    machine.ensure(first, left, watched)
    places = [machine.status(job).queue for job in (left, watched)]
    assert [place.position for place in places if place] == [1, 2]
    monkeypatch.setattr(gpu_slots, "WATCHED_SECONDS", 0.3)

    eventually(lambda: str(machine.status(watched).queue), until=lambda place: place.startswith("queued: 1 of 1 "))
    monkeypatch.undo()

    assert str(machine.status(left).queue).startswith("queued: 1 of 2 ")


def test_many_that_look_at_once_never_start_more_pairs_than_there_are_slots(machine: Machine) -> None:
    jobs = [machine.job(pk, f"team {pk % 2}") for pk in SUBMISSIONS]

    async def crowd() -> None:
        await asyncio.gather(*(machine.backend().ensure([job]) for job in jobs))
        await asyncio.gather(*(asyncio.to_thread(machine.status, job) for job in jobs for _ in range(4)))

    asyncio.run(crowd())

    assert sum(machine.is_up(job) for job in jobs) == 2
    waiting = [status.queue for job in jobs if (status := machine.status(job)).queue]
    assert sorted(place.position for place in waiting if place) == [1, 2, 3]
