"""What a shard is doing, read from its Job and its pods: pure, and in words that a person knows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from evaluation.errors import Failure, Fault
from evaluation.shards import ShardState, ShardStatus
from k8s_jobs.pod_status import (
    AGENT,
    INIT,
    SIMULATOR,
    SUPERVISOR,
    Container,
    Json,
    by_age,
    condition,
    containers,
    created,
    is_over,
    phase,
    time_of,
    true_condition,
    words,
)
from k8s_jobs.shard_failures import disruption, failure_of_job, failure_of_pod

_RESUME = "Resume the submission: driven routes are kept."
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


@dataclass(frozen=True)
class ShardTimeouts:
    """How long, in seconds, a shard may be in a state that it may never leave; then it has failed."""

    waiting_seconds: float = 24 * 3600.0  # for a node, or for a queue's leave
    stuck_seconds: float = 600.0  # an image that cannot be pulled, a container that cannot be made
    pulling_seconds: float = 2 * 3600.0  # images, volumes and private contents, as long as nothing complains
    overdue_seconds: float = 900.0  # after a Job's deadline, for the Job controller to end it
    warmup_seconds: float = 60.0  # of the simulator


def shard_status(index: int, job: Json, pods: Sequence[Json], now: datetime, timeouts: ShardTimeouts) -> ShardStatus:
    """The state of one shard. `pods` are the Job's own, in any order, gone ones included."""
    if ended := _ended(index, job, pods):
        return ended
    if overdue := _overdue(index, job, now, timeouts):
        return overdue
    pods = by_age(pods)
    status = _in_pod(index, pods[-1], now, timeouts) if pods else _without_pod(index, job)
    if status.state is ShardState.WAITING and _lasts(status.since, now, timeouts.waiting_seconds):
        return _failed(index, "No machine came for the shard", status.detail, _RESUME)
    if status.state is ShardState.PULLING and _lasts(status.since, now, timeouts.pulling_seconds):
        return _failed(index, "The shard's containers did not start", status.detail, _RESUME)
    return _with_history(status, job, pods)


def gone(index: int, seen: bool) -> ShardStatus:
    detail = "its Job was deleted by somebody else" if seen else "there is no Job of that name"
    return ShardStatus(index, ShardState.GONE, detail)


def _ended(index: int, job: Json, pods: Sequence[Json]) -> ShardStatus | None:
    complete = true_condition(job, "Complete", "SuccessCriteriaMet")
    if complete:
        return ShardStatus(index, ShardState.FINISHED, "every route is driven", complete.since)
    failed = true_condition(job, "Failed", "FailureTarget")
    if failed is None:
        return None
    failure = failure_of_job(job, pods)
    return ShardStatus(index, ShardState.FAILED, failure.summary, failed.since, failure)


def _overdue(index: int, job: Json, now: datetime, timeouts: ShardTimeouts) -> ShardStatus | None:
    started = time_of((job.get("status") or {}).get("startTime"))
    seconds = (job.get("spec") or {}).get("activeDeadlineSeconds") or 0
    if not seconds or not _lasts(started, now, seconds + timeouts.overdue_seconds):
        return None
    cause = f"its deadline of {seconds / 3600:.3g} hours has passed and the cluster has not ended its Job"
    return _failed(index, "The shard did not end in its time", cause, _RESUME)


def _without_pod(index: int, job: Json) -> ShardStatus:
    if (job.get("spec") or {}).get("suspend"):
        held = true_condition(job, "Suspended")
        since = (held.since if held else None) or created(job)
        detail = "queued: its Job is suspended until the cluster's queue admits it"
        return ShardStatus(index, ShardState.WAITING, detail, since)
    return ShardStatus(index, ShardState.WAITING, "accepted: the cluster has yet to make its pod", created(job))


def _in_pod(index: int, pod: Json, now: datetime, timeouts: ShardTimeouts) -> ShardStatus:
    if is_over(pod):
        return _between_pods(index, pod)
    scheduled = condition(pod, "PodScheduled")
    if not (pod.get("spec") or {}).get("nodeName"):
        why = f": {scheduled.message or scheduled.reason}" if scheduled and not scheduled.status else ""
        return ShardStatus(index, ShardState.WAITING, f"no machine has room yet{why}", created(pod))
    found = containers(pod)
    since = (scheduled.since if scheduled else None) or created(pod)
    stuck = next((each for each in found.values() if each.waiting and each.reason in _STUCK), None)
    if stuck:
        return _stuck(index, stuck, _last_progress(found, stuck, since), now, timeouts)
    return _on_machine(index, found, since, now, timeouts)


def _on_machine(
    index: int, found: dict[str, Container], since: datetime | None, now: datetime, timeouts: ShardTimeouts
) -> ShardStatus:
    contents = next((found[name] for name in INIT if name in found and found[name].running), None)
    if contents:
        detail = f"{contents.name}: the evaluator and the routes are on their way"
        return ShardStatus(index, ShardState.PULLING, detail, contents.started_at)
    absent = [name for name in (*INIT, SUPERVISOR, SIMULATOR, AGENT) if name in found and found[name].waiting]
    if absent or not found:
        detail = f"a machine is there; the image of {absent[0]} is on its way" if absent else "a machine is there"
        return ShardStatus(index, ShardState.PULLING, detail, since)
    simulator = found.get(SIMULATOR)
    started = simulator.started_at if simulator else None
    if started and not _lasts(started, now, timeouts.warmup_seconds):
        return ShardStatus(index, ShardState.STARTING, "the simulator is warming up", started)
    return ShardStatus(index, ShardState.DRIVING, "the agent drives its routes", started or since)


def _between_pods(index: int, pod: Json) -> ShardStatus:
    if phase(pod) == "Succeeded":
        return ShardStatus(index, ShardState.DRIVING, "every route is driven; the cluster has yet to confirm it")
    return ShardStatus(index, ShardState.RETRYING, "a new pod is to come")


def _with_history(status: ShardStatus, job: Json, pods: Sequence[Json]) -> ShardStatus:
    """Until the new pod drives, what became of the one before it matters more to a person than where the new one is."""
    if job["metadata"].get("deletionTimestamp"):
        return replace(status, detail=f"somebody is removing its Job; {status.detail}")
    lost = [pod for pod in pods if is_over(pod) and phase(pod) != "Succeeded"]
    early = (ShardState.WAITING, ShardState.PULLING, ShardState.STARTING, ShardState.RETRYING)
    if not lost or status.state not in early:
        return status
    detail = f"{_loss(lost[-1], job)}; {status.detail}"
    return replace(status, state=ShardState.RETRYING, detail=detail)


def _loss(pod: Json, job: Json) -> str:
    """Why the pod before was lost, and which budget pays for the next one."""
    if why := disruption(pod):
        return f"the machine took its pod away ({why}), nobody is charged"
    if phase(pod) != "Failed":
        return "its pod was stopped from outside"
    failure = failure_of_pod(pod)
    used, allowed = (job.get("status") or {}).get("failed") or 1, (job.get("spec") or {}).get("backoffLimit")
    budget = "agent" if failure.fault is Fault.TEAM else "infrastructure"
    return f"{failure.summary} ({budget} budget; pod {used} of {allowed} that may be lost)"


def _stuck(index: int, stuck: Container, since: datetime | None, now: datetime, timeouts: ShardTimeouts) -> ShardStatus:
    why = f"{stuck.name}: {stuck.reason}" + (f": {stuck.message}" if stuck.message else "")
    if stuck.reason in _HOPELESS or _lasts(since, now, timeouts.stuck_seconds):
        remedy = "Check the image's name and the node's right to pull it, then resume the submission."
        return _failed(index, f"The container {stuck.name} cannot be started", words(why), remedy)
    return ShardStatus(index, ShardState.PULLING, f"cannot be started yet, tried again: {why}", since)


def _last_progress(found: dict[str, Container], stuck: Container, since: datetime | None) -> datetime | None:
    """When the pod last got on: images are pulled one after the other, and the ones before may have taken long."""
    times = [moment for each in found.values() if each is not stuck for moment in (each.started_at, each.finished_at)]
    return max((moment for moment in (since, *times) if moment), default=None)


def _failed(index: int, summary: str, cause: str, remedy: str) -> ShardStatus:
    failure = Failure(summary, cause, remedy, Fault.INFRASTRUCTURE)
    return ShardStatus(index, ShardState.FAILED, summary, None, failure)


def _lasts(since: datetime | None, now: datetime, seconds: float) -> bool:
    return since is not None and now - since >= timedelta(seconds=seconds)
