"""What a shard is doing, from its Job and pods."""

from typing import Any

import pytest

from evaluation.errors import Fault
from evaluation.pair.shard_limits import ShardTimeouts
from evaluation.shards import ShardState
from k8s_jobs.shard_states import gone, shard_status
from tests.kubernetes_objects import DONE, NOW, at, condition, ended, job_object, pod_object, running, waiting

Json = dict[str, Any]
ALL_RUN = {
    "evaluator": DONE,
    "private-contents": DONE,
    "supervisor": running(350),
    "simulator": running(300),
    "agent": running(300),
}
NO_ROOM = "0/4 nodes are available: 4 Insufficient nvidia.com/gpu. preemption: 0/4 nodes are available"
EVICTED = condition("DisruptionTarget", reason="EvictionByEvictionAPI", message="Eviction API: evicting")

CASES = {
    "no pod yet": (job_object(), [], ShardState.WAITING, "the cluster has not created its pod yet"),
    "suspended by a queue": (
        job_object(condition("Suspended"), spec={"suspend": True}),
        [],
        ShardState.WAITING,
        "queued",
    ),
    "no node has room": (
        job_object(),
        [pod_object(node="", phase="Pending", conditions=[])],
        ShardState.WAITING,
        "no node has room yet",
    ),
    "image being pulled": (
        job_object(),
        [pod_object({"evaluator": waiting(), "simulator": waiting()}, phase="Pending")],
        ShardState.PULLING,
        "the image of evaluator is being pulled",
    ),
    "private contents being fetched": (
        job_object(),
        [pod_object({"evaluator": DONE, "private-contents": running(), "simulator": waiting()}, phase="Pending")],
        ShardState.PULLING,
        "the routes are being fetched",
    ),
    "the agent's image being pulled": (
        job_object(),
        [pod_object(ALL_RUN | {"agent": waiting("ContainerCreating")})],
        ShardState.PULLING,
        "the image of agent",
    ),
    "pull fails, is tried again": (
        job_object(),
        [pod_object({"evaluator": waiting("ImagePullBackOff", "denied")}, phase="Pending", age=30)],
        ShardState.PULLING,
        "evaluator: ImagePullBackOff: denied",
    ),
    "warming up": (
        job_object(),
        [pod_object(ALL_RUN | {"simulator": running(20)})],
        ShardState.STARTING,
        "the simulator is warming up",
    ),
    "driving": (job_object(), [pod_object(ALL_RUN)], ShardState.DRIVING, "the agent drives"),
    "pod done, Job not updated yet": (
        job_object(),
        [pod_object(phase="Succeeded")],
        ShardState.DRIVING,
        "the cluster has not confirmed it yet",
    ),
    "pod being evicted": (
        job_object(),
        [pod_object(ALL_RUN, deleted=True, conditions=[EVICTED])],
        ShardState.RETRYING,
        "Eviction API: evicting), no budget is charged",
    ),
    "pod failed, counted": (
        job_object(failed=2),
        [pod_object({"simulator": ended(23), "agent": ended(23)}, phase="Failed")],
        ShardState.RETRYING,
        "infrastructure budget; pod 2 of 8",
    ),
    "new pod waits": (
        job_object(failed=1),
        [
            pod_object({"simulator": ended(23), "agent": ended(23)}, phase="Failed", name="old", age=500),
            pod_object(node="", phase="Pending", name="new", age=5),
        ],
        ShardState.RETRYING,
        "A process of the pair was lost (infrastructure budget; pod 1 of 8 that may be lost); no node has room yet",
    ),
    "new pod drives": (
        job_object(failed=1),
        [pod_object({"simulator": ended(23)}, phase="Failed", name="old", age=900), pod_object(ALL_RUN, name="new")],
        ShardState.DRIVING,
        "the agent drives",
    ),
    "complete": (job_object(condition("Complete")), [], ShardState.FINISHED, "every route is driven"),
    "about to be complete": (job_object(condition("SuccessCriteriaMet")), [], ShardState.FINISHED, ""),
    "a condition that does not hold": (
        job_object(condition("Complete", holds=False)),
        [],
        ShardState.WAITING,
        "",
    ),
    "being removed": (
        job_object() | {"metadata": job_object()["metadata"] | {"deletionTimestamp": at(1)}},
        [pod_object(ALL_RUN)],
        ShardState.DRIVING,
        "its Job is being removed from outside",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_state_and_words(case: str) -> None:
    job, pods, state, detail = CASES[case]

    status = shard_status(3, job, pods, NOW, ShardTimeouts())

    assert (status.index, status.state) == (3, state)
    assert detail in status.detail
    assert (status.failure is not None) == (state is ShardState.FAILED)


def test_waiting_says_since_when_and_the_schedulers_words() -> None:
    pod = pod_object(node="", phase="Pending", age=90)
    pod["status"]["conditions"] = [condition("PodScheduled", holds=False, reason="Unschedulable", message=NO_ROOM)]

    status = shard_status(0, job_object(), [pod], NOW, ShardTimeouts())

    assert status.detail == f"no node has room yet: {NO_ROOM}"
    assert status.since is not None
    assert (NOW - status.since).total_seconds() == 90


STUCK = {
    "waits for a node for too long": (
        job_object(spec={"suspend": True}),
        [],
        ShardTimeouts(waiting_seconds=540),
        "No node was scheduled within 0.15 h",
    ),
    "image never comes": (
        job_object(),
        [pod_object({"evaluator": waiting("ErrImagePull")}, phase="Pending", age=601)],
        ShardTimeouts(),
        "The container evaluator cannot be started",
    ),
    "image's name is invalid": (
        job_object(),
        [pod_object({"agent": waiting("InvalidImageName")}, phase="Pending", age=1)],
        ShardTimeouts(),
        "The container agent cannot be started",
    ),
    "containers never start": (
        job_object(),
        [pod_object({"evaluator": waiting("ContainerCreating")}, phase="Pending", age=7300)],
        ShardTimeouts(),
        "The shard's containers did not start",
    ),
    "nobody ends the Job at its deadline": (
        job_object(spec={"activeDeadlineSeconds": 60}),
        [pod_object(ALL_RUN)],
        ShardTimeouts(overdue_seconds=300),
        "The shard did not end in its time",
    ),
}


@pytest.mark.parametrize("case", STUCK)
def test_no_state_lasts_for_ever(case: str) -> None:
    job, pods, timeouts, summary = STUCK[case]

    status = shard_status(0, job, pods, NOW, timeouts)

    assert status.state is ShardState.FAILED
    assert status.failure is not None
    assert status.failure.summary == summary
    assert status.failure.fault is Fault.INFRASTRUCTURE


def test_of_two_pods_of_the_same_second_the_living_one_counts() -> None:
    pods = [pod_object(ALL_RUN, name="new"), pod_object({"simulator": ended(23)}, phase="Failed", name="old")]

    assert shard_status(0, job_object(), pods, NOW, ShardTimeouts()).state is ShardState.DRIVING
    assert shard_status(0, job_object(), pods[::-1], NOW, ShardTimeouts()).state is ShardState.DRIVING


def test_slow_pull_before_is_not_held_against_the_image_that_fails_now() -> None:
    # given: the simulator's image took an hour, the agent's has failed once since
    states = ALL_RUN | {"simulator": running(30), "agent": waiting("ErrImagePull")}

    status = shard_status(0, job_object(), [pod_object(states, age=3600)], NOW, ShardTimeouts())

    assert status.state is ShardState.PULLING


def test_gone_says_whether_it_was_there() -> None:
    assert gone(1, seen=True).state is gone(1, seen=False).state is ShardState.GONE
    assert "deleted from outside" in gone(1, seen=True).detail


DIGEST = f"sha256:{'a1' * 32}"


@pytest.mark.parametrize(("image_id", "digest"), [
    (f"registry.example/team@{DIGEST}", DIGEST), (DIGEST, ""), ("", ""), (None, ""), ("registry.example/team:1", ""),
])  # fmt: skip
def test_the_agents_image_is_known_by_what_its_node_pulled(image_id: str | None, digest: str) -> None:
    pod = pod_object(ALL_RUN)
    [agent] = [each for each in pod["status"]["containerStatuses"] if each["name"] == "agent"]
    agent["imageID"] = image_id

    assert shard_status(3, job_object(), [pod], NOW, ShardTimeouts()).image_digest == digest
