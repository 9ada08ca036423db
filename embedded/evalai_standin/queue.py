"""The message that EvalAI puts on a challenge's queue. Source: docs/evalai.md, "The queue message"."""

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from embedded.evalai_standin.config import Config
from evaluation.errors import ServiceUnavailable


@dataclass(frozen=True)
class QueueMessage:
    """`group` and `deduplication` are set for a FIFO queue only."""

    queue_url: str
    body: str
    group: str | None = None
    deduplication: str | None = None


Publisher = Callable[[QueueMessage], None]


def queue_message(queue_url: str, content: Mapping[str, object], phase: int, team: int) -> QueueMessage:
    body = json.dumps(content)
    if not queue_url.endswith(".fifo"):
        return QueueMessage(queue_url, body)
    return QueueMessage(queue_url, body, f"{phase}-{team}", f"{content['submission_pk']}-{uuid.uuid4()}")


def new_content(challenge: int, phase: int, image: object, submission: int) -> dict[str, object]:
    """Of a new submission: the first two ids are strings, and the image is whatever the participant wrote."""
    return {
        "challenge_pk": str(challenge),
        "phase_pk": str(phase),
        "is_static_dataset_code_upload_submission": False,
        "submitted_image_uri": image,
        "submission_pk": submission,
    }


def again_content(challenge: int, phase: int, submission: int, image: object | None) -> dict[str, object]:
    """Of a resume or a re-run: all ids are ints, the image is absent where its file is gone."""
    content: dict[str, object] = {
        "challenge_pk": challenge,
        "phase_pk": phase,
        "submission_pk": submission,
        "is_static_dataset_code_upload_submission": False,
    }
    return content if image is None else content | {"submitted_image_uri": image}


def resent_content(challenge: int, phase: int, submission: int) -> dict[str, object]:
    """Of a message that a participant sends again."""
    return {"submission_pk": submission, "phase_pk": phase, "challenge_pk": challenge}


def sqs_publisher(config: Config) -> Publisher:
    """Send through boto3, with the credentials that boto3 finds. No message attributes, as EvalAI."""
    client = boto3.client("sqs", endpoint_url=config.sqs_endpoint_url, region_name=config.aws_region)

    def publish(message: QueueMessage) -> None:
        fifo: dict[str, Any] = {"MessageGroupId": message.group, "MessageDeduplicationId": message.deduplication}
        try:
            client.send_message(
                QueueUrl=message.queue_url, MessageBody=message.body, **{k: v for k, v in fifo.items() if v}
            )
        except (BotoCoreError, ClientError) as error:
            raise ServiceUnavailable(f"The queue {message.queue_url} takes no message", str(error)) from error

    return publish
