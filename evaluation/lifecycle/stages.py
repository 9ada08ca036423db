"""Where a claimed submission is, and how long it may be there before the operators are notified."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


class Stage(StrEnum):
    """Written to the ledger as the run that holds the claim goes on; each write also checks that it still holds it."""

    CLAIMED = "claimed"  # the plan is made, EvalAI shows it as running
    LAUNCHING = "launching"  # the shards' Jobs are created or adopted
    SIMULATING = "simulating"  # the shards wait for machines, then drive
    CLEARING = "clearing"  # the Jobs are stopped and removed
    MERGING = "merging"  # the checkpoints become one result
    REPORTING = "reporting"  # the outcome is kept, and written to EvalAI and the ledger
    ENDED = "ended"


# A longer stage is reported to the operators, and a run that is alive in it is stuck. Every task's own retries fit in.
LONGEST = {
    Stage.CLAIMED: timedelta(hours=3),
    Stage.LAUNCHING: timedelta(hours=3),
    Stage.CLEARING: timedelta(hours=3),
    Stage.MERGING: timedelta(hours=3),
    Stage.REPORTING: timedelta(hours=3),
}
MACHINES = timedelta(hours=24)  # so long a shard may wait for a machine; its deadline may count from there on
LEASE_SECONDS = 180  # a claim that was not renewed for so long is taken over


@dataclass(frozen=True)
class ReconcilerTimeouts:
    """How long the reconciler lets things take. The lease sets the pace: a laptop's is shorter than a cluster's."""

    lease: timedelta

    @property
    def until_claimed(self) -> timedelta:
        """From "submitted" or "resuming" at EvalAI to a claim, before a message without a run counts as lost."""
        return 10 * self.lease

    @property
    def until_started(self) -> timedelta:
        """From the moment when a worker takes a run to its claim, before the run counts as dead."""
        return 3 * self.lease

    @property
    def settle(self) -> timedelta:
        """After an end, before what is left of the submission counts as left behind."""
        return self.lease

    @property
    def retry_refused(self) -> timedelta:
        """Between two tries of what only an operator can correct, such as a report that EvalAI refuses."""
        return 20 * self.lease


def longest(stage: Stage, shard_deadline_seconds: float) -> timedelta | None:
    """How long a submission may be in the stage; None for ENDED.

    The simulation: the wait for machines, the shards' deadline, and an hour.
    """
    if stage is Stage.SIMULATING:
        return MACHINES + timedelta(seconds=shard_deadline_seconds) + timedelta(hours=1)
    return LONGEST.get(stage)
