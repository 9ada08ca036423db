"""A flow of three steps of which the middle one runs on AWS Batch: to try an installation's queues, roles and image.

The original's proof of concept did the same with Metaflow (docs/batch.md, "Any function as a Batch job").
"""

from datetime import UTC, datetime

from prefect import flow, get_run_logger, task

from blocks import document_names
from flows.batch_task import end_batch_jobs, run_on_batch

HELLO = "batch_jobs.hello:hello"


@flow(
    name="hello-batch",
    flow_run_name=lambda: f"hello-batch {datetime.now(UTC):%Y-%m-%d %H:%M:%S}",
    on_cancellation=[end_batch_jobs],
    on_crashed=[end_batch_jobs],
)
async def hello_batch(
    name: str = "Prefect", adhoc: bool = True, gpus: int = 0, block: str = document_names.BATCH
) -> str:
    """Start here, say hello on AWS Batch, end here; returns the greeting. `gpus` and `adhoc` choose the queue."""
    start()
    greeting = await run_on_batch(HELLO, {"name": name}, adhoc=adhoc, gpus=gpus, block=block)
    return end(greeting)


@task
def start() -> None:
    """The first step, in the flow run's own process."""
    get_run_logger().info("hello-batch is starting here; the next step runs on AWS Batch, once a machine is free")


@task
def end(greeting: str) -> str:
    """The last step, in the flow run's own process again."""
    get_run_logger().info("hello-batch is finished; AWS Batch answered: %s", greeting)
    return greeting
