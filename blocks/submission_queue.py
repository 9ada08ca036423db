"""EvalAI's queue (SQS), as the bridge reads it and as the run that claimed a submission sees it.

Standard and FIFO queues alike. The source of the queue's own settings is docs/evalai.md, "The queue message".
"""

import logging
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from botocore.exceptions import ClientError
from prefect.blocks.core import Block
from prefect_aws import AwsCredentials
from pydantic import Field

from aws_api.dead_letters import DELIVERIES, GROUP, REASON, RECEIVED_AT, RECEIVED_FROM, send_dead_letter
from aws_api.errors import aws_errors, error_code
from blocks.aws_client import aws_client
from blocks.schema_once import SchemaOnce
from evaluation.errors import InvalidConfiguration
from evaluation.submission.message import Delivery

if TYPE_CHECKING:
    from types_boto3_sqs import SQSClient
    from types_boto3_sqs.type_defs import MessageTypeDef

LONGEST_HIDE = 12 * 3600  # seconds; SQS refuses more

_LOG = logging.getLogger(__name__)
_AWS_HOST = re.compile(r"sqs\.([a-z0-9-]+)\.amazonaws\.com(\.cn)?")
_GONE = frozenset({"ReceiptHandleIsInvalid", "MessageNotInflight", "AWS.SimpleQueueService.MessageNotInflight"})
# How SQS says the same with a code that means anything.
_GONE_WORDS = re.compile(r"receipt ?handle|does not exist|not available for visibility|Total VisibilityTimeout", re.I)


@dataclass(frozen=True)
class Received:
    """A message as it came from the queue, once."""

    body: str
    delivery: Delivery
    count: int  # how often SQS has delivered it, this time included
    group: str | None  # FIFO queues only


class SubmissionQueue(SchemaOnce, Block):
    """EvalAI's queue of submissions and its dead-letter queue: SQS."""

    _block_type_name = "Submission Queue"
    _block_type_slug = "submission-queue"
    _description = "The SQS queue that EvalAI fills, and where its bad messages go."

    queue_url: str = Field(description="URL of the queue that EvalAI fills. An AWS address also says its region.")
    dead_letter_url: str = Field(description="URL of the queue for messages that cannot be evaluated.")
    credentials: AwsCredentials = Field(
        description="AWS Credentials block: region, and keys where no role gives access."
    )

    def receive(self, limit: int = 10, wait_seconds: int = 20) -> list[Received]:
        """Wait for up to `limit` (10 at most) messages; none after `wait_seconds` (20 at most) of silence."""
        with aws_errors(f"Receiving from {self.queue_url}"):
            answer = self._client(self.queue_url).receive_message(
                QueueUrl=self.queue_url,
                MaxNumberOfMessages=limit,
                WaitTimeSeconds=wait_seconds,
                MessageSystemAttributeNames=["ApproximateReceiveCount", "MessageGroupId"],
            )
        return [self._received(message) for message in answer.get("Messages", [])]

    def acknowledge(self, delivery: Delivery) -> None:
        """Delete the message; one that is already gone is fine. Raises InvalidConfiguration for another queue's."""
        self._require_own(delivery)
        with aws_errors(f"Deleting message {delivery.message_id} from {self.queue_url}"):
            try:
                self._client(self.queue_url).delete_message(
                    QueueUrl=self.queue_url, ReceiptHandle=delivery.receipt_handle
                )
            except ClientError as error:
                if not means_gone(error):
                    raise
                _LOG.info("message %s is already gone (%s)", delivery.message_id, error_code(error))

    def extend(self, delivery: Delivery, seconds: int) -> None:
        """Hide the message for so many more seconds (12 hours at most); one that is already gone is fine."""
        if not self.hide(delivery, seconds):
            _LOG.info("message %s is already gone, nothing to extend", delivery.message_id)

    def hide(self, delivery: Delivery, seconds: int) -> bool:
        """As extend; returns whether this receipt still holds the message. 0 seconds gives it back at once."""
        self._require_own(delivery)
        with aws_errors(f"Hiding message {delivery.message_id} of {self.queue_url}"):
            try:
                self._client(self.queue_url).change_message_visibility(
                    QueueUrl=self.queue_url,
                    ReceiptHandle=delivery.receipt_handle,
                    VisibilityTimeout=min(seconds, LONGEST_HIDE),
                )
            except ClientError as error:
                if not means_gone(error):
                    raise
                return False
        return True

    def reject(
        self, delivery: Delivery, body: str, reason: str, group: str | None = None, count: int | None = None
    ) -> None:
        """Move the message to the dead-letter queue, the reason as an attribute; deleted only after it has arrived.

        `group` is the message's own on a FIFO queue, `count` how often it was delivered, where that is known.
        """
        self._require_own(delivery)
        known = {
            REASON: reason,
            RECEIVED_FROM: self.queue_url,
            RECEIVED_AT: datetime.now(UTC).isoformat(timespec="seconds"),
            DELIVERIES: None if count is None else str(count),
            GROUP: group,
        }
        send_dead_letter(self._client(self.dead_letter_url), self.dead_letter_url, delivery.message_id, body, known)
        self.acknowledge(delivery)

    def _received(self, message: "MessageTypeDef") -> Received:
        attributes = message.get("Attributes", {})
        return Received(
            body=message.get("Body", ""),
            delivery=Delivery(
                queue_url=self.queue_url,
                receipt_handle=message["ReceiptHandle"],
                message_id=message["MessageId"],
            ),
            count=int(attributes.get("ApproximateReceiveCount", "1")),
            group=attributes.get("MessageGroupId"),
        )

    def _require_own(self, delivery: Delivery) -> None:
        # A delivery comes back through an event: it must not send our signed requests elsewhere.
        if delivery.queue_url != self.queue_url:
            raise InvalidConfiguration(
                f"Message {delivery.message_id} is of another queue",
                f"it names {delivery.queue_url}, the block names {self.queue_url}",
                "Let the bridge and the flow use the same SubmissionQueue block.",
            )

    def _client(self, queue_url: str) -> "SQSClient":
        return sqs_client(queue_url, self.credentials)


def sqs_client(queue_url: str, credentials: AwsCredentials) -> "SQSClient":
    """A client for that queue, which may be in another region (EvalAI's: us-east-1) than everything else."""
    region = _AWS_HOST.fullmatch(urlsplit(queue_url).hostname or "")
    if region and region[1] != credentials.region_name:
        credentials = credentials.model_copy(update={"region_name": region[1]})
    return cast("SQSClient", aws_client(credentials, "sqs"))


def means_gone(error: ClientError) -> bool:
    """Whether SQS says that a receipt holds its message no longer."""
    message = str(error.response.get("Error", {}).get("Message", ""))
    return error_code(error) in _GONE or (
        error_code(error) in {"InvalidParameterValue", "InvalidParameterValueException"}
        and _GONE_WORDS.search(message) is not None
    )
