"""The settings of shards on AWS Batch, as a cluster's block keeps them."""

import asyncio
from typing import TYPE_CHECKING, Literal

import boto3
from prefect_aws import AwsCredentials
from pydantic import BaseModel, ConfigDict, Field

from batch_jobs.api import BatchAccess
from batch_jobs.backend import BatchJobBackend
from batch_jobs.spec import BatchSpec
from blocks.aws_client import aws_client

if TYPE_CHECKING:
    from types_boto3_batch import BatchClient

_REGISTRAR_SECONDS = 900  # the shortest session that STS gives


class BatchCompute(BaseModel):
    """Shards as AWS Batch jobs. Images, roles, sizes: the job definition of deployments/aws/batch-shards.yaml."""

    model_config = ConfigDict(extra="forbid")  # a setting that is misspelt, or that infrastructure decides, is said

    kind: Literal["batch"] = "batch"
    definition: str = Field(description="Name of the stack's job definition; submissions get copies with their image.")
    registrar_role_arn: str = Field(
        pattern="^arn:aws[a-z-]*:iam::[0-9]{12}:role/.+$", description="IAM role that may register such copies, only."
    )
    queue: str = Field(description="Name of production's job queue.")
    adhoc_queue: str = Field(default="", description="Name of the job queue for trials.")
    adhoc_phases: list[str] = Field(default=[], description="Codenames of the phases that go to the adhoc queue.")
    waiting_seconds: float = Field(default=86400, gt=0, description="How many seconds a shard waits for an instance.")
    simulator_warmup_seconds: float = Field(default=60, ge=0, description="As in the stack: from CARLA's start.")

    def preflight(self, credentials: AwsCredentials) -> str:
        """Where the shards run, in words; call it in no event loop.

        Raises InvalidConfiguration, ServiceUnavailable and RequestRefused.
        """
        return asyncio.run(self.backend("", credentials, "").preflight())

    def backend(self, routes: str, credentials: AwsCredentials, log_group: str) -> BatchJobBackend:
        """The backend of this cluster; raises InvalidConfiguration that names a wrong setting."""
        spec = BatchSpec(
            definition=self.definition,
            queue=self.queue,
            routes_location=routes,
            log_group=log_group,
            adhoc_queue=self.adhoc_queue,
            adhoc_phases=frozenset(self.adhoc_phases),
            waiting_seconds=self.waiting_seconds,
            simulator_warmup_seconds=self.simulator_warmup_seconds,
        )
        return BatchJobBackend(batch_access(credentials, self.registrar_role_arn), spec)


def batch_access(credentials: AwsCredentials, registrar_role_arn: str) -> BatchAccess:
    """AWS Batch and its logs as the credentials' own role, and as the registrar."""
    return BatchAccess(
        batch=lambda: aws_client(credentials, "batch"),
        registrar=lambda: _registrar(credentials, registrar_role_arn),
        logs=lambda: aws_client(credentials, "logs"),
    )


def _registrar(credentials: AwsCredentials, role_arn: str) -> "BatchClient":
    keys = aws_client(credentials, "sts").assume_role(
        RoleArn=role_arn, RoleSessionName="leaderboard-registrar", DurationSeconds=_REGISTRAR_SECONDS
    )["Credentials"]
    session = boto3.Session(keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"], credentials.region_name)
    client: BatchClient = session.client("batch", **credentials.aws_client_parameters.get_params_override())
    return client
