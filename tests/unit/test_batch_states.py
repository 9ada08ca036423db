"""What a shard is doing, read from its Batch job."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from batch_jobs.job_description import DUPLICATE, REMOVED, REMOVED_TAG, BatchJob
from batch_jobs.job_queues import require_fit, why_batch_says_it_waits, why_its_queue_waits
from batch_jobs.shard_states import Observed, chosen, duplicates, shard_status
from evaluation.errors import InvalidConfiguration
from evaluation.pair.shard_limits import ShardTimeouts
from evaluation.shards import ShardState, ShardStatus
from tests.unit.batch_jobs_made import CREATED, batch_job

BORN = datetime.fromtimestamp(CREATED / 1000, UTC)
LOST = {"statusReason": "Host EC2 (instance i-0abc) terminated."}


def status_of(job: BatchJob | None, seconds: float = 1.0, since: float = 0.0, why: str = "") -> ShardStatus:
    """The status so many seconds after the job's birth, in a state that was first seen at `since`."""
    now = BORN + timedelta(seconds=seconds)
    return shard_status(0, job, Observed(now, BORN + timedelta(seconds=since), 3600.0, why), ShardTimeouts())


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("SUBMITTED", ShardState.WAITING),
        ("PENDING", ShardState.WAITING),
        ("RUNNABLE", ShardState.WAITING),
        ("STARTING", ShardState.PULLING),
        ("RUNNING", ShardState.STARTING),
        ("SUCCEEDED", ShardState.FINISHED),
        ("FAILED", ShardState.FAILED),
    ],
)
def test_every_state_of_batch_has_a_word(status: str, state: ShardState) -> None:
    found = status_of(batch_job(status, startedAt=CREATED))

    assert found.state is state
    assert found.detail
    assert (found.failure is not None) is (state is ShardState.FAILED)


def test_it_drives_when_the_simulator_is_warm() -> None:
    assert status_of(batch_job("RUNNING", startedAt=CREATED), seconds=61).state is ShardState.DRIVING


def test_a_lost_machine_is_told_until_the_next_one_drives() -> None:
    waiting = status_of(batch_job("RUNNABLE", attempts=[LOST]))
    driving = status_of(batch_job("RUNNING", attempts=[LOST], startedAt=CREATED), seconds=61)

    assert waiting.state is ShardState.RETRYING
    assert waiting.detail == (
        "its instance was lost (Host EC2 (instance i-0abc) terminated), no budget is charged; no node has room yet"
    )
    assert driving.state is ShardState.DRIVING


@pytest.mark.parametrize(
    ("job", "seconds", "summary"),
    [
        (batch_job("RUNNABLE"), 24 * 3600, "No node was scheduled within 24 h"),
        (batch_job("SUBMITTED"), 24 * 3600, "No node was scheduled within 24 h"),
        (batch_job("STARTING"), 2 * 3600, "The shard's containers did not start"),
        (batch_job("RUNNING", startedAt=CREATED), 3600 + 900, "The shard did not end in its time"),
        # However many machines were lost on the way.
        (
            batch_job("STARTING", attempts=[{**LOST, "startedAt": CREATED}]),
            3600 + 900,
            "The shard did not end in its time",
        ),
    ],
)
def test_no_state_lasts_for_ever(job: BatchJob, seconds: float, summary: str) -> None:
    before, after = status_of(job, seconds - 1), status_of(job, seconds, why="there is no capacity")

    assert before.failure is None
    assert after.failure is not None
    assert after.failure.summary == summary
    assert job.status not in ("RUNNABLE", "SUBMITTED") or "there is no capacity" in after.failure.cause


def test_after_a_lost_machine_the_wait_begins_anew() -> None:
    day = 24 * 3600.0

    assert status_of(batch_job("RUNNABLE", attempts=[LOST]), seconds=day + 10, since=day).failure is None


def test_what_the_supervisor_finished_is_finished_though_the_agent_would_not_end() -> None:
    job = batch_job("FAILED", {"supervisor": 0, "simulator": 0, "agent": 137})

    assert status_of(job).state is ShardState.FINISHED


def test_one_that_is_being_ended_says_so() -> None:
    found = status_of(batch_job("RUNNING", startedAt=CREATED, isTerminated=True), seconds=61)

    assert found.detail == "it is being ended from outside; the agent drives its routes"


class TestNamesakes:
    OLD, YOUNG = batch_job("RUNNABLE", jobId="old"), batch_job("RUNNING", jobId="young")

    def test_the_oldest_living_job_counts_and_the_others_are_ended(self) -> None:
        ended = batch_job("FAILED", jobId="ended")

        assert chosen([ended, self.OLD, self.YOUNG]) == self.OLD
        assert duplicates([ended, self.OLD, self.YOUNG]) == [self.YOUNG]

    def test_one_that_ends_already_is_not_told_again(self) -> None:
        assert duplicates([self.OLD, batch_job("RUNNING", isTerminated=True)]) == []

    @pytest.mark.parametrize(
        "changes",
        [{"tags": {REMOVED_TAG: "yes"}}, {"statusReason": REMOVED}, {"statusReason": DUPLICATE}],
    )
    def test_what_was_removed_does_not_count(self, changes: dict[str, Any]) -> None:
        assert chosen([batch_job("FAILED", **changes)]) is None
        assert status_of(None).state is ShardState.GONE

    def test_else_the_last_end_counts(self) -> None:
        first, last = batch_job("FAILED", jobId="first"), batch_job("SUCCEEDED", jobId="last")

        assert chosen([first, last]) == last


def environment(**changes: Any) -> dict[str, Any]:
    resources = {"maxvCpus": 512, "instanceTypes": ["g5.4xlarge"], **changes.pop("computeResources", {})}
    known = {"computeEnvironmentName": "gpu", "state": "ENABLED", "status": "VALID", "computeResources": resources}
    return {**known, **changes}


QUEUE = {"jobQueueName": "production", "state": "ENABLED", "status": "VALID"}


class TestWhyItWaits:
    @pytest.mark.parametrize(
        ("reason", "words"),
        [
            (
                "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY - Service cannot fulfill it for g5.4xlarge",
                "AWS has no instance of the queue's types left just now "
                "(CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY: Service cannot fulfill it for g5.4xlarge)",
            ),
            (
                "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT",
                "wrong instance types: none of the queue's has what it asks for "
                "(MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT)",
            ),
            ("something new", "something new"),
            ("", ""),
        ],
    )
    def test_batchs_own_reason(self, reason: str, words: str) -> None:
        assert why_batch_says_it_waits(batch_job("RUNNABLE", statusReason=reason)) == words

    @pytest.mark.parametrize(
        ("queue", "environments", "words"),
        [
            (None, [], "its job queue is gone"),
            ({**QUEUE, "state": "DISABLED"}, [environment()], "the job queue production is disabled"),
            (
                {**QUEUE, "status": "INVALID", "statusReason": "no role"},
                [environment()],
                "the job queue production is INVALID: no role",
            ),
            (QUEUE, [], "its job queue has no compute environment"),
            (
                QUEUE,
                [environment(status="INVALID", statusReason="CLIENT_ERROR - not authorized")],
                "the compute environment gpu is INVALID: CLIENT_ERROR - not authorized",
            ),
            (
                QUEUE,
                [environment(computeResources={"maxvCpus": 16})],
                "it needs 20 vCPUs, and the compute environment gpu may have 16 (maxvCpus)",
            ),
            (
                QUEUE,
                [environment(computeResources={"instanceTypes": ["m6i.4xlarge"]})],
                "wrong instance types: it needs a GPU, and gpu has m6i.4xlarge",
            ),
            (QUEUE, [environment(state="DISABLED"), environment()], ""),  # another one can take it
            (QUEUE, [environment()], ""),
        ],
    )
    def test_the_queue_and_its_machines(self, queue: Any, environments: list[Any], words: str) -> None:
        assert why_its_queue_waits(batch_job("RUNNABLE"), queue, environments) == words


class TestFit:
    @pytest.mark.parametrize(("types", "gpu"), [(["g5.4xlarge"], True), (["m6i"], False), (["optimal"], False)])
    def test_a_queue_is_for_one_kind_of_work(self, types: list[str], gpu: bool) -> None:
        machines = [environment(computeResources={"instanceTypes": types})]

        require_fit("production", QUEUE, machines, gpu)
        with pytest.raises(InvalidConfiguration, match="for other work"):
            require_fit("production", QUEUE, machines, not gpu)
