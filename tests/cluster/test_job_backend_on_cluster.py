"""The contract suite of all job backends on a real Kubernetes control plane; the pairs are processes here."""

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_under_test import ClusterUnderTest
from control_plane import ControlPlane
from kubernetes_harness import KubernetesHarness

from tests.contract.aws_server import empty_aws, moto_server
from tests.contract.test_job_backend import *  # noqa: F403 - the suite
from tests.contract.test_job_backend import World, world_of

# Each call of a backend has an event loop of its own here, and aiohttp closes TLS connections one turn of it too late:
# they are left to the garbage collector.
UNCLOSED = "ignore:Exception ignored in. <function _Selector(Socket)?Transport:pytest.PytestUnraisableExceptionWarning"
pytestmark = [
    pytest.mark.timeout(300, func_only=True),
    pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning", UNCLOSED),
]


@pytest.fixture
def aws() -> Iterator[dict[str, Any]]:
    """An empty AWS: the keyword arguments of boto3's clients."""
    with moto_server() as url:
        yield empty_aws(url)


@pytest.fixture
def world(cluster: ClusterUnderTest, simulated: ControlPlane, tmp_path: Path, aws: dict[str, Any]) -> Iterator[World]:
    variables = {
        "AWS_DEFAULT_REGION": aws["region_name"],
        "AWS_ACCESS_KEY_ID": aws["aws_access_key_id"],
        "AWS_SECRET_ACCESS_KEY": aws["aws_secret_access_key"],
        "AWS_ENDPOINT_URL": aws["endpoint_url"],
    }
    harness = KubernetesHarness(cluster, simulated, tmp_path, variables)
    with harness.nodes_run(), world_of(harness, aws) as world:
        yield world
    gc.collect()  # while the warnings are filtered
