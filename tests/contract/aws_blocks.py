"""The adapters' blocks over the moto server of conftest, and the resources that they expect there."""

from datetime import UTC, datetime
from typing import Any

import boto3
from prefect_aws import AwsClientParameters, AwsCredentials
from pydantic import SecretStr

from blocks.submission_queue import SubmissionQueue
from evaluation.submission.model import Submission, SubmissionStatus, parse_phase

UNREACHABLE = "http://127.0.0.1:1"


def credentials_of(aws: dict[str, Any], **changes: Any) -> AwsCredentials:
    values = aws | changes
    return AwsCredentials(
        region_name=values["region_name"],
        aws_access_key_id=values["aws_access_key_id"],
        aws_secret_access_key=SecretStr(values["aws_secret_access_key"]),
        aws_client_parameters=AwsClientParameters(
            endpoint_url=values["endpoint_url"], config={"retries": {"max_attempts": 0}, "connect_timeout": 2}
        ),
    )


def create_table(aws: dict[str, Any], table: str) -> None:
    keys = {"team-id": "HASH", "submission-id": "RANGE"}
    boto3.client("dynamodb", **aws).create_table(
        TableName=table,
        KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in keys.items()],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in keys],
        BillingMode="PAY_PER_REQUEST",
    )


def create_queue(aws: dict[str, Any], name: str = "submissions", visibility: int = 30, fifo: bool = False) -> Any:
    """EvalAI's settings: retention and nothing else; returns the block."""
    sqs = boto3.client("sqs", **aws)
    ending, kind = (".fifo", {"FifoQueue": "true"}) if fifo else ("", {})
    attributes = {"VisibilityTimeout": str(visibility)} | kind
    return SubmissionQueue(
        queue_url=sqs.create_queue(QueueName=name + ending, Attributes=attributes)["QueueUrl"],
        dead_letter_url=sqs.create_queue(QueueName=f"{name}-dead{ending}", Attributes=kind)["QueueUrl"],
        credentials=credentials_of(aws),
    )


def received_dead(aws: dict[str, Any], queue: SubmissionQueue) -> list[tuple[str, dict[str, str]]]:
    """Body and attributes of what is in the dead-letter queue."""
    answer = boto3.client("sqs", **aws).receive_message(
        QueueUrl=queue.dead_letter_url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
    )
    return [
        (item["Body"], {name: value["StringValue"] for name, value in item["MessageAttributes"].items()})
        for item in answer.get("Messages", [])
    ]


def remaining(aws: dict[str, Any], queue: SubmissionQueue) -> tuple[int, int]:
    """How many messages the source queue holds: visible, hidden."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    answer = boto3.client("sqs", **aws).get_queue_attributes(QueueUrl=queue.queue_url, AttributeNames=names)
    visible, hidden = (int(answer["Attributes"][name]) for name in names)
    return visible, hidden


def a_submission(pk: int = 90, resumed: datetime | None = None, **changes: Any) -> Submission:
    values: dict[str, Any] = {
        "pk": pk,
        "challenge_pk": 1,
        "phase_pk": 2203,
        "phase": parse_phase("leaderboard-20-SENSORS"),
        "team_pk": 7,
        "team_name": "Team Röcket & friends",
        "status": SubmissionStatus.RESUMING if resumed else SubmissionStatus.SUBMITTED,
        "image": "registry.example/team:1",
        "submitted_at": datetime(2026, 11, 21, 1, 0, tzinfo=UTC),
        "rerun_resumed_at": resumed,
    }
    return Submission(**(values | changes))
