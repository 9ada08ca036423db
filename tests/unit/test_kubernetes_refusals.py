"""Pods that a node never admitted: replaced elsewhere, counted nowhere, with an end."""

from typing import Any

import kubernetes_validate
import pytest

from evaluation.errors import Fault
from evaluation.pair.shard_limits import ShardTimeouts
from evaluation.shards import ShardState, ShardStatus
from k8s_jobs.manifest import job_manifest
from k8s_jobs.refusals import RefusalLimits, refusals, replacement, to_be_replaced
from k8s_jobs.shard_states import shard_status
from tests.kubernetes_objects import (
    NOW,
    cluster_spec,
    condition,
    ended,
    job_object,
    pod_object,
    running,
    shard_job,
    waiting,
)

Json = dict[str, Any]
NO_GPU = "Pod was rejected: Allocate failed due to no healthy devices present; cannot allocate unhealthy devices"
LIMITS = RefusalLimits(pods=6, exclude_after=3, pause_seconds=15)
GAVE_UP = condition("Failed", reason="BackoffLimitExceeded", message="Job has reached the specified backoff limit")


def refused(
    name: str = "refused", node: str = "node-1", age: float = 10, reason: str = "UnexpectedAdmissionError"
) -> Json:
    return pod_object(name=name, node=node, phase="Failed", reason=reason, message=NO_GPU, age=age)


def lost(name: str, age: float) -> Json:
    return pod_object({"simulator": ended(23), "agent": ended(23)}, name=name, phase="Failed", age=age)


def status_of(job: Json, pods: list[Json], limits: RefusalLimits = LIMITS) -> ShardStatus:
    return shard_status(0, job, pods, NOW, ShardTimeouts(), limits)


def with_refusals(job: Json, text: str) -> Json:
    return job | {"metadata": job["metadata"] | {"annotations": {"leaderboard/refused-by": text}}}


REASONS = ("UnexpectedAdmissionError", "OutOfnvidia.com/gpu", "OutOfcpu", "NodeAffinity", "TaintToleration")


@pytest.mark.parametrize("reason", [*REASONS, "InvalidNodeInfo"])
def test_a_refused_pod_is_charged_to_nobody_and_its_node_named(reason: str) -> None:
    status = status_of(job_object(failed=1), [refused(reason=reason)])

    assert status.state is ShardState.RETRYING
    assert f"the node node-1 refused its pod before it started ({reason}: Pod was rejected" in status.detail
    assert "no budget is charged" in status.detail


def test_what_is_charged_to_nobody_uses_up_nothing() -> None:
    # given: the Job controller has counted nine refused pods and ended the Job
    pods = [refused(f"pod-{number}", age=900 - 90 * number) for number in range(9)]

    status = status_of(job_object(GAVE_UP, failed=9), pods, RefusalLimits())

    assert status.state is ShardState.RETRYING
    assert to_be_replaced(job_object(GAVE_UP, failed=9), pods, NOW, RefusalLimits())


def test_a_budget_that_real_failures_used_up_is_used_up() -> None:
    pods = [lost(f"lost-{number}", 900 - 90 * number) for number in range(9)]
    job = job_object(GAVE_UP, failed=10)

    status = status_of(job, [refused(age=1000), *pods])

    assert status.failure is not None
    assert status.failure.summary == "A process of the pair was lost"
    assert not to_be_replaced(job, [refused(age=1000), *pods], NOW, LIMITS)


def test_of_a_mixture_only_the_real_failures_are_counted() -> None:
    pods = [refused(age=400), lost("lost", age=200), pod_object(node="", phase="Pending", name="new", age=5)]

    assert "pod 1 of 8 that may be lost" in status_of(job_object(failed=2), pods).detail


NEXT_PODS = {
    "none yet": ([], True),
    "one without a node": ([pod_object(node="", phase="Pending", name="new", age=5)], True),
    "one on the node that refused": ([pod_object(phase="Pending", name="new", age=5)], True),
    "one on another node": ([pod_object(node="node-2", phase="Pending", name="new", age=5)], False),
    "one that the node has admitted now": (
        [pod_object({"evaluator": waiting()}, phase="Pending", name="new", age=5)],
        False,
    ),
    "one that drives": ([pod_object({"agent": running()}, name="new", age=5)], False),
}


@pytest.mark.parametrize("case", NEXT_PODS)
def test_a_job_is_replaced_unless_its_next_pod_is_well(case: str) -> None:
    pods, expected = NEXT_PODS[case]

    assert to_be_replaced(job_object(failed=1), [refused(age=30), *pods], NOW, LIMITS) is expected


def test_a_job_without_a_refused_pod_of_its_own_is_left_alone() -> None:
    job = with_refusals(job_object(), '{"node-1": 1}')

    assert not to_be_replaced(job, [], NOW, LIMITS)
    assert not to_be_replaced(job, [lost("lost", 10)], NOW, LIMITS)


def test_the_pause_grows_with_every_refused_pod() -> None:
    job = with_refusals(job_object(), '{"node-1": 2}')

    assert not to_be_replaced(job, [refused(age=29)], NOW, LIMITS)
    assert to_be_replaced(job, [refused(age=30)], NOW, LIMITS)


def test_refusals_have_an_end_that_names_the_nodes() -> None:
    job = with_refusals(job_object(), '{"node-1": 3, "node-2": 2}')

    status = status_of(job, [refused(node="node-3")])

    assert status.failure is not None
    assert status.failure.summary == "Nodes refused the shard's pods before they started"
    assert "6 pods, by node-1, node-2, node-3; the last one: UnexpectedAdmissionError" in status.failure.cause
    assert status.failure.fault is Fault.INFRASTRUCTURE
    assert not to_be_replaced(job, [refused(node="node-3")], NOW, LIMITS)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"node-1": "many"}', "null"])
def test_an_annotation_that_somebody_else_wrote_is_none(text: str) -> None:
    assert refusals(with_refusals(job_object(), text), [refused()]) == {"node-1": 1}


def running_job(failed: int = 1, **annotations: str) -> Json:
    """The rendered Job as the cluster has it, ten minutes old."""
    job = job_manifest(shard_job(), cluster_spec())
    job["metadata"]["annotations"] |= annotations
    return job | {"status": job_object(failed=failed)["status"]}


class TestReplacement:
    def test_it_prefers_other_nodes_and_keeps_what_is_left_of_budget_and_deadline(self) -> None:
        pods = [lost("lost", 300), refused(age=10)]

        new = replacement(job_manifest(shard_job(), cluster_spec()), running_job(failed=2), pods, NOW, LIMITS)

        assert new["metadata"]["name"] == shard_job().name
        assert new["metadata"]["annotations"]["leaderboard/refused-by"] == '{"node-1":1}'
        assert new["metadata"]["annotations"]["leaderboard/deadline-seconds"] == "3600"
        assert (new["spec"]["backoffLimit"], new["spec"]["activeDeadlineSeconds"]) == (7, 3000)
        node = new["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
        (preferred,) = node["preferredDuringSchedulingIgnoredDuringExecution"]
        assert preferred["preference"]["matchFields"] == [
            {"key": "metadata.name", "operator": "NotIn", "values": ["node-1"]}
        ]
        (term,) = node["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        assert "matchFields" not in term

    @pytest.mark.parametrize("instance_types", [("g5.12xlarge",), ()])
    def test_a_node_that_refused_again_and_again_is_excluded(self, instance_types: tuple[str, ...]) -> None:
        job = running_job(**{"leaderboard/refused-by": '{"node-1": 2, "node-2": 1}'})
        manifest = job_manifest(shard_job(), cluster_spec(instance_types=instance_types))

        new = replacement(manifest, job, [refused()], NOW, LIMITS)

        node = new["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
        (term,) = node["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        assert term["matchFields"] == [{"key": "metadata.name", "operator": "NotIn", "values": ["node-1"]}]
        assert ("matchExpressions" in term) is bool(instance_types)
        (preferred,) = node["preferredDuringSchedulingIgnoredDuringExecution"]
        assert len(preferred["preference"]["matchFields"]) == 2

    @pytest.mark.parametrize("kubernetes", ["1.31", "1.35"])
    def test_kubernetes_takes_it(self, kubernetes: str) -> None:
        job = running_job(**{"leaderboard/refused-by": '{"node-1": 2}'})
        new = replacement(job_manifest(shard_job(), cluster_spec()), job, [refused()], NOW, LIMITS)

        assert kubernetes_validate.validate(new, kubernetes, strict=True) == kubernetes

    def test_its_failure_at_the_deadline_names_the_whole_deadline(self) -> None:
        job = job_object(condition("Failed", reason="DeadlineExceeded"), spec={"activeDeadlineSeconds": 60})
        job["metadata"]["annotations"] = {"leaderboard/deadline-seconds": "7200"}

        status = status_of(job, [])

        assert status.failure is not None
        assert status.failure.cause == "it was ended after 2 hours"
