"""What boto3 raises, and what it becomes."""

import pytest
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError
from botocore.retries.standard import ThrottledRetryableChecker, TransientRetryableChecker

from aws_api.errors import aws_errors, is_denied
from evaluation.errors import AlreadyClaimed, EvaluationError, InvalidConfiguration, RequestRefused, ServiceUnavailable


def answer(code: str, status: int = 400, message: str = "so\n  it is") -> boto.ClientError:
    response = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return boto.ClientError(response, "DoIt")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "translated"),
    [
        (answer("ThrottlingException"), ServiceUnavailable),
        (answer("SlowDown", 503), ServiceUnavailable),
        (answer("Unheard", 500), ServiceUnavailable),
        (answer("429", 429), ServiceUnavailable),
        (answer("AccessDeniedException"), InvalidConfiguration),
        (answer("ExpiredToken"), ServiceUnavailable),
        (answer("ExpiredTokenException"), ServiceUnavailable),
        (answer("TransactionConflictException"), ServiceUnavailable),
        (answer("InvalidClientTokenId", 403), InvalidConfiguration),
        (answer("AWS.SimpleQueueService.NonExistentQueue"), InvalidConfiguration),
        (answer("ResourceNotFoundException"), InvalidConfiguration),
        (answer("ValidationException"), RequestRefused),
        (boto.EndpointConnectionError(endpoint_url="http://x"), ServiceUnavailable),
        (boto.ReadTimeoutError(endpoint_url="http://x"), ServiceUnavailable),
        (boto.ConnectTimeoutError(endpoint_url="http://x"), ServiceUnavailable),
        (boto.ConnectionClosedError(endpoint_url="http://x"), ServiceUnavailable),
        (boto.ResponseStreamingError(error="reset"), ServiceUnavailable),
        (boto.IncompleteReadError(actual_bytes=1, expected_bytes=2), ServiceUnavailable),
        (boto.FlexibleChecksumError(error_msg="differs"), ServiceUnavailable),
        (ResponseParserError("not XML"), ServiceUnavailable),
        (boto.CredentialRetrievalError(provider="p", error_msg="m"), ServiceUnavailable),
        (boto.NoCredentialsError(), InvalidConfiguration),
        (boto.NoRegionError(), InvalidConfiguration),
        (boto.ProfileNotFound(profile="p"), InvalidConfiguration),
        (boto.ParamValidationError(report="a\nb"), RequestRefused),
    ],
)
def test_each_error_has_its_place(error: Exception, translated: type[EvaluationError]) -> None:
    with pytest.raises(translated) as caught, aws_errors("Doing it"):
        raise error
    assert type(caught.value) is translated
    assert caught.value.__cause__ is error
    assert str(caught.value).startswith("Doing it failed: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "code",
    sorted({*TransientRetryableChecker._TRANSIENT_ERROR_CODES, *ThrottledRetryableChecker._THROTTLED_ERROR_CODES}),
)
def test_what_botocore_itself_tries_again_may_pass(code: str) -> None:
    with pytest.raises(ServiceUnavailable), aws_errors("Doing it"):
        raise answer(code)


def test_whoever_has_set_no_region_is_told_where() -> None:
    with (
        pytest.raises(InvalidConfiguration, match=r"You must specify a region\.* Set AWS_DEFAULT_REGION"),
        aws_errors("It"),
    ):
        raise boto.NoRegionError


def test_expired_credentials_are_told_and_may_still_be_renewed() -> None:
    renew = r"ExpiredToken: so it is\. If this stays, renew"
    with pytest.raises(ServiceUnavailable, match=renew) as caught, aws_errors("Doing it"):
        raise answer("ExpiredToken")
    assert is_denied(caught.value)


def test_a_web_page_as_answer_is_cut() -> None:
    with pytest.raises(ServiceUnavailable) as caught, aws_errors("Doing it"):
        raise answer("502", 502, "<html>" * 1000)
    assert len(str(caught.value)) < 400
    with pytest.raises(ServiceUnavailable) as caught, aws_errors("Doing it"):
        raise ResponseParserError("no XML:\n" + "<html>" * 1000)
    assert len(str(caught.value)) < 400


def test_our_own_errors_pass() -> None:
    with pytest.raises(AlreadyClaimed), aws_errors("Doing it"):
        raise AlreadyClaimed("x")
