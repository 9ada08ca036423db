"""boto3's clients from the blocks' credentials: one of each service for all that a process does at once."""

import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from botocore.config import Config
from prefect_aws import AwsCredentials

from aws_api.errors import aws_errors
from evaluation.errors import InvalidConfiguration

CONNECTIONS = 64  # of a client: as many as the threads of a worker that runs many flow runs
RENEWALS = 16  # the same for what only renews leases

_making = threading.Lock()  # boto3's sessions are not made for several threads


def aws_client(credentials: AwsCredentials, service: str) -> Any:
    """The process's boto3 client of the service; raises InvalidConfiguration or ServiceUnavailable."""
    with aws_errors(f"Preparing the AWS client for {service}"):
        try:
            with _making:
                return _client(credentials, service)
        except ValueError as error:  # boto3 on an endpoint or a region that is none
            raise InvalidConfiguration(
                f"Preparing the AWS client for {service} failed", str(error), "Check the AWS credentials block."
            ) from error


def own_client(credentials: AwsCredentials, service: str, timeout_seconds: float) -> Any:
    """The boto3 client that shares no connection with the others, and answers or fails within twice that time."""
    with _making:
        return _client(credentials, service, timeout_seconds)


@lru_cache(maxsize=32)
def _client(credentials: AwsCredentials, service: str, timeout_seconds: float | None = None) -> Any:
    given = credentials.aws_client_parameters.get_params_override()
    if credentials.region_name is not None:
        given["region_name"] = credentials.region_name
    config = Config(max_pool_connections=CONNECTIONS)
    if timeout_seconds is not None:
        half = timeout_seconds / 2
        quick = {"connect_timeout": half, "read_timeout": half, "retries": {"total_max_attempts": 2}}
        config = Config(**quick, max_pool_connections=RENEWALS)  # type: ignore[arg-type]
    make: Callable[..., Any] = credentials.get_boto3_session().client
    return make(service, **{**given, "config": given["config"].merge(config) if "config" in given else config})
