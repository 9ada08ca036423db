"""The Kubernetes backend on a real control plane: pods, nodes, servers and processes that disappear."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from cluster_under_test import ClusterUnderTest
from control_plane import ControlPlane
from kubernetes_asyncio import client
from shard_harness import Harness, drives, follow, follow_until
from simulated_jobs import CONTROLLER_SECONDS, annotate, running_pod

from evaluation.errors import CleanupIncomplete
from evaluation.shards import Budgets, ShardState, ShardStatuses
from k8s_jobs.removal import RemovalLimits
from tests.kubernetes_objects import shard_job, shard_jobs
from tests.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]


@pytest.fixture
async def harness(simulated: ControlPlane, cluster: ClusterUnderTest, api: client.ApiClient, namespace: str) -> Harness:
    account = client.V1ServiceAccount(metadata=client.V1ObjectMeta(name="submission-worker"))
    await client.CoreV1Api(api).create_namespaced_service_account(namespace, account)
    return Harness(cluster, api, namespace)


@pytest.mark.timeout(600, func_only=True)
async def test_evicted_pod_and_lost_node_are_replaced_and_charged_to_nobody(
    harness: Harness, simulated: ControlPlane
) -> None:
    backend = harness.backend()
    jobs = [shard_job(index=0), shard_job(index=1, budgets=Budgets(infrastructure_restarts=0))]
    await backend.ensure(jobs)
    evicted, lost = [await running_pod(harness.api, harness.namespace, job.name) for job in jobs]
    details: dict[int, set[str]] = {0: set(), 1: set()}

    async def note() -> ShardStatuses:
        async for statuses in backend.watch(jobs):
            for index, status in statuses.items():
                if status.state is ShardState.RETRYING:
                    details[index].add(status.detail)
        return statuses

    watching = asyncio.create_task(note())
    await asyncio.to_thread(simulated.delete_node, lost.spec.node_name)
    try:
        name = evicted.metadata.name
        eviction = client.V1Eviction(metadata=client.V1ObjectMeta(name=name))
        await client.CoreV1Api(harness.api).create_namespaced_pod_eviction(name, harness.namespace, eviction)
        # The pod garbage collector looks every 20 s and gives a missing node 40 s to come back.
        for job, before in zip(jobs, (evicted, lost), strict=True):
            await running_pod(
                harness.api, harness.namespace, job.name, other_than=before.metadata.uid, seconds=CONTROLLER_SECONDS
            )
    finally:
        await asyncio.to_thread(simulated.add_node, lost.spec.node_name)
        await asyncio.to_thread(simulated.await_node, lost.spec.node_name)
    async with harness.played():
        last = await asyncio.wait_for(watching, PATIENCE_SECONDS)

    assert [status.state for status in last.values()] == [ShardState.FINISHED] * 2
    assert [await harness.failed_pods(job) for job in jobs] == [0, 0]
    assert any("no budget is charged" in detail for detail in details[0])
    assert any("no budget is charged" in detail for detail in details[1])
    await backend.remove(7, 1)


@pytest.mark.parametrize("grace_seconds", [10, 0], ids=["terminated", "killed"])
async def test_watch_outlives_a_restart_of_the_api_server(harness: Harness, grace_seconds: float) -> None:
    backend, jobs = harness.backend(warning_seconds=0.5), shard_jobs()
    await backend.ensure(jobs)
    await follow_until(backend, jobs, drives)
    watching = asyncio.create_task(follow(backend, jobs, 90))
    await asyncio.sleep(0.5)

    await asyncio.to_thread(harness.cluster.restart_apiserver, grace_seconds=grace_seconds)
    async with harness.played():
        snapshots = await watching

    assert all(status.state is ShardState.FINISHED for status in snapshots[-1].values())
    assert {status.state for statuses in snapshots for status in statuses.values()} <= {
        ShardState.DRIVING,
        ShardState.FINISHED,
    }
    await backend.remove(7, 1)


ENSURE_AND_WAIT = """
import asyncio, sys
from k8s_jobs.backend import KubernetesJobBackend
from k8s_jobs.credentials import Kubeconfig
from tests.kubernetes_objects import cluster_spec, shard_jobs

async def main():
    backend = KubernetesJobBackend(Kubeconfig(sys.argv[1]), cluster_spec(sys.argv[2], simulator_warmup_seconds=0))
    await backend.ensure(shard_jobs())
    async for statuses in backend.watch(shard_jobs()):
        print("watching", flush=True)

asyncio.run(main())
"""


async def test_jobs_of_a_killed_process_are_adopted_and_there_is_never_a_fifth(harness: Harness) -> None:
    command = (sys.executable, "-c", ENSURE_AND_WAIT, str(harness.cluster.kubeconfig), harness.namespace)
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), PATIENCE_SECONDS) == b"watching\n"
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    before = await harness.jobs()

    await asyncio.gather(harness.backend().ensure(shard_jobs()), harness.backend().ensure(shard_jobs()))
    async with harness.played():
        last = (await follow(harness.backend(), shard_jobs()))[-1]

    assert await harness.jobs() == before
    assert len(before) == 4
    assert all(status.state is ShardState.FINISHED for status in last.values())
    await harness.backend().remove(7, 1)


async def test_cancel_returns_when_no_pod_is_left(harness: Harness) -> None:
    backend, jobs = harness.backend(), [*shard_jobs(7), *shard_jobs(8)]
    await backend.ensure(jobs)
    for job in jobs:
        pod = await running_pod(harness.api, harness.namespace, job.name)
        await annotate(harness.api, pod, stopping_seconds="2")
    watching = asyncio.create_task(follow(backend, shard_jobs(7)))

    began = time.monotonic()
    await backend.remove(7, 1)
    seconds = time.monotonic() - began

    assert seconds >= 2  # the pods' own time to stop
    assert {pod.metadata.labels["leaderboard/submission"] for pod in await harness.pods()} == {"8"}
    assert len(await harness.jobs()) == 4
    assert all(status.state is ShardState.GONE for status in (await watching)[-1].values())
    await backend.remove(8, 1)


async def test_pod_whose_node_never_ends_it_is_taken_off_the_books(harness: Harness) -> None:
    jobs = shard_jobs()[:1]
    await harness.backend().ensure(jobs)
    pod = await running_pod(harness.api, harness.namespace, jobs[0].name)
    await annotate(harness.api, pod, stopping_seconds="3600")
    # its own grace period, of 30 s, is cut short for the test
    await client.CoreV1Api(harness.api).delete_namespaced_pod(
        pod.metadata.name, harness.namespace, grace_period_seconds=1
    )

    with pytest.raises(CleanupIncomplete, match=jobs[0].name):
        await harness.backend(removal=RemovalLimits(deadline_seconds=1.5)).remove(7, 1)
    await harness.backend(removal=RemovalLimits(force_after_seconds=1)).remove(7, 1)

    assert await harness.jobs() == {}
    assert await harness.pods() == []
