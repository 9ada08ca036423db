"""A shard in real containers: kubelet, containerd and runc on this machine, beside the simulated nodes."""

import asyncio
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from cluster_under_test import ClusterUnderTest
from control_plane import ControlPlane
from images import make_images
from kubernetes_asyncio import client
from node_tools import CGROUPS, NoNodeHereError, Tools, cgroup_hierarchies, find_tools, remove_leftovers
from real_node import GPUS, RealNode
from real_shards import AGENTS, CONFINEMENT, KEYS, KILL_SIMULATOR, REGION, TRY_TO_WRITE, RealHarness
from registry import Registry
from shard_harness import follow
from simulated_jobs import condition, until

from evaluation.pair.protocol import PairExitCode, failure_of
from evaluation.shards import Shard, ShardState
from evaluation.submission.model import LeaderboardVersion, parse_phase
from tests.contract.aws_server import moto_server

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600, func_only=True)]
ROUTES = Path(__file__).parents[2] / "local_jobs" / "routes" / "leaderboard-20.xml"


@pytest.fixture(scope="module")
def tools(simulated_plane: ControlPlane) -> Tools:
    try:
        return find_tools()
    except NoNodeHereError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def simulated_plane(cluster: ClusterUnderTest) -> ControlPlane:
    if cluster.plane is None:
        pytest.skip("the cluster of KUBECONFIG is not ours to join a node to")
    return cluster.plane


@pytest.fixture(scope="module")
def images(tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a registry that has them."""
    folder = tmp_path_factory.mktemp("images")
    with Registry(make_images(folder, AGENTS)) as registry:
        yield registry.host
    shutil.rmtree(folder)  # a hundred megabytes


@pytest.fixture(scope="module")
def node(
    simulated_plane: ControlPlane, tools: Tools, images: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RealNode]:
    folder = tmp_path_factory.mktemp("real-node")
    with RealNode(simulated_plane, tools, folder, f"{images}/pause:1") as node:
        yield node


@pytest.fixture(scope="module")
def storage(node: RealNode) -> Iterator[str]:
    """The address of an S3 that pods reach."""
    with moto_server(node.address) as url:
        yield url


@pytest.fixture
async def harness(
    cluster: ClusterUnderTest, api: client.ApiClient, namespace: str, images: str, storage: str
) -> RealHarness:
    key, secret = KEYS.values()
    s3 = boto3.Session(key, secret, region_name=REGION).client("s3", endpoint_url=storage)
    harness = RealHarness(cluster, api, namespace, images, storage, s3)
    await harness.furnish(ROUTES.read_bytes())
    return harness


def test_what_a_killed_test_run_has_left_is_removed_by_the_next(node: RealNode) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    mark = f"lbn{ended.pid}-0000"
    subprocess.run(["ip", "link", "add", mark, "type", "bridge"], check=True)
    groups = [hierarchy / mark / "kubepods" for hierarchy in cgroup_hierarchies()]
    for group in groups:
        group.mkdir(parents=True)

    remove_leftovers()

    links = subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout
    assert mark not in links
    assert node.mark in links
    assert [group for group in groups if group.parent.exists()] == []


def test_machine_without_a_runtime_is_told_what_it_lacks(
    tools: Tools, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(NoNodeHereError, match="a real node needs containerd"):
        find_tools()


async def test_node_is_ready_with_its_gpus_beside_the_simulated_ones(
    node: RealNode, simulated: ControlPlane, api: client.ApiClient
) -> None:
    found = {each.metadata.name: each.status for each in (await client.CoreV1Api(api).list_node()).items}

    assert set(found) == {node.name, *simulated.nodes}
    assert found[node.name].allocatable["nvidia.com/gpu"] == "4"
    assert found[node.name].node_info.container_runtime_version.startswith("containerd://")


async def test_four_shards_run_in_real_pods_and_are_removed(
    harness: RealHarness, node: RealNode, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = [harness.job("steady", shard=Shard(index, 4, (2 * index, 2 * index + 1))) for index in range(4)]
    began = time.monotonic()
    backend = await harness.launch(*jobs)

    last = (await follow(backend, jobs, 120))[-1]
    ended = time.monotonic()
    logs = await backend.logs(jobs[0], 1)
    await backend.remove(7, 1)

    with capsys.disabled():
        print(f"\nfour shards in real pods took {ended - began:.1f} s, their removal {time.monotonic() - ended:.1f} s")
    assert [status.state for status in last.values()] == [ShardState.FINISHED] * 4
    ids = [[f"RouteScenario_{route}_rep0" for route in job.shard.routes] for job in jobs]
    assert [[record["route_id"] for record in harness.records(job)] for job in jobs] == ids
    assert "Routes from s3://" in harness.log(jobs[3], "init")
    assert "Exit code finished" in harness.log(jobs[3], "supervisor")
    assert "listening on port 2030" in harness.log(jobs[3], "simulator")
    assert "all routes driven" in harness.log(jobs[3], "agent")
    assert "ended by itself with code 0" in logs["agent"]
    assert [pods for job in jobs if (pods := await harness.pods(job))] == []
    assert node.container_processes() == []


async def test_every_pair_has_a_gpu_of_its_own_and_both_halves_know_which(harness: RealHarness) -> None:
    # given: as many pairs as GPUs, so that a pod that took two would leave another without
    jobs = [harness.job("slow", shard=Shard(index, 4, (3 * index, 3 * index + 1, 3 * index + 2))) for index in range(4)]
    backend = await harness.launch(*jobs)
    pods = [await harness.driving(job, routes_done=0) for job in jobs]

    agents = [(await harness.run(pod, "agent", 'echo "$NVIDIA_VISIBLE_DEVICES"')).strip() for pod in pods]
    simulators = [(await harness.run(pod, "simulator", "cat /gpu/uuid")).strip() for pod in pods]

    assert sorted(agents) == sorted(GPUS)
    assert simulators == agents
    await backend.remove(7, 1)


async def test_job_of_the_first_version_runs_as_well(harness: RealHarness) -> None:
    job = harness.job("first-version", (3,), version=LeaderboardVersion.V1, phase=parse_phase("leaderboard-10-MAP"))
    backend = await harness.launch(job)

    (status,) = (await follow(backend, [job]))[-1].values()

    assert status.state is ShardState.FINISHED
    assert [record["route_id"] for record in harness.records(job)] == ["RouteScenario_3"]
    await backend.remove(7, 1)


async def test_killed_simulator_and_its_agent_start_again_in_the_pod_and_go_on(harness: RealHarness) -> None:
    job = harness.job("slow", (0, 1, 2))
    backend = await harness.launch(job)
    before = await harness.driving(job, routes_done=1)
    (first,) = harness.records(job)

    answer = await harness.run(before, "simulator", KILL_SIMULATOR)
    (status,) = (await follow(backend, [job]))[-1].values()

    assert answer == "killed\n"
    assert status.state is ShardState.FINISHED
    (pod,) = await harness.pods(job)
    assert pod.metadata.uid == before.metadata.uid
    assert {each.restart_count for each in pod.status.container_statuses} == {0}
    assert "start 1: ended by itself with code 137" in harness.log(job, "simulator")
    assert "start 2: ready" in harness.log(job, "simulator")
    assert "start 1: stopped" in harness.log(job, "agent") or "stopping: Simulation crashed" in harness.log(
        job, "agent"
    )
    assert "3 routes, 1 of them driven before" in harness.log(job, "agent")
    assert [record["status"].startswith("Failed - S") for record in harness.records(job)] == [False] * 3
    assert harness.records(job)[0] == first
    progress = harness.progress(job)
    assert progress is not None
    assert (progress.counters.starts, progress.counters.infrastructure_restarts) == (2, 1)
    assert progress.counters.agent_restarts == 0
    await backend.remove(7, 1)


async def test_killed_supervisor_is_started_again_and_the_pair_drives_on(harness: RealHarness, node: RealNode) -> None:
    job = harness.job("slow", (0, 1))
    backend = await harness.launch(job)
    await harness.driving(job, routes_done=0)

    (supervisor,) = [process for process in node.container_processes() if "shard_pod.supervisor" in process.cmdline()]
    supervisor.kill()
    (status,) = (await follow(backend, [job], 90))[-1].values()

    assert status.state is ShardState.FINISHED
    (pod,) = await harness.pods(job)
    assert {each.name: each.restart_count for each in pod.status.init_container_statuses}["supervisor"] == 1
    progress = harness.progress(job)
    assert progress is not None
    assert progress.counters.starts == 1
    assert len(harness.records(job)) == 2
    await backend.remove(7, 1)


async def test_evicted_pod_is_replaced_and_goes_on_where_it_was(harness: RealHarness) -> None:
    job = harness.job("slow", (0, 1, 2))
    backend = await harness.launch(job)
    before = await harness.driving(job, routes_done=1)
    (first,) = harness.records(job)

    name = before.metadata.name
    eviction = client.V1Eviction(metadata=client.V1ObjectMeta(name=name))
    await client.CoreV1Api(harness.api).create_namespaced_pod_eviction(name, harness.namespace, eviction)
    (status,) = (await follow(backend, [job], 90))[-1].values()

    assert status.state is ShardState.FINISHED
    assert [pod.metadata.uid for pod in await harness.pods(job)] != [before.metadata.uid]
    read = await client.BatchV1Api(harness.api).read_namespaced_job(job.name, harness.namespace)
    assert not read.status.failed  # charged to nobody
    assert "This pod goes on after start 1" in harness.log(job, "init-from-start-2")
    assert "3 routes, 1 of them driven before" in harness.log(job, "agent-from-start-2")
    assert harness.records(job)[0] == first
    assert len(harness.records(job)) == 3
    await backend.remove(7, 1)


async def test_agent_has_no_credentials_and_writes_in_its_own_folder_only(harness: RealHarness) -> None:
    job = harness.job("slow", (0, 1, 2))
    backend = await harness.launch(job)
    pod = await harness.driving(job, routes_done=0)

    of_agent = await harness.run(pod, "agent", "env")
    assert "AWS_ACCESS_KEY_ID=testing" in await harness.run(pod, "supervisor", "env")
    assert "EVALUATOR_COMMAND" in of_agent
    assert [line for line in of_agent.splitlines() if "AWS" in line or "testing" in line] == []
    assert await harness.run(pod, "agent", TRY_TO_WRITE) == "wrote /pair/agent\n"
    assert "No such file" in await harness.run(pod, "agent", "ls /var/run/secrets/kubernetes.io")
    assert (await harness.run(pod, "agent", CONFINEMENT)).split() == [
        *("Uid:", "0"),
        *("CapEff:", "0000000000000000"),
        *("NoNewPrivs:", "1"),
        *("Seccomp:", "2"),
    ]
    # its own processes, none of the supervisor's, whose environment holds the keys
    assert "supervisor" not in await harness.run(pod, "agent", "cat /proc/[0-9]*/cmdline")
    await backend.remove(7, 1)


async def test_invalid_sensors_fail_the_job_at_once(harness: RealHarness) -> None:
    job = harness.job("bad-sensors", (0, 1))
    backend = await harness.launch(job)

    (status,) = (await follow(backend, [job]))[-1].values()

    assert status.state is ShardState.FAILED
    assert status.failure is not None
    assert status.failure == failure_of(PairExitCode.SENSORS_INVALID, status.failure.cause)
    end = await condition(harness.api, harness.namespace, job.name, "Failed")
    assert end.reason == "PodFailurePolicy"
    assert "Container simulator" in end.message
    assert "exit code 11" in end.message
    assert len(await harness.pods(job)) == 1
    await backend.remove(7, 1)


async def test_cancel_ends_every_process_within_the_grace_period(harness: RealHarness, node: RealNode) -> None:
    job = harness.job("slow", (0, 1, 2))
    backend = await harness.launch(job)
    await harness.driving(job, routes_done=1)
    began = time.monotonic()

    await backend.remove(7, 1)

    assert time.monotonic() - began < 25  # the pod has 30
    assert node.container_processes() == []
    assert "ended by a signal" in harness.log(job, "agent")
    progress = harness.progress(job)
    assert progress is not None
    assert progress.routes_done == 1  # kept for a resume


async def test_node_leaves_nothing_behind(
    simulated: ControlPlane, tools: Tools, images: str, tmp_path: Path, api: client.ApiClient, namespace: str
) -> None:
    core = client.CoreV1Api(api)
    container = {"name": "pause", "image": f"{images}/pause:1", "volumeMounts": [{"name": "memory", "mountPath": "/m"}]}
    volume = {"name": "memory", "emptyDir": {"medium": "Memory"}}
    spec = {"nodeName": "passing-node", "containers": [container], "volumes": [volume]}
    pod: Any = {"metadata": {"name": "pause"}, "spec": spec}

    async def runs() -> bool:
        return (await core.read_namespaced_pod("pause", namespace)).status.phase == "Running"

    passing = RealNode(simulated, tools, tmp_path, f"{images}/pause:1", name="passing-node")
    await asyncio.to_thread(passing.start)
    try:
        await core.create_namespaced_pod(namespace, pod)
        await until(runs)
        processes = passing.processes()
    finally:
        await asyncio.to_thread(passing.stop)

    assert len(processes) >= 5
    assert [process for process in processes if process.is_running()] == []
    assert passing.mark not in subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout
    assert list(CGROUPS.glob(f"*/{passing.mark}")) == []
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    assert "passing-node" not in {each.metadata.name for each in (await core.list_node()).items}
