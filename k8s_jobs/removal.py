"""Deletes an attempt's Jobs and proves that nothing of them is left."""

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from evaluation.errors import CleanupIncomplete
from k8s_jobs.api import Json, KubernetesApi
from k8s_jobs.api_errors import ObjectExists, ObjectMissing
from k8s_jobs.cluster_watch import jobs_path, pods_path
from k8s_jobs.pod_status import name_of, time_of

_FOREGROUND: Json = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground"}


@dataclass(frozen=True)
class RemovalLimits:
    """Seconds. A pod's own grace period comes before `force_after_seconds`."""

    deadline_seconds: float = 300.0
    force_after_seconds: float = 90.0
    first_pause_seconds: float = 0.25  # between two listings; grows
    longest_pause_seconds: float = 3.0


async def remove_attempt(api: KubernetesApi, namespace: str, selector: str, limits: RemovalLimits) -> None:
    """Delete all Jobs and pods under the selector; returns when a listing of both is empty.

    Raises CleanupIncomplete, naming what is left, after the deadline.
    """
    deadline, pause = time.monotonic() + limits.deadline_seconds, limits.first_pause_seconds
    while True:
        left = await _remove_once(api, namespace, selector, limits)
        if not left:
            return
        if time.monotonic() + pause > deadline:
            raise CleanupIncomplete(
                f"Something of {selector} is still there after {limits.deadline_seconds:g} s",
                ", ".join(left),
                f"Check it with kubectl -n {namespace} get jobs,pods -l {selector}; it may hang on a lost node.",
            )
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, limits.longest_pause_seconds)


async def _remove_once(api: KubernetesApi, namespace: str, selector: str, limits: RemovalLimits) -> list[str]:
    """One round: delete what is there, and return what is left. A Job in foreground deletion outlives its pods."""
    query = {"labelSelector": selector}
    jobs = _items(await api.get(jobs_path(namespace), query))
    if any(not _deletion(job) for job in jobs):
        await api.delete(jobs_path(namespace), query, _FOREGROUND)
    oldest = min((gone_at for job in jobs if (gone_at := _deletion(job))), default=None)
    in_time = oldest is None or datetime.now(UTC) - oldest < timedelta(seconds=limits.force_after_seconds)
    if jobs and in_time:
        return [f"job/{name_of(job)}" for job in jobs]
    pods = _items(await api.get(pods_path(namespace), query))
    for pod in pods:
        await _remove_pod(api, namespace, pod, limits)
    return [f"job/{name_of(job)}" for job in jobs] + [f"pod/{name_of(pod)} on {_node(pod)}" for pod in pods]


async def _remove_pod(api: KubernetesApi, namespace: str, pod: Json, limits: RemovalLimits) -> None:
    """Delete an orphan; delete without waiting for its node one that the node should have ended long ago.

    The latter is safe in so far as the node's kubelet, if it lives, ended the containers when the grace period was
    over (`deletionTimestamp` is that moment), and a dead one runs nothing. Only a living node that is cut off from
    the API may still drive until it is back; it writes checkpoints of this attempt alone.
    """
    since = _deletion(pod)
    options: Json = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": pod["metadata"]["uid"]}}
    if since is not None:
        if datetime.now(UTC) - since < timedelta(seconds=limits.force_after_seconds):
            return
        options["gracePeriodSeconds"] = 0
    try:
        await api.delete(pods_path(namespace, name_of(pod)), body=options)
    except (ObjectMissing, ObjectExists):  # gone, or another one by now: the next listing shows it
        return


def _items(listing: Json) -> list[Json]:
    return listing.get("items") or []


def _deletion(thing: Json) -> datetime | None:
    return time_of(thing["metadata"].get("deletionTimestamp"))


def _node(pod: Json) -> str:
    return (pod.get("spec") or {}).get("nodeName") or "no node"
