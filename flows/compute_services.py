"""What a run of the compute flow needs of the world: the table of jobs, its message, and the machine it runs on."""

import asyncio
import math
from collections.abc import Callable

from prefect import get_run_logger

from aws_api.ecs_task_protection import protect_task
from blocks.compute_job_table import ComputeJobTable
from blocks.compute_metrics import ComputeMetrics
from blocks.submission_queue import SubmissionQueue
from compute_client.job import Lease, write_message
from compute_client.table import JobTable
from evaluation.errors import EvaluationError
from evaluation.ports import MessageQueue
from evaluation.submission.message import Delivery
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
        _try("The message cannot be hidden now", lambda: self._extend(self.lease_seconds + MARGIN_SECONDS))
        _try("The task is not protected now", lambda: protect_task(self.lease_seconds))

    async def give_back(self, lease: Lease, counted: bool, wait: bool = False) -> None:
        """End the lease; the message comes back at once, or only when it would have with the lease."""
        await asyncio.to_thread(_try, "The lease ends by itself", lambda: self.jobs.give_back(lease, counted))
        if not wait:
            await self.hide(0)

    async def acknowledge(self) -> None:
        """Delete the message: the job has its end."""
        if delivery := self._delivery:
            await asyncio.to_thread(_try, "The message comes back once more", lambda: self._queue.acknowledge(delivery))

    async def hide(self, seconds: float) -> None:
        """Let the message come back after so long; 0 is at once."""
        after = seconds + MARGIN_SECONDS if seconds > 0 else 0
        await asyncio.to_thread(_try, "The message comes back some time", lambda: self._extend(after))

    async def reject(self, job_id: str, reason: EvaluationError) -> None:
        """Move the message to the dead-letter queue with the reason."""
        get_run_logger().error(str(reason))
        if delivery := self._delivery:
            body = write_message(job_id)
            await asyncio.to_thread(
                _try, "The message comes back", lambda: self._queue.reject(delivery, body, str(reason))
            )

    async def measure(self, seconds: float) -> None:
        """Publish how long the run was busy with its job."""
        if measures := self._measures:
            await asyncio.to_thread(_try, "The job is not measured", lambda: measures.job_took(seconds))

    def _extend(self, seconds: float) -> None:
        if self._delivery:
            self._queue.extend(self._delivery, math.ceil(seconds))


async def load_compute_services(name: str, delivery: Delivery | None) -> ComputeServices:
    """Load the blocks of queue and table, both of that name; raises InvalidConfiguration."""
    jobs = await load_block(ComputeJobTable, name)
    return ComputeServices(jobs.jobs(), await load_block(SubmissionQueue, name), delivery, jobs.measures())


def _try(consequence: str, effect: Callable[[], object]) -> None:
    try:
        effect()
    except EvaluationError as error:
        get_run_logger().warning("%s: %s", consequence, error)
