"""Reads why a shard's Job failed for good from the Job and its pods; what the ends mean: evaluation.pair.diagnosis."""

import re
from collections.abc import Sequence

from evaluation.errors import Failure, Fault
from evaluation.pair.diagnosis import (
    TEAM_EXIT_CODES,
    ContainerEnd,
    PodEnd,
    StartFailure,
    deadline_failure,
    infrastructure_failure,
    quoted,
)
from evaluation.pair.diagnosis import failure_of_pod as diagnosed
from evaluation.pair.protocol import CORRECT_AGENT, failure_of_exit
from k8s_jobs.pod_status import (
    OURS,
    Container,
    Json,
    by_age,
    containers,
    phase,
    status_of,
    status_words,
    true_condition,
)
from k8s_jobs.refusals import deadline_seconds

_LOST_WITH_ITS_NODE = "ContainerStatusUnknown"
_NOT_STARTED = frozenset({"ContainerCannotRun", "StartError", "CreateContainerError"})
# The kubelet's message when a limit of the pod's own is passed; a node short of disk says something else.
_AGENTS_DISK = re.compile(r'Container agent exceeded its local ephemeral|EmptyDir volume "(pair-agent|shm)" exceeds')
_BY_POLICY = re.compile(r"Container (\S+) for pod \S+ failed with exit code ([0-9]+)")


def failure_of_job(job: Json, pods: Sequence[Json]) -> Failure:
    """The failure of a Job with a Failed or FailureTarget condition, by its message where no pod is left."""
    end = true_condition(job, "Failed", "FailureTarget")
    reason, message = (end.reason, end.message) if end else ("", "")
    if reason == "DeadlineExceeded":
        return deadline_failure(deadline_seconds(job))
    failed = [pod for pod in by_age(pods) if phase(pod) == "Failed"]
    decided = _BY_POLICY.search(message)
    if decided:  # names the container that the policy's rule is about
        failed = [pod for pod in failed if _exit_code(pod, decided[1]) == int(decided[2])] or failed
    if failed:
        return failure_of_pod(failed[-1])
    if decided and (decided[1] in OURS or int(decided[2]) in TEAM_EXIT_CODES):
        return failure_of_exit(int(decided[2]), message)
    return infrastructure_failure("The shard's Job failed", f"{reason}: {message}" if message else reason)


def failure_of_pod(pod: Json) -> Failure:
    """Why one pod failed: what its node did to it, else what its containers' ends say."""
    ends = [_end(each) for each in containers(pod).values()]
    return (
        _removed(pod)
        or diagnosed(PodEnd(ends, limits_in="the Job's template"))
        or infrastructure_failure("The shard's pod failed", status_words(pod))
    )


def disruption(pod: Json) -> str:
    """What ended the pod from outside (eviction, lost node, preemption, shutdown), as the cluster says it; else ""."""
    target = true_condition(pod, "DisruptionTarget")
    if target:
        return target.message or target.reason or "disruption"
    if any(each.reason == _LOST_WITH_ITS_NODE for each in containers(pod).values()):
        return "its node lost track of it"
    # A pod that fails without its containers' having ended was ended by its node: UnexpectedAdmissionError,
    # OutOfnvidia.com/gpu, NodeShutdown, Terminated, NodeLost, Evicted.
    return status_words(pod) if status_of(pod).get("reason") else ""


def _removed(pod: Json) -> Failure | None:
    message = str(status_of(pod).get("message") or "")
    if status_of(pod).get("reason") == "Evicted" and _AGENTS_DISK.search(message):
        return Failure("The agent wrote more to its disk than it may", quoted(message), CORRECT_AGENT, Fault.TEAM)
    why = disruption(pod)
    return infrastructure_failure("The shard's pod was ended by its node", why) if why else None


def _end(container: Container) -> ContainerEnd:
    return ContainerEnd(
        container.name,
        container.exit_code,
        container.message,
        out_of_memory=container.reason == "OOMKilled",
        start_failure=StartFailure.CONTAINER if container.reason in _NOT_STARTED else None,
    )


def _exit_code(pod: Json, name: str) -> int | None:
    container = containers(pod).get(name)
    return container.exit_code if container else None
