"""Any Python function as scalable asynchronous compute: what its users import. `docs/compute-client.md` shows how.

    from compute_client import Consumer, DynamoDBClient, Producer, ResultStatus

The names are imported when they are used, so that the process of a user's function starts without waiting for boto3.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compute_client.consumer import Consumer
    from compute_client.job import JobFailed, JobResult, JobTimeout, ResultStatus
    from compute_client.producer import Producer
    from compute_client.queue import DynamoDBClient

__all__ = ["Consumer", "DynamoDBClient", "JobFailed", "JobResult", "JobTimeout", "Producer", "ResultStatus"]
_MODULES = {
    "Consumer": "consumer",
    "DynamoDBClient": "queue",
    "JobFailed": "job",
    "JobResult": "job",
    "JobTimeout": "job",
    "Producer": "producer",
    "ResultStatus": "job",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
