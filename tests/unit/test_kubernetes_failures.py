"""Why a shard's Job failed, and who is charged."""

from typing import Any

import pytest

from evaluation.errors import Fault
from evaluation.pair.protocol import PairExitCode, failure_of
from evaluation.pair.shard_limits import ShardTimeouts
from evaluation.shards import ShardState
from k8s_jobs.shard_failures import failure_of_job, failure_of_pod
from k8s_jobs.shard_states import shard_status
from tests.kubernetes_objects import DONE, NOW, condition, ended, job_object, pod_object, running

Json = dict[str, Any]
TEAM, INFRASTRUCTURE = Fault.TEAM, Fault.INFRASTRUCTURE
BY_POLICY = condition(
    "Failed",
    reason="PodFailurePolicy",
    message="Container simulator for pod leaderboard/pod-a failed with exit code 11 matching FailJob rule at index 1",
)


def failed_pod(agent: Json, simulator: Json, **more: Any) -> Json:
    states = {"private-contents": DONE, "supervisor": running(), "simulator": simulator, "agent": agent}
    return pod_object(states, phase="Failed", **more)


@pytest.mark.parametrize("exit_code", sorted(set(PairExitCode) - {PairExitCode.FINISHED}))
def test_exit_code_of_the_pair_decides(exit_code: PairExitCode) -> None:
    pod = failed_pod(ended(exit_code), ended(exit_code, message="the supervisor's words"))

    failure = failure_of_pod(pod)

    assert failure == failure_of(exit_code, "the supervisor's words")


CASES = {
    "evicted": (failed_pod(ended(143), ended(143), conditions=[condition("DisruptionTarget")]), INFRASTRUCTURE),
    "admission after a reboot of the node": (
        pod_object(phase="Failed", reason="UnexpectedAdmissionError", message="Allocate failed: no GPU"),
        INFRASTRUCTURE,
    ),
    "node shut down": (pod_object(phase="Failed", reason="Terminated", message="node shutdown"), INFRASTRUCTURE),
    "node lost track": (
        failed_pod(ended(137, "ContainerStatusUnknown"), ended(137, "ContainerStatusUnknown")),
        INFRASTRUCTURE,
    ),
    "agent out of memory": (failed_pod(ended(137, "OOMKilled"), ended(23)), TEAM),
    "simulator out of memory": (failed_pod(ended(23), ended(137, "OOMKilled")), INFRASTRUCTURE),
    "agent fills its disk": (
        pod_object(phase="Failed", reason="Evicted", message='Usage of EmptyDir volume "pair-agent" exceeds the limit'),
        TEAM,
    ),
    "node runs out of disk": (
        pod_object(phase="Failed", reason="Evicted", message="The node was low on resource: ephemeral-storage."),
        INFRASTRUCTURE,
    ),
    "agent blames the simulator, which blames nobody": (failed_pod(ended(20), DONE), TEAM),
    "agent contradicts the simulator": (failed_pod(ended(20), ended(11)), TEAM),
    "agent admits": (failed_pod(ended(12), DONE), TEAM),
    "agent's container ends by itself, the supervisor calls the pair lost": (failed_pod(ended(1), ended(23)), TEAM),
    "the supervisor calls the pair lost": (failed_pod(ended(23), ended(23)), INFRASTRUCTURE),
    "simulator's container breaks": (failed_pod(DONE, ended(139)), INFRASTRUCTURE),
    "no bash in the agent's image": (
        failed_pod(ended(128, "StartError", 'exec: "bash": executable file not found'), ended(23)),
        TEAM,
    ),
    "no GPU for the agent's container": (
        failed_pod(ended(128, "StartError", "nvidia-container-cli: initialization error"), ended(23)),
        INFRASTRUCTURE,
    ),
    "contents cannot be fetched": (
        pod_object({"private-contents": ended(22)}, phase="Failed"),
        INFRASTRUCTURE,
    ),
    "nothing is known": (pod_object(phase="Failed"), INFRASTRUCTURE),
}


@pytest.mark.parametrize("case", CASES)
def test_fault_of_a_pod(case: str) -> None:
    pod, fault = CASES[case]

    failure = failure_of_pod(pod)

    assert failure.fault is fault
    assert failure.summary
    assert failure.remedy


def test_memory_is_named_as_the_cause() -> None:
    assert failure_of_pod(CASES["agent out of memory"][0]).summary == "The agent ran out of memory"
    ours = failure_of_pod(CASES["simulator out of memory"][0])
    assert (ours.summary, ours.cause) == ("A container of ours ran out of memory", "simulator")


def test_policys_words_are_enough_when_the_pod_is_gone() -> None:
    assert failure_of_job(job_object(BY_POLICY), []).summary == failure_of(PairExitCode.SENSORS_INVALID).summary


def test_policys_words_point_at_the_pod_that_decided() -> None:
    pods = [
        failed_pod(ended(11), ended(11, message="the camera"), name="pod-a", age=100),
        failed_pod(ended(23), ended(23), name="pod-b", age=50),
    ]

    failure = failure_of_job(job_object(BY_POLICY), pods)

    assert failure == failure_of(PairExitCode.SENSORS_INVALID, "the camera")


def test_used_up_pods_are_explained_by_the_last_one() -> None:
    job = job_object(condition("Failed", reason="BackoffLimitExceeded"), failed=9)

    status = shard_status(2, job, [failed_pod(ended(23), ended(23))], NOW, ShardTimeouts())

    assert status.state is ShardState.FAILED
    assert status.failure is not None
    assert status.failure.summary == failure_of(PairExitCode.PAIR_LOST).summary


def test_deadline_charges_nobody() -> None:
    job = job_object(condition("FailureTarget", reason="DeadlineExceeded"), spec={"activeDeadlineSeconds": 7200})

    failure = failure_of_job(job, [failed_pod(ended(143), ended(143))])

    assert "after 2 hours" in failure.cause
    assert failure.fault is INFRASTRUCTURE


def test_unknown_reason_is_passed_on() -> None:
    job = job_object(condition("Failed", reason="Strange", message="a new kind of end."))

    assert failure_of_job(job, []).cause == "Strange: a new kind of end"
