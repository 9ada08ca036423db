"""The consumer of the compute client: one message in, one call of a user's function, one result in the table.

A deployment names the function. The message stays on the queue, hidden, until the job has its end, so that whatever
dies on the way, the message comes back and another run takes over.
"""

import asyncio
import time
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run

from blocks import document_names
from compute_client.function_process import ProcessDied, run_function
from compute_client.job import Abandoned, AlreadyComputed, ClaimedJob, Held, JobError, UnknownJob
from evaluation.errors import AlreadyClaimed, EvaluationError, InvalidConfiguration, RequestRefused, TransientError
from evaluation.submission.message import Delivery
from flows.compute_services import ComputeServices, load_compute_services
from flows.lease import lease
from flows.run_options import without_results
from flows.task_retries import on_transient_errors
from prefect_api.states import StateName, completed_state, failed_state

BLOCKED_SECONDS = 3600  # until the next try of what an operator has to correct first
LIMIT_SECONDS = 6 * 3600  # of a function; SQS forgets after 12 hours that a message is hidden


@flow(name="compute", flow_run_name="compute-{job_id}", **without_results())
async def compute(
    job_id: str,
    function: str,
    delivery: Delivery | None = None,
    jobs: str = document_names.COMPUTE,
    limit_seconds: float = LIMIT_SECONDS,
) -> State[Any]:
    """Call `function` (`module:function`) with the job's body and keep what it returns.

    `delivery` says where the message is; a run started by hand has none. `jobs` names the blocks of queue and table.
    A function that fails has ended its job: it is not called again. One whose process dies is, on another run.
    """
    began = time.monotonic()
    try:
        services = await load_compute_services(jobs, delivery)
        job = await claim_job(services, job_id)
    except AlreadyComputed as done:
        await services.acknowledge()
        return completed_state(StateName.DUPLICATE, str(done))
    except Held as held:
        await services.hide(held.seconds_left)
        return completed_state(StateName.LEASED, str(held))
    except (UnknownJob, Abandoned) as poison:
        await services.reject(job_id, poison)
        return failed_state(StateName.REJECTED, str(poison))
    except EvaluationError as outage:
        # Also a wrong set-up, which would otherwise move a whole queue of good messages to the dead-letter queue.
        return failed_state(StateName.POSTPONED, f"{outage} The message comes back by itself.")
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
        return completed_state(StateName.TAKEN_OVER, str(taken))
    except ProcessDied as death:
        await services.give_back(job.lease, counted=True)
        return failed_state(StateName.DIED, f"{death} Another run calls it again, unless it was the last try.")
    except InvalidConfiguration as wrong:
        await services.give_back(job.lease, counted=False, again_after=BLOCKED_SECONDS)
        return failed_state(StateName.POSTPONED, f"{wrong} The message comes back by itself.")
    except TransientError as outage:  # the lease ends by itself
        return failed_state(StateName.POSTPONED, f"{outage} The message comes back by itself.")
    except asyncio.CancelledError:  # the worker is being stopped: scale-in, a new release, an operator
        await asyncio.shield(services.give_back(job.lease, counted=False))
        raise
    await services.acknowledge()
    if isinstance(outcome, JobError):
        return failed_state(StateName.FUNCTION_FAILED, str(outcome))
    return completed_state(StateName.COMPUTED, f"{len(outcome.encode())} bytes of result")


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
