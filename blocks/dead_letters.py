"""The dead letters of EvalAI's queue: read without losing or hiding any, and sent back to where they came from."""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from aws_api.dead_letters import DELIVERIES, GROUP, REASON, RECEIVED_AT
from aws_api.errors import aws_errors
from blocks.submission_queue import Received, SubmissionQueue, sqs_client
from evaluation.errors import EvaluationError
from evaluation.submission.message import Delivery

if TYPE_CHECKING:
    from types_boto3_sqs.type_defs import MessageTypeDef

# A poll that waits asks all of SQS's servers, one that does not only some of them.
WAIT_SECONDS = 2
# For so long the letters that are being read stay hidden, should this process die before it gives them back.
HOLD_SECONDS = 120

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class QueueFacts:
    """What SQS says of a queue. The numbers of messages are approximate by SQS's own account."""

    arn: str
    visible: int
    hidden: int  # received by somebody and not deleted, or delayed
    visibility_seconds: int
    retention_seconds: int
    dead_letter_arn: str | None  # where SQS moves what was received too often
    receives_before_dead: int | None

    @property
    def messages(self) -> int:
        return self.visible + self.hidden


def queue_facts(queue: SubmissionQueue, url: str) -> QueueFacts:
    """Ask for the attributes of one of the block's two queues; raises InvalidConfiguration or ServiceUnavailable."""
    with aws_errors(f"Asking for the attributes of {url}"):
        answer = sqs_client(url, queue.credentials).get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
    values = {str(name): value for name, value in answer["Attributes"].items()}
    policy = _redrive_policy(values.get("RedrivePolicy"))
    receives = str(policy.get("maxReceiveCount", ""))
    return QueueFacts(
        arn=values["QueueArn"],
        visible=int(values["ApproximateNumberOfMessages"]),
        hidden=sum(int(values.get(f"ApproximateNumberOfMessages{which}", 0)) for which in ("NotVisible", "Delayed")),
        visibility_seconds=int(values["VisibilityTimeout"]),
        retention_seconds=int(values["MessageRetentionPeriod"]),
        dead_letter_arn=policy.get("deadLetterTargetArn"),
        receives_before_dead=int(receives) if receives.isdigit() else None,
    )


@dataclass(frozen=True)
class DeadLetter:
    """One message of the dead-letter queue, and what is known of its way there."""

    received: Received  # as it is there, but with the group and the deliveries of the queue that it came from
    reason: str
    since: datetime  # UTC; for one that SQS moved on a standard queue, when EvalAI sent it
    deliveries: int | None  # how often it was delivered before; None where no count is known

    @property
    def message_id(self) -> str:
        return self.received.delivery.message_id


class DeadLetters:
    """The dead letters of one queue, each once: `with DeadLetters(queue) as letters: for letter in letters: ...`.

    What is received is hidden from everybody else for `hold_seconds`, and given back at the end unless it was sent
    back. Methods raise InvalidConfiguration, ServiceUnavailable and RequestRefused.
    """

    def __init__(
        self, queue: SubmissionQueue, wait_seconds: int = WAIT_SECONDS, hold_seconds: int = HOLD_SECONDS
    ) -> None:
        self._queue = queue
        self._dead = queue.model_copy(update={"queue_url": queue.dead_letter_url})
        self._wait_seconds = wait_seconds
        self._hold_seconds = hold_seconds
        self._held: dict[str, Delivery] = {}
        self._seen: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for delivery in self._held.values():
                self._dead.hide(delivery, 0)
        except EvaluationError as failure:
            if kind is None:
                raise
            _LOG.warning("dead letters stay hidden for up to %s s: %s", self._hold_seconds, failure)

    def __iter__(self) -> Iterator[DeadLetter]:
        while received := self._receive():
            new = [message for message in received if message["MessageId"] not in self._seen]
            for message in received:
                self._held[message["MessageId"]] = self._delivery(message)  # the newest receipt is the one that counts
            if not new:
                return  # those held longest have come back already
            for message in new:
                self._seen.add(message["MessageId"])
                yield self._letter(message)

    def unseen(self) -> int:
        """About how many more there are: held by somebody else, or behind others of their FIFO group."""
        return max(0, queue_facts(self._queue, self._queue.dead_letter_url).messages - len(self._held))

    def send_back(self, letter: DeadLetter) -> None:
        """Put the letter on the queue that it came from; deleted here only after it has arrived there.

        A process that dies in between leaves the letter on both queues: sent back again, it is a duplicate, which a
        FIFO queue drops within five minutes and the ledger's claim at any time.
        """
        url = self._queue.queue_url
        with aws_errors(f"Sending message {letter.message_id} to {url}"):
            sqs_client(url, self._queue.credentials).send_message(
                QueueUrl=url, MessageBody=letter.received.body, **_fifo_arguments(url, letter)
            )
        self.discard(letter)

    def discard(self, letter: DeadLetter) -> None:
        """Delete the letter for good."""
        self._dead.acknowledge(self._held[letter.message_id])
        del self._held[letter.message_id]

    @cached_property
    def _receives_before_dead(self) -> int | None:
        return queue_facts(self._queue, self._queue.queue_url).receives_before_dead

    def _receive(self) -> "list[MessageTypeDef]":
        url = self._queue.dead_letter_url
        with aws_errors(f"Receiving from {url}"):
            answer = sqs_client(url, self._queue.credentials).receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=10,
                WaitTimeSeconds=self._wait_seconds,
                VisibilityTimeout=self._hold_seconds,
                MessageAttributeNames=["All"],
                MessageSystemAttributeNames=["All"],
            )
        return answer.get("Messages", [])

    def _delivery(self, message: "MessageTypeDef") -> Delivery:
        return Delivery(
            queue_url=self._queue.dead_letter_url,
            receipt_handle=message["ReceiptHandle"],
            message_id=message["MessageId"],
        )

    def _letter(self, message: "MessageTypeDef") -> DeadLetter:
        kept = {name: value.get("StringValue", "") for name, value in message.get("MessageAttributes", {}).items()}
        known = {str(name): value for name, value in message["Attributes"].items()}
        letter = DeadLetter(
            received=Received(
                message.get("Body", ""), self._delivery(message), 1, kept.get(GROUP) or known.get("MessageGroupId")
            ),
            reason=kept.get(REASON, ""),
            since=_moment(kept.get(RECEIVED_AT)) or datetime.fromtimestamp(int(known["SentTimestamp"]) / 1000, UTC),
            deliveries=int(kept[DELIVERIES]) if kept.get(DELIVERIES, "").isdigit() else None,
        )
        return letter if letter.reason else self._moved_by_sqs(letter, "DeadLetterQueueSourceArn" in known)

    def _moved_by_sqs(self, letter: DeadLetter, certain: bool) -> DeadLetter:
        """SQS itself leaves no reason, and not every emulator of it says where the message came from."""
        receives = self._receives_before_dead
        if receives is None:
            cause = (
                "SQS gave up" if certain else "The message has no reason, and SQS has no order to move messages here"
            )
            return replace(letter, reason=f"{cause}.")
        return replace(
            letter,
            reason=f"SQS gave up after {receives} receives: no run rejected or deleted the message.",
            deliveries=receives,
        )


def _fifo_arguments(url: str, letter: DeadLetter) -> dict[str, Any]:
    if not url.endswith(".fifo"):
        return {}
    # Another id than EvalAI's, which SQS would take for the message of before; the same at each try of ours.
    return {
        "MessageGroupId": letter.received.group or letter.message_id,
        "MessageDeduplicationId": f"redrive-{letter.message_id}",
    }


def _redrive_policy(text: str | None) -> dict[str, Any]:
    content = json.loads(text) if text else {}
    return content if isinstance(content, dict) else {}


def _moment(text: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment and moment.tzinfo is None else moment
