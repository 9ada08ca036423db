"""The Kubernetes backend on a real control plane: the states of shards. Simulated nodes run the pods."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_under_test import ClusterUnderTest
from control_plane import ControlPlane
from kubernetes_asyncio import client
from shard_harness import Harness, drives, follow, follow_until
from simulated_jobs import running_pod

from evaluation.errors import InvalidConfiguration
from evaluation.pair.protocol import PairExitCode, failure_of
from evaluation.shards import Budgets, Shard, ShardState, ShardStatuses
from k8s_jobs.backend import KubernetesJobBackend
from k8s_jobs.credentials import Kubeconfig
from k8s_jobs.manifest import FINAL_EXIT_CODES
from tests.kubernetes_objects import cluster_spec, shard_job, shard_jobs
from tests.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.anyio
RBAC = Path(__file__).parents[2] / "deployments/eks/cluster/rbac.yaml"


@pytest.fixture
async def harness(simulated: ControlPlane, cluster: ClusterUnderTest, api: client.ApiClient, namespace: str) -> Harness:
    account = client.V1ServiceAccount(metadata=client.V1ObjectMeta(name="submission-worker"))
    await client.CoreV1Api(api).create_namespaced_service_account(namespace, account)
    return Harness(cluster, api, namespace)


async def test_four_shards_run_finish_and_are_removed(harness: Harness) -> None:
    backend, jobs = harness.backend(), shard_jobs()
    await backend.ensure(jobs)

    await follow_until(backend, jobs, drives)
    async with harness.played():
        snapshots = await follow(backend, jobs)
    await backend.remove(7, 1)

    assert [status.state for status in snapshots[-1].values()] == [ShardState.FINISHED] * 4
    assert await harness.jobs() == {}
    assert await harness.pods() == []


async def test_every_exit_code_is_explained_and_charged_as_it_should_be(harness: Harness) -> None:
    exit_codes = sorted(set(PairExitCode) - {PairExitCode.FINISHED})
    # a exit_code that another pod may not repeat fails the Job once the pods are used up
    none, some = Budgets(infrastructure_restarts=0), Budgets()
    jobs = [
        shard_job(shard=Shard(index, 10, (index,)), budgets=some if exit_code in FINAL_EXIT_CODES else none)
        for index, exit_code in enumerate(exit_codes)
    ]
    codes = {job.name: str(int(exit_code)) for job, exit_code in zip(jobs, exit_codes, strict=True)}
    backend = harness.backend()
    await backend.ensure(jobs)

    async with harness.played(lambda name: {"outcome": "fail", "exit-code": codes[name], "message": "words"}):
        last = (await follow(backend, jobs))[-1]

    assert {exit_codes[index]: status.failure for index, status in last.items()} == {
        exit_code: failure_of(exit_code, "words") for exit_code in exit_codes
    }
    # The Job controller counts a failed pod some moments after it has judged the Job.
    async with asyncio.timeout(PATIENCE_SECONDS):
        while 0 in (counts := {await harness.failed_pods(job) for job in jobs}):
            await asyncio.sleep(0.2)
    assert counts == {1}
    await backend.remove(7, 1)


async def test_running_names_every_attempt_with_jobs_and_no_strangers(harness: Harness) -> None:
    backend = harness.backend()
    others = shard_jobs(submission=8, attempt=2)
    await backend.ensure([*shard_jobs(), *others])
    await follow_until(backend, others, drives)

    async with harness.played(lambda name: {"outcome": "succeed"} if name.startswith("submission-7-") else None):
        await follow(backend, shard_jobs())
    stranger = client.V1Pod(
        metadata=client.V1ObjectMeta(name="stranger", labels={"app": "something-else"}),
        spec=client.V1PodSpec(containers=[client.V1Container(name="c", image="x")]),
    )
    await client.CoreV1Api(harness.api).create_namespaced_pod(harness.namespace, stranger)

    both = await harness.backend().running()
    await backend.remove(7, 1)
    left = await backend.running()
    await backend.remove(8, 2)

    assert both == {(7, 1), (8, 2)}
    assert left == {(8, 2)}
    assert await backend.running() == frozenset()


async def test_waiting_shard_says_the_schedulers_words(harness: Harness, simulated: ControlPlane) -> None:
    # given: 17 shards for 16 GPUs
    jobs = [shard_job(shard=Shard(index, 17, (index,))) for index in range(17)]
    backend = harness.backend()
    await backend.ensure(jobs)

    async with asyncio.timeout(PATIENCE_SECONDS), aclosing(backend.watch(jobs)) as snapshots:
        async for statuses in snapshots:
            states = Counter(status.state for status in statuses.values())
            words = [status.detail for status in statuses.values() if status.state is ShardState.WAITING]
            if states[ShardState.DRIVING] == 16 and "Insufficient nvidia.com/gpu" in words[0]:
                break

    (waiting,) = [status for status in statuses.values() if status.state is ShardState.WAITING]
    assert waiting.since is not None
    await backend.remove(7, 1)


async def test_job_without_a_pod_says_why(cluster: ClusterUnderTest, api: client.ApiClient, namespace: str) -> None:
    # given: a namespace without the shards' service account
    backend, jobs = Harness(cluster, api, namespace).backend(no_pod_seconds=1, snapshot_seconds=0.5), shard_jobs()[:1]
    await backend.ensure(jobs)

    said = 'serviceaccount "submission-worker" not found'
    (status,) = (await follow_until(backend, jobs, lambda status: said in status.detail)).values()

    assert status.state is ShardState.WAITING
    await backend.remove(7, 1)


async def test_logs_of_every_container(harness: Harness, simulated: ControlPlane) -> None:
    simulated.write_log("agent", ["loading the world", "Segmentation fault"])
    simulated.write_log("supervisor", ["copied"])
    backend, jobs = harness.backend(), shard_jobs()[:1]
    await backend.ensure(jobs)
    await running_pod(harness.api, harness.namespace, jobs[0].name)

    logs = await backend.logs(jobs[0], 1)

    assert logs["agent"] == "Segmentation fault\n"
    assert logs["supervisor"] == "copied\n"
    assert set(logs) == {"evaluator", "private-contents", "supervisor", "simulator", "agent"}
    await backend.remove(7, 1)


@pytest.fixture
def two_hundred_gpus(simulated: ControlPlane) -> Iterator[None]:
    names = [f"gpu-more-{number}" for number in range(50 - len(simulated.nodes))]
    for name in names:
        simulated.add_node(name)
    for name in names:
        simulated.await_node(name)
    yield
    for name in names:
        simulated.delete_node(name)


@pytest.mark.timeout(600, func_only=True)
@pytest.mark.usefixtures("two_hundred_gpus")
async def test_fifty_submissions_at_once_are_all_accounted_for(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    driving: set[str] = set()
    everybody_drives = asyncio.Event()

    async def evaluate(number: int) -> ShardStatuses:
        backend, jobs = harness.backend(), shard_jobs(number)
        await backend.ensure(jobs)
        async with asyncio.timeout(4 * PATIENCE_SECONDS), aclosing(backend.watch(jobs)) as snapshots:
            async for statuses in snapshots:
                driving.update(jobs[index].name for index, status in statuses.items() if drives(status))
                if len(driving) == 200:
                    everybody_drives.set()
        await backend.remove(number, 1)
        return statuses

    began = time.monotonic()
    evaluating = asyncio.gather(*(evaluate(number) for number in range(1, 51)))
    try:
        await asyncio.wait_for(everybody_drives.wait(), 2 * PATIENCE_SECONDS)
    except TimeoutError:
        print(len(driving), Counter(each.status.phase for each in await harness.pods()))
        raise
    async with harness.played():
        ends = await evaluating
    seconds = time.monotonic() - began

    states = Counter(status.state for statuses in ends for status in statuses.values())
    with capsys.disabled():
        requests = ", ".join(f"{count} {verb}" for verb, count in sorted(harness.requests.items()))
        each = harness.requests.total() / len(ends)
        print(f"\n{len(ends)} submissions = {states.total()} Jobs at once, in {seconds:.0f} s, ", end="")
        print(f"with {each:.1f} API requests a submission ({requests})")
    assert states == {ShardState.FINISHED: 200}
    assert await harness.jobs() == {}
    assert await harness.pods() == []


async def kubeconfig_of_orchestrator(harness: Harness, folder: Path) -> Path:
    """A kubeconfig for an account that has the rights of deployments/eks in the harness's namespace, and no others."""
    core, rbac = client.CoreV1Api(harness.api), client.RbacAuthorizationV1Api(harness.api)
    subject = {"kind": "ServiceAccount", "name": "orchestrator", "namespace": harness.namespace}
    await core.create_namespaced_service_account(harness.namespace, {"metadata": {"name": subject["name"]}})
    role, binding = yaml.safe_load_all(RBAC.read_text())
    for each in (role, binding):
        each["metadata"]["namespace"] = harness.namespace
    await rbac.create_namespaced_role(harness.namespace, role)
    await rbac.create_namespaced_role_binding(harness.namespace, binding | {"subjects": [subject]})
    request: Any = {"spec": {"audiences": [], "expirationSeconds": 600}}
    answer = await core.create_namespaced_service_account_token(subject["name"], harness.namespace, request)
    content = yaml.safe_load(harness.cluster.kubeconfig.read_text())
    content["users"] = [{"name": "user", "user": {"token": answer.status.token}}]
    path = folder / "orchestrator.kubeconfig"
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(content))
    return path


async def test_orchestrators_role_is_enough_and_reaches_no_other_namespace(harness: Harness, tmp_path: Path) -> None:
    access, jobs = Kubeconfig(str(await kubeconfig_of_orchestrator(harness, tmp_path))), shard_jobs()
    backend = KubernetesJobBackend(access, cluster_spec(harness.namespace))

    await backend.ensure(jobs)
    await backend.ensure(jobs)
    await running_pod(harness.api, harness.namespace, jobs[0].name)
    logs = await backend.logs(jobs[0], 1)
    async with harness.played():
        last = (await follow(backend, jobs))[-1]
    await backend.remove(7, 1)

    assert set(logs) >= {"simulator", "agent"}
    assert all(status.state is ShardState.FINISHED for status in last.values())
    assert await harness.pods() == []
    with pytest.raises(InvalidConfiguration, match="the cluster forbids it"):
        await KubernetesJobBackend(access, cluster_spec("default")).ensure(jobs)
