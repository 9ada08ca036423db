"""What the adapters' tests talk to on free ports of this machine: moto's server as AWS, and a Kubernetes API."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from typing import Any
from urllib.request import Request, urlopen

import pytest
from moto.server import ThreadedMotoServer

from tests.contract.evalai_world import World, running_standin
from tests.contract.kubernetes_server import KubernetesServer, running_server


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """The address of a moto server that lives as long as the test session."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def aws(moto_url: str) -> dict[str, Any]:
    """An empty AWS: the keyword arguments of boto3's clients and resources."""
    reset = Request(f"{moto_url}/moto-api/reset", method="POST")  # noqa: S310 - our own server
    with closing(urlopen(reset, timeout=10)):  # noqa: S310
        pass
    return {
        "region_name": "us-west-2",
        "aws_access_key_id": "testing",
        "aws_secret_access_key": "testing",
        "endpoint_url": moto_url,
    }


@pytest.fixture(scope="module")
def evalai_standin() -> Iterator[Callable[[], World]]:
    """EvalAI's stand-in server; each call empties it."""
    with running_standin() as empty:
        yield empty


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def server() -> AsyncIterator[KubernetesServer]:
    async with running_server() as server:
        yield server
