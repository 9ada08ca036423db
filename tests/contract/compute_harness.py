"""A queue of jobs as deployments/aws/compute.yaml makes it, in moto's server; both sides of the client."""

import time
from dataclasses import dataclass, field
from typing import Any

import boto3

from blocks.compute_job_table import ComputeJobTable
from blocks.submission_queue import Received, SubmissionQueue
from compute_client.job import ClaimedJob
from compute_client.producer import Producer
from compute_client.queue import DynamoDBClient
from compute_client.table import JobTable
from embedded.aws import EmbeddedAws, queue_url
from tests.contract.aws_blocks import credentials_of
from tests.waiting import PATIENCE_SECONDS

BUCKET = "compute-contents"


@dataclass
class Clock:
    """The time, which a test can move."""

    ahead: float = 0

    def __call__(self) -> float:
        return time.time() + self.ahead

    def sleep(self, seconds: float) -> None:
        self.ahead += seconds


@dataclass
class ComputeAws:
    aws: dict[str, Any]
    fifo: bool = False
    table: str = "compute"
    queue: SubmissionQueue = field(init=False)
    made: dict[str, str] = field(init=False)  # the stack's outputs
    clock: Clock = field(default_factory=Clock)
    _clients: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        stacks = EmbeddedAws(self.aws["endpoint_url"], self.aws["region_name"])
        self.made = stacks.deploy("compute", BucketName=BUCKET, Fifo=str(self.fifo).lower())
        ending = ".fifo" if self.fifo else ""
        self.queue = SubmissionQueue(
            queue_url=queue_url(self.aws["endpoint_url"], f"compute{ending}"),
            dead_letter_url=queue_url(self.aws["endpoint_url"], f"compute-dead-letters{ending}"),
            credentials=credentials_of(self.aws),
        )

    def client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = boto3.client(service, **self.aws)  # type: ignore[call-overload]
        return self._clients[service]

    def producer(self, **changes: Any) -> Producer:
        """`changes` are those of Producer and DynamoDBClient."""
        ours = {"queue_name": self.queue.queue_url, "timeout_seconds": PATIENCE_SECONDS} | changes
        where = {name: ours.pop(name) for name in ("table", "bucket", "make_client") if name in ours}
        return Producer(ddb_client=self.database(**where), **ours)

    def database(self, **changes: Any) -> DynamoDBClient:
        return DynamoDBClient(**({"table": self.table, "bucket": BUCKET, "make_client": self.client} | changes))

    def jobs(self, bucket: str | None = BUCKET, **settings: Any) -> JobTable:
        given = {"lease_seconds": 60, "now": self.clock, "sleep": self.clock.sleep} | settings
        return JobTable(self.table, bucket, self.client, **given)

    def block(self, **changes: Any) -> ComputeJobTable:
        return ComputeJobTable(table=self.table, bucket=BUCKET, credentials=credentials_of(self.aws), **changes)

    def take_over(self, jobs: JobTable, job_id: str, run: str) -> ClaimedJob:
        """Claim a job whose run is silent: its lease has ended, and nobody renews it while it is watched."""
        self.clock.ahead += jobs.lease_seconds + 1
        return jobs.claim(job_id, run)

    def received(self) -> list[Received]:
        return self.queue.receive(wait_seconds=0)

    def row(self, job_id: str) -> dict[str, Any]:
        item = self.client("dynamodb").get_item(TableName=self.table, Key={"job_id": {"S": job_id}})["Item"]
        return {name: next(iter(value.values())) for name, value in item.items()}

    def objects(self) -> list[str]:
        answer = self.client("s3").list_objects_v2(Bucket=BUCKET)
        return [item["Key"] for item in answer.get("Contents", [])]
