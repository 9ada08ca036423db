"""What the adapters' tests talk to on free ports of this machine: moto's server as AWS, and a Kubernetes API."""

from collections.abc import AsyncIterator, Callable, Iterator
from functools import cache
from typing import Any

import botocore.session
import pytest
import yaml
from moto.cloudformation.utils import yaml_tag_constructor

from tests.contract.aws_server import empty_aws, moto_server
from tests.contract.evalai_world import World, running_standin
from tests.contract.kubernetes_server import KubernetesServer, running_server

# What would otherwise be read for each boto3 session and for each stack takes most of the time of these tests:
# the descriptions of AWS's services, once a process, and the stacks' templates, by libyaml.
botocore.session.create_loader = cache(botocore.session.create_loader)
if yaml.__with_libyaml__:
    yaml.add_multi_constructor("", yaml_tag_constructor, Loader=yaml.CLoader)
    yaml.Loader = yaml.CLoader  # the one that moto takes


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """The address of a moto server that lives as long as the test session."""
    with moto_server() as url:
        yield url


@pytest.fixture
def aws(moto_url: str) -> dict[str, Any]:
    """An empty AWS: the keyword arguments of boto3's clients and resources."""
    return empty_aws(moto_url)


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
