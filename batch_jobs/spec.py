"""The settings of shards on AWS Batch. Their containers are defined by infrastructure: deployments/aws."""

import re
from dataclasses import dataclass

from evaluation.errors import InvalidConfiguration
from evaluation.submission.model import Phase

# Of a base definition: "-submission-<pk>" has to find room in Batch's 128 characters.
_DEFINITION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,96}")
_QUEUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


@dataclass(frozen=True)
class BatchSpec:
    """Settings of one cluster; holds no secret. Raises InvalidConfiguration that names what is wrong."""

    definition: str  # name of the base job definition, of which only infrastructure registers revisions
    queue: str  # production's
    routes_location: str  # s3://bucket/key, or a file's path in the logcopy image
    log_group: str = ""  # CloudWatch's, for the pair's output by submission; beside what containers put out
    adhoc_queue: str = ""
    adhoc_phases: frozenset[str] = frozenset()  # codenames, as in leaderboard-20-SENSORS
    waiting_seconds: float = 24 * 3600.0  # for an instance; then the shard has failed
    simulator_warmup_seconds: float = 60  # as the definition has it; only what people are shown depends on it

    def __post_init__(self) -> None:
        if not _DEFINITION.fullmatch(self.definition):
            raise _wrong(f"definition {self.definition!r} is not the name of a job definition", "give its name, no ARN")
        for queue in self.queues:
            if not _QUEUE.fullmatch(queue):
                raise _wrong(f"{queue!r} is not the name of a job queue", "give its name, no ARN")
        if self.adhoc_phases and not self.adhoc_queue:
            raise _wrong("adhoc_phases are named without an adhoc_queue", ", ".join(sorted(self.adhoc_phases)))

    @property
    def queues(self) -> tuple[str, ...]:
        """Every queue in which a Job of ours may be."""
        return (self.queue, *([self.adhoc_queue] if self.adhoc_queue else []))

    def queue_of(self, phase: Phase) -> str:
        return self.adhoc_queue if phase.codename in self.adhoc_phases else self.queue


def _wrong(summary: str, cause: str) -> InvalidConfiguration:
    return InvalidConfiguration(summary, cause, "Correct the cluster's block.")
