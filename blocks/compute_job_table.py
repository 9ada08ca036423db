"""The jobs of one queue of the compute client, as a Prefect block."""

from functools import partial

from prefect.blocks.core import Block
from prefect_aws import AwsCredentials
from pydantic import Field

from blocks.aws_client import aws_client
from blocks.compute_metrics import ComputeMetrics
from blocks.schema_once import SchemaOnce
from compute_client.table import JobTable


class ComputeJobTable(SchemaOnce, Block):
    """Who computes which job, and what came of it: a DynamoDB table, and a bucket for what is too large for it."""

    _block_type_name = "Compute Jobs"
    _block_type_slug = "compute-jobs"
    _description = "The DynamoDB table with one row per job of the compute client."

    table: str = Field(description="DynamoDB table with partition key job_id, a string, and the index outbox.")
    bucket: str | None = Field(default=None, description="S3 bucket of large bodies and results.")
    credentials: AwsCredentials = Field(
        description="AWS Credentials block: region, and keys where no role gives access."
    )
    metrics: str | None = Field(
        default=None, description="The jobs' name in CloudWatch; without one, nothing is measured there."
    )
    lease_seconds: float = Field(
        default=120, ge=3, description="A run that has not renewed its lease for so long is dead; another takes over."
    )
    most_attempts: int = Field(default=3, ge=1, description="So many runs may die with a job before it has failed.")
    result_days: float = Field(default=7, gt=0, description="How long results are kept.")

    def jobs(self) -> JobTable:
        return JobTable(
            self.table,
            self.bucket,
            partial(aws_client, self.credentials),
            lease_seconds=self.lease_seconds,
            most_attempts=self.most_attempts,
            result_days=self.result_days,
        )

    def measures(self) -> ComputeMetrics | None:
        return ComputeMetrics(self.metrics, partial(aws_client, self.credentials)) if self.metrics else None
