"""Python functions as AWS Batch jobs: where their jobs and values go, as a Prefect block."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NoReturn

from prefect.blocks.core import Block
from prefect_aws import AwsCredentials
from pydantic import Field

from batch_jobs.api import BatchAccess
from batch_jobs.function_job import BatchQueues, FunctionCall, function_name
from batch_jobs.functions import BatchFunctions, FunctionLimits
from blocks.aws_client import aws_client
from blocks.schema_once import SchemaOnce
from evaluation.errors import InvalidConfiguration


class BatchTasks(SchemaOnce, Block):
    """A registered job definition whose image has the functions, its queues, and a bucket for arguments and results."""

    _block_type_name = "Batch Tasks"
    _block_type_slug = "batch-tasks"
    _description = "Python functions as AWS Batch jobs."

    definition: str = Field(description="Name of the job definition; it fixes image and roles.")
    bucket: str = Field(description="S3 bucket of arguments and results, which the definition's task role may use.")
    prefix: str = Field(default="functions", description="Folder of all calls in the bucket.")
    cpu_queue: str = Field(default="leaderboard-cpu-production", description="Job queue of calls without a GPU.")
    cpu_adhoc_queue: str = Field(default="leaderboard-cpu-adhoc", description="Job queue of their trials.")
    gpu_queue: str = Field(default="leaderboard-gpu-production", description="Job queue of calls with GPUs.")
    gpu_adhoc_queue: str = Field(default="leaderboard-gpu-adhoc", description="Job queue of their trials.")
    share: str | None = Field(
        default="functions", description="Whose share of the queues it is; none for queues without fair share."
    )
    credentials: AwsCredentials = Field(
        description="AWS Credentials block: region, and keys where no role gives access."
    )

    async def run(
        self,
        function: str | Callable[..., object],
        arguments: Mapping[str, Any],
        *,
        name: str,
        flow_run: str,
        say: Callable[[str], None],
        **sizes: Any,
    ) -> object:
        """See BatchFunctions.run; `sizes` are FunctionCall's. Raises InvalidConfiguration for a wrong call, too."""
        call = FunctionCall(function_name(function), arguments, **sizes)
        return await self.functions().run(call, name, flow_run, say)

    async def end(self, name: str) -> list[str]:
        """See BatchFunctions.end."""
        return await self.functions().end(name)

    def functions(self) -> BatchFunctions:
        return BatchFunctions(
            BatchAccess(
                batch=partial(aws_client, self.credentials, "batch"),
                registrar=_no_registrar,
                logs=partial(aws_client, self.credentials, "logs"),
            ),
            partial(aws_client, self.credentials, "s3"),
            self.definition,
            self.bucket,
            self.prefix,
            BatchQueues(self.cpu_queue, self.cpu_adhoc_queue, self.gpu_queue, self.gpu_adhoc_queue),
            self.share,
            FunctionLimits(),
        )


def _no_registrar() -> NoReturn:
    raise InvalidConfiguration("Functions on Batch register no job definition", "infrastructure's is used as it is")
