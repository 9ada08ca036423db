"""AWS as the blocks use it: clients, and every error of boto3 translated into evaluation.errors."""

from typing import Any

from prefect_aws import AwsCredentials

from aws_api.errors import aws_errors, error_code, is_denied
from evaluation.errors import InvalidConfiguration

__all__ = ["aws_client", "aws_errors", "error_code", "is_denied"]


def aws_client(credentials: AwsCredentials, service: str) -> Any:
    """A boto3 client, kept by prefect-aws between calls; raises InvalidConfiguration or ServiceUnavailable."""
    with aws_errors(f"Preparing the AWS client for {service}"):
        try:
            return credentials.get_client(service)
        except ValueError as error:  # boto3 on an endpoint or a region that is none
            raise InvalidConfiguration(
                f"Preparing the AWS client for {service} failed", str(error), "Check the AWS credentials block."
            ) from error
