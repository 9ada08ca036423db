"""A namespace for shards on the control plane, and what tests of the backend do there."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

from cluster_under_test import ClusterUnderTest
from kubernetes_asyncio import client
from simulated_jobs import PREFIX

from evaluation.shards import ShardJob, ShardState, ShardStatus, ShardStatuses
from k8s_jobs.backend import BackendLimits, KubernetesJobBackend
from k8s_jobs.credentials import Kubeconfig
from tests.kubernetes_objects import cluster_spec
from tests.waiting import PATIENCE_SECONDS

SUCCEED = {"outcome": "succeed"}
Behaviour = Callable[[str], Mapping[str, str] | None]  # of a Job's pod, by the Job's name


class Harness:
    """A namespace with what a shard's pod needs there, and backends that use it."""

    def __init__(self, cluster: ClusterUnderTest, api: client.ApiClient, namespace: str) -> None:
        self.cluster = cluster
        self.api = api
        self.namespace = namespace
        self.requests: Counter[str] = Counter()

    def backend(self, **limits: Any) -> KubernetesJobBackend:
        """A new object, as another flow run would make it."""
        spec = cluster_spec(self.namespace, simulator_warmup_seconds=0)
        return KubernetesJobBackend(
            Kubeconfig(str(self.cluster.kubeconfig)), spec, BackendLimits(**limits), self.requests
        )

    async def jobs(self) -> dict[str, str]:
        """uid by name."""
        found = await client.BatchV1Api(self.api).list_namespaced_job(self.namespace)
        return {each.metadata.name: each.metadata.uid for each in found.items}

    async def pods(self, phase: str = "") -> list[Any]:
        selector = {"field_selector": f"status.phase={phase}"} if phase else {}
        return list((await client.CoreV1Api(self.api).list_namespaced_pod(self.namespace, **selector)).items)

    async def failed_pods(self, job: ShardJob) -> int:
        read = await client.BatchV1Api(self.api).read_namespaced_job(job.name, self.namespace)
        return read.status.failed or 0

    @asynccontextmanager
    async def played(self, behaviour: Behaviour = lambda _: SUCCEED) -> AsyncIterator[None]:
        """Meanwhile every running pod goes on as `behaviour` says; None leaves it running."""
        playing = asyncio.create_task(self._play(behaviour))
        try:
            yield
        finally:
            playing.cancel()
            with suppress(asyncio.CancelledError):
                await playing

    async def _play(self, behaviour: Behaviour) -> None:
        answered: set[str] = set()
        core = client.CoreV1Api(self.api)
        while True:
            # As JSON: the client takes seconds to build the models of two hundred pods.
            answer = await core.list_namespaced_pod(
                self.namespace, field_selector="status.phase=Running", _preload_content=False
            )
            for pod in (await answer.json())["items"]:
                metadata = pod["metadata"]
                wanted = behaviour(metadata["labels"]["batch.kubernetes.io/job-name"])
                if wanted is not None and metadata["uid"] not in answered and "deletionTimestamp" not in metadata:
                    answered.add(metadata["uid"])
                    patch = {"metadata": {"annotations": {PREFIX + key: text for key, text in wanted.items()}}}
                    await core.patch_namespaced_pod(metadata["name"], self.namespace, patch, _preload_content=False)
            await asyncio.sleep(0.2)


async def follow(
    backend: KubernetesJobBackend, jobs: Sequence[ShardJob], seconds: float = PATIENCE_SECONDS
) -> list[ShardStatuses]:
    """Every snapshot until all have ended."""
    async with asyncio.timeout(seconds):
        return [statuses async for statuses in backend.watch(jobs)]


async def follow_until(
    backend: KubernetesJobBackend,
    jobs: Sequence[ShardJob],
    done: Callable[[ShardStatus], bool],
    seconds: float = PATIENCE_SECONDS,
) -> ShardStatuses:
    """The first snapshot in which all are as wanted."""
    async with asyncio.timeout(seconds), aclosing(backend.watch(jobs)) as snapshots:
        async for statuses in snapshots:
            if all(done(status) for status in statuses.values()):
                return statuses
    raise AssertionError(f"the watch ended before: {statuses}")


def drives(status: ShardStatus) -> bool:
    return status.state is ShardState.DRIVING
