"""Outages of AWS over real HTTP: a proxy in front of moto's server breaks its answers.

EvalAI's outages are in test_evalai_client.py, the clusters' in test_kubernetes_backend.py and
test_kubernetes_reflector.py, and what the flow makes of all of them in tests/flows/test_outages.py.
"""

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import boto3
import pytest
import requests
from aws_blocks import a_submission, create_queue, create_table
from prefect_aws import AwsClientParameters, AwsCredentials
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from blocks.artifact_bucket import ArtifactBucket
from blocks.ledger_table import LedgerTable
from blocks.submission_queue import SubmissionQueue
from evaluation.errors import InvalidConfiguration, ServiceUnavailable

ATTEMPTS = 2  # of one call, in these tests; botocore's own default is 5, for DynamoDB 10
WORDS = "come\nback later"


def json_error(status: int, code: str) -> Response:
    body = {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": WORDS}
    return Response(json.dumps(body), status, content_type="application/x-amz-json-1.0")


def xml_error(status: int, code: str) -> Response:
    body = f"<Error><Code>{code}</Code><Message>{WORDS}</Message></Error>"
    return Response(body, status, content_type="application/xml")


def web_page(status: int) -> Response:
    return Response("<html><body>Bad gateway</body></html>", status, content_type="text/html")


def cut_off() -> Response:
    """Fewer bytes than announced, then the end of the connection. The checksum is how DynamoDB's clients notice."""
    return Response(iter([b"{"]), 200, {"Content-Length": "1000", "x-amz-crc32": "1234"}, direct_passthrough=True)


PASSING = {
    "dynamodb": {
        "throughput": json_error(400, "ProvisionedThroughputExceededException"),
        "throttled": json_error(400, "ThrottlingException"),
        "account limit": json_error(400, "RequestLimitExceeded"),
        "conflict": json_error(400, "TransactionConflictException"),
        "broken": json_error(500, "InternalServerError"),
        "away": web_page(503),
        "expired": json_error(400, "ExpiredTokenException"),
        "cut off": cut_off(),
    },
    "s3": {
        "slow down": xml_error(503, "SlowDown"),
        "broken": xml_error(500, "InternalError"),
        "timeout": xml_error(400, "RequestTimeout"),
        "clock": xml_error(403, "RequestTimeTooSkewed"),
        "expired": xml_error(400, "ExpiredToken"),
        "away": web_page(502),
        "cut off": cut_off(),
    },
    "sqs": {
        "throttled": json_error(403, "RequestThrottled"),
        "over limit": json_error(403, "OverLimit"),
        "key": json_error(400, "KmsThrottled"),
        "away": web_page(503),
    },
}
REFUSING = {
    "dynamodb": json_error(400, "AccessDeniedException"),
    "s3": xml_error(403, "AccessDenied"),
    "sqs": json_error(403, "AccessDenied"),
}


@dataclass
class Front:
    """What the blocks take for AWS: answers with `faults` first, one a request, then as moto does."""

    server: HTTPServer
    moto_url: str
    faults: list[Response] = field(default_factory=list)
    requests: int = 0
    silent: bool = False
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return self.server.url_for("").rstrip("/")

    def answer(self, request: Request) -> Response:
        self.requests += 1
        if self.silent:
            self.over.wait(30)
        if self.faults:
            return self.faults.pop(0)
        headers = {name: value for name, value in request.headers if name != "Host"}
        target = self.moto_url + request.full_path.rstrip("?")
        found = requests.request(request.method, target, headers=headers, data=request.get_data(), timeout=30)
        return Response(found.content, found.status_code, dict(found.headers))


@dataclass
class World:
    front: Front
    queue_path: str

    def call(self, service: str, attempts: int = 1, read_timeout: float = 30.0) -> object:
        """One call of the service through the front."""
        credentials = self._credentials(attempts, read_timeout)
        match service:
            case "dynamodb":
                return LedgerTable(table="leaderboard-20", credentials=credentials).claim(a_submission(), "run-a")
            case "s3":
                return ArtifactBucket(bucket="leaderboard-20", credentials=credentials).read("90/plan.json")
            case _:
                url = self.front.url + self.queue_path
                queue = SubmissionQueue(queue_url=url, dead_letter_url=url, credentials=credentials)
                return queue.receive(wait_seconds=0)

    def _credentials(self, attempts: int, read_timeout: float) -> AwsCredentials:
        config = {"retries": {"max_attempts": attempts - 1}, "read_timeout": read_timeout}
        return AwsCredentials(
            region_name="us-west-2",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",  # type: ignore[arg-type]
            aws_client_parameters=AwsClientParameters(endpoint_url=self.front.url, config=config),
        )


@pytest.fixture
def world(aws: dict[str, Any]) -> Iterator[World]:
    create_table(aws, "leaderboard-20")
    s3 = boto3.client("s3", **aws)
    s3.create_bucket(Bucket="leaderboard-20", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    s3.put_object(Bucket="leaderboard-20", Key="90/plan.json", Body=b"{}")
    queue_path = create_queue(aws).queue_url.removeprefix(aws["endpoint_url"])
    with HTTPServer(threaded=True) as server:
        front = Front(server, aws["endpoint_url"])
        server.expect_request(re.compile(".*")).respond_with_handler(front.answer)
        yield World(front, queue_path)
        front.over.set()


@pytest.mark.parametrize("service", PASSING)
def test_what_passes_is_never_called_a_failure_for_good(world: World, service: str) -> None:
    for fault, answer in PASSING[service].items():
        world.front.faults, before = [answer], world.front.requests

        with pytest.raises(ServiceUnavailable) as caught:
            world.call(service)

        assert caught.value.__cause__ is not None, fault
        assert "\n" not in str(caught.value), fault
        assert world.front.requests == before + 1, fault
    world.call(service)  # and then it works


@pytest.mark.parametrize("service", PASSING)
def test_what_passes_soon_is_not_even_noticed(world: World, service: str) -> None:
    world.front.faults = [web_page(503)] * (ATTEMPTS - 1)

    world.call(service, ATTEMPTS)

    assert world.front.requests == ATTEMPTS


@pytest.mark.parametrize("service", PASSING)
def test_what_does_not_pass_is_given_up_after_the_stated_tries(world: World, service: str) -> None:
    world.front.faults = [web_page(503)] * 10 * ATTEMPTS

    with pytest.raises(ServiceUnavailable, match="503"):
        world.call(service, ATTEMPTS)

    assert world.front.requests == ATTEMPTS


@pytest.mark.parametrize("service", PASSING)
def test_silence_is_given_up(world: World, service: str) -> None:
    world.front.silent = True

    with pytest.raises(ServiceUnavailable, match="AWS does not answer"):
        world.call(service, read_timeout=0.2)


@pytest.mark.parametrize("service", REFUSING)
def test_a_refusal_is_not_repeated_and_says_what_a_host_has_to_mend(world: World, service: str) -> None:
    world.front.faults = [REFUSING[service]]

    with pytest.raises(
        InvalidConfiguration, match=r"come back later\. Check the AWS credentials and the role's policy"
    ):
        world.call(service, ATTEMPTS)

    assert world.front.requests == 1
