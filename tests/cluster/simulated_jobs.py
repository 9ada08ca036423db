"""Small Jobs for the simulated nodes, and waiting for their states."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from kubernetes_asyncio import client

from tests.waiting import PATIENCE_SECONDS

# What a controller waits for before it replaces the pods of a lost node (60 s), and a busy machine's share.
CONTROLLER_SECONDS = 2 * PATIENCE_SECONDS

T = TypeVar("T")

PREFIX = "kwok.leaderboard/"
IGNORE_DISRUPTION = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
FAIL_ON_11 = {"action": "FailJob", "onExitCodes": {"containerName": "agent", "operator": "In", "values": [11]}}


def job(name: str, behaviour: Mapping[str, str] | None = None, *, gpus: int = 1, **pod: Any) -> Any:
    """A Job of one pod with an agent container. `behaviour`: what kwok/pod-stages.yaml reads, without the prefix."""
    limits = {"nvidia.com/gpu": str(gpus)}
    agent = {"name": "agent", "image": "demo/agent:steady", "resources": {"limits": limits}}
    annotations = {PREFIX + key: value for key, value in (behaviour or {}).items()}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {
            "backoffLimit": 3,
            "podFailurePolicy": {"rules": [FAIL_ON_11, IGNORE_DISRUPTION]},
            "template": {
                "metadata": {"annotations": annotations},
                "spec": {"restartPolicy": "Never", "containers": [agent], **pod},
            },
        },
    }


async def until(read: Callable[[], Awaitable[T | None]], seconds: float = PATIENCE_SECONDS) -> T:
    """The first truthy answer of `read`; TimeoutError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (answer := await read()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{getattr(read, '__qualname__', read)} did not become true in {seconds} s")
        await asyncio.sleep(0.1)
    return answer


async def condition(
    api: client.ApiClient, namespace: str, name: str, kind: str, seconds: float = PATIENCE_SECONDS
) -> Any:
    """The Job's condition of type `kind`, once it is true."""

    async def read() -> Any:
        status = (await client.BatchV1Api(api).read_namespaced_job(name, namespace)).status
        return next((each for each in status.conditions or () if each.type == kind and each.status == "True"), None)

    return await until(read, seconds)


async def running_pod(
    api: client.ApiClient, namespace: str, name: str, *, other_than: str = "", seconds: float = PATIENCE_SECONDS
) -> Any:
    """The Job's running pod whose uid is not `other_than`."""

    async def read() -> Any:
        for pod in await pods(api, namespace, name):
            if pod.status.phase == "Running" and not pod.metadata.deletion_timestamp and pod.metadata.uid != other_than:
                return pod
        return None

    return await until(read, seconds)


async def pods(api: client.ApiClient, namespace: str, name: str) -> list[Any]:
    selector = f"batch.kubernetes.io/job-name={name}"
    listing = await client.CoreV1Api(api).list_namespaced_pod(namespace, label_selector=selector)
    return list(listing.items)


async def annotate(api: client.ApiClient, pod: Any, **behaviour: str) -> None:
    """Sets how a running pod goes on; `_` stands for `-` in a key."""
    annotations = {PREFIX + key.replace("_", "-"): value for key, value in behaviour.items()}
    patch = {"metadata": {"annotations": annotations}}
    await client.CoreV1Api(api).patch_namespaced_pod(pod.metadata.name, pod.metadata.namespace, patch)
