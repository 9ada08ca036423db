"""Whose fault a failed Batch job is, and its message. Containers' reasons are quoted from ECS."""

import pytest

from batch_jobs.shard_failures import failure_of_job
from evaluation.errors import Fault
from evaluation.pair.protocol import PairExitCode, failure_of
from tests.unit.batch_jobs_made import batch_job

EXITS = {"supervisor": 30, "simulator": 30}
HOUR = 3600.0
EXIT_CODES = sorted(set(PairExitCode) - {PairExitCode.FINISHED, PairExitCode.CANCELLED})


@pytest.mark.parametrize("exit_code", EXIT_CODES)
def test_the_supervisors_exit_code_counts_whatever_the_agent_ended_with(exit_code: PairExitCode) -> None:
    for agent in (int(exit_code), 0, 1, 137):
        job = batch_job("FAILED", {"supervisor": int(exit_code), "simulator": int(exit_code), "agent": agent})

        failure = failure_of_job(job, HOUR)

        assert failure == failure_of(exit_code, f"container supervisor ended with code {int(exit_code)}")


@pytest.mark.parametrize(
    ("codes", "summary", "fault"),
    [
        # The agent cannot shift its fault: an exit code of ours that it ends with is not the supervisor's.
        ({**EXITS, "agent": 20}, "The agent's container ended by itself", Fault.TEAM),
        ({**EXITS, "agent": 1}, "The agent's container ended by itself", Fault.TEAM),
        ({**EXITS, "agent": 10}, "The agent crashed again and again", Fault.TEAM),
        ({**EXITS, "agent": 137}, "The pair was stopped from outside", Fault.INFRASTRUCTURE),
        ({**EXITS, "agent": 30}, "The pair was stopped from outside", Fault.INFRASTRUCTURE),
        ({"supervisor": 30, "simulator": 139, "agent": 30}, "The shard's pod failed", Fault.INFRASTRUCTURE),
        ({"supervisor": 1, "simulator": 30, "agent": 30}, "The shard's pod failed", Fault.INFRASTRUCTURE),
        ({"init": 22}, "The earlier checkpoint cannot be used", Fault.INFRASTRUCTURE),
        ({"init": 0, "evaluator": 40}, "The pair is configured wrongly", Fault.INFRASTRUCTURE),
        ({}, "The shard's Batch job failed", Fault.INFRASTRUCTURE),
    ],
)
def test_exit_codes(codes: dict[str, int], summary: str, fault: Fault) -> None:
    failure = failure_of_job(batch_job("FAILED", codes, statusReason="Essential container in task exited"), HOUR)

    assert (failure.summary, failure.fault) == (summary, fault)
    assert failure.cause
    assert failure.remedy


@pytest.mark.parametrize(
    ("reasons", "summary", "fault"),
    [
        (
            {"agent": "OutOfMemoryError: Container killed due to memory usage"},
            "The agent ran out of memory",
            Fault.TEAM,
        ),
        (
            {"simulator": "OutOfMemoryError: Container killed due to memory usage"},
            "A container of ours ran out of memory",
            Fault.INFRASTRUCTURE,
        ),
        (
            {"agent": 'CannotStartContainerError: exec: "bash": executable file not found in $PATH'},
            "The agent's container cannot be started",
            Fault.TEAM,
        ),
        (
            {"agent": "CannotStartContainerError: nvidia-container-cli: initialization error"},
            "The container agent cannot be started",
            Fault.INFRASTRUCTURE,
        ),
        (
            {"agent": "CannotPullContainerError: Error response from daemon: manifest unknown"},
            "The container agent cannot be started",
            Fault.INFRASTRUCTURE,
        ),
    ],
)
def test_ecs_reasons(reasons: dict[str, str], summary: str, fault: Fault) -> None:
    failure = failure_of_job(batch_job("FAILED", EXITS, reasons, statusReason="Task failed to start"), HOUR)

    assert (failure.summary, failure.fault) == (summary, fault)


@pytest.mark.parametrize(
    ("changes", "summary", "cause"),
    [
        ({"statusReason": "Job attempt duration exceeded timeout"}, "The shard was not done in time", "after 1 hours"),
        (
            {"statusReason": "Host EC2 (instance i-0abc) terminated.", "attempts": [{"statusReason": "Host EC2"}] * 10},
            "The shard's instance was lost again and again",
            "10 instances in a row, the last one: Host EC2 (instance i-0abc) terminated",
        ),
        (
            {"statusReason": "stopped by hand", "isTerminated": True},
            "The shard's Batch job was ended from outside",
            "stopped by hand",
        ),
    ],
)
def test_what_batch_says_counts_before_any_exit_code(changes: dict[str, object], summary: str, cause: str) -> None:
    failure = failure_of_job(batch_job("FAILED", {**EXITS, "agent": 1}, **changes), HOUR)

    assert (failure.summary, failure.fault) == (summary, Fault.INFRASTRUCTURE)
    assert cause in failure.cause
