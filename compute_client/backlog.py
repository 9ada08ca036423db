"""How much work waits for each worker: the number that the fleet is scaled by."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Backlog:
    """A snapshot of a queue and its workers."""

    visible: int  # messages that were not received yet
    in_flight: int  # received and not deleted: the bridge's, waiting for a worker or being computed
    workers: int
    job_seconds: float  # how long a worker is busy with one job, measured

    @property
    def jobs(self) -> int:
        """Both kinds: the bridge receives at once, so that what waits is in flight as well."""
        return self.visible + self.in_flight

    @property
    def seconds_per_worker(self) -> float:
        """How long the workers would need for what is there. Without a worker, how long one would."""
        return self.jobs * self.job_seconds / max(self.workers, 1)
