"""The embedded AWS, made from deployments/aws in the moto server of conftest, and the blocks over it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from aws_blocks import credentials_of

import local_jobs
from blocks.artifact_bucket import ArtifactBucket
from blocks.ledger_table import LedgerTable
from blocks.submission_queue import SubmissionQueue
from embedded.aws import DEAD_LETTER_QUEUE, EmbeddedAws, queue_url, secrets_of

ROUTES = Path(local_jobs.__file__).parent / "routes"
CLUSTER = "leaderboard-20"


@dataclass(frozen=True)
class Harness:
    """What `leaderboard up` makes, and blocks that use it."""

    aws: dict[str, Any]
    stacks: EmbeddedAws

    @property
    def queue(self) -> SubmissionQueue:
        url = self.aws["endpoint_url"]
        dead = queue_url(url, DEAD_LETTER_QUEUE)
        return SubmissionQueue(queue_url=queue_url(url), dead_letter_url=dead, credentials=credentials_of(self.aws))

    @property
    def ledger(self) -> LedgerTable:
        return LedgerTable(table=CLUSTER, credentials=credentials_of(self.aws))

    @property
    def artifacts(self) -> ArtifactBucket:
        return ArtifactBucket(bucket=CLUSTER, credentials=credentials_of(self.aws))

    def client(self, service: str) -> Any:
        return boto3.client(service, **self.aws)  # type: ignore[call-overload]

    def send(self, body: str) -> None:
        self.client("sqs").send_message(QueueUrl=self.queue.queue_url, MessageBody=body)

    def secret(self, name: str) -> str:
        return str(self.client("secretsmanager").get_secret_value(SecretId=name)["SecretString"])

    def attributes(self, name: str) -> dict[str, str]:
        url = queue_url(self.aws["endpoint_url"], name)
        answer = self.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
        return dict(answer["Attributes"])


def make_harness(aws: dict[str, Any]) -> Harness:
    """Deploy the stacks of a run, with a queue that hides messages for 33 s."""
    stacks = EmbeddedAws(aws["endpoint_url"], aws["region_name"])
    phases = {"leaderboard-10-MAP": 1, "leaderboard-20-SENSORS": 2203}
    stacks.create_all(ROUTES, secrets_of("http://evalai.example", "token", phases), visibility_seconds=33)
    return Harness(aws, stacks)
