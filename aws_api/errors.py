"""Every error of boto3 translated into evaluation.errors."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from evaluation.errors import EvaluationError, InvalidConfiguration, RequestRefused, ServiceUnavailable

# A superset of what botocore itself tries again.
_BUSY = frozenset(
    {
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "InternalError",
        "InternalFailure",
        "InternalServerError",
        "KmsThrottled",
        "LimitExceededException",
        "OperationAborted",
        "OverLimit",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestTimeTooSkewed",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionConflictException",
        "TransactionInProgressException",
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
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSecurity",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
# Roles and service accounts hand out new credentials by themselves: nothing fails for good because that came late.
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
_PASSING = (
    boto.HTTPClientError,
    boto.ConnectionError,
    boto.IncompleteReadError,
    boto.ChecksumError,
    boto.FlexibleChecksumError,
    ResponseParserError,
    boto.CredentialRetrievalError,
    boto.MetadataRetrievalError,
    boto.TokenRetrievalError,
    OSError,  # a connection that breaks while a body is read
)

# At DEBUG botocore prints whole answers, a secret's value and session tokens among them. To see just that,
# set the level of this logger; DEBUG for everything, as in PREFECT_LOGGING_ROOT_LEVEL, does not include it.
_BOTOCORE = logging.getLogger("botocore")
if _BOTOCORE.level == logging.NOTSET:
    _BOTOCORE.setLevel(logging.INFO)


def error_code(error: boto.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def is_denied(error: EvaluationError) -> bool:
    """Whether AWS refused a call for want of a right, or of credentials that it knows."""
    return isinstance(error.__cause__, boto.ClientError) and error_code(error.__cause__) in _DENIED | _EXPIRED


@contextmanager
def aws_errors(action: str) -> Iterator[None]:
    """Translate what boto3 raises inside; `action` is the sentence's subject, e.g. "Reading s3://bucket/key".

    Raises ServiceUnavailable for what may pass, InvalidConfiguration for what an operator has to correct, else
    RequestRefused.
    """
    try:
        yield
    except boto.ClientError as error:
        raise _answered(action, error) from error
    except _PASSING as error:
        reason = " ".join(str(error).split())[:300]
        raise ServiceUnavailable(f"{action} failed", f"AWS does not answer ({reason})") from error
    except boto.ParamValidationError as error:
        raise RequestRefused(f"{action} failed", " ".join(str(error).split())) from error
    except (boto.NoRegionError, boto.InvalidRegionError) as error:
        remedy = "Set AWS_DEFAULT_REGION, or the region of the AWS credentials block."
        raise InvalidConfiguration(f"{action} failed", str(error), remedy) from error
    except boto.BotoCoreError as error:
        raise InvalidConfiguration(f"{action} failed", str(error), "Check the AWS credentials.") from error


def _answered(action: str, error: boto.ClientError) -> EvaluationError:
    code = error_code(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    message = " ".join(str(error.response.get("Error", {}).get("Message", "")).split())  # may be a web page
    cause = f"{code}: {message[:300]}".rstrip(": ")
    if code in _EXPIRED:
        return ServiceUnavailable(f"{action} failed", cause, "If this stays, renew the AWS credentials.")
    if code in _BUSY or status >= 500 or status == 429:
        return ServiceUnavailable(f"{action} failed", cause)
    if code in _ABSENT:
        return InvalidConfiguration(f"{action} failed", cause, "Check its name and its region.")
    if code in _DENIED:
        return InvalidConfiguration(f"{action} failed", cause, "Check the AWS credentials and the role's policy.")
    return RequestRefused(f"{action} failed", cause)
