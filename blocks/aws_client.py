"""boto3's clients from the blocks' credentials."""

from collections.abc import Callable
from typing import Any

from botocore.config import Config
from prefect_aws import AwsCredentials

from aws_api.errors import aws_errors
from evaluation.errors import InvalidConfiguration


def aws_client(credentials: AwsCredentials, service: str) -> Any:
    """A boto3 client, kept by prefect-aws between calls; raises InvalidConfiguration or ServiceUnavailable."""
    with aws_errors(f"Preparing the AWS client for {service}"):
        try:
            return credentials.get_client(service)
        except ValueError as error:  # boto3 on an endpoint or a region that is none
            raise InvalidConfiguration(
                f"Preparing the AWS client for {service} failed", str(error), "Check the AWS credentials block."
            ) from error


def own_client(credentials: AwsCredentials, service: str, timeout_seconds: float) -> Any:
    """A boto3 client that shares no connection with any other, and answers or fails within twice that time."""
    given = credentials.aws_client_parameters.get_params_override()
    half = timeout_seconds / 2
    quick = Config(connect_timeout=half, read_timeout=half, retries={"total_max_attempts": 2}, max_pool_connections=1)
    config = given["config"].merge(quick) if "config" in given else quick
    make: Callable[..., Any] = credentials.get_boto3_session().client
    return make(service, **{**given, "config": config})
