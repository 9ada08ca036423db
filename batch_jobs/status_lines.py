"""What a log says of a Batch job: each change of its status, and again while nothing changes."""

from batch_jobs.job_description import BatchJob
from batch_jobs.job_queues import why_batch_says_it_waits


class StatusLines:
    """Times in seconds, of any clock that does not go back."""

    def __init__(self, what: str, repeat_seconds: float) -> None:
        self._what = what
        self._repeat_seconds = repeat_seconds
        self._said = ""
        self._at = float("-inf")

    def next(self, job: BatchJob, now: float) -> str | None:
        """The line that is due, or None."""
        line = f"[{job.id}] {self._what} is {job.status}{_reason(job)}"
        if line == self._said and now - self._at < self._repeat_seconds:
            return None
        self._said, self._at = line, now
        return line


def misconfigured(job: BatchJob) -> bool:
    """Whether Batch itself says that the job can never start as things are set up."""
    return job.status == "RUNNABLE" and job.reason.startswith("MISCONFIGURATION:")


def _reason(job: BatchJob) -> str:
    words = why_batch_says_it_waits(job) if job.status == "RUNNABLE" else job.reason
    return f": {words}" if words else ""
