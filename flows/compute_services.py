"""What a run of the compute flow needs of the world: the table of jobs, its message, and the machine it runs on."""

import asyncio
import math
from contextlib import suppress

from prefect import get_run_logger

from aws_api.ecs_task_protection import protect_task
from blocks.compute_job_table import ComputeJobTable
from blocks.compute_metrics import ComputeMetrics
from blocks.submission_queue import SubmissionQueue
from compute_client.job import Lease, write_message
from compute_client.table import JobTable
from evaluation.errors import AlreadyClaimed, EvaluationError
from evaluation.ports import MessageQueue
from evaluation.submission.message import Delivery
from flows.best_effort import best_effort
from prefect_api.blocks import load_block

MARGIN_SECONDS = 15  # the message comes back a little after the lease has ended, not before


class ComputeServices:
    """The jobs, and this run's message. The message's part is best effort: whatever fails, it comes back by itself.

    No dataclass: Prefect looks into those when it passes them to a task.
    """

    def __init__(
        self, jobs: JobTable, queue: MessageQueue, delivery: Delivery | None, measures: ComputeMetrics | None = None
    ) -> None:
        self.jobs = jobs
        self._queue = queue
        self._delivery = delivery
        self._measures = measures

    @property
    def lease_seconds(self) -> float:
        return self.jobs.lease_seconds

    def with_own_connection(self) -> "ComputeServices":
        """Itself: boto3 opens another connection where all are busy, and the renewals have a thread of their own."""
        return self

    def renew(self, lease: Lease) -> None:
        """The heartbeat: lease, message and machine for the lease's time. Raises AlreadyClaimed, or TransientError."""
        self.jobs.renew(lease)
        with best_effort("The message cannot be hidden now"):
            self._extend(self.lease_seconds + MARGIN_SECONDS)
        with best_effort("The task is not protected now"):
            protect_task(self.lease_seconds)

    async def give_back(self, lease: Lease, counted: bool, again_after: float = 0) -> None:
        """End the lease, and let the message come back after so many seconds; 0 is at once."""
        with suppress(AlreadyClaimed), best_effort("The lease ends by itself"):
            await asyncio.to_thread(self.jobs.give_back, lease, counted)
        await self.hide(again_after)

    async def acknowledge(self) -> None:
        """Delete the message: the job has its end."""
        if delivery := self._delivery:
            with best_effort("The message comes back once more"):
                await asyncio.to_thread(self._queue.acknowledge, delivery)

    async def hide(self, seconds: float) -> None:
        """Let the message come back after so long; 0 is at once."""
        after = seconds + MARGIN_SECONDS if seconds > 0 else 0
        with best_effort("The message comes back when its visibility timeout has passed"):
            await asyncio.to_thread(self._extend, after)

    async def reject(self, job_id: str, reason: EvaluationError) -> None:
        """Move the message to the dead-letter queue with the reason."""
        get_run_logger().error(str(reason))
        if delivery := self._delivery:
            with best_effort("The message comes back"):
                await asyncio.to_thread(self._queue.reject, delivery, write_message(job_id), str(reason))

    async def measure(self, seconds: float) -> None:
        """Publish how long the run was busy with its job."""
        if measures := self._measures:
            with best_effort("The job's duration is not published"):
                await asyncio.to_thread(measures.job_took, seconds)

    def _extend(self, seconds: float) -> None:
        if self._delivery:
            self._queue.extend(self._delivery, math.ceil(seconds))


async def load_compute_services(name: str, delivery: Delivery | None) -> ComputeServices:
    """Load the blocks of queue and table, both of that name; raises InvalidConfiguration."""
    jobs = await load_block(ComputeJobTable, name)
    return ComputeServices(jobs.jobs(), await load_block(SubmissionQueue, name), delivery, jobs.measures())
