"""What a shard is doing, read from its Job and its pods: pure, and in words that a person knows."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from evaluation.errors import Fault
from evaluation.pair.diagnosis import AGENT, SIMULATOR, ContainerEnd, StartFailure, failure_to_start, quoted
from evaluation.pair.shard_limits import ShardTimeouts, failed, lasts, overdue, running, within_limits
from evaluation.shards import ShardState, ShardStatus
from k8s_jobs.kueue import queue_name
from k8s_jobs.pod_status import (
    CONTAINERS,
    INIT,
    Container,
    Json,
    by_age,
    condition,
    containers,
    created,
    is_over,
    node_of,
    phase,
    status_of,
    status_words,
    time_of,
    true_condition,
)
from k8s_jobs.refusals import (
    RefusalLimits,
    counted_failures,
    failure_of_refusals,
    gave_up_by_refusals,
    was_refused,
)
from k8s_jobs.shard_failures import disruption, failure_of_job, failure_of_pod

_HOPELESS = frozenset({"InvalidImageName", "ErrImageNeverPull"})
_STUCK = _HOPELESS | {
    "ErrImagePull",
    "ImagePullBackOff",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "CrashLoopBackOff",  # of the supervisor, the only container that starts again by itself
}


def shard_status(
    index: int,
    job: Json,
    pods: Sequence[Json],
    now: datetime,
    timeouts: ShardTimeouts,
    refusal_limits: RefusalLimits | None = None,
) -> ShardStatus:
    """The state of one shard. `pods` are the Job's own, in any order, deleted ones included."""
    status = _status(index, job, pods, now, timeouts, refusal_limits)
    return replace(status, image_digest=_image_digest(pods))


def _image_digest(pods: Sequence[Json]) -> str:
    """Of the agent's image in the newest pod whose node has told it."""
    told = (containers(pod)[AGENT].image_digest for pod in reversed(by_age(pods)) if AGENT in containers(pod))
    return next((digest for digest in told if digest), "")


def _status(
    index: int,
    job: Json,
    pods: Sequence[Json],
    now: datetime,
    timeouts: ShardTimeouts,
    refusal_limits: RefusalLimits | None,
) -> ShardStatus:
    if ended := _ended(index, job, pods, refusal_limits or RefusalLimits()):
        return ended
    started = time_of(status_of(job).get("startTime"))
    if late := overdue(index, started, (job.get("spec") or {}).get("activeDeadlineSeconds") or 0, now, timeouts):
        return late
    pods = by_age(pods)
    status = _in_pod(index, pods[-1], now, timeouts) if pods else _without_pod(index, job)
    if not (queue_name(job) and (job.get("spec") or {}).get("suspend")):  # a queue that is long takes its time
        status = within_limits(status, now, timeouts)
    return _with_history(status, job, pods)


def gone(index: int, seen: bool) -> ShardStatus:
    detail = "its Job was deleted from outside" if seen else "there is no Job of that name"
    return ShardStatus(index, ShardState.GONE, detail)


def replacing(index: int) -> ShardStatus:
    """While one Job of the shard is deleted and the next one created."""
    return ShardStatus(
        index, ShardState.RETRYING, "a node refused its pod, no budget is charged; its Job is being replaced"
    )


def _ended(index: int, job: Json, pods: Sequence[Json], limits: RefusalLimits) -> ShardStatus | None:
    complete = true_condition(job, "Complete", "SuccessCriteriaMet")
    if complete:
        return ShardStatus(index, ShardState.FINISHED, "every route is driven", complete.since)
    if refused := failure_of_refusals(job, pods, limits):
        return failed(index, refused)
    end = true_condition(job, "Failed", "FailureTarget")
    if end is None:
        return None
    if gave_up_by_refusals(job, pods):
        return ShardStatus(index, ShardState.RETRYING, _loss(by_age(pods)[-1], job, pods), end.since)
    return failed(index, failure_of_job(job, pods), end.since)


def _without_pod(index: int, job: Json) -> ShardStatus:
    if (job.get("spec") or {}).get("suspend"):
        held = true_condition(job, "Suspended")
        since = (held.since if held else None) or created(job)
        detail = "queued: its Job is suspended until the cluster's queue admits it"
        return ShardStatus(index, ShardState.WAITING, detail, since)
    return ShardStatus(index, ShardState.WAITING, "accepted: the cluster has not created its pod yet", created(job))


def _in_pod(index: int, pod: Json, now: datetime, timeouts: ShardTimeouts) -> ShardStatus:
    if is_over(pod):
        return _between_pods(index, pod)
    scheduled = condition(pod, "PodScheduled")
    if not node_of(pod):
        why = f": {scheduled.message or scheduled.reason}" if scheduled and not scheduled.status else ""
        return ShardStatus(index, ShardState.WAITING, f"no node has room yet{why}", created(pod))
    found = containers(pod)
    since = (scheduled.since if scheduled else None) or created(pod)
    stuck = next((each for each in found.values() if each.waiting and each.reason in _STUCK), None)
    if stuck:
        return _stuck(index, stuck, _last_progress(found, stuck, since), now, timeouts)
    return _on_node(index, found, since, now, timeouts)


def _on_node(
    index: int, found: dict[str, Container], since: datetime | None, now: datetime, timeouts: ShardTimeouts
) -> ShardStatus:
    contents = next((found[name] for name in INIT if name in found and found[name].running), None)
    if contents:
        detail = f"{contents.name}: the evaluator and the routes are being fetched"
        return ShardStatus(index, ShardState.PULLING, detail, contents.started_at)
    absent = [name for name in CONTAINERS if name in found and found[name].waiting]
    if absent or not found:
        detail = f"scheduled; the image of {absent[0]} is being pulled" if absent else "scheduled"
        return ShardStatus(index, ShardState.PULLING, detail, since)
    simulator = found.get(SIMULATOR)
    started = simulator.started_at if simulator else None
    return running(index, started or since, now, timeouts)


def _between_pods(index: int, pod: Json) -> ShardStatus:
    if phase(pod) == "Succeeded":
        return ShardStatus(index, ShardState.DRIVING, "every route is driven; the cluster has not confirmed it yet")
    return ShardStatus(index, ShardState.RETRYING, "a new pod follows")


def _with_history(status: ShardStatus, job: Json, pods: Sequence[Json]) -> ShardStatus:
    """Until the new pod drives, why the one before it was lost matters more to a person than where the new one is."""
    if job["metadata"].get("deletionTimestamp"):
        return replace(status, detail=f"its Job is being removed from outside; {status.detail}")
    lost = [pod for pod in pods if is_over(pod) and phase(pod) != "Succeeded"]
    early = (ShardState.WAITING, ShardState.PULLING, ShardState.STARTING, ShardState.RETRYING)
    if not lost or status.state not in early:
        return status
    detail = f"{_loss(lost[-1], job, pods)}; {status.detail}"
    return replace(status, state=ShardState.RETRYING, detail=detail)


def _loss(pod: Json, job: Json, pods: Sequence[Json]) -> str:
    """Why the pod before was lost, and which budget pays for the next one."""
    if was_refused(pod):
        return f"the node {node_of(pod)} refused its pod before it started ({status_words(pod)}), no budget is charged"
    if why := disruption(pod):
        return f"its pod was ended by its node ({why}), no budget is charged"
    if phase(pod) != "Failed":
        return "its pod was stopped from outside"
    failure = failure_of_pod(pod)
    used, allowed = counted_failures(job, pods) or 1, (job.get("spec") or {}).get("backoffLimit")
    budget = "agent" if failure.fault is Fault.TEAM else "infrastructure"
    return f"{failure.summary} ({budget} budget; pod {used} of {allowed} that may be lost)"


def _stuck(index: int, stuck: Container, since: datetime | None, now: datetime, timeouts: ShardTimeouts) -> ShardStatus:
    why = f"{stuck.name}: {stuck.reason}" + (f": {stuck.message}" if stuck.message else "")
    if stuck.reason in _HOPELESS or lasts(since, now, timeouts.stuck_seconds):
        end = ContainerEnd(stuck.name, message=quoted(why), start_failure=StartFailure.IMAGE)
        return failed(index, failure_to_start(end))
    return ShardStatus(index, ShardState.PULLING, f"cannot be started yet, tried again: {why}", since)


def _last_progress(found: dict[str, Container], stuck: Container, since: datetime | None) -> datetime | None:
    """When the pod last got on: images are pulled one after the other, and the ones before may have taken long."""
    times = [moment for each in found.values() if each is not stuck for moment in (each.started_at, each.finished_at)]
    return max((moment for moment in (since, *times) if moment), default=None)
