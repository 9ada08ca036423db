"""What the other tests in this folder build on: the control plane is real and its simulated nodes behave."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from binaries import kubernetes_version
from cluster_under_test import ClusterUnderTest
from control_plane import ControlPlane
from kubernetes_asyncio import client, watch
from simulated_jobs import CONTROLLER_SECONDS, annotate, condition, job, pods, running_pod, until

from tests.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.anyio


async def test_server_says_the_version_that_go_mod_pins(simulated: ControlPlane, api: client.ApiClient) -> None:
    version = await client.VersionApi(api).get_code()

    assert version.git_version == kubernetes_version()


async def test_job_completes_on_a_simulated_gpu_node(
    simulated: ControlPlane, api: client.ApiClient, namespace: str
) -> None:
    await client.BatchV1Api(api).create_namespaced_job(namespace, job("shard", {"outcome": "succeed"}, gpus=4))

    await condition(api, namespace, "shard", "Complete")

    (pod,) = await pods(api, namespace, "shard")
    assert pod.spec.node_name in simulated.nodes
    assert pod.status.container_statuses[0].state.terminated.exit_code == 0


async def test_chosen_exit_code_of_a_chosen_container_fails_the_job_at_once(
    simulated: ControlPlane, api: client.ApiClient, namespace: str
) -> None:
    behaviour = {"outcome": "fail", "exit-code": "11", "container": "agent"}
    manifest = job("shard", behaviour)
    manifest["spec"]["template"]["spec"]["containers"].append({"name": "simulator", "image": "demo/simulator"})
    await client.BatchV1Api(api).create_namespaced_job(namespace, manifest)

    failed = await condition(api, namespace, "shard", "Failed")

    (pod,) = await pods(api, namespace, "shard")
    codes = {each.name: each.state.terminated.exit_code for each in pod.status.container_statuses}
    assert failed.reason == "PodFailurePolicy"
    assert "Container agent" in failed.message
    assert "exit code 11" in failed.message
    assert codes == {"agent": 11, "simulator": 0}


async def test_another_exit_code_is_tried_again_and_counted(
    simulated: ControlPlane, api: client.ApiClient, namespace: str
) -> None:
    await client.BatchV1Api(api).create_namespaced_job(namespace, job("shard"))
    first = await running_pod(api, namespace, "shard")

    await annotate(api, first, outcome="fail", exit_code="12")
    second = await running_pod(api, namespace, "shard", other_than=first.metadata.uid)
    await annotate(api, second, outcome="succeed")

    await condition(api, namespace, "shard", "Complete")
    assert await failures(api, namespace) == 1


async def test_failing_init_container_fails_the_pod(
    simulated: ControlPlane, api: client.ApiClient, namespace: str
) -> None:
    behaviour = {"outcome": "fail", "exit-code": "7", "container": "private-contents"}
    manifest = job("shard", behaviour, initContainers=[{"name": "private-contents", "image": "demo/prepare"}])
    manifest["spec"]["backoffLimit"] = 0
    await client.BatchV1Api(api).create_namespaced_job(namespace, manifest)

    await condition(api, namespace, "shard", "Failed")

    (pod,) = await pods(api, namespace, "shard")
    assert pod.status.init_container_statuses[0].state.terminated.exit_code == 7
    assert pod.status.container_statuses[0].state.waiting.reason == "PodInitializing"


async def test_evicted_pod_is_replaced_and_not_counted(
    simulated: ControlPlane, api: client.ApiClient, namespace: str
) -> None:
    await client.BatchV1Api(api).create_namespaced_job(namespace, job("shard"))
    evicted = await running_pod(api, namespace, "shard")

    name = evicted.metadata.name
    eviction = client.V1Eviction(metadata=client.V1ObjectMeta(name=name))
    await client.CoreV1Api(api).create_namespaced_pod_eviction(name, namespace, eviction)
    replacement = await running_pod(api, namespace, "shard", other_than=evicted.metadata.uid)
    await annotate(api, replacement, outcome="succeed")

    await condition(api, namespace, "shard", "Complete")
    assert await failures(api, namespace) == 0


@pytest.mark.timeout(600, func_only=True)
async def test_pod_of_a_deleted_node_is_replaced_and_not_counted(
    simulated: ControlPlane, api: client.ApiClient, namespace: str
) -> None:
    await client.BatchV1Api(api).create_namespaced_job(namespace, job("shard"))
    lost = await running_pod(api, namespace, "shard")

    await asyncio.to_thread(simulated.delete_node, lost.spec.node_name)
    try:
        # The pod garbage collector looks every 20 s and gives a missing node 40 s to come back.
        replacement = await running_pod(
            api, namespace, "shard", other_than=lost.metadata.uid, seconds=CONTROLLER_SECONDS
        )
    finally:
        await asyncio.to_thread(simulated.add_node, lost.spec.node_name)
        await asyncio.to_thread(simulated.await_node, lost.spec.node_name)
    await annotate(api, replacement, outcome="succeed")

    await condition(api, namespace, "shard", "Complete")
    assert replacement.spec.node_name != lost.spec.node_name
    assert await failures(api, namespace) == 0


async def test_native_sidecar_is_accepted(cluster: ClusterUnderTest, api: client.ApiClient, namespace: str) -> None:
    sidecar = {"name": "supervisor", "image": "demo/logcopy", "restartPolicy": "Always"}
    manifest = job("shard", initContainers=[sidecar])

    accepted = await client.BatchV1Api(api).create_namespaced_job(namespace, manifest, dry_run="All")

    assert accepted.spec.template.spec.init_containers[0].restart_policy == "Always"


async def test_native_sidecar_neither_blocks_nor_fails_the_job(
    simulated: ControlPlane, api: client.ApiClient, namespace: str
) -> None:
    sidecar = {"name": "supervisor", "image": "demo/logcopy", "restartPolicy": "Always"}
    manifest = job("shard", initContainers=[{"name": "private-contents", "image": "demo/prepare"}, sidecar])
    await client.BatchV1Api(api).create_namespaced_job(namespace, manifest)

    pod = await running_pod(api, namespace, "shard")
    prepare, supervisor = pod.status.init_container_statuses
    await annotate(api, pod, outcome="succeed")

    await condition(api, namespace, "shard", "Complete")
    assert prepare.state.terminated.exit_code == 0
    assert supervisor.state.running is not None


async def test_scheduler_says_why_a_pod_waits_for_a_node(
    simulated: ControlPlane, api: client.ApiClient, namespace: str
) -> None:
    await client.BatchV1Api(api).create_namespaced_job(namespace, job("shard", gpus=5))

    async def words() -> str:
        found = [each for pod in await pods(api, namespace, "shard") for each in pod.status.conditions or ()]
        return next((each.message or "" for each in found if each.type == "PodScheduled"), "")

    assert "Insufficient nvidia.com/gpu" in await until(words)


async def test_image_that_cannot_be_pulled_keeps_its_pod_waiting(
    simulated: ControlPlane, api: client.ApiClient, namespace: str
) -> None:
    await client.BatchV1Api(api).create_namespaced_job(namespace, job("shard", {"waiting": "ImagePullBackOff"}))

    async def reason() -> str | None:
        statuses = [each for pod in await pods(api, namespace, "shard") for each in pod.status.container_statuses or ()]
        return next((each.state.waiting.reason for each in statuses if each.state.waiting), None)

    assert await until(reason) == "ImagePullBackOff"


async def test_log_of_every_container_can_be_read(
    simulated: ControlPlane, api: client.ApiClient, namespace: str
) -> None:
    simulated.write_log("agent", ["loading the world", "Segmentation fault"])
    await client.BatchV1Api(api).create_namespaced_job(namespace, job("shard"))
    pod = await running_pod(api, namespace, "shard")

    log = await client.CoreV1Api(api).read_namespaced_pod_log(
        pod.metadata.name, namespace, container="agent", tail_lines=1
    )

    assert log == "Segmentation fault\n"


@pytest.mark.parametrize("grace_seconds", [10, 0], ids=["terminated", "killed"])
async def test_restart_of_the_server_ends_a_watch_and_loses_no_job(
    cluster: ClusterUnderTest, simulated: ControlPlane, api: client.ApiClient, namespace: str, grace_seconds: float
) -> None:
    batch = client.BatchV1Api(api)
    await batch.create_namespaced_job(namespace, job("shard"))
    before = await running_pod(api, namespace, "shard")
    watching = asyncio.create_task(watch_jobs(batch, namespace))
    await asyncio.sleep(0.2)

    await asyncio.to_thread(cluster.restart_apiserver, grace_seconds=grace_seconds)

    events = await asyncio.wait_for(watching, PATIENCE_SECONDS)
    after = await running_pod(api, namespace, "shard")
    await annotate(api, after, outcome="succeed")
    await condition(api, namespace, "shard", "Complete")
    assert events[0]["type"] == "ADDED"
    assert after.metadata.uid == before.metadata.uid


def test_kubeconfig_is_readable_by_its_owner_only(simulated: ControlPlane) -> None:
    assert Path(simulated.kubeconfig).stat().st_mode & 0o077 == 0


async def failures(api: client.ApiClient, namespace: str) -> int:
    status = (await client.BatchV1Api(api).read_namespaced_job("shard", namespace)).status
    return status.failed or 0


async def watch_jobs(batch: client.BatchV1Api, namespace: str) -> list[Any]:
    """The events until the server ends the watch; where it breaks it off, the error's name is the last one's type."""
    events: list[Any] = []
    try:
        async with watch.Watch().stream(batch.list_namespaced_job, namespace, _request_timeout=60) as stream:
            async for event in stream:
                events.append(event)
    except (client.ApiException, aiohttp.ClientError) as error:
        events.append({"type": type(error).__name__})
    return events
