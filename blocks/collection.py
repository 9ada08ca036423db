"""All of the project's blocks, for `prefect block register -m blocks.collection` and as Prefect's entry point."""

from blocks.artifact_bucket import ArtifactBucket
from blocks.batch_tasks import BatchTasks
from blocks.compute_job_table import ComputeJobTable
from blocks.evalai import EvalAI
from blocks.leaderboard_cluster import LeaderboardCluster
from blocks.ledger_table import LedgerTable
from blocks.submission_queue import SubmissionQueue

__all__ = [
    "ArtifactBucket",
    "BatchTasks",
    "ComputeJobTable",
    "EvalAI",
    "LeaderboardCluster",
    "LedgerTable",
    "SubmissionQueue",
]
