"""The states of shards for one call of watch(): an end stays an end, refused pods are placed elsewhere."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from evaluation.errors import ServiceUnavailable
from evaluation.pair.shard_limits import ShardTimeouts
from evaluation.shards import ENDED, ShardJob, ShardState, ShardStatus
from k8s_jobs.api import Json, KubernetesApi
from k8s_jobs.api_errors import ObjectExists, ObjectMissing
from k8s_jobs.cluster_spec import ClusterSpec
from k8s_jobs.cluster_watch import JOB_LABEL, Connection, jobs_path, own_pods, pods_path
from k8s_jobs.job_events import JobEvents
from k8s_jobs.kueue import queue_name
from k8s_jobs.manifest import job_manifest
from k8s_jobs.planned_jobs import forget_plan, plan_job
from k8s_jobs.pod_status import by_age, is_over, name_of
from k8s_jobs.refusals import RefusalLimits, replacement, to_be_replaced
from k8s_jobs.shard_states import gone, replacing, shard_status

# Only the Job that was judged: a namesake that has taken its place since is not deleted.
_DELETION: Json = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground"}


@dataclass(frozen=True)
class _Replacement:
    """A Job that is being deleted, and the one that takes its place."""

    uid: str
    manifest: Json


@dataclass
class ShardWatcher:
    """`poll` reads the watched objects; it sends requests only for what they do not show, and to replace a Job."""

    connection: Connection
    spec: ClusterSpec
    timeouts: ShardTimeouts
    refusal_limits: RefusalLimits
    events: JobEvents
    _seen: set[str] = field(default_factory=set)  # names of the Jobs that the watch has shown
    _ended: dict[int, ShardStatus] = field(default_factory=dict)
    _replacements: dict[str, _Replacement] = field(default_factory=dict)  # by the Job's name

    async def poll(self, jobs: Sequence[ShardJob]) -> dict[int, ShardStatus]:
        """The status of each shard now. Raises as KubernetesApi does."""
        statuses = {job.shard.index: await self._status(job) for job in jobs}
        self._ended = {index: status for index, status in statuses.items() if status.state in ENDED}
        return statuses

    async def _status(self, job: ShardJob) -> ShardStatus:
        index, name = job.shard.index, job.name
        if index in self._ended:
            return self._ended[index]
        found = self.connection.watch.job(name)
        if name in self._replacements:
            return await self._replaced(index, name, found)
        if found is not None:
            self._seen.add(name)
        elif name not in self._seen:
            # A watch lags behind: until it has shown the Job, the cluster itself has to say that there is none.
            found = await read_job(self.connection.api, self.spec.namespace, name)
        if found is None:
            return gone(index, seen=name in self._seen)
        return await self._status_of(job, found)

    async def _status_of(self, job: ShardJob, found: Json) -> ShardStatus:
        pods, now = self.connection.watch.pods(found), datetime.now(UTC)
        status = replace(
            shard_status(job.shard.index, found, pods, now, self.timeouts, self.refusal_limits),
            backend_id=f"pod {name_of(by_age(pods)[-1])}" if pods else f"Job {job.name}",
        )
        if status.state not in ENDED and to_be_replaced(found, pods, now, self.refusal_limits):
            try:
                await self._replace(job, found, pods)
            except ServiceUnavailable as error:  # the next poll tries again
                return replace(status, warning=str(error))
            return status
        if pods or status.state not in (ShardState.WAITING, ShardState.RETRYING):
            return status
        if found["spec"].get("suspend"):
            return await self._queued(status, found)
        if status.state is ShardState.RETRYING:
            return status
        warning = await self.events.about(found)
        return replace(status, detail=f"the cluster cannot create its pod: {warning}") if warning else status

    async def _queued(self, status: ShardStatus, found: Json) -> ShardStatus:
        """With its place in Kueue's queue, or at least the reason why it is not admitted."""
        if not queue_name(found):
            return status
        if place := await self.connection.queues.place(found):
            return replace(status, detail=str(place), queue=place)
        reason = await self.connection.queues.reason(found)
        return replace(status, detail=f"{status.detail}: {reason}") if reason else status

    async def _replace(self, job: ShardJob, watched: Json, seen: Sequence[Json]) -> None:
        """Write down the Job that comes next, then delete this one: a run may die between the two.

        The cluster itself is asked first whether it is to go: the watch may lag behind a pod that runs by now.
        """
        api, namespace = self.connection.api, self.spec.namespace
        found = await read_job(api, namespace, job.name)
        if found is None or found["metadata"]["uid"] != watched["metadata"]["uid"]:
            return  # another run was faster
        if found["metadata"].get("deletionTimestamp"):
            return  # somebody removes it for good
        pods, now = await self._pods_now(found, seen), datetime.now(UTC)
        if not to_be_replaced(found, pods, now, self.refusal_limits):
            return
        manifest = replacement(job_manifest(job, self.spec), found, pods, now, self.refusal_limits)
        uid = found["metadata"]["uid"]
        try:
            await plan_job(api, namespace, manifest, uid)
        except ObjectExists:  # the echo of our own lost request, or another run's: the next poll tries again
            return
        try:
            await api.delete(jobs_path(namespace, job.name), body=_DELETION | {"preconditions": {"uid": uid}})
        except ObjectMissing:  # the echo of our own lost request: it was there a moment ago
            pass
        except ObjectExists:  # another run was faster: what is there now is adopted
            return
        self._replacements[job.name] = _Replacement(uid, manifest)

    async def _pods_now(self, job: Json, seen: Sequence[Json]) -> list[Json]:
        """The Job's own pods as the cluster has them, and those seen that it has deleted since."""
        query = {"labelSelector": f"{JOB_LABEL}={name_of(job)}"}
        listing = await self.connection.api.get(pods_path(self.spec.namespace), query)
        pods = own_pods(job, listing.get("items") or [])
        known = {pod["metadata"]["uid"] for pod in pods}
        return [*(pod for pod in seen if pod["metadata"].get("uid") not in known and is_over(pod)), *pods]

    async def _replaced(self, index: int, name: str, found: Json | None) -> ShardStatus:
        """Create the new Job as soon as the old one has gone with its pods."""
        planned = self._replacements[name]
        if found is not None and found["metadata"]["uid"] == planned.uid:
            return replacing(index)
        try:
            with suppress(ObjectExists):  # the echo of our own lost request, or another run's Job
                await self.connection.api.create(jobs_path(self.spec.namespace), planned.manifest)
            await forget_plan(self.connection.api, self.spec.namespace, name)
        except ServiceUnavailable as error:  # the next poll tries again
            return replace(replacing(index), warning=str(error))
        del self._replacements[name]
        self._seen.discard(name)  # the watch does not know the new one yet
        return replacing(index)


async def read_job(api: KubernetesApi, namespace: str, name: str) -> Json | None:
    try:
        return await api.get(jobs_path(namespace, name))
    except ObjectMissing:
        return None
