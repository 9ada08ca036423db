"""Kueue: the shards' Jobs are created suspended, and it lets them start in their teams' turn, within a quota of GPUs.

Its API: https://kueue.sigs.k8s.io/docs/reference/ (kueue.x-k8s.io, versions v1beta1 and v1beta2) and
https://kueue.sigs.k8s.io/docs/tasks/manage/monitor_pending_workloads/ (visibility.kueue.x-k8s.io).
"""

import asyncio
import hashlib
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from evaluation.errors import InvalidConfiguration, RequestRefused, ServiceUnavailable
from evaluation.pair.diagnosis import quoted
from evaluation.queue_place import QueuePlace
from k8s_jobs.api import Json, KubernetesApi
from k8s_jobs.api_errors import ObjectExists, ObjectMissing

GROUP, VISIBILITY = "kueue.x-k8s.io", "visibility.kueue.x-k8s.io"
QUEUE_LABEL = f"{GROUP}/queue-name"
_JOB_UID = f"{GROUP}/job-uid"  # Kueue's label of a Workload
LOOK_SECONDS = 10.0  # a process reads a queue no more often, however many shards wait in it
REASON_SECONDS = 60.0  # and a shard's Workload no more often


@dataclass(frozen=True)
class Kueue:
    """Which queue a shard waits in: one LocalQueue for all, or one for each team in a ClusterQueue."""

    local_queue: str = ""
    cluster_queue: str = ""

    @property
    def used(self) -> bool:
        return bool(self.local_queue or self.cluster_queue)

    def queue_of(self, team: str) -> str:
        """The LocalQueue's name, which a label's value can be."""
        digest = hashlib.sha256(team.encode("utf-8", "replace")).hexdigest()[:16]
        return self.local_queue or f"team-{digest}"


async def version_of(api: KubernetesApi, group: str = GROUP) -> str:
    """The version that the cluster prefers. Raises InvalidConfiguration where Kueue, or its part, is not installed."""
    try:
        found = await api.get(f"/apis/{group}")
    except ObjectMissing as error:
        raise InvalidConfiguration(
            "The cluster has no Kueue",
            f"the cluster's block names a queue of it, and there is no API group {group}",
            "Install Kueue (deployments/eks/README.md), or leave out local_queue and cluster_queue.",
        ) from error
    return str((found.get("preferredVersion") or {}).get("version") or "v1beta1")


async def ensure_queue(api: KubernetesApi, namespace: str, kueue: Kueue, team: str, words: str) -> None:
    """The team's LocalQueue, where each has its own; `words` are the team's name for people.

    Raises InvalidConfiguration where Kueue is not installed: its Jobs would stay suspended for ever.
    """
    version = await version_of(api)
    if not kueue.cluster_queue:
        return
    queue = {
        "apiVersion": f"{GROUP}/{version}",
        "kind": "LocalQueue",
        "metadata": {
            "name": kueue.queue_of(team),
            "namespace": namespace,
            "annotations": {"leaderboard/team": words},
        },
        "spec": {"clusterQueue": kueue.cluster_queue},
    }
    with suppress(ObjectExists):
        await api.create(queues_path(namespace, version), queue)


def queues_path(namespace: str, version: str, name: str = "") -> str:
    return f"/apis/{GROUP}/{version}/namespaces/{namespace}/localqueues" + (f"/{name}" if name else "")


def queue_name(job: Json) -> str:
    """The LocalQueue that the Job waits in; "" where it is not Kueue's."""
    return str((job["metadata"].get("labels") or {}).get(QUEUE_LABEL) or "")


@dataclass
class QueueReader:
    """The queues of one namespace, for all watchers of a connection. What cannot be read is left out."""

    api: KubernetesApi
    namespace: str
    _versions: dict[str, str] = field(default_factory=dict)  # by API group
    _kept: dict[str, tuple[float, Json]] = field(default_factory=dict)  # path and query -> until when it is fresh
    _locks: dict[str, asyncio.Lock] = field(default_factory=dict)  # by path and query: who comes second finds it read

    async def place(self, job: Json) -> QueuePlace | None:
        """Where the suspended Job stands; None where the cluster does not say."""
        name, queues = queue_name(job), await self._queues()
        if name not in queues:
            return None
        pending = await self._pending(name)
        mine = next((each for each in pending if _owner(each) == job["metadata"]["uid"]), None)
        if mine is None:
            return None
        together = [each for each in queues.values() if _cluster_queue(each) == _cluster_queue(queues[name])]
        position = int(mine.get("positionInClusterQueue") or 0)
        others_first = position > int(mine.get("positionInLocalQueue") or 0)
        reason = await self._reason(job, queues)
        why = "; ".join(filter(None, (reason, "other teams' turns come first" if others_first else "")))
        return QueuePlace(
            position + 1,
            max(position + 1, _total(together, "pendingWorkloads")),
            _total(together, "admittedWorkloads"),
            why or f"ClusterQueue {_cluster_queue(queues[name])}",
        )

    async def reason(self, job: Json) -> str:
        """Why Kueue does not admit it: of its queue, or of its Workload; "" where neither says."""
        return await self._reason(job, await self._queues())

    async def _reason(self, job: Json, queues: Mapping[str, Json]) -> str:
        name = queue_name(job)
        if queues and name not in queues:
            return f"there is no LocalQueue {name}"
        active = condition_of(queues.get(name, {}), "Active")
        if active.get("status") == "False":
            return f"its LocalQueue {name} is not active: {quoted(active.get('message'))}"
        path = f"/namespaces/{self.namespace}/workloads"
        selector = {"labelSelector": f"{_JOB_UID}={job['metadata']['uid']}"}
        found = await self._read(GROUP, path, selector, REASON_SECONDS)
        workloads = found.get("items")
        if workloads is None:
            return ""
        if not workloads:
            return "Kueue has made no Workload of it"
        return _why(workloads[0])

    async def _queues(self) -> dict[str, Json]:
        """The LocalQueues by name."""
        found = await self._read(GROUP, f"/namespaces/{self.namespace}/localqueues")
        return {queue["metadata"]["name"]: queue for queue in found.get("items") or []}

    async def _pending(self, queue: str) -> list[Json]:
        path = f"/namespaces/{self.namespace}/localqueues/{queue}/pendingworkloads"
        return list((await self._read(VISIBILITY, path)).get("items") or [])

    async def _read(
        self, group: str, path: str, query: Mapping[str, str] | None = None, seconds: float | None = None
    ) -> Json:
        """The answer, or the last one while it is fresh; {} where there is none: it explains, nothing depends on it."""
        key = f"{group}{path}{query or ''}"
        async with self._locks.setdefault(key, asyncio.Lock()):
            until, answer = self._kept.get(key, (float("-inf"), {}))
            if time.monotonic() < until:
                return answer
            try:
                version = self._versions.get(group) or await version_of(self.api, group)
                self._versions[group] = version
                answer = await self.api.get(f"/apis/{group}/{version}{path}", query, retry=False)
            except (ObjectMissing, InvalidConfiguration, RequestRefused, ServiceUnavailable):
                answer = {}
            self._forget()
            self._kept[key] = (time.monotonic() + (LOOK_SECONDS if seconds is None else seconds), answer)
            return answer

    def _forget(self) -> None:
        """What is no longer fresh: its Job may be gone."""
        now = time.monotonic()
        self._kept = {key: kept for key, kept in self._kept.items() if now < kept[0]}
        self._locks = {key: lock for key, lock in self._locks.items() if key in self._kept or lock.locked()}


def _why(workload: Json) -> str:
    """The condition that keeps it, in Kueue's words."""
    evicted = condition_of(workload, "Evicted")
    reserved = condition_of(workload, "QuotaReserved")
    if evicted.get("status") == "True":
        return f"put back by Kueue ({evicted.get('reason')}): {quoted(evicted.get('message'))}"
    if reserved.get("status") == "False":
        return f"quota: {quoted(reserved.get('message'))}"
    if reserved.get("status") == "True" and condition_of(workload, "Admitted").get("status") != "True":
        return "its quota is reserved, and an admission check is under way"
    return ""


def condition_of(thing: Json, kind: str) -> Json:
    """The condition of one of Kueue's objects; {} where it has none of that type."""
    conditions = (thing.get("status") or {}).get("conditions") or []
    return next((each for each in conditions if each.get("type") == kind), {})


def _owner(thing: Json) -> str:
    return str(next(iter(thing["metadata"].get("ownerReferences") or [{}])).get("uid", ""))


def _cluster_queue(queue: Json) -> str:
    return str((queue.get("spec") or {}).get("clusterQueue") or "")


def _total(queues: list[Json], name: str) -> int:
    return sum(int((queue.get("status") or {}).get(name) or 0) for queue in queues)
