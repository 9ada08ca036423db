"""The queue of jobs in SQS and the clients that the two sides of it share."""

import json
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import boto3

from aws_api import ClientFactory
from aws_api.dead_letters import DELIVERIES, GROUP, REASON, RECEIVED_AT, RECEIVED_FROM, send_dead_letter
from aws_api.errors import aws_errors
from compute_client.arguments import require_number, require_text
from compute_client.job import write_message
from compute_client.table import JobTable

if TYPE_CHECKING:
    from types_boto3_sqs import SQSClient
    from types_boto3_sqs.type_defs import MessageTypeDef

MOST_HIDDEN_SECONDS = 12 * 3600  # SQS's own limit


@dataclass(frozen=True)
class DynamoDBClient:
    """Where the jobs are recorded: a DynamoDB table, and a bucket for what is too large for its rows.

    Without `bucket` bodies of more than 100 KiB and results of more than 250 KiB are refused. A run that has not
    renewed its lease for `lease_seconds` is dead. boto3 finds region and credentials as usual; `make_client` replaces
    `boto3.client`. Raises InvalidConfiguration for a wrong argument.
    """

    table: str
    bucket: str | None = None
    lease_seconds: float = 120
    most_attempts: int = 3
    make_client: ClientFactory = field(default=cast(ClientFactory, boto3.client), repr=False)
    _clients: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_text("table", self.table)
        if self.bucket is not None:
            require_text("bucket", self.bucket)
        require_number("lease_seconds", self.lease_seconds, least=1)
        require_number("most_attempts", self.most_attempts, least=1)

    def client(self, service: str) -> Any:
        """boto3's client of the service, made once."""
        if service not in self._clients:
            self._clients[service] = self.make_client(service)
        return self._clients[service]

    def jobs(self) -> JobTable:
        return JobTable(
            self.table,
            self.bucket,
            self.client,
            lease_seconds=self.lease_seconds,
            most_attempts=self.most_attempts,
        )


class JobQueue:
    """One queue of jobs, by its name or URL. Methods raise what `aws_errors` translates."""

    def __init__(self, name: str, client: ClientFactory) -> None:
        self._name = name
        self._client = client
        self._url = name if name.startswith(("http://", "https://")) else ""

    def send(self, job_id: str, group: str) -> None:
        with aws_errors(f"Sending job {job_id} to {self._name}"):
            self._sqs().send_message(QueueUrl=self._address(), MessageBody=write_message(job_id), **self._fifo(group))

    def receive(self, wait_seconds: int, hidden_seconds: float) -> "MessageTypeDef | None":
        """The next message, hidden from everybody else for so long; None where none came in time."""
        with aws_errors(f"Receiving from {self._name}"):
            answer = self._sqs().receive_message(
                QueueUrl=self._address(),
                MaxNumberOfMessages=1,
                WaitTimeSeconds=wait_seconds,
                VisibilityTimeout=_whole(hidden_seconds),
                AttributeNames=["MessageGroupId", "ApproximateReceiveCount"],
            )
        return next(iter(answer.get("Messages", [])), None)

    def hide(self, receipt: str, seconds: float) -> None:
        """Let the message come back after so long; 0 is at once."""
        with aws_errors(f"Hiding a message of {self._name}"):
            self._sqs().change_message_visibility(
                QueueUrl=self._address(), ReceiptHandle=receipt, VisibilityTimeout=_whole(seconds)
            )

    def acknowledge(self, receipt: str) -> None:
        with aws_errors(f"Deleting a message of {self._name}"):
            self._sqs().delete_message(QueueUrl=self._address(), ReceiptHandle=receipt)

    def reject(self, message: "MessageTypeDef", reason: str) -> None:
        """Move the message to the queue's dead-letter queue, with the reason; without one it stays where it is."""
        dead = self._dead_letter_url()
        if dead is None:
            return
        attributes = message.get("Attributes", {})
        known = {
            REASON: reason,
            RECEIVED_FROM: self._address(),
            RECEIVED_AT: datetime.now(UTC).isoformat(timespec="seconds"),
            DELIVERIES: attributes.get("ApproximateReceiveCount"),
            GROUP: attributes.get("MessageGroupId"),
        }
        send_dead_letter(self._sqs(), dead, message["MessageId"], message["Body"], known)
        self.acknowledge(message["ReceiptHandle"])

    def _dead_letter_url(self) -> str | None:
        """Where SQS itself moves what was received too often, by the queue's redrive policy."""
        with aws_errors(f"Asking for the redrive policy of {self._name}"):
            answer = self._sqs().get_queue_attributes(QueueUrl=self._address(), AttributeNames=["RedrivePolicy"])
            policy = answer.get("Attributes", {}).get("RedrivePolicy")
            if not policy:
                return None
            name = str(json.loads(policy)["deadLetterTargetArn"]).rpartition(":")[2]
            return self._sqs().get_queue_url(QueueName=name)["QueueUrl"]

    def _fifo(self, group: str) -> dict[str, Any]:
        if not self._name.endswith(".fifo"):
            return {}
        # A new one for each sending: SQS would drop a second message of the same id in silence, and the first may be
        # the one that was lost. The table knows duplicates.
        return {"MessageGroupId": group, "MessageDeduplicationId": uuid.uuid4().hex}

    def _address(self) -> str:
        if not self._url:
            self._url = self._sqs().get_queue_url(QueueName=self._name)["QueueUrl"]
        return self._url

    def _sqs(self) -> "SQSClient":
        client: SQSClient = self._client("sqs")
        return client


def _whole(seconds: float) -> int:
    return min(MOST_HIDDEN_SECONDS, max(0, round(seconds)))
