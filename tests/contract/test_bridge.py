"""The bridge between moto's SQS and a Prefect API over real HTTP."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from aws_blocks import UNREACHABLE, create_queue, received_dead, remaining
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_KEY,
    PREFECT_API_URL,
    PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
    temporary_settings,
)
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from blocks.dead_letters import DeadLetters
from blocks.submission_queue import SubmissionQueue
from evaluation.errors import InvalidConfiguration, RequestRefused, ServiceUnavailable
from evaluation.submission.message import Delivery
from prefect_api.events import OutgoingEvent, PrefectEvents, prefect_events
from services.bridge import BridgeSettings, Reader, read_submission_event, run_bridge
from services.bridge_heartbeat import HEARTBEAT, BridgeHeartbeat
from tests.waiting import PATIENCE_SECONDS, eventually

QUICK = BridgeSettings(wait_seconds=0, claim_seconds=300, first_pause_seconds=0.05, longest_pause_seconds=0.1)
BODY = {  # docs/evalai.md, "The queue message": a new submission's message
    "challenge_pk": "1",
    "phase_pk": "2203",
    "is_static_dataset_code_upload_submission": False,
    "submitted_image_uri": "reg/img:1",
    "submission_pk": 90,
}


class FakePrefect:
    """Prefect's events endpoint: keeps what it accepts, answers `answers` first."""

    def __init__(self, server: HTTPServer) -> None:
        self.events: list[dict[str, Any]] = []
        self.requests: list[Request] = []
        self.answers: list[int] = []
        self.csrf = Response(json.dumps({"detail": "CSRF protection is disabled."}), 422)
        server.expect_request("/api/csrf-token").respond_with_handler(lambda _: self.csrf)
        server.expect_request("/api/events", method="POST").respond_with_handler(self._events)
        self.url = server.url_for("/api")

    def _events(self, request: Request) -> Response:
        self.requests.append(request)
        status = self.answers.pop(0) if self.answers else 204
        if status == 204:
            self.events += request.get_json()
        return Response(status=status)

    def submissions(self) -> list[int]:
        return [event["payload"]["message"]["submission_pk"] for event in self.events]


@pytest.fixture
def prefect(httpserver: HTTPServer) -> FakePrefect:
    return FakePrefect(httpserver)


@contextmanager
def publisher_of(url: str, **settings: str) -> Iterator[PrefectEvents]:
    known = {"auth": PREFECT_API_AUTH_STRING, "key": PREFECT_API_KEY}
    updates: dict[Any, Any] = {known[name]: value for name, value in settings.items()}
    without = {PREFECT_API_KEY, PREFECT_API_AUTH_STRING} - updates.keys()
    updates |= {PREFECT_API_URL: url, PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: False}
    with temporary_settings(updates=updates, restore_defaults=without), prefect_events(timeout_seconds=5) as publisher:
        yield publisher


def send(aws: dict[str, Any], queue: SubmissionQueue, body: object, **arguments: Any) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    boto3.client("sqs", **aws).send_message(QueueUrl=queue.queue_url, MessageBody=text, **arguments)


@contextmanager
def running(
    queue: SubmissionQueue, url: str, settings: BridgeSettings = QUICK, read: Reader = read_submission_event
) -> Iterator[None]:
    stop = threading.Event()
    with publisher_of(url) as publisher:
        thread = threading.Thread(target=run_bridge, args=(queue, publisher, stop, settings, read))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()


def test_a_message_rings_with_whole_numbers_and_stays(aws: dict[str, Any], prefect: FakePrefect) -> None:
    queue = create_queue(aws)
    send(aws, queue, BODY)
    with running(queue, prefect.url):
        eventually(lambda: prefect.events)
    [event] = prefect.events
    delivery = event["payload"].pop("delivery")
    assert event["event"] == "leaderboard.submission.received"
    assert event["resource"] == {
        "prefect.resource.id": "leaderboard.submission.90",
        "prefect.resource.name": "submission 90",
    }
    assert event["payload"] == {
        "message": {"challenge_pk": 1, "phase_pk": 2203, "submission_pk": 90, "submitted_image_uri": "reg/img:1"}
    }
    assert delivery["queue_url"] == queue.queue_url
    assert set(delivery) == {"queue_url", "receipt_handle", "message_id"}
    assert remaining(aws, queue) == (0, 1)


def test_the_message_is_hidden_while_a_run_starts(aws: dict[str, Any], prefect: FakePrefect) -> None:
    queue = create_queue(aws, visibility=0)  # received again at once, if the bridge did not hide it
    send(aws, queue, BODY)
    with running(queue, prefect.url):
        eventually(lambda: prefect.events)
        time.sleep(0.2)
    assert len(prefect.events) == 1


def test_a_message_that_nobody_claims_rings_again_with_another_event(aws: dict[str, Any], prefect: FakePrefect) -> None:
    queue = create_queue(aws)
    send(aws, queue, BODY)
    with running(queue, prefect.url, BridgeSettings(wait_seconds=1, claim_seconds=0)):
        eventually(lambda: len(prefect.events) >= 2)
    first, second = prefect.events[:2]
    assert first["id"] != second["id"]
    assert first["payload"]["message"] == second["payload"]["message"]


@pytest.mark.parametrize(
    ("body", "settings", "reason"),
    [
        ("no JSON", QUICK, "The message is not JSON"),
        ("[]", QUICK, "The message is not a JSON object"),
        ({k: v for k, v in BODY.items() if k != "submission_pk"}, QUICK, "submission_pk is missing"),
        (BODY | {"phase_pk": "x"}, QUICK, 'phase_pk must be a positive whole number, not "x"'),
        (
            BODY,
            BridgeSettings(wait_seconds=0, challenge_pk=2),
            "Submission 90 belongs to another challenge: challenge_pk is 1, this installation evaluates 2.",
        ),
    ],
)
def test_what_nobody_can_evaluate_goes_to_the_dead_letters(
    aws: dict[str, Any], prefect: FakePrefect, body: object, settings: BridgeSettings, reason: str
) -> None:
    queue = create_queue(aws, fifo=True)
    send(aws, queue, body, MessageGroupId="1-7", MessageDeduplicationId="90-x")
    with running(queue, prefect.url, settings):
        eventually(lambda: remaining(aws, queue) == (0, 0))
    [(dead_body, attributes)] = received_dead(aws, queue)
    assert dead_body == (body if isinstance(body, str) else json.dumps(body))
    assert reason in attributes["reason"]
    assert prefect.events == []


def grouped(queue: SubmissionQueue, group: str, pk: int) -> dict[str, str]:
    """What EvalAI sends with a message where its queue is a FIFO queue; the group is phase and team."""
    fifo = queue.queue_url.endswith(".fifo")
    return {"MessageGroupId": group, "MessageDeduplicationId": f"{pk}-{time.monotonic_ns()}"} if fifo else {}


@pytest.mark.parametrize("fifo", [False, True])
def test_bad_messages_hold_up_none_of_the_next_not_even_of_their_group(
    aws: dict[str, Any], prefect: FakePrefect, fifo: bool
) -> None:
    queue = create_queue(aws, fifo=fifo)
    for group, pk in (("2203-7", 90), ("2203-8", 91)):
        send(aws, queue, "no JSON", **grouped(queue, group, pk))
        send(aws, queue, BODY | {"submission_pk": 0}, **grouped(queue, group, pk))
        send(aws, queue, BODY | {"submission_pk": pk}, **grouped(queue, group, pk))
    with running(queue, prefect.url, BridgeSettings(wait_seconds=0, batch=1)):
        eventually(lambda: sorted(prefect.submissions()) == [90, 91])
    assert remaining(aws, queue) == (0, 2)
    assert len(received_dead(aws, queue)) == 4


@pytest.mark.parametrize("fifo", [False, True])
def test_a_bad_message_that_cannot_be_set_aside_does_not_hold_up_the_next(
    aws: dict[str, Any], prefect: FakePrefect, caplog: pytest.LogCaptureFixture, fifo: bool
) -> None:
    queue = create_queue(aws, fifo=fifo)
    ending = ".fifo" if fifo else ""
    absent = queue.dead_letter_url.removesuffix(".fifo") + "-absent" + ending
    broken = queue.model_copy(update={"dead_letter_url": absent})
    send(aws, queue, "auth_token=hidden", **grouped(queue, "2203-7", 89))
    send(aws, queue, BODY, **grouped(queue, "2203-8", 90))
    with caplog.at_level(logging.INFO, "services.bridge"), running(broken, prefect.url):
        eventually(lambda: prefect.submissions() == [90])
    assert remaining(aws, queue) == (0, 2)
    assert "the dead-letter queue failed" in caplog.text
    assert "submission 90: event accepted, delivery 1" in caplog.text
    assert "hidden" not in caplog.text


@pytest.mark.parametrize("fifo", [False, True])
def test_a_dead_letter_that_is_sent_back_rings_as_a_new_message(
    aws: dict[str, Any], prefect: FakePrefect, fifo: bool
) -> None:
    queue = create_queue(aws, fifo=fifo)
    send(aws, queue, BODY, **grouped(queue, "2203-7", 90))
    with running(queue, prefect.url, BridgeSettings(wait_seconds=0, challenge_pk=2)):
        eventually(lambda: remaining(aws, queue) == (0, 0))
    with DeadLetters(queue, wait_seconds=0) as letters:
        for letter in letters:
            letters.send_back(letter)
    with running(queue, prefect.url):  # by now with the right challenge
        eventually(lambda: prefect.submissions() == [90])
    assert letter.deliveries == 1
    assert remaining(aws, queue) == (0, 1)


def test_an_outage_of_prefect_keeps_the_messages_and_logs_twice(
    aws: dict[str, Any], prefect: FakePrefect, caplog: pytest.LogCaptureFixture
) -> None:
    queue = create_queue(aws)
    for pk in (90, 91, 92):
        send(aws, queue, BODY | {"submission_pk": pk})
    prefect.answers = [500, 401, 500, 404]
    with caplog.at_level(logging.INFO, "services.bridge"), running(queue, prefect.url):
        eventually(lambda: sorted(prefect.submissions()) == [90, 91, 92])
    assert remaining(aws, queue) == (0, 3)
    lines = [record.getMessage() for record in caplog.records if "Prefect" in record.getMessage()]
    assert len(lines) == 2
    assert lines[0].startswith("Prefect failed, the messages stay on the queue: Prefect's API takes no events: POST ")
    assert lines[1] == "Prefect worked again, after 4 failures"


def test_during_an_outage_messages_are_not_counted_as_delivered(
    aws: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    queue = create_queue(aws, visibility=0)
    for pk in (90, 91):
        send(aws, queue, BODY | {"submission_pk": pk})
    with running(queue, UNREACHABLE):
        eventually(lambda: "Prefect failed, the messages stay on the queue" in caplog.text)
        time.sleep(0.3)
    assert remaining(aws, queue) == (2, 0)  # given back at once at the end
    assert [received.count for received in queue.receive(wait_seconds=0)] == [2, 2]


def test_an_event_that_prefect_refuses_stays_and_the_next_one_rings(
    aws: dict[str, Any], prefect: FakePrefect, caplog: pytest.LogCaptureFixture
) -> None:
    queue = create_queue(aws)
    for pk in (90, 91):
        send(aws, queue, BODY | {"submission_pk": pk})
    prefect.answers = [422]
    with running(queue, prefect.url):
        eventually(lambda: prefect.events)
    assert prefect.submissions() == [91]
    assert remaining(aws, queue) == (0, 2)
    assert "Prefect refuses the event of submission 90: it answers 422" in caplog.text


def test_the_heartbeat_stops_while_a_message_waits_for_prefect(aws: dict[str, Any], prefect: FakePrefect) -> None:
    queue, stop = create_queue(aws), threading.Event()
    with publisher_of(prefect.url) as publisher:
        heartbeat = BridgeHeartbeat(publisher, queue.queue_url, every_seconds=0)
        arguments = (queue, publisher, stop, QUICK, read_submission_event, heartbeat.beat)
        thread = threading.Thread(target=run_bridge, args=arguments)
        thread.start()
        eventually(lambda: len(prefect.events) >= 3)
        prefect.answers = [500] * 100_000
        send(aws, queue, BODY)
        eventually(lambda: remaining(aws, queue) == (0, 1))
        eventually(lambda: len([r for r in prefect.requests if b"submission 90" in r.data]) >= 2)
        before = len([r for r in prefect.requests if HEARTBEAT.encode() in r.data])
        eventually(lambda: len([r for r in prefect.requests if b"submission 90" in r.data]) >= 5)
        after = len([r for r in prefect.requests if HEARTBEAT.encode() in r.data])
        stop.set()
        thread.join(PATIENCE_SECONDS)

    assert before == after
    assert {event["event"] for event in prefect.events} == {HEARTBEAT}
    assert prefect.events[0]["resource"]["prefect.resource.id"] == "leaderboard.bridge.submissions"


def test_an_outage_of_the_queue_is_waited_out(
    aws: dict[str, Any], prefect: FakePrefect, caplog: pytest.LogCaptureFixture
) -> None:
    queue = create_queue(aws)
    sqs = boto3.client("sqs", **aws)
    send(aws, queue, BODY)
    with running(queue, prefect.url):
        eventually(lambda: prefect.events)
        sqs.delete_queue(QueueUrl=queue.queue_url)
        eventually(lambda: "SQS failed" in caplog.text)
        time.sleep(0.3)
        sqs.create_queue(QueueName="submissions")
        send(aws, queue, BODY | {"submission_pk": 91})
        eventually(lambda: prefect.submissions() == [90, 91])
    assert caplog.text.count("SQS failed") == 1
    assert caplog.text.count("SQS worked again") == 1


class Unhideable(SubmissionQueue):
    """A queue whose ChangeMessageVisibility the role's policy forgot."""

    _block_type_slug = "unhideable"

    def hide(self, delivery: Delivery, seconds: int) -> bool:
        raise InvalidConfiguration("Hiding failed", "AccessDenied")


def test_a_message_that_cannot_be_hidden_rings_all_the_same(
    aws: dict[str, Any], prefect: FakePrefect, caplog: pytest.LogCaptureFixture
) -> None:
    queue = Unhideable(**dict(create_queue(aws)))
    for pk in (90, 91):
        send(aws, queue, BODY | {"submission_pk": pk})
    with running(queue, prefect.url):
        eventually(lambda: len(prefect.events) == 2)
    assert caplog.text.count("hiding messages failed") == 1


def test_a_wrong_address_from_the_start_ends_the_bridge(aws: dict[str, Any], prefect: FakePrefect) -> None:
    queue = create_queue(aws)
    absent = queue.model_copy(update={"queue_url": queue.queue_url + "-absent"})
    with publisher_of(prefect.url) as publisher, pytest.raises(InvalidConfiguration, match="-absent failed"):
        run_bridge(absent, publisher, threading.Event(), QUICK)


EVENT = OutgoingEvent("e", "r.1", "submission 1", {})


@pytest.mark.parametrize(
    ("settings", "header"),
    [({}, None), ({"key": "pnu_x"}, "Bearer pnu_x"), ({"auth": "admin:pass"}, "Basic YWRtaW46cGFzcw==")],
)
def test_the_event_is_sent_with_prefects_authentication(
    prefect: FakePrefect, settings: dict[str, str], header: str | None
) -> None:
    with publisher_of(prefect.url, **settings) as publisher:
        publisher.publish(EVENT)
    assert prefect.requests[0].headers.get("Authorization") == header
    assert [event["id"] for event in prefect.events] == [str(EVENT.id)]


@pytest.mark.parametrize(
    ("status", "error"), [(500, ServiceUnavailable), (403, ServiceUnavailable), (413, RequestRefused)]
)
def test_a_refusal_is_no_success(prefect: FakePrefect, status: int, error: type[Exception]) -> None:
    prefect.answers = [status]
    with publisher_of(prefect.url) as publisher, pytest.raises(error, match=f"answers {status}"):
        publisher.publish(EVENT)
    assert prefect.events == []


def test_a_web_page_is_no_success(prefect: FakePrefect) -> None:
    prefect.csrf = Response("<html>", 200)
    with publisher_of(prefect.url) as publisher, pytest.raises(ServiceUnavailable, match="does not answer as one"):
        publisher.publish(EVENT)


def test_without_an_address_no_server_is_started() -> None:
    with pytest.raises(InvalidConfiguration, match="PREFECT_API_URL is not set"), publisher_of(""):
        pass


SERVE = """
import json, logging, sys
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect_aws import AwsCredentials
from blocks.submission_queue import SubmissionQueue
from services.bridge import BridgeSettings, serve_bridge
logging.getLogger("services").setLevel(logging.INFO)
queue = SubmissionQueue(**json.loads(sys.argv[1]), credentials=AwsCredentials())
with temporary_settings({PREFECT_API_URL: sys.argv[2]}):  # as the command line does where a stack is up
    serve_bridge(queue, BridgeSettings())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_within_its_long_poll(
    aws: dict[str, Any], prefect: FakePrefect, number: signal.Signals
) -> None:
    queue = create_queue(aws)
    send(aws, queue, BODY)
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"} | {
        "AWS_ENDPOINT_URL": aws["endpoint_url"],
        "AWS_DEFAULT_REGION": aws["region_name"],
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
    }
    arguments = json.dumps({"queue_url": queue.queue_url, "dead_letter_url": queue.dead_letter_url})
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, arguments, prefect.url], env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        eventually(lambda: prefect.events)
        time.sleep(0.2)  # it polls again, for 20 s
        process.send_signal(number)
        _, log = process.communicate(timeout=19)  # not after its long poll of 20 s
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert "bridge: stopped" in log
    assert "Traceback" not in log
