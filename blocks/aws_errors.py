"""AWS as the adapters use it: clients, and every error of boto3 translated into evaluation.errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from botocore import exceptions as boto
from prefect_aws import AwsCredentials

from evaluation.errors import EvaluationError, InvalidConfiguration, RequestRefused, ServiceUnavailable

_BUSY = frozenset(
    {
        "InternalError",
        "InternalFailure",
        "InternalServerError",
        "KmsThrottled",
        "OperationAborted",
        "OverLimit",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
_ABSENT = frozenset(
    {
        "AWS.SimpleQueueService.NonExistentQueue",
        "InvalidAddress",
        "NoSuchBucket",
        "PermanentRedirect",
        "QueueDoesNotExist",
        "ResourceNotFoundException",
    }
)
_DENIED = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSecurity",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_PASSING = (
    boto.HTTPClientError,
    boto.ConnectionError,
    boto.IncompleteReadError,
    boto.CredentialRetrievalError,
    boto.MetadataRetrievalError,
    boto.TokenRetrievalError,
)


def error_code(error: boto.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def aws_errors(action: str) -> Iterator[None]:
    """Translate what boto3 raises inside; `action` is the sentence's subject, e.g. "Reading s3://bucket/key".

    Raises ServiceUnavailable for what may pass, InvalidConfiguration for what a host has to mend, else RequestRefused.
    """
    try:
        yield
    except boto.ClientError as error:
        raise _answered(action, error) from error
    except _PASSING as error:
        raise ServiceUnavailable(f"{action} failed", f"AWS does not answer ({error})") from error
    except boto.ParamValidationError as error:
        raise RequestRefused(f"{action} failed", " ".join(str(error).split())) from error
    except boto.BotoCoreError as error:
        raise InvalidConfiguration(f"{action} failed", str(error), "Check the AWS credentials block.") from error


def _answered(action: str, error: boto.ClientError) -> EvaluationError:
    code = error_code(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    message = " ".join(str(error.response.get("Error", {}).get("Message", "")).split())  # may be a web page
    cause = f"{code}: {message[:300]}".rstrip(": ")
    if code in _BUSY or status >= 500 or status == 429:
        return ServiceUnavailable(f"{action} failed", cause)
    if code in _ABSENT:
        return InvalidConfiguration(f"{action} failed", cause, "Check its name and its region.")
    if code in _DENIED:
        return InvalidConfiguration(f"{action} failed", cause, "Check the AWS credentials and the role's policy.")
    return RequestRefused(f"{action} failed", cause)


def aws_client(credentials: AwsCredentials, service: str) -> Any:
    """A boto3 client, kept by prefect-aws between calls; raises InvalidConfiguration or ServiceUnavailable."""
    with aws_errors(f"Preparing the AWS client for {service}"):
        try:
            return credentials.get_client(service)
        except ValueError as error:  # boto3 on an endpoint or a region that is none
            raise InvalidConfiguration(
                f"Preparing the AWS client for {service} failed", str(error), "Check the AWS credentials block."
            ) from error
