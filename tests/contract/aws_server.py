"""AWS for tests: moto's server on a free port of this machine."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.request import Request, urlopen

from moto.server import ThreadedMotoServer

from tests.waiting import PATIENCE_SECONDS


@contextmanager
def moto_server() -> Iterator[str]:
    """Its address, while it runs. All of a process's servers share their state."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def empty_aws(moto_url: str) -> dict[str, Any]:
    """Empty the server, and return the keyword arguments of boto3's clients and resources."""
    reset = Request(f"{moto_url}/moto-api/reset", method="POST")  # noqa: S310 - our own server
    with closing(urlopen(reset, timeout=PATIENCE_SECONDS)):  # noqa: S310
        pass
    return {
        "region_name": "us-west-2",
        "aws_access_key_id": "testing",
        "aws_secret_access_key": "testing",
        "endpoint_url": moto_url,
    }
