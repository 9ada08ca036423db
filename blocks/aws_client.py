"""boto3's clients from the blocks' credentials."""

from typing import Any

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
