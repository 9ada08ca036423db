"""Whatever a message's body holds, it becomes an event or a dead letter with a reason, and the next messages go on."""

import json
import random
from typing import Any

import boto3
import pytest
from aws_blocks import create_queue, received_dead, remaining
from botocore.exceptions import ClientError
from test_bridge import BODY, QUICK, FakePrefect, running, send

from blocks.submission_queue import Received, SubmissionQueue
from prefect_api.events import OutgoingEvent
from services.bridge import BridgeSettings, read_submission_event
from tests.waiting import eventually


@pytest.fixture
def prefect(httpserver: Any) -> FakePrefect:
    return FakePrefect(httpserver)


def body(**changes: object) -> str:
    return json.dumps(BODY | changes)


HOSTILE = {
    "a lone surrogate": body(submitted_image_uri="\ud800"),
    "surrogates inside": body(submitted_image_uri="a\udfffb" * 50),
    "U+0000": body(submitted_image_uri="image\x00:1"),
    "deep lists": "[" * 50_000,
    "deep objects": '{"a":' * 20_000,
    "a field nested deep": json.dumps(BODY)[:-1] + ', "submission_pk": ' + "[" * 900 + "]" * 900 + "}",
    "a number of 6000 digits": '{"submission_pk": ' + "9" * 6000 + "}",
    "digits as text": body(submission_pk="9" * 5000),
    "no number": body(submission_pk=float("nan")),
    "too large": body(submission_pk=2**63),
    "another script's digit": body(submission_pk="٣"),
    "a full message": "x" * 262_144,
    "a byte order mark": "\ufeff{}",
}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_hostile_body_is_set_aside_and_the_next_message_goes_on(
    aws: dict[str, Any], prefect: FakePrefect, hostile: str
) -> None:
    queue = create_queue(aws)
    send(aws, queue, HOSTILE[hostile])
    send(aws, queue, BODY | {"submission_pk": 91})

    with running(queue, prefect.url):
        eventually(lambda: prefect.submissions() == [91])
        eventually(lambda: remaining(aws, queue) == (0, 1))

    [(dead, attributes)] = received_dead(aws, queue)
    assert dead == HOSTILE[hostile]
    assert attributes["reason"]


def unreadable(received: Received, settings: BridgeSettings) -> OutgoingEvent:
    if "bad" in received.body:
        raise LookupError("an error that the reader does not know")
    return read_submission_event(received, settings)


def test_a_body_that_breaks_the_reader_does_not_end_the_bridge(aws: dict[str, Any], prefect: FakePrefect) -> None:
    queue = create_queue(aws)
    send(aws, queue, "bad")
    send(aws, queue, BODY)

    with running(queue, prefect.url, read=unreadable):
        eventually(lambda: prefect.submissions() == [90])
        eventually(lambda: remaining(aws, queue) == (0, 1))

    [(_, attributes)] = received_dead(aws, queue)
    assert attributes["reason"] == "The message cannot be read: LookupError."


def unsendable(received: Received, settings: BridgeSettings) -> OutgoingEvent:
    event = read_submission_event(received, settings)
    event.payload["message"]["more"] = float("inf") if "90" in received.body else 1  # type: ignore[index]
    return event


def test_an_event_that_is_no_json_is_no_outage_of_prefect(aws: dict[str, Any], prefect: FakePrefect) -> None:
    queue = create_queue(aws)
    send(aws, queue, BODY)
    send(aws, queue, BODY | {"submission_pk": 91})

    with running(queue, prefect.url, read=unsendable):
        eventually(lambda: prefect.submissions() == [91])
        eventually(lambda: remaining(aws, queue) == (0, 1))

    [(_, attributes)] = received_dead(aws, queue)
    assert attributes["reason"] == "The event of submission 90 cannot be written as JSON: ValueError."


class NoRoomForAttributes(SubmissionQueue):
    """SQS counts attributes as part of a message; moto counts the body only."""

    _block_type_slug = "no-room-for-attributes"

    def _client(self, queue_url: str) -> Any:
        own = self.credentials.aws_client_parameters.get_params_override()
        client = self.credentials.get_boto3_session().client("sqs", **own)  # prefect-aws shares its clients
        client.meta.events.register_first("before-parameter-build.sqs.SendMessage", _refuse_attributes)
        return client


def _refuse_attributes(params: dict[str, Any], **_: object) -> None:
    if params.get("MessageAttributes"):
        message = "One or more parameters are invalid. Reason: Message must be shorter than 262144 bytes."
        raise ClientError({"Error": {"Code": "InvalidParameterValue", "Message": message}}, "SendMessage")


def test_a_body_without_room_for_a_reason_is_set_aside_all_the_same(
    aws: dict[str, Any], prefect: FakePrefect, caplog: pytest.LogCaptureFixture
) -> None:
    queue = NoRoomForAttributes(**dict(create_queue(aws)))
    send(aws, queue, "x" * 262_000)

    with running(queue, prefect.url):
        eventually(lambda: remaining(aws, queue) == (0, 0))

    [letter] = boto3.client("sqs", **aws).receive_message(QueueUrl=queue.dead_letter_url)["Messages"]
    assert letter["Body"] == "x" * 262_000
    assert "becomes a dead letter without its reason, which is: The message is not JSON" in caplog.text


def test_a_mixed_queue_ends_in_events_and_dead_letters(aws: dict[str, Any], prefect: FakePrefect) -> None:
    """60 messages of seed 5, good and hostile ones in any order, while Prefect's API fails now and then."""
    dice, queue = random.Random(5), create_queue(aws)  # noqa: S311 - no secret
    good = [pk for pk in range(1000, 1060) if dice.random() < 0.5]
    for pk in range(1000, 1060):
        send(aws, queue, body(submission_pk=pk) if pk in good else dice.choice(list(HOSTILE.values())))
    prefect.answers = [204, 500, 204, 503, 500, 204, 429]

    with running(queue, prefect.url, QUICK):
        eventually(lambda: sorted(prefect.submissions()) == good)
        eventually(lambda: remaining(aws, queue) == (0, len(good)))
