"""A real API server for the tests in this folder: the cluster that KUBECONFIG names, or a control plane of our own."""

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from binaries import MissingBinariesError, ensure_binaries
from cluster_under_test import ClusterUnderTest
from control_plane import ControlPlane
from kubernetes_asyncio import client
from simulated_jobs import until

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents and item.get_closest_marker("timeout") is None:
            # The first test to run may wait for a build of Kubernetes: a test's timeout leaves its fixtures out here.
            item.add_marker(pytest.mark.timeout(300, func_only=True))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterUnderTest]:
    if given := os.environ.get("KUBECONFIG"):
        yield ClusterUnderTest(Path(given))
        return
    try:
        binaries = ensure_binaries()
    except MissingBinariesError as missing:
        pytest.skip(f"no cluster to test on: KUBECONFIG is not set, and {missing}")
    with ControlPlane(binaries, tmp_path_factory.mktemp("control-plane")) as plane:
        yield ClusterUnderTest(plane.kubeconfig, plane)


@pytest.fixture
def simulated(cluster: ClusterUnderTest) -> ControlPlane:
    """The control plane with simulated nodes, whose pods end as their annotations say (see kwok/pod-stages.yaml)."""
    if cluster.plane is None:
        pytest.skip("the cluster of KUBECONFIG has no simulated nodes")
    return cluster.plane


@pytest.fixture
async def api(cluster: ClusterUnderTest) -> AsyncIterator[client.ApiClient]:
    async with cluster.connect() as api:
        yield api


@pytest.fixture
async def namespace(api: client.ApiClient) -> AsyncIterator[str]:
    """A fresh namespace, ready for pods; deleted, without waiting, after the test."""
    core, name = client.CoreV1Api(api), f"test-{uuid.uuid4().hex[:10]}"
    await core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=name)))

    async def has_service_account() -> bool:
        accounts = await core.list_namespaced_service_account(name)
        return any(each.metadata.name == "default" for each in accounts.items)

    await until(has_service_account)
    yield name
    await core.delete_namespace(name)
