"""SubmissionQueue against moto's SQS, standard and FIFO."""

import logging
from typing import Any

import boto3
import pytest
from aws_blocks import UNREACHABLE, create_queue, credentials_of, received_dead, remaining

from blocks.submission_queue import SubmissionQueue
from evaluation.errors import InvalidConfiguration, ServiceUnavailable
from evaluation.ports import MessageQueue
from evaluation.submission.message import Delivery


def send(aws: dict[str, Any], queue: SubmissionQueue, body: str, **arguments: Any) -> None:
    boto3.client("sqs", **aws).send_message(QueueUrl=queue.queue_url, MessageBody=body, **arguments)


def test_receive_says_where_and_how_often(aws: dict[str, Any]) -> None:
    queue = create_queue(aws, visibility=0)
    send(aws, queue, "one")
    first, second = queue.receive(wait_seconds=0), queue.receive(wait_seconds=0)
    assert [(item.body, item.count, item.group) for item in first + second] == [("one", 1, None), ("one", 2, None)]
    assert first[0].delivery.queue_url == queue.queue_url
    assert first[0].delivery.message_id == second[0].delivery.message_id


def test_an_acknowledged_message_is_gone_and_may_be_gone_already(
    aws: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    queue = create_queue(aws)
    port: MessageQueue = queue
    send(aws, queue, "one")
    [received] = queue.receive(wait_seconds=0)
    port.acknowledge(received.delivery)
    port.acknowledge(received.delivery)
    assert remaining(aws, queue) == (0, 0)
    with caplog.at_level(logging.INFO):
        port.acknowledge(received.delivery.model_copy(update={"receipt_handle": "nonsense"}))
        port.extend(received.delivery, 60)
    assert "is already gone (ReceiptHandleIsInvalid)" in caplog.text
    assert "nothing to extend" in caplog.text


def test_extend_hides_and_hide_gives_back(aws: dict[str, Any]) -> None:
    queue = create_queue(aws)
    send(aws, queue, "one")
    [received] = queue.receive(wait_seconds=0)
    queue.extend(received.delivery, 600)
    assert remaining(aws, queue) == (0, 1)
    assert queue.hide(received.delivery, 0) is True
    assert remaining(aws, queue) == (1, 0)
    assert queue.hide(received.delivery.model_copy(update={"receipt_handle": "nonsense"}), 60) is False


@pytest.mark.parametrize("fifo", [False, True])
def test_a_dead_letter_carries_its_reason_and_leaves_the_queue(aws: dict[str, Any], fifo: bool) -> None:
    queue = create_queue(aws, fifo=fifo)
    send(aws, queue, "body", **({"MessageGroupId": "1-7", "MessageDeduplicationId": "90-x"} if fifo else {}))
    [received] = queue.receive(wait_seconds=0)
    assert received.group == ("1-7" if fifo else None)
    queue.reject(received.delivery, received.body, "not JSON \x00 " + "x" * 2000, received.group)
    [(body, attributes)] = received_dead(aws, queue)
    assert body == "body"
    assert attributes["reason"].startswith("not JSON \ufffd xxx")
    assert len(attributes["reason"]) == 1024
    assert attributes["received-from"] == queue.queue_url
    assert attributes["received-at"].endswith("+00:00")
    assert remaining(aws, queue) == (0, 0)


def test_a_message_stays_where_the_dead_letter_queue_is_missing(aws: dict[str, Any]) -> None:
    queue = create_queue(aws)
    broken = queue.model_copy(update={"dead_letter_url": queue.dead_letter_url + "-absent"})
    send(aws, queue, "body")
    [received] = broken.receive(wait_seconds=0)
    with pytest.raises(InvalidConfiguration, match="-absent failed"):
        broken.reject(received.delivery, received.body, "reason")
    assert remaining(aws, queue) == (0, 1)


def test_a_delivery_of_another_queue_is_refused(aws: dict[str, Any]) -> None:
    queue = create_queue(aws)
    foreign = Delivery(queue_url="https://elsewhere.example/1/q", receipt_handle="r", message_id="m")
    with pytest.raises(InvalidConfiguration, match="is of another queue"):
        queue.acknowledge(foreign)


def test_errors_are_translated(aws: dict[str, Any]) -> None:
    queue = create_queue(aws)
    absent = queue.model_copy(update={"queue_url": queue.queue_url + "-absent"})
    with pytest.raises(InvalidConfiguration, match=r"Receiving from .*-absent failed"):
        absent.receive(wait_seconds=0)
    down = queue.model_copy(update={"credentials": credentials_of(aws, endpoint_url=UNREACHABLE)})
    with pytest.raises(ServiceUnavailable, match="AWS does not answer"):
        down.receive(wait_seconds=0)


def test_the_address_says_the_region(aws: dict[str, Any]) -> None:
    url = "https://sqs.us-east-1.amazonaws.com/123456789012/challenge"
    credentials = credentials_of(aws)  # of us-west-2
    queue = SubmissionQueue(queue_url=url, dead_letter_url=url + "-dead", credentials=credentials)
    assert queue._client(queue.queue_url).meta.region_name == "us-east-1"
    assert credentials.region_name == "us-west-2"
