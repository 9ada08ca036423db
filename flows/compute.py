"""The consumer of the compute client: one message in, one call of a user's function, one result in the table.

A deployment names the function. The message stays on the queue, hidden, until the job has its end, so that whatever
dies on the way, the message comes back and another run takes over.
"""

import asyncio
import time
from enum import StrEnum
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from blocks import document_names
from compute_client.function_process import ProcessDied, run_function
from compute_client.job import Abandoned, AlreadyComputed, ClaimedJob, Held, JobError, UnknownJob
from evaluation.errors import AlreadyClaimed, EvaluationError, InvalidConfiguration, RequestRefused, TransientError
from evaluation.submission.message import Delivery
from flows.compute_services import ComputeServices, load_compute_services
from flows.lease import lease
from flows.task_retries import on_transient_errors

LIMIT_SECONDS = 6 * 3600  # of a function; SQS forgets after 12 hours that a message is hidden


class StateName(StrEnum):
    COMPUTED = "Computed"
    FUNCTION_FAILED = "FunctionFailed"
    DUPLICATE = "Duplicate"  # the job has its end already
    HELD = "Held"  # by another run
    TAKEN_OVER = "TakenOver"
    REJECTED = "Rejected"  # the message went to the dead-letter queue
    DIED = "Died"  # the function's process did
    POSTPONED = "Postponed"  # the message comes back by itself


@flow(name="compute", flow_run_name="compute-{job_id}")
async def compute(
    job_id: str,
    function: str,
    delivery: Delivery | None = None,
    jobs: str = document_names.COMPUTE,
    limit_seconds: float = LIMIT_SECONDS,
) -> State[Any]:
    """Call `function` (`module:function`) with the job's body and keep what it returns.

    `delivery` says where the message lies; a run started by hand has none. `jobs` names the blocks of queue and table.
    A function that fails has ended its job: it is not called again. One whose process dies is, on another run.
    """
    began = time.monotonic()
    try:
        services = await load_compute_services(jobs, delivery)
        job = await claim_job(services, job_id)
    except AlreadyComputed as done:
        await services.acknowledge()
        return Completed(name=StateName.DUPLICATE, message=str(done))
    except Held as held:
        await services.hide(held.seconds_left)
        return Completed(name=StateName.HELD, message=str(held))
    except (UnknownJob, Abandoned) as poison:
        await services.reject(job_id, poison)
        return Failed(name=StateName.REJECTED, message=str(poison))
    except EvaluationError as outage:  # also a broken set-up: it would bury a whole queue of good messages
        return Failed(name=StateName.POSTPONED, message=f"{outage} The message comes back by itself.")
    state = await work(services, job, function, limit_seconds)
    await services.measure(time.monotonic() - began)
    return state


async def work(services: ComputeServices, job: ClaimedJob, function: str, limit_seconds: float) -> State[Any]:
    """Hold the lease, run the function, keep its outcome. Without an outcome the job and its message are given back."""
    try:
        async with lease(services, job.lease):
            outcome = await call_function(services, job, function, limit_seconds)
            outcome = await keep_outcome(services, job, outcome)
    except AlreadyClaimed as taken:
        return Completed(name=StateName.TAKEN_OVER, message=str(taken))
    except ProcessDied as death:
        await services.give_back(job.lease, counted=True)
        return Failed(name=StateName.DIED, message=f"{death} Another run calls it again, unless it was the last try.")
    except InvalidConfiguration as wrong:
        await services.give_back(job.lease, counted=False, wait=True)
        return Failed(name=StateName.POSTPONED, message=f"{wrong} The message comes back by itself.")
    except TransientError as outage:  # the lease ends by itself
        return Failed(name=StateName.POSTPONED, message=f"{outage} The message comes back by itself.")
    except asyncio.CancelledError:  # the worker is told to stop: scale-in, a new release, a host
        await asyncio.shield(services.give_back(job.lease, counted=False))
        raise
    await services.acknowledge()
    if isinstance(outcome, JobError):
        return Failed(name=StateName.FUNCTION_FAILED, message=str(outcome))
    return Completed(name=StateName.COMPUTED, message=f"{len(outcome.encode())} bytes of result")


@task(name="claim-job", **on_transient_errors(5))
async def claim_job(services: ComputeServices, job_id: str) -> ClaimedJob:
    """Take the job's lease; raises what JobTable.claim raises."""
    return await asyncio.to_thread(services.jobs.claim, job_id, str(flow_run.get_id()))


@task(name="call-function", task_run_name="{function}", cache_policy=NO_CACHE)
async def call_function(
    services: ComputeServices, job: ClaimedJob, function: str, limit_seconds: float
) -> str | JobError:
    """Run the function in its own process, which a cancellation of this task ends."""
    await asyncio.to_thread(services.renew, job.lease)  # message and task are covered before the work begins
    try:
        body = await asyncio.to_thread(services.jobs.body, job)
    except RequestRefused as gone:
        return JobError("BodyLost", str(gone))
    return await run_function(function, job.lease.job_id, body, limit_seconds)


@task(name="keep-outcome", **on_transient_errors(5))
async def keep_outcome(services: ComputeServices, job: ClaimedJob, outcome: str | JobError) -> str | JobError:
    """Write result or error under the lease; raises AlreadyClaimed. A result that fits nowhere is an error, too."""
    if isinstance(outcome, str):
        try:
            await asyncio.to_thread(services.jobs.succeed, job.lease, outcome)
            return outcome
        except RequestRefused as refusal:
            outcome = JobError("ResultRefused", str(refusal))
    get_run_logger().error("The function failed: %s\n%s", outcome, outcome.trace)
    await asyncio.to_thread(services.jobs.fail, job.lease, outcome)
    return outcome
