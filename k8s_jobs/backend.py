"""JobBackend on Kubernetes: every shard is a batch/v1 Job (k8s_jobs.manifest), found again by its name and labels."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace

from evaluation.errors import DeadlineExceeded, RequestRefused, ServiceUnavailable
from evaluation.pair.shard_limits import ShardTimeouts, outdated
from evaluation.shards import ENDED, ShardJob, ShardStatuses
from k8s_jobs.api import Json, KubernetesApi, RequestLimits
from k8s_jobs.api_errors import ObjectExists
from k8s_jobs.cluster_spec import ClusterSpec
from k8s_jobs.cluster_watch import ClusterKey, Connection, connected, jobs_path, pods_path
from k8s_jobs.credentials import ClusterAccess
from k8s_jobs.job_events import JobEvents
from k8s_jobs.kueue import ensure_queue
from k8s_jobs.manifest import (
    ATTEMPT,
    SHARD,
    SHARD_LABELS,
    SUBMISSION,
    annotation_value,
    attempt_selector,
    job_manifest,
    scripts_config_map,
)
from k8s_jobs.planned_jobs import as_planned, forget_plan, planned_jobs
from k8s_jobs.pod_logs import last_lines
from k8s_jobs.pod_status import name_of
from k8s_jobs.reflector import ConnectionProblem, ReflectorLimits
from k8s_jobs.refusals import RefusalLimits
from k8s_jobs.removal import RemovalLimits, remove_attempt
from k8s_jobs.shard_watcher import ShardWatcher, read_job

_SELECTOR = ",".join(f"{key}={value}" for key, value in sorted(SHARD_LABELS.items()))
_IDENTITY = (SUBMISSION, ATTEMPT, SHARD)


@dataclass(frozen=True)
class BackendLimits:
    """Times in seconds; the tests shorten them."""

    snapshot_seconds: float = 5.0  # a snapshot at least so often
    warning_seconds: float = 5.0  # a cluster that does not answer for less is not reported
    silent_cluster_seconds: float = 3600.0  # then watching gives up; the Jobs run on
    namesake_seconds: float = 300.0  # for a Job of the same name to finish being deleted
    no_pod_seconds: float = 20.0  # a Job without a pod for longer asks for an explanation
    timeouts: ShardTimeouts = field(default_factory=ShardTimeouts)
    refusals: RefusalLimits = field(default_factory=RefusalLimits)
    removal: RemovalLimits = field(default_factory=RemovalLimits)
    requests: RequestLimits = field(default_factory=RequestLimits)
    reflector: ReflectorLimits = field(default_factory=ReflectorLimits)
    first_list_seconds: float = 60.0


@dataclass(frozen=True)
class KubernetesJobBackend:
    """Backends of one cluster and namespace share a connection and a watch within an event loop.

    Every method raises ServiceUnavailable when the cluster does not answer in spite of retries, InvalidConfiguration
    when it does not let us in, and RequestRefused when it says no.
    """

    access: ClusterAccess
    spec: ClusterSpec
    limits: BackendLimits = field(default_factory=BackendLimits)
    # By verb. What several backends share is counted for the one that opened the connection.
    requests: Counter[str] = field(default_factory=Counter, compare=False)

    async def ensure(self, jobs: Sequence[ShardJob]) -> None:
        """See JobBackend. A namesake that is being deleted is waited for (DeadlineExceeded).

        Where a run died while it replaced a Job, the new one is what that run has planned.
        """
        manifests = [job_manifest(job, self.spec) for job in jobs]
        async with self._connection() as connection:
            await self._ensure_scripts(connection.api)
            await self._ensure_queues(connection.api, jobs)
            plans = await self._plans(connection.api, jobs)
            try:
                async with asyncio.TaskGroup() as group:
                    for manifest in manifests:
                        plan = plans.get(name_of(manifest))
                        wanted = as_planned(manifest, plan) if plan else manifest
                        group.create_task(self._ensure_job(connection.api, wanted))
            except ExceptionGroup as errors:  # the port's callers know single errors
                raise errors.exceptions[0] from errors
            for name in plans:
                await forget_plan(connection.api, self.spec.namespace, name)

    async def watch(self, jobs: Sequence[ShardJob]) -> AsyncGenerator[ShardStatuses, None]:
        """See JobBackend. While the cluster does not answer, the last known states stay, and say so."""
        async with self._connection() as connection, connection.watch.following(job.name for job in jobs) as follower:
            watcher = self._watcher(connection)
            last: ShardStatuses = {}
            yielded_at = 0.0
            while True:
                statuses = self._with_trouble(await watcher.poll(jobs), connection.watch.trouble)
                if statuses != last or time.monotonic() - yielded_at >= self.limits.snapshot_seconds:
                    last, yielded_at = statuses, time.monotonic()
                    yield statuses
                if all(status.state in ENDED for status in statuses.values()):
                    return
                await follower.wait(self.limits.snapshot_seconds)
                connection.watch.check()

    async def remove(self, submission: int, attempt: int) -> None:
        """See JobBackend. Foreground deletion, then empty listings of Jobs and pods."""
        selector = attempt_selector(submission, attempt)
        async with self._connection() as connection:
            await remove_attempt(connection.api, self.spec.namespace, selector, self.limits.removal)

    async def running(self) -> frozenset[tuple[int, int]]:
        """See JobBackend. By the labels of Jobs and pods: a pod can outlive its Job."""
        query = {"labelSelector": _SELECTOR}
        namespace = self.spec.namespace
        async with self._connection() as connection:
            listings = [await connection.api.get(path, query) for path in (jobs_path(namespace), pods_path(namespace))]
        labels = [thing["metadata"].get("labels") or {} for listing in listings for thing in listing.get("items") or []]
        found = [(str(each.get(SUBMISSION, "")), str(each.get(ATTEMPT, ""))) for each in labels]
        return frozenset((int(pk), int(attempt)) for pk, attempt in found if pk.isdigit() and attempt.isdigit())

    async def logs(self, job: ShardJob, lines: int) -> Mapping[str, str]:
        """See JobBackend. All containers; `<name>-previous` where the pod before has failed."""
        async with self._connection() as connection:
            return await last_lines(connection.api, self.spec.namespace, job.name, lines)

    def _watcher(self, connection: Connection) -> ShardWatcher:
        timeouts = replace(self.limits.timeouts, warmup_seconds=self.spec.simulator_warmup_seconds)
        events = JobEvents(connection.api, self.spec.namespace, self.limits.no_pod_seconds)
        return ShardWatcher(connection, self.spec, timeouts, self.limits.refusals, events)

    def _connection(self) -> AbstractAsyncContextManager[Connection]:
        limits = self.limits
        key = ClusterKey(
            self.access,
            self.spec.namespace,
            _SELECTOR,
            limits.requests,
            limits.reflector,
            limits.first_list_seconds,
            self.requests,
        )
        return connected(key)

    async def _ensure_scripts(self, api: KubernetesApi) -> None:
        manifest = scripts_config_map(self.spec.namespace)
        try:
            await api.create(f"/api/v1/namespaces/{self.spec.namespace}/configmaps", manifest)
        except ObjectExists:  # named by its content, and immutable
            return

    async def _ensure_queues(self, api: KubernetesApi, jobs: Sequence[ShardJob]) -> None:
        if self.spec.kueue.used:
            for team in sorted({job.team_name for job in jobs}):
                await ensure_queue(api, self.spec.namespace, self.spec.kueue, team, annotation_value(team))

    async def _plans(self, api: KubernetesApi, jobs: Sequence[ShardJob]) -> dict[str, Json]:
        """By the Job's name: what a run that died while it replaced a Job had planned for it."""
        found: dict[str, Json] = {}
        for submission, attempt in {(job.submission, job.attempt) for job in jobs}:
            found |= await planned_jobs(api, self.spec.namespace, attempt_selector(submission, attempt))
        return found

    async def _ensure_job(self, api: KubernetesApi, manifest: Json) -> None:
        """Create or adopt. A 409 can also be a quota's conflict, or the echo of our own lost request."""
        namespace, name = self.spec.namespace, name_of(manifest)
        deadline, pause = time.monotonic() + self.limits.namesake_seconds, 0.1
        while True:
            try:
                await api.create(jobs_path(namespace), manifest)
                return
            except ObjectExists:
                existing = await read_job(api, namespace, name)
            if existing and not existing["metadata"].get("deletionTimestamp"):
                _require_same(existing, manifest)
                return
            if time.monotonic() > deadline:
                seconds = self.limits.namesake_seconds
                raise DeadlineExceeded(f"An older Job {name} is still being deleted after {seconds:g} s")
            await asyncio.sleep(pause)
            pause = min(2 * pause, 2.0)

    def _with_trouble(self, statuses: ShardStatuses, trouble: ConnectionProblem | None) -> ShardStatuses:
        if trouble is None or (silent := time.time() - trouble.since) < self.limits.warning_seconds:
            return statuses
        if silent >= self.limits.silent_cluster_seconds:
            raise ServiceUnavailable(f"The cluster has not answered for {silent:.0f} s", str(trouble.error))
        return outdated(statuses, "the cluster", trouble.since)


def _require_same(existing: Json, manifest: Json) -> None:
    """Adopt what has our labels for the same shard of the same attempt, nothing else."""
    theirs, ours = existing["metadata"].get("labels") or {}, manifest["metadata"]["labels"]
    wrong = [key for key in (*SHARD_LABELS, *_IDENTITY) if theirs.get(key) != ours[key]]
    if wrong:
        raise RequestRefused(
            f"The Job {name_of(manifest)} is not ours to adopt",
            f"its label {wrong[0]} is {theirs.get(wrong[0])!r}, not {ours[wrong[0]]!r}",
            "Delete it, or run the shards in a namespace of their own.",
        )
