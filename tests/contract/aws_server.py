"""AWS for tests: the embedded stack's server on a free port of this machine."""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.request import Request, urlopen

from embedded.aws_server import aws_server
from tests.waiting import PATIENCE_SECONDS


@contextmanager
def moto_server(host: str = "127.0.0.1") -> Iterator[str]:
    """Its address, while it runs. All of a process's servers share their state."""
    server = aws_server(host=host)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


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
