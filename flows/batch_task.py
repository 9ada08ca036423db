"""A task that runs any Python function as an AWS Batch job, from a job definition that infrastructure has registered.

    answer = await run_on_batch("package.module:function", {"number": 4}, gpus=1)

The function is called with the arguments as keywords, in the definition's image and under its role. Arguments and
result are what JSON can hold.
"""

from collections.abc import Callable, Mapping
from typing import Any

from prefect import Flow, get_run_logger, runtime, task
from prefect.client.schemas.objects import FlowRun, State
from prefect.logging.loggers import flow_run_logger

from blocks import document_names
from blocks.batch_tasks import BatchTasks
from evaluation.errors import EvaluationError
from evaluation.text import storable
from flows.task_retries import on_transient_errors
from prefect_api.blocks import load_block


def _task_run_name() -> str:
    function = runtime.task_run.get_parameters()["function"]
    return f"{getattr(function, '__qualname__', function)} on Batch"


@task(name="run-on-batch", task_run_name=_task_run_name, **on_transient_errors(5))
async def run_on_batch(
    function: str | Callable[..., object],
    arguments: Mapping[str, Any] | None = None,
    *,
    adhoc: bool = False,
    gpus: int = 0,
    vcpus: float | None = None,
    memory_mib: int | None = None,
    limit_seconds: float = 3600,
    block: str = document_names.BATCH,
) -> Any:
    """Call the function in a Batch job and return what it returned; docs/batch.md, "Any function as a Batch job".

    `gpus` and `adhoc` choose the queue. Sizes that are not given are the job definition's. The run's log has each
    status of the job, and what it puts out. A retry after an outage adopts the job; a cancellation ends it.
    Raises JobFailed, which carries the function's own error; InvalidConfiguration where the job cannot start as things
    are set up; TransientError.
    """
    tasks, logger = await load_block(BatchTasks, block), get_run_logger()
    return await tasks.run(
        function,
        arguments or {},
        name=f"{_prefix(runtime.flow_run.get_id())}-{runtime.task_run.get_id()}",
        flow_run=str(runtime.flow_run.get_id()),
        say=lambda line: logger.info(storable(line)),
        adhoc=adhoc,
        gpus=gpus,
        vcpus=vcpus,
        memory_mib=memory_mib,
        limit_seconds=limit_seconds,
    )


async def end_batch_jobs(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001 - Prefect's form
    """A hook for flows that use the task: ends the jobs of a run that was cancelled or died, if it could not itself."""
    block, logger = flow_run.parameters.get("block", document_names.BATCH), flow_run_logger(flow_run, flow)
    try:
        ended = await (await load_block(BatchTasks, block)).end(f"{_prefix(str(flow_run.id))}-*")
    except EvaluationError as error:
        logger.warning("The run's Batch jobs may go on: %s", error)
    else:
        logger.info("Batch jobs ended: %s", ", ".join(ended) or "none was left")


def _prefix(flow_run_id: str | None) -> str:
    return f"run-{flow_run_id}"
